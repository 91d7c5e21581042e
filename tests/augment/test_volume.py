"""Gains drawn evenly in dB."""

import numpy as np

from glmasr.augment.volume import Volume
from glmasr.frontend.level import rms_dbfs

WAVEFORM = np.random.default_rng(0).standard_normal(1000).astype(np.float32)


def test_gains_fill_the_range_evenly():
    change = Volume(-30.0, 10.0, 1.0)
    gains = [rms_dbfs(change(WAVEFORM, np.random.default_rng(seed))) - rms_dbfs(WAVEFORM) for seed in range(400)]
    assert -30.01 < min(gains) < -28 and 8 < max(gains) < 10.01 and -12 < np.mean(gains) < -8


def test_shape_and_signs_are_kept():
    louder = Volume(6.0, 6.0, 1.0)(WAVEFORM, np.random.default_rng(0))
    assert louder.dtype == np.float32
    np.testing.assert_allclose(louder, WAVEFORM * 10**0.3, rtol=1e-6)


def test_probability_zero_changes_nothing():
    assert Volume(-30.0, 10.0, 0.0)(WAVEFORM, np.random.default_rng(0)) is WAVEFORM
