"""Levels measured and set."""

import numpy as np
import pytest

from glmasr.frontend.level import FLOOR_DBFS, amplify, rms, rms_dbfs, scale_to_level


def test_a_full_scale_sine_measures_minus_three_db():
    assert rms_dbfs(np.sin(np.arange(16_000) * 2 * np.pi / 160)) == pytest.approx(-3.0103, abs=1e-3)


def test_silence_and_emptiness_have_a_finite_level():
    assert rms_dbfs(np.zeros(10)) == rms_dbfs(np.zeros(0)) == FLOOR_DBFS


@pytest.mark.parametrize("level_dbfs", [-70.0, -25.0, 3.0])
def test_the_level_asked_for_is_the_level_measured(level_dbfs):
    waveform = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    scaled = scale_to_level(waveform, level_dbfs)
    assert scaled.dtype == np.float32 and rms_dbfs(scaled) == pytest.approx(level_dbfs, abs=1e-3)


def test_silence_stays_silence():
    assert not scale_to_level(np.zeros(8, np.float32), -20).any()


def test_a_gain_is_a_difference_of_levels():
    waveform = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    assert rms_dbfs(amplify(waveform, -12.5)) - rms_dbfs(waveform) == pytest.approx(-12.5, abs=1e-3)


def test_the_sum_does_not_lose_a_quiet_signal():
    assert rms(np.full(1_000_000, 1e-4, np.float32)) == pytest.approx(1e-4, rel=1e-6)
