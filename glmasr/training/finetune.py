"""Labelled batches in, a recognizer out: joint CTC/attention training, from a pretrained encoder or from scratch."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn

from glmasr.augment.specaugment import SpecAugment
from glmasr.decoding import ctc
from glmasr.model.recognizer import Recognizer
from glmasr.model.subsampling import STRIDE
from glmasr.objective.masking import NO_CHUNKS, draw_chunk, draw_mask
from glmasr.objective.recognition import Recognition
from glmasr.speech import Batch
from glmasr.text.errors import count_errors
from glmasr.text.tokenizer import Tokenizer
from glmasr.training.optimizer import Schedule, layer_groups, scheduled
from glmasr.training.pretrain import step_rng


class Finetuning(lightning.LightningModule):
    """Every step: ear, SpecAugment, recognizer, joint loss. Every validation: greedy CTC, WER and CER on dev.

    A share of the batches, drawn by `chunks` as in pretraining, is heard in chunks as streams are. An utterance whose
    tokens name its language is scored by that language's rules, any other by those of `language`.
    """

    def __init__(
        self,
        ear: nn.Module,
        recognizer: Recognizer,
        tokenizer: Tokenizer,
        loss: Recognition,
        specaugment: SpecAugment | None,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Schedule,
        seed: int,
        encoder_rate: float = 1.0,
        layer_decay: float = 1.0,
        frozen_steps: int = 0,
        mask_share: float = 0.0,
        mask_span_frames: int = 5,
        language: str = "",
        chunks: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.ear, self.recognizer, self.tokenizer = ear, recognizer, tokenizer
        self.joint, self.specaugment, self.seed, self.language = loss, specaugment, seed, language
        self.optimizer, self.schedule = optimizer, schedule
        self.encoder_rate, self.layer_decay, self.frozen_steps = encoder_rate, layer_decay, frozen_steps
        self.mask_share, self.mask_span_frames = mask_share, mask_span_frames
        self.chunks = chunks or NO_CHUNKS
        # Never used without masks; data-parallel training waits for the gradient of whatever may have one.
        recognizer.encoder.mask_embedding.requires_grad_(mask_share > 0)
        self.errors = {"wer": [0, 0], "cer": [0, 0]}

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        rng = step_rng(self.seed, batch.index)
        chunk = draw_chunk(**self.chunks, rng=rng)
        features, lengths = self.ear(batch.waveform, batch.lengths, chunk and chunk * STRIDE)
        if self.specaugment is not None:
            features = self.specaugment(features, lengths.tolist(), rng)
        encoder = self.recognizer.encoder
        frames, frame_lengths = encoder.subsample(features, lengths)
        mask = None
        if self.mask_share:
            drawn = draw_mask(frame_lengths.tolist(), frames.shape[1], self.mask_share, self.mask_span_frames, rng)
            mask = drawn.to(frames.device)
        context = encoder.contextualize(frames, frame_lengths, mask, chunk)
        heard = self.recognizer.hear(context, frame_lengths)
        loss = self.joint(self.recognizer, heard, batch.tokens, batch.token_lengths)
        for name, value in {"loss": loss.total.detach(), **loss.parts}.items():
            self.log(f"train/{name}", value, prog_bar=True)
        return loss.total

    def on_validation_epoch_start(self) -> None:
        self.errors = {"wer": [0, 0], "cer": [0, 0]}

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        features, lengths = self.ear(batch.waveform, batch.lengths)
        heard = self.recognizer(features, lengths)
        loss = self.joint(self.recognizer, heard, batch.tokens, batch.token_lengths)
        self.log("dev/loss", loss.total, batch_size=len(batch.ids), sync_dist=True)
        assert batch.tokens is not None
        scores, ends = heard.ctc_log_probs.cpu(), heard.lengths.tolist()
        for row, end, text, labels in zip(scores, ends, batch.texts, batch.tokens.tolist(), strict=True):
            heard_text = self.tokenizer.decode(ctc.greedy(row[:end]).tokens)
            language = self.tokenizer.language_of(labels) or self.language
            for metric, sums in self.errors.items():
                counts = count_errors(self.tokenizer.reference(text or ""), heard_text, language, metric)
                sums[0] += counts.errors
                sums[1] += counts.words

    def on_validation_epoch_end(self) -> None:
        for metric, (errors, words) in self.errors.items():
            sums = torch.tensor([errors, words], dtype=torch.float64, device=self.device)
            if self.trainer.world_size > 1:
                sums = torch.as_tensor(self.all_gather(sums)).sum(0)
            self.log(f"dev/{metric}", (sums[0] / sums[1].clamp(min=1)).float(), prog_bar=True, rank_zero_only=True)

    def configure_optimizers(self):
        blocks = len(self.recognizer.encoder.blocks)
        groups = layer_groups(self.recognizer, blocks, self.encoder_rate, self.layer_decay, self.frozen_steps)
        optimizer = self.optimizer(groups)
        scheduler = scheduled(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
