"""Features in, frames at a quarter of their rate out: depthwise-separable strided convolutions."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from glmasr.lengths import padding_mask, strided

STRIDE = 4
"""Feature frames (10 ms) per encoder frame."""


class Subsampling(nn.Module):
    """Two 3×3 stride-2 convolutions over (time, mel), the second depthwise-separable, then a normalized projection.

    `channels` is what it costs: on two CPU cores 64 of them take a sixth of a small encoder's step, and a plain second
    convolution would take 1.2 to 1.4 times as long (benchmarks/stem.py). What lies behind an utterance's end is zeroed
    before each layer, so padding never reaches a real frame.
    """

    def __init__(self, bins: int, width: int, channels: int):
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.activation = nn.SiLU()
        quarter = (bins + 3) // 4
        self.project = nn.Linear(channels * quarter, width)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, features: Float[Tensor, "B F M"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B T D"], Int[Tensor, " B"]]:
        features = features.masked_fill(padding_mask(lengths, features.shape[1])[..., None], 0.0)
        half_lengths = strided(lengths, 3, 2, 1)
        x = self.activation(self.first(features[:, None]))
        x = x.masked_fill(padding_mask(half_lengths, x.shape[2])[:, None, :, None], 0.0)
        x = self.activation(self.pointwise(self.depthwise(x)))
        frames = self.norm(self.project(x.permute(0, 2, 1, 3).flatten(2)))
        return frames, frame_lengths(lengths)


def frame_lengths(features: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """How many encoder frames `features` feature frames give."""
    return strided(strided(features, 3, 2, 1), 3, 2, 1)


def stack_features(features: Float[Tensor, "B F M"], frames: int) -> Float[Tensor, "B T S"]:
    """The four feature frames around each frame's center, side by side: (B, frames, 4 M)."""
    before = STRIDE // 2
    behind = frames * STRIDE - before - features.shape[1]
    padded = nn.functional.pad(features, (0, 0, before, behind))
    return padded.reshape(features.shape[0], frames, STRIDE * features.shape[2])
