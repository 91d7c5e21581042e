"""The ear: waveforms in, normalized log-mel features out; what every model of the house hears through."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from glmasr.frontend.logmel import LogMel
from glmasr.lengths import padding_mask

PRIOR_FRAMES, PRIOR_DEVIATION = 50, 3.5
"""Half a second's worth of belief in how much a log-mel bin varies: 2.1 to 5.4 on average over an utterance of each of
eight corpora of speech, for when little has been heard."""


class Ear(nn.Module):
    """Log-mel features with each bin of each utterance at zero mean and unit variance over its real frames.

    The normalization takes level and channel out, as far as speech stays above the power floor: on real speech -20 dB
    changes features by less than 0.001 on average (at most 0.43, in pauses that sink into the floor), -40 dB by 0.07 to
    0.18 on average. `deviation_floor` keeps a silent bin from being blown up.

    A stream knows no whole utterance: with `chunk_features` a frame is normalized by what was heard up to its own
    chunk's end, where the variance is drawn to `PRIOR_DEVIATION` as if `PRIOR_FRAMES` frames had shown it already.
    """

    def __init__(self, bins: int = 80, deviation_floor: float = 0.5):
        super().__init__()
        self.logmel = LogMel(bins)
        self.bins = bins
        self.deviation_floor = deviation_floor

    @torch.no_grad()
    def forward(
        self, waveform: Float[Tensor, "B N"], lengths: Int[Tensor, " B"], chunk_features: int | None = None
    ) -> tuple[Float[Tensor, "B F M"], Int[Tensor, " B"]]:
        features, lengths = self.logmel(waveform, lengths)
        real = ~padding_mask(lengths, features.shape[1])[..., None]
        if chunk_features is not None:
            return self.by_chunks(features, real, chunk_features), lengths
        count = real.sum(1, keepdim=True)
        mean = (features * real).sum(1, keepdim=True) / count
        centered = (features - mean) * real
        deviation = (centered.square().sum(1, keepdim=True) / count).sqrt()
        return centered / deviation.clamp(min=self.deviation_floor), lengths

    def by_chunks(
        self, features: Float[Tensor, "B F M"], real: Bool[Tensor, "B F 1"], chunk_features: int
    ) -> Float[Tensor, "B F M"]:
        """Log-mel normalized by the running sums at the end of each frame's chunk; zero where not `real`."""
        size = features.shape[1]
        heard = (features * real).double()
        ends = ((torch.arange(size, device=features.device) // chunk_features + 1) * chunk_features).clamp(max=size) - 1
        count, total, squares = (part.cumsum(1)[:, ends] for part in (real.double(), heard, heard.square()))
        return self.normalized(features, count, total, squares) * real

    def normalized(
        self,
        features: Float[Tensor, "B F M"],
        count: Float[Tensor, "B _ 1"],
        total: Float[Tensor, "B _ M"],
        squares: Float[Tensor, "B _ M"],
    ) -> Float[Tensor, "B F M"]:
        """Features by running sums, in double precision: how many frames, their sum, the sum of their squares."""
        mean = total / count
        scatter = (squares - count * mean.square()).clamp(min=0) + PRIOR_FRAMES * PRIOR_DEVIATION**2
        deviation = (scatter / (count + PRIOR_FRAMES)).sqrt().clamp(min=self.deviation_floor)
        return ((features - mean) / deviation).to(features.dtype)
