"""Another talker: at a drawn ratio, for at most the stated share, somewhere in the utterance."""

import numpy as np
import pytest

from glmasr.augment.talker import TalkerMixing
from glmasr.frontend.level import rms


@pytest.fixture
def voices() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple((0.1 * rng.standard_normal(size)).astype(np.float32) for size in (16_000, 9_000))


def test_another_talks_over_at_most_half_at_the_drawn_ratio(voices):
    speech, other = voices
    places, shares = set(), []
    for seed in range(40):
        mixed = TalkerMixing(5.0, 5.0, 1.0)(speech, other, np.random.default_rng(seed))
        added = mixed.astype(np.float64) - speech
        where = np.flatnonzero(added)
        assert mixed.dtype == np.float32 and 0 < len(where) <= 8000 and np.ptp(where) < 8000
        assert 20 * np.log10(rms(speech) / rms(added[where[0] : where[-1] + 1])) == pytest.approx(5.0, abs=0.05)
        places.add(where[0])
        shares.append(len(where) / len(speech))
    assert len(places) > 30 and max(shares) > 0.4 and min(shares) < 0.1


def test_probability_and_silence(voices):
    speech, other = voices
    mixing = TalkerMixing(0.0, 0.0, 0.2)
    touched = sum(mixing(speech, other, np.random.default_rng(seed)) is not speech for seed in range(300))
    assert 35 < touched < 90
    always = TalkerMixing(0.0, 0.0, 1.0)
    assert always(speech, np.zeros(500, np.float32), np.random.default_rng(0)) is speech
