"""Waveform in, log-mel features out: 25 ms Hann windows every 10 ms, 80 Slaney mel bins, natural log of power."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from glmasr.speech import RATE_HZ

WINDOW_SAMPLES = RATE_HZ * 25 // 1000
HOP_SAMPLES = RATE_HZ * 10 // 1000
FFT_SAMPLES = 512
POWER_FLOOR = 1e-10
"""-100 dB of full scale: below the quantization noise of 16-bit audio."""


class LogMel(nn.Module):
    """Log-mel features of a batch, on the device the batch is on.

    Windows are never centered past an edge, so a waveform has the same features alone and in a padded batch.
    """

    banks: Tensor
    window: Tensor

    def __init__(self, bins: int = 80):
        super().__init__()
        banks = melscale_fbanks(
            FFT_SAMPLES // 2 + 1, 0.0, RATE_HZ / 2, bins, RATE_HZ, norm="slaney", mel_scale="slaney"
        )
        self.bins = bins
        self.register_buffer("banks", banks, persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW_SAMPLES), persistent=False)

    @torch.no_grad()
    def forward(
        self, waveform: Float[Tensor, "B N"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B F M"], Int[Tensor, " B"]]:
        """Features and how many of each row are real; a waveform under 25 ms counts as one window."""
        missing = max(0, WINDOW_SAMPLES - waveform.shape[1])
        windows = nn.functional.pad(waveform, (0, missing)).unfold(1, WINDOW_SAMPLES, HOP_SAMPLES)
        spectrum = torch.view_as_real(torch.fft.rfft(windows * self.window, n=FFT_SAMPLES))
        power = spectrum[..., 0].square() + spectrum[..., 1].square()  # abs() would take roots first
        features = (power @ self.banks).clamp(min=POWER_FLOOR).log()
        return features, feature_lengths(lengths)


def feature_lengths(samples: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """How many whole windows fit into `samples`; at least one."""
    return (torch.div(samples - WINDOW_SAMPLES, HOP_SAMPLES, rounding_mode="floor") + 1).clamp(min=1)
