"""Cepstra equal scipy-style cosine transforms and torchaudio's differences, written out."""

import math

import torch

from glmasr.frontend.cepstra import Cepstra
from glmasr.frontend.pipeline import Ear


def test_cepstra_are_the_written_out_transform_with_differences(spoken_batch):
    features, _ = Ear()(*spoken_batch)
    found = Cepstra(80, 13)(features)
    assert found.shape == (*features.shape[:2], 39)
    one = features[0].double()
    bins = torch.arange(80, dtype=torch.float64)
    for k in (0, 1, 7, 12):
        scale = math.sqrt((1 if k == 0 else 2) / 80)
        static = scale * (one * torch.cos(math.pi * (bins + 0.5) * k / 80)).sum(1)
        torch.testing.assert_close(found[0, :, k].double(), static, atol=1e-4, rtol=0)
        # Regression over two frames to either side, the edges repeated (torchaudio's and HTK's definition).
        held = torch.cat((static[:1], static[:1], static, static[-1:], static[-1:]))
        slope = sum(n * (held[2 + n : len(one) + 2 + n] - held[2 - n : len(one) + 2 - n]) for n in (1, 2)) / 10
        torch.testing.assert_close(found[0, :, 13 + k].double(), slope, atol=1e-4, rtol=0)
