"""Clipping cuts off the drawn share of samples, at one height, and nothing else."""

import numpy as np
import pytest

from glmasr.augment.clipping import Clipping, clipping_height


@pytest.fixture
def clip(spoken) -> np.ndarray:
    return spoken[2].numpy()


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3])
def test_the_share_is_cut_and_the_rest_stays(clip, share):
    cut = Clipping(share, share, 1.0)(clip, np.random.default_rng(0))
    height = np.abs(cut).max()
    changed = cut != clip
    assert cut.dtype == np.float32 and cut.shape == clip.shape
    assert np.mean(changed) == pytest.approx(share, abs=2 / len(clip) + 0.02 * share)
    assert (np.abs(cut[changed]) == height).all() and (np.sign(cut) == np.sign(clip)).all()
    assert (np.abs(clip[changed]) > height).all() and changed.any()


def test_shares_are_drawn_evenly_in_their_logarithm(clip):
    change = Clipping(0.001, 0.1, 1.0)
    shares = [np.mean(change(clip, np.random.default_rng(seed)) != clip) for seed in range(150)]
    assert min(shares) < 0.0015 and 0.08 < max(shares) < 0.102 and 0.007 < np.median(shares) < 0.014


def test_seed_probability_silence_and_scraps(clip):
    change, before = Clipping(0.001, 0.1, 1.0), clip.copy()
    first, again, other = (change(clip, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other) and np.array_equal(clip, before)
    assert Clipping(0.001, 0.1, 0.0)(clip, np.random.default_rng(0)) is clip
    assert 40 < sum(Clipping(0.1, 0.1, 0.3)(clip, np.random.default_rng(seed)) is not clip for seed in range(200)) < 80
    assert not change(np.zeros(900, np.float32), np.random.default_rng(0)).any()
    np.testing.assert_array_equal(change(clip[7000:7001], np.random.default_rng(0)), clip[7000:7001])
    loud = change(np.float32([3.0, -4.0, 0.5] * 50), np.random.default_rng(0))
    assert np.isfinite(loud).all() and np.abs(loud).max() <= 4.0


def test_the_height_is_a_quantile():
    assert clipping_height(np.float32([-5, 4, 3, -2, 1]), 0.4) == 4
