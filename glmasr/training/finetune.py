"""Labelled batches in, a recognizer out: joint CTC/attention training, from a pretrained encoder or from scratch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glmasr.augment.specaugment import SpecAugment
from glmasr.decoding.search import Search
from glmasr.model.recognizer import Heard, Recognizer
from glmasr.model.subsampling import STRIDE
from glmasr.objective.masking import NO_CHUNKS, draw_chunk, draw_mask
from glmasr.objective.recognition import Recognition
from glmasr.speech import Batch
from glmasr.text.errors import count_errors
from glmasr.text.tokenizer import Tokenizer
from glmasr.training.gradients import Normed
from glmasr.training.loggers import is_logged
from glmasr.training.optimizer import Schedule, layer_groups, scheduled
from glmasr.training.pretrain import step_rng
from glmasr.transcriber import Streaming

METRICS = ("wer", "cer")
NO_STREAMS = NO_CHUNKS | {"validate_frames": 1}
STREAMED = "_streaming"
"""Behind the name of an error: of what was heard in chunks."""


class Finetuning(Normed):
    """Every step: ear, SpecAugment, recognizer, joint loss. Every validation: what `search` finds, WER and CER on dev.

    A share of the batches, drawn by `chunks` as in pretraining, is heard in chunks as streams are; where there are any,
    or `streaming` says how, dev is heard once more in chunks: dev/wer_streaming, dev/cer_streaming. An utterance whose
    tokens name its language is scored by that language's rules, any other by those of `language`.
    """

    def __init__(
        self,
        ear: nn.Module,
        recognizer: Recognizer,
        tokenizer: Tokenizer,
        search: Search,
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
        streaming: Streaming | None = None,
    ):
        super().__init__()
        self.ear, self.recognizer, self.tokenizer, self.search = ear, recognizer, tokenizer, search
        self.joint, self.specaugment, self.seed, self.language = loss, specaugment, seed, language
        self.optimizer, self.schedule = optimizer, schedule
        self.encoder_rate, self.layer_decay, self.frozen_steps = encoder_rate, layer_decay, frozen_steps
        self.mask_share, self.mask_span_frames = mask_share, mask_span_frames
        self.chunks = dict(chunks or NO_STREAMS)
        validate_frames = self.chunks.pop("validate_frames")
        self.streaming = streaming or Streaming(validate_frames)
        self.streams = streaming is not None or self.chunks["probability"] > 0
        # Never used without masks; data-parallel training waits for the gradient of whatever may have one.
        recognizer.encoder.mask_embedding.requires_grad_(mask_share > 0)
        self.errors: dict[str, list[int]] = {}

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
        layers = encoder.layers(frames, frame_lengths, mask, chunk)
        heard = self.recognizer.hear(layers[-1], frame_lengths)
        middle = layers[max(0, len(layers) // 2 - 1)]
        loss = self.joint(self.recognizer, heard, batch.tokens, batch.token_lengths, middle)
        if self._trainer and is_logged(self._trainer, self.global_step + 1):
            for name, value in {"loss": loss.total.detach(), **loss.parts}.items():
                self.log(f"train/{name}", value, prog_bar=True)
        return loss.total

    def on_validation_epoch_start(self) -> None:
        self.errors = {metric + kind: [0, 0] for kind in self.kinds for metric in METRICS}

    @property
    def kinds(self) -> tuple[str, ...]:
        """Ways in which dev is heard, as what stands behind the name of an error."""
        return ("", STREAMED) if self.streams else ("",)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What a validation logs, and snapshots can be chosen by."""
        return tuple(f"dev/{name}{kind}" for kind in self.kinds for name in ("loss", *METRICS))

    def hear(self, batch: Batch, kind: str) -> Heard:
        """The whole batch at once, or as streams."""
        if kind != STREAMED:
            return self.recognizer(*self.ear(batch.waveform, batch.lengths))
        chunk, left = self.streaming.chunk_frames, self.streaming.left_chunks
        features, lengths = self.ear(batch.waveform, batch.lengths, chunk * STRIDE)
        return self.recognizer(features, lengths, chunk_frames=chunk, left_chunks=left)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        for kind in self.kinds:
            heard = self.hear(batch, kind)
            loss = self.joint(self.recognizer, heard, batch.tokens, batch.token_lengths)
            self.log(f"dev/loss{kind}", loss.total, batch_size=len(batch.ids), sync_dist=True)
            self.count(batch, [self.tokenizer.decode(best.tokens) for best, *_ in self.search(heard)], kind)

    def count(self, batch: Batch, heard_texts: Sequence[str], kind: str) -> None:
        """Add up the errors in what was heard of each utterance."""
        for metric in METRICS:
            errors, words = self.errors_in(batch, heard_texts, metric)
            sums = self.errors[metric + kind]
            sums[0] += errors
            sums[1] += words

    def errors_in(self, batch: Batch, heard_texts: Sequence[str], metric: str) -> tuple[int, int]:
        """Errors, and the words or characters they are errors of, in what was heard of a batch."""
        assert batch.tokens is not None
        errors = words = 0
        for heard_text, text, labels in zip(heard_texts, batch.texts, batch.tokens.tolist(), strict=True):
            language = self.tokenizer.language_of(labels) or self.language
            counts = count_errors(self.tokenizer.reference(text or ""), heard_text, language, metric)
            errors, words = errors + counts.errors, words + counts.words
        return errors, words

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
