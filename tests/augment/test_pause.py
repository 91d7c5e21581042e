"""Pauses stand before and behind the speech, faint, and the speech between them is what it was."""

import numpy as np
import pytest

from glmasr.augment.pause import Pause
from glmasr.speech import RATE_HZ


@pytest.fixture
def clip(spoken) -> np.ndarray:
    return spoken[1].numpy()


def place_of(clip: np.ndarray, longer: np.ndarray) -> int:
    """Where the clip begins, by correlation."""
    size = len(longer) + len(clip)
    found = np.fft.irfft(np.fft.rfft(longer, size) * np.fft.rfft(clip, size).conj(), size)
    return int(found[: len(longer) - len(clip) + 1].argmax())


def test_speech_stays_between_two_pauses_of_drawn_length(clip):
    change, befores, behinds = Pause(0.6, -70.0, -50.0, 1.0), [], []
    for seed in range(60):
        longer = change(clip, np.random.default_rng(seed))
        begin = place_of(clip, longer)
        befores.append(begin / RATE_HZ)
        behinds.append((len(longer) - begin - len(clip)) / RATE_HZ)
        noise = longer[begin : begin + len(clip)] - clip
        level = 20 * np.log10(np.concatenate([longer[:begin], noise, longer[begin + len(clip) :]]).std())
        assert longer.dtype == np.float32 and -70.5 < level < -49.5
    for lengths in (befores, behinds):
        assert min(lengths) < 0.05 and 0.55 < max(lengths) <= 0.6 and np.mean(lengths) == pytest.approx(0.3, abs=0.07)
    assert abs(np.corrcoef(befores, behinds)[0, 1]) < 0.4


def test_seed_and_probability(clip):
    change, before = Pause(0.6, -70.0, -50.0, 1.0), clip.copy()
    first, again, other = (change(clip, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and len(first) != len(other) and np.array_equal(clip, before)
    assert Pause(0.6, -70.0, -50.0, 0.0)(clip, np.random.default_rng(0)) is clip
    kept = sum(Pause(0.1, -70.0, -50.0, 0.3)(clip, np.random.default_rng(seed)) is clip for seed in range(200))
    assert 120 < kept < 160
