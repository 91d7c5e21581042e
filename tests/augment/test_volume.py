"""Gains and levels drawn evenly in dB, down to a whisper in 16 bits."""

import numpy as np
import pytest

from glmasr.augment.volume import Level, Volume, quantize
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


def test_levels_fill_the_range_whatever_came_in(spoken):
    change = Level(-60.0, -20.0, 1.0, False)
    for gain in (0.001, 1.0):
        clip = spoken[0].numpy() * np.float32(gain)
        levels = [rms_dbfs(change(clip, np.random.default_rng(seed))) for seed in range(100)]
        assert -60.01 < min(levels) < -58 and -22 < max(levels) < -19.99 and -44 < np.mean(levels) < -36


@pytest.mark.parametrize(("level_dbfs", "least_db", "most_db"), [(-30.0, 65.0, 80.0), (-65.0, 33.0, 39.0)])
def test_a_whisper_keeps_the_rounding_of_16_bits(spoken, level_dbfs, least_db, most_db):
    clip = spoken[0].numpy()
    exact, rounded = (
        Level(level_dbfs, level_dbfs, 1.0, bits)(clip, np.random.default_rng(0)) for bits in (False, True)
    )
    assert rounded.dtype == np.float32 and rounded.shape == clip.shape
    np.testing.assert_array_equal(rounded * 32768, np.rint(rounded * 32768))
    assert least_db < rms_dbfs(exact) - rms_dbfs(rounded - exact) < most_db


def test_a_recorder_clips_at_full_scale():
    np.testing.assert_array_equal(quantize(np.float32([1.5, -1.5, 0.25])), np.float32([32767 / 32768, -1.0, 0.25]))


def test_level_seed_probability_and_silence(spoken):
    clip, change = spoken[0].numpy(), Level(-60.0, -20.0, 1.0, True)
    first, again, other = (change(clip, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert Level(-60.0, -20.0, 0.0, True)(clip, np.random.default_rng(0)) is clip
    sometimes = Level(-60.0, -20.0, 0.3, True)
    assert 40 < sum(sometimes(clip, np.random.default_rng(seed)) is not clip for seed in range(200)) < 80
    assert not change(np.zeros(900, np.float32), np.random.default_rng(0)).any()
    assert change(clip[:1], np.random.default_rng(0)).shape == (1,)
