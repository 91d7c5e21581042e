"""Unlabelled batches in, a pretrained encoder out: masked speech modeling with low-SNR input."""

from collections.abc import Callable

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import Tensor, nn

from glmasr.lengths import padding_mask
from glmasr.model.encoder import Encoder
from glmasr.model.subsampling import stack_features
from glmasr.objective.contract import Loss, Objective, View
from glmasr.objective.masking import draw_mask
from glmasr.speech import Batch
from glmasr.training.optimizer import Schedule, scheduled

ON_THE_BAR = ("loss", "accuracy", "code_perplexity", "probability_perplexity", "masked")


def step_rng(seed: int, index: int) -> np.random.Generator:
    """Seed all randomness of one step from (seed, global batch index), so a resumed run repeats it bit for bit.

    The global batch index differs between ranks. Torch is seeded too (dropout, Gumbel noise, distractors).
    """
    torch.manual_seed((seed * 1_000_003 + index) % 2**63)
    return np.random.default_rng((seed, index))


class Pretraining(lightning.LightningModule):
    """The encoder hears a damaged, masked batch; the objective knows the clean one."""

    def __init__(
        self,
        ear: nn.Module,
        encoder: Encoder,
        objective: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Schedule,
        mask_share: float,
        mask_span_frames: int,
        seed: int,
    ):
        super().__init__()
        self.ear, self.encoder, self.objective = ear, encoder, objective
        self.optimizer, self.schedule = optimizer, schedule
        self.mask_share, self.mask_span_frames, self.seed = mask_share, mask_span_frames, seed

    def look(self, batch: Batch, step: int) -> View:
        """Everything an objective may want to know about a batch."""
        rng = step_rng(self.seed, batch.index)
        features, lengths = self.ear(batch.waveform, batch.lengths)
        clean, _ = self.ear(batch.waveform if batch.clean is None else batch.clean, batch.lengths)
        heard, frame_lengths = self.encoder.subsample(features, lengths)
        frames, _ = self.encoder.subsample(clean, lengths)
        size = frames.shape[1]
        mask = draw_mask(frame_lengths.tolist(), size, self.mask_share, self.mask_span_frames, rng).to(frames.device)
        context = self.encoder.contextualize(heard, frame_lengths, mask)
        padding = padding_mask(frame_lengths, size)
        return View(context, frames, stack_features(clean, size), mask, padding, frame_lengths, step)

    def loss(self, batch: Batch) -> Loss:
        """The objective's loss of one batch."""
        objective: Objective = self.objective  # type: ignore[assignment]
        return objective(self.look(batch, self.global_step))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        loss = self.loss(batch)
        for name, value in {"loss": loss.total.detach(), **loss.parts}.items():
            self.log(f"train/{name}", value, prog_bar=name.endswith(ON_THE_BAR))
        return loss.total

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        loss = self.loss(batch)
        values = {f"dev/{k}": v for k, v in {"loss": loss.total, **loss.parts}.items()}
        self.log_dict(values, batch_size=len(batch.ids), sync_dist=True)

    def configure_optimizers(self):
        parameters = [*self.encoder.parameters(), *self.objective.parameters()]
        optimizer = self.optimizer([{"params": parameters}])
        scheduler = scheduled(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
