"""Speech faster and higher, or slower and deeper."""

import numpy as np
import pytest

from glmasr.augment.speed import Speed
from glmasr.speech import RATE_HZ


def pitch_hz(waveform: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 1 << 18))
    return float(np.argmax(power)) * RATE_HZ / (1 << 18)


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1, 1.0371])
def test_tempo_and_pitch_move_together(factor):
    waveform = np.sin(2 * np.pi * 500 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    changed = Speed(factor, factor, 1.0)(waveform, np.random.default_rng(0))
    assert changed.dtype == np.float32 and len(changed) == pytest.approx(RATE_HZ / factor, abs=2)
    assert pitch_hz(changed) == pytest.approx(500 * factor, abs=0.5)


def test_the_factor_is_drawn_and_repeats_with_its_seed():
    waveform = np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32)
    change = Speed(0.9, 1.1, 1.0)
    lengths = [len(change(waveform, np.random.default_rng(seed))) for seed in range(30)]
    assert len(set(lengths)) > 20 and min(lengths) > RATE_HZ / 1.11 and max(lengths) < RATE_HZ / 0.89
    np.testing.assert_array_equal(
        change(waveform, np.random.default_rng(7)), change(waveform, np.random.default_rng(7))
    )


def test_probability_zero_changes_nothing():
    waveform = np.ones(100, np.float32)
    assert Speed(0.9, 1.1, 0.0)(waveform, np.random.default_rng(0)) is waveform
