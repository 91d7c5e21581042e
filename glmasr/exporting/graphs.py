"""A bundle's parts in, what ONNX graphs compute out: the same numbers from operations that every runtime has.

Graphs take waveforms, so that nobody has to rebuild the ear: log-mel is two matrix products.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glmasr.frontend.logmel import FFT_SAMPLES, HOP_SAMPLES, POWER_FLOOR, WINDOW_SAMPLES, feature_lengths
from glmasr.frontend.pipeline import Ear
from glmasr.lengths import padding_mask
from glmasr.model import streaming
from glmasr.model.attention import ROTARY_BASE, RotaryAttention
from glmasr.model.conformer import ConformerBlock, Convolution
from glmasr.model.decoder import Decoder
from glmasr.model.recognizer import Recognizer
from glmasr.model.streaming import BlockState, State
from glmasr.model.subsampling import Subsampling, frame_lengths

NEVER = -1e4
"""Added to a score it leaves nothing: in float32 its exponential is 0."""


class LogMel(nn.Module):
    """`frontend.logmel.LogMel` as matrix products, since few runtimes have an FFT.

    They are of doubles, or what is loud in a window would be heard, as rounding, where a band is empty; and about the
    window's middle, where cosines are even and sines odd, so that each sees half of it.
    """

    cosines: Tensor
    sines: Tensor
    banks: Tensor

    def __init__(self, ear: Ear):
        super().__init__()
        half = WINDOW_SAMPLES // 2
        angle = torch.arange(half).double()[:, None] * torch.arange(FFT_SAMPLES // 2 + 1) * 2 * torch.pi / FFT_SAMPLES
        window = torch.hann_window(WINDOW_SAMPLES, dtype=torch.float64)[half:, None].clone()
        self.register_buffer("sines", window * angle.sin())
        window[0] /= 2  # the middle itself is in both halves
        self.register_buffer("cosines", window * angle.cos())
        self.register_buffer("banks", ear.logmel.banks)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """As the original: waveform (B, N), lengths (B) → raw features (B, F, M) and how many are real."""
        count = feature_lengths(lengths)
        steps = nn.functional.pad(waveform, (0, WINDOW_SAMPLES + HOP_SAMPLES)).double()
        steps = steps[:, : HOP_SAMPLES * (count.max() + 2)].reshape(waveform.shape[0], -1, HOP_SAMPLES)
        behind = WINDOW_SAMPLES - 2 * HOP_SAMPLES
        windows = torch.cat((steps[:, :-2], steps[:, 1:-1], steps[:, 2:, :behind]), 2)
        # The first sample of a window weighs nothing.
        late, early = windows[..., len(self.sines) :], windows[..., 1 : len(self.sines) + 1].flip(2)
        power = ((late + early) @ self.cosines).square() + ((late - early) @ self.sines).square()
        return (power.float() @ self.banks).clamp(min=POWER_FLOOR).log(), count


class Whole(nn.Module):
    """Waveforms to log-probabilities, as `Ear` and `Recognizer` make them, by what runtimes are quick at.

    Padding is multiplied away, not selected away, and attention has no guard against rows that may see nothing, since
    there are none: both save ONNX Runtime a tenth of its time.
    """

    def __init__(self, ear: Ear, recognizer: Recognizer):
        super().__init__()
        self.logmel, self.deviation_floor = LogMel(ear), ear.deviation_floor
        self.encoder, self.ctc = recognizer.encoder, recognizer.ctc

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """waveform (B, N), lengths (B) → log_probs (B, T, V), frames (B), context (B, T, D)."""
        raw, count = self.logmel(waveform, lengths)
        keep = real(count, raw.shape[1])
        total = count[:, None, None].float()
        # Runtimes add up one by one, so a mean of floats would be off by what an empty band's deviation makes large.
        mean = (raw * keep).double().sum(1, keepdim=True) / total
        centered = (raw - mean.float()) * keep
        deviation = (centered.square().sum(1, keepdim=True) / total).sqrt()
        x = stem(self.encoder.subsampling, centered / deviation.clamp(min=self.deviation_floor), count)
        frames = frame_lengths(count)
        keep = real(frames, x.shape[1])
        x = self.encoder.project(x)
        angles = angles_of(torch.arange(x.shape[1]), self.encoder.head_width)
        turn, unseen = (angles.cos(), angles.sin()), (1 - keep.transpose(1, 2)[:, None]) * NEVER
        for block in self.encoder.blocks:
            x = through(block, x, turn, unseen, keep)  # type: ignore[arg-type]
        return self.ctc(x).log_softmax(-1), frames, x


def angles_of(places: Tensor, head_width: int) -> Tensor:
    """As `rotary_angles`, of any places (T)."""
    return places.float()[:, None] * ROTARY_BASE ** (-torch.arange(0, head_width, 2).float() / head_width)


def real(lengths: Tensor, size: Any) -> Tensor:
    """(B) → (B, size, 1), 1 where not padding."""
    return (~padding_mask(lengths, size)).float()[..., None]


def stem(module: Subsampling, features: Tensor, lengths: Tensor) -> Tensor:
    """As `Subsampling`, of features that are zero behind their lengths."""
    x = module.activation(module.first(features[:, None]))
    half = torch.div(lengths - 1, 2, rounding_mode="floor") + 1
    x = x * real(half, x.shape[2])[:, None]
    x = module.activation(module.pointwise(module.depthwise(x)))
    return module.norm(module.project(x.permute(0, 2, 1, 3).flatten(2)))


def through(block: ConformerBlock, x: Tensor, turn: tuple[Tensor, Tensor], unseen: Tensor, keep: Tensor) -> Tensor:
    """As `ConformerBlock`."""
    x = x + 0.5 * block.feed_in(x)
    x = x + attended(block.attention, block.norm_attention(x), turn, unseen)
    x = x + convolved(block.convolution, x, keep)
    return block.norm_out(x + 0.5 * block.feed_out(x))


def attended(module: RotaryAttention, x: Tensor, turn: tuple[Tensor, Tensor], unseen: Tensor) -> Tensor:
    """As `RotaryAttention`; `unseen` is added to the scores."""
    width = module.project_out.in_features // module.heads
    split = (x.shape[0], x.shape[1], module.heads, width)
    query, key, value = (part.reshape(split).transpose(1, 2) for part in module.project_in(x).chunk(3, dim=2))
    scores = turned(query, turn) @ turned(key, turn).transpose(2, 3) * width**-0.5 + unseen
    return module.project_out((scores.softmax(-1) @ value).transpose(1, 2).reshape(x.shape))


def turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """As `rotate`."""
    (first, second), (cos, sin) = x.chunk(2, dim=3), turn
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=3)


def convolved(module: Convolution, x: Tensor, keep: Tensor) -> Tensor:
    """As `Convolution` without chunks."""
    x = nn.functional.glu(module.gate(module.norm_in(x))) * keep
    x = nn.functional.pad(x, (0, 0, module.before, module.after))
    x = module.depthwise(x.transpose(1, 2)[:, :, None])[:, :, 0].transpose(1, 2)
    return module.project(module.activation(module.norm(x)))


class Chunk(nn.Module):
    """One step of `model.streaming` with its state as tensors in and out; its caller may forget the oldest keys."""

    def __init__(self, ear: Ear, recognizer: Recognizer):
        super().__init__()
        self.logmel, self.ear = LogMel(ear), ear
        self.encoder, self.ctc = recognizer.encoder, recognizer.ctc

    def forward(self, waveform: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """waveform (N) and STATE → log_probs (1, T, V) and the state behind them."""
        count, total, squares, feature, hidden, keys, values, kernel, frames = state
        raw, _ = self.logmel(waveform[None], whole_lengths(waveform[None]))
        heard = raw[0].double()
        count, total, squares = count + raw.shape[1], total + heard.sum(0), squares + heard.square().sum(0)
        features = self.ear.normalized(raw, count[None, :, None], total[None, None], squares[None, None])
        x, feature, hidden = streaming.stem(self.encoder.subsampling, features, feature, hidden)
        x = self.encoder.project(x)
        end = frames + x.shape[1]
        angles = angles_of(torch.arange(x.shape[1]) + frames, self.encoder.head_width)
        kept = []
        for i, block in enumerate(self.encoder.blocks):
            past = BlockState(keys[i], values[i], kernel[i])
            x, now = streaming.through_block(block, x, angles, past, None)  # type: ignore[arg-type]
            kept.append((now.keys, now.values, now.kernel))
        stacked = (torch.stack(parts) for parts in zip(*kept, strict=True))
        return self.ctc(x).log_softmax(-1), count, total, squares, feature, hidden, *stacked, end


STATE = ("count", "total", "squares", "feature", "hidden", "keys", "values", "kernel", "frames")


def state_tensors(state: State) -> dict[str, Tensor]:
    """A stream's past as `Chunk` takes it, blocks stacked."""
    stacked = {name: torch.stack([getattr(block, name) for block in state.blocks]) for name in vars(state.blocks[0])}
    found = vars(state) | stacked | {"frames": torch.tensor(state.frames)}
    return {name: found[name] for name in STATE}


