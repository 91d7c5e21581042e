"""Unlabelled batches in, a pretrained encoder out: masked speech modeling with low-SNR input."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glmasr.lengths import padding_mask
from glmasr.model.encoder import Encoder
from glmasr.model.packing import packing_of
from glmasr.model.predictor import Predictor
from glmasr.model.subsampling import STRIDE, stack_features
from glmasr.objective.contract import Loss, Objective, View
from glmasr.objective.masking import NO_CHUNKS, draw_chunk, draw_mask
from glmasr.speech import Batch
from glmasr.training.gradients import Normed
from glmasr.training.loggers import is_logged
from glmasr.training.optimizer import Schedule, scheduled
from glmasr.training.sharding import shard

ON_THE_BAR = ("loss", "accuracy", "code_perplexity", "probability_perplexity", "masked")


def step_rng(seed: int, index: int) -> np.random.Generator:
    """Seed all randomness of one step from (seed, global batch index), so a resumed run repeats it bit for bit.

    The global batch index differs between ranks. Torch is seeded too (dropout, Gumbel noise, distractors).
    """
    seed_torch((seed * 1_000_003 + index) % 2**63)
    return np.random.default_rng((seed, index))


def seed_torch(seed: int) -> None:
    """Seed the CPU's generator and those of devices in use, to the state that `torch.manual_seed` brings.

    That one notes its callers' lines down for every kind of device that is not in use: milliseconds of every step.
    """
    torch.default_generator.manual_seed(seed)
    for kind in (torch.cuda, torch.xpu):
        if kind.is_initialized():
            kind.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


@dataclass(frozen=True)
class Seen:
    """What the last training step leaves to look at, all detached: health is judged from it.

    `parts` as the objective gave them, `context` of at most `SAMPLED_FRAMES` frames that the encoder computed (S, D),
    `size` the mean absolute value of the clean features' real frames (about 0.8 for speech, 0 for digital silence).
    """

    loss: Tensor
    parts: dict[str, Tensor]
    context: Tensor
    size: Tensor


SAMPLED_FRAMES = 1024


class Pretraining(Normed):
    """The encoder hears a damaged, masked batch; the objective knows the clean one.

    Hidden frames are one learned vector to the encoder. With a `predictor` they are nothing at all to it, which makes
    a step the cheaper the more is hidden, and the predictor infers them from the others.
    """

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
        chunks: dict[str, Any] | None = None,
        predictor: Predictor | None = None,
    ):
        super().__init__()
        self.chunks = chunks or NO_CHUNKS
        self.predictor = predictor
        # Data-parallel training waits for the gradient of whatever may have one.
        encoder.mask_embedding.requires_grad_(predictor is None)
        self.ear, self.encoder, self.objective = ear, encoder, objective
        self.optimizer, self.schedule = optimizer, schedule
        self.mask_share, self.mask_span_frames, self.seed = mask_share, mask_span_frames, seed
        self.seen: Seen | None = None

    def look(self, batch: Batch, step: int) -> View:
        """Everything an objective may want to know about a batch."""
        rng = step_rng(self.seed, batch.index)
        chunk = draw_chunk(**self.chunks, rng=rng) if self.training else None
        features, lengths = self.ear(batch.waveform, batch.lengths, chunk and chunk * STRIDE)
        clean = features
        if batch.clean is not None or chunk is not None:
            clean, _ = self.ear(batch.waveform if batch.clean is None else batch.clean, batch.lengths)
        heard, frame_lengths = self.encoder.subsample(features, lengths)
        size, ends = heard.shape[1], frame_lengths.tolist()
        drawn = draw_mask(ends, size, self.mask_share, self.mask_span_frames, rng)
        mask, real = drawn.to(heard.device), packing_of(ends, size).to(heard.device)
        if self.predictor is None:
            encoded, context = None, self.encoder.contextualize(heard, frame_lengths, mask, chunk, packing=real)
        else:
            visible = packing_of(ends, size, drawn).to(heard.device)
            encoded = self.encoder.contextualize(heard, frame_lengths, None, chunk, packing=visible)
            context = self.predictor(encoded, mask, real)
        padding = padding_mask(frame_lengths, size)
        stacked = stack_features(clean, size)
        stem = partial(self.stem, clean, lengths)
        return View(context, stem, stacked, mask, padding, frame_lengths, step, clean, lengths, encoded)

    def stem(self, features: Tensor, lengths: Tensor) -> Tensor:
        """The encoder's stem alone."""
        return self.encoder.subsample(features, lengths)[0]

    def judge(self, view: View) -> Loss:
        """The objective's loss of one view."""
        objective: Objective = self.objective  # type: ignore[assignment]
        return objective(view)

    def loss(self, batch: Batch) -> Loss:
        """The objective's loss of one batch."""
        return self.judge(self.look(batch, self.global_step))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        view = self.look(batch, self.global_step)
        loss = self.judge(view)
        real = ~view.padding
        encoded = view.context[real] if view.encoded is None else view.encoded[real & ~view.mask]
        context, size = encoded.detach()[:SAMPLED_FRAMES], view.clean[real].abs().mean()
        self.seen = Seen(loss.total.detach(), loss.parts, context, size)
        if self._trainer and is_logged(self._trainer, self.global_step + 1):
            for name, value in {"loss": loss.total.detach(), **loss.parts}.items():
                self.log(f"train/{name}", value, prog_bar=name.endswith(ON_THE_BAR))
        return loss.total

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        loss = self.loss(batch)
        values = {f"dev/{k}": v for k, v in {"loss": loss.total, **loss.parts}.items()}
        self.log_dict(values, batch_size=len(batch.ids), sync_dist=True)

    def configure_model(self) -> None:
        """Cut what is trained into shards, where the strategy wants them."""
        if self.device_mesh is not None:
            others = (self.objective, *([self.predictor] if self.predictor else []))
            shard(self.encoder, *others, mesh=self.device_mesh["data_parallel"])

    def configure_optimizers(self):
        optimizer = self.optimizer([{"params": [one for one in self.parameters() if one.requires_grad]}])
        scheduler = scheduled(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
