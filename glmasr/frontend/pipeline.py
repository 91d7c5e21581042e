"""The ear: waveforms in, normalized log-mel features out; what every model of the house hears through."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glmasr.frontend.logmel import LogMel
from glmasr.lengths import padding_mask


class Ear(nn.Module):
    """Log-mel features with each bin of each utterance at zero mean and unit variance over its real frames.

    The normalization takes level and channel out, as far as speech stays above the power floor: on real speech -20 dB
    changes features by less than 0.001 on average (at most 0.43, in pauses that sink into the floor), -40 dB by 0.07 to
    0.18 on average. `deviation_floor` keeps a silent bin from being blown up.
    """

    def __init__(self, bins: int = 80, deviation_floor: float = 0.5):
        super().__init__()
        self.logmel = LogMel(bins)
        self.bins = bins
        self.deviation_floor = deviation_floor

    @torch.no_grad()
    def forward(
        self, waveform: Float[Tensor, "B N"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B F M"], Int[Tensor, " B"]]:
        features, lengths = self.logmel(waveform, lengths)
        real = ~padding_mask(lengths, features.shape[1])[..., None]
        count = real.sum(1, keepdim=True)
        mean = (features * real).sum(1, keepdim=True) / count
        centered = (features - mean) * real
        deviation = (centered.square().sum(1, keepdim=True) / count).sqrt()
        return centered / deviation.clamp(min=self.deviation_floor), lengths