class NextToken(nn.Module):
    """The attention decoder behind a whole prefix at a time."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens: Tensor, context: Tensor, frames: Tensor) -> Tensor:
        """tokens (B, U) from the boundary on, context (B, T, D), frames (B) → log_probs (B, V) of what follows."""
        padding = padding_mask(frames, context.shape[1])  # type: ignore[arg-type]
        return self.decoder(tokens, context, padding)[:, -1].log_softmax(-1)


class Shown(nn.Module):
    """Scores as runtimes read them that know one blank and a table of symbols.

    `silent` tokens, which `decode` writes nothing for, count as the blank, and `columns` orders the rest as the table
    has them.
    """

    columns: Tensor
    silent: Tensor

    def __init__(self, columns: Sequence[int], silent: Sequence[int]):
        super().__init__()
        self.register_buffer("columns", torch.tensor(columns))
        self.register_buffer("silent", torch.tensor(silent))

    def forward(self, log_probs: Tensor) -> Tensor:
        """(B, T, V) → blank, two tokens that never come, then what is written."""
        blank = log_probs.index_select(2, self.silent).amax(2, keepdim=True)
        never = torch.zeros_like(blank) + NEVER
        return torch.cat((blank, never, never, log_probs.index_select(2, self.columns)), 2)


class ForSherpa(nn.Module):
    """`Whole` in the form of sherpa-onnx's Omnilingual ASR CTC, which hands a graph the waveform itself.

    The runtime brings every recording to variance 1; LEVEL takes that back to how loud speech is, for the power floor.
    Its frames are 20 ms: each of ours twice is the same text with the right times.
    """

    LEVEL = 0.05

    def __init__(self, whole: Whole, shown: Shown):
        super().__init__()
        self.whole, self.shown = whole, shown

    def forward(self, waveform: Tensor) -> Tensor:
        """waveform (B, N) → log_probs (B, 2 T, V)."""
        found = self.whole(waveform * self.LEVEL, whole_lengths(waveform))[0]
        return self.shown(found).repeat_interleave(2, dim=1)


def whole_lengths(waveform: Tensor) -> Tensor:
    """(B) lengths of a batch without padding, that follow its shape in a graph too."""
    return torch.zeros_like(waveform[:, 0], dtype=torch.long) + waveform.shape[1]
