"""Frames in, frames out: one Conformer block (Gulati et al. 2020, section 2) without batch norm."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import glu, pad

from glmasr.model.attention import RotaryAttention
from glmasr.model.packing import Packing

BRANCH_GAIN = 0.1
"""What the last layer of every residual branch is scaled by at first, so that a deep encoder begins near its stem (the
idea of Zhang et al. 2019, "Fixup"). Codes of speech are learned faster (docs/LOG.md, benchmarks/learning.py). Not zero,
so that every parameter has a gradient from the first step."""


class FeedForward(nn.Sequential):
    """Norm, expand, SiLU, contract; `inner_dropout` between the last two, None: as `dropout`."""

    def __init__(self, width: int, expansion: int, dropout: float, inner_dropout: float | None = None):
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, width * expansion),
            nn.SiLU(),
            nn.Dropout(dropout if inner_dropout is None else inner_dropout),
            nn.Linear(width * expansion, width),
            nn.Dropout(dropout),
        )


class Convolution(nn.Module):
    """Gated pointwise, depthwise over time, norm, SiLU, pointwise.

    The norm is a LayerNorm: batch norm would see padding and tie an utterance to its batch. With `causal` the kernel
    reaches only backwards. With `chunk_frames` it reaches forwards no further than the end of a frame's own chunk, as
    streaming needs, so one model with symmetric kernels does both (dynamic chunk convolution, Li et al. 2023).
    """

    def __init__(self, width: int, kernel: int, causal: bool, dropout: float):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the convolution kernel must be odd, not {kernel}")
        self.before = kernel - 1 if causal else kernel // 2
        self.after = 0 if causal else kernel // 2
        self.norm_in = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv2d(width, width, (1, kernel), groups=width)
        self.norm = nn.LayerNorm(width)
        self.activation = nn.SiLU()
        self.project = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "*F D"],
        padding: Bool[Tensor, "B T"] | None,
        chunk_frames: int | None = None,
        packing: Packing | None = None,
    ) -> Float[Tensor, "*F D"]:
        x = glu(self.gate(self.norm_in(x)))
        if packing is not None:
            x = packing.unpack(x)
        elif padding is not None:
            x = x.masked_fill(padding[..., None], 0.0)
        if chunk_frames is None or not self.after:
            x = self.over_time(pad(x, (0, 0, self.before, self.after)))
        else:
            windows = in_chunks(x, self.before, chunk_frames)
            chunks = self.over_time(pad(windows.flatten(0, 1), (0, 0, 0, self.after)))
            x = chunks.unflatten(0, windows.shape[:2]).flatten(1, 2)[:, : x.shape[1]]
        if packing is not None:
            x = packing.pack(x)
        return self.dropout(self.project(self.activation(self.norm(x))))

    def over_time(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T2 D"]:
        """The depthwise convolution alone, without padding."""
        # As an image of height 1 in channels-last order it runs twice as fast on CPU.
        return self.depthwise(x.transpose(1, 2)[:, :, None])[:, :, 0].transpose(1, 2)


def in_chunks(x: Float[Tensor, "B T D"], before: int, chunk_frames: int) -> Float[Tensor, "B C W D"]:
    """Each chunk with the `before` frames in front of it; zeros where there are none, and behind the end."""
    missing = -x.shape[1] % chunk_frames
    windows = pad(x, (0, 0, before, missing)).unfold(1, before + chunk_frames, chunk_frames)
    return windows.transpose(2, 3)


class ConformerBlock(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, norm; each but the last added to its input.

    Frames are (B, T), or with `packing` the N of them that are there: then only attention and the convolution over
    time, which look at others, unpack them. `padding` is True where no frame is.

    `dropout` is of what is added, `inner_dropout` of what lies within: attention's weights and the wide feed-forward
    layers, three quarters of all random numbers; None: as `dropout`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        expansion: int,
        kernel: int,
        causal: bool,
        dropout: float,
        inner_dropout: float | None = None,
    ):
        super().__init__()
        self.feed_in = FeedForward(width, expansion, dropout, inner_dropout)
        self.norm_attention = nn.LayerNorm(width)
        self.attention = RotaryAttention(width, heads, dropout if inner_dropout is None else inner_dropout)
        self.dropout = nn.Dropout(dropout)
        self.convolution = Convolution(width, kernel, causal, dropout)
        self.feed_out = FeedForward(width, expansion, dropout, inner_dropout)
        self.norm_out = nn.LayerNorm(width)
        for last in (self.feed_in[4], self.attention.project_out, self.convolution.project, self.feed_out[4]):
            assert isinstance(last, nn.Linear)
            with torch.no_grad():
                last.weight.mul_(BRANCH_GAIN)
                last.bias.zero_()

    def forward(
        self,
        x: Float[Tensor, "*F D"],
        angles: Float[Tensor, "*A S E2"],
        padding: Bool[Tensor, "B T"] | None,
        allowed: Bool[Tensor, "B 1 #S S"] | None,
        chunk_frames: int | None = None,
        left_chunks: int | None = None,
        packing: Packing | None = None,
    ) -> Float[Tensor, "*F D"]:
        x = x + 0.5 * self.feed_in(x)
        heard = self.norm_attention(x)
        if left_chunks is None or chunk_frames is None or padding is None:
            tight = packing if packing is None or packing.tight is None else packing.tight
            attended = self.attention(heard, angles, allowed, packing=tight)
        else:
            attended = self.attention.nearby(heard, angles, padding, chunk_frames, left_chunks, packing)
        x = x + self.dropout(attended)
        x = x + self.convolution(x, padding, chunk_frames, packing)
        x = x + 0.5 * self.feed_out(x)
        return self.norm_out(x)
