"""Intervals cover the truth, and the paired test raises a false alarm no more often than it says."""

import numpy as np
import pytest

from glmasr.evaluation import bootstrap
from glmasr.evaluation.bootstrap import interval, paired


def corpus(rng, utterances: int, systems: int, hardness: float = 0.25):
    """Words per utterance, and errors of systems that share each utterance's hardness (mean `hardness`)."""
    words = rng.integers(1, 15, utterances)
    rates = rng.beta(2, 2 / hardness - 2, utterances)
    return words, [rng.binomial(words, rates) for _ in range(systems)]


def test_interval_covers_the_true_rate():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(400):
        words, (errors,) = corpus(rng, 120, 1)
        value, low, high = interval(errors, words, samples=400, seed=trial)
        assert low <= value <= high
        covered += low <= 0.25 <= high
    assert 0.91 <= covered / 400 <= 0.985


def test_false_positives_stay_at_their_level():
    rng = np.random.default_rng(2)
    for utterances in (8, 100):
        p_values = []
        for trial in range(400):
            words, (a, b) = corpus(rng, utterances, 2)
            p_values.append(paired(a, b, words, samples=400, seed=trial)[1])
        assert np.mean(np.array(p_values) <= 0.05) <= 0.08
    assert np.mean(np.array(p_values) <= 0.5) == pytest.approx(0.47, abs=0.09)  # at 100: p is spread evenly


def test_a_real_difference_is_found():
    rng = np.random.default_rng(3)
    words, (a,) = corpus(rng, 200, 1)
    b = np.minimum(words, a + rng.binomial(words, 0.1))
    delta, p_value = paired(a, b, words)
    assert delta == pytest.approx((a.sum() - b.sum()) / words.sum())
    assert delta < 0 and p_value == 1 / 10_001
    assert paired(b, a, words) == (-delta, p_value)


def test_pairing_finds_what_two_intervals_do_not():
    rng = np.random.default_rng(4)
    words = rng.integers(5, 15, 100)
    a = rng.binomial(words, rng.beta(0.3, 0.6, 100))
    b = np.maximum(a - (rng.random(100) < 0.2), 0)
    assert interval(b, words)[2] > interval(a, words)[1]
    assert paired(a, b, words)[1] < 0.01


def test_exact_at_few_utterances():
    """Three utterances, all in favour of one: 2 of 8 orders are as extreme."""
    delta, p_value = paired([2, 1, 3], [0, 0, 0], [4, 4, 4], samples=20_000)
    assert (delta, p_value) == (0.5, pytest.approx(0.25, abs=0.01))


def test_edges():
    assert paired([1, 0], [1, 0], [2, 2]) == (0.0, 1.0)
    assert interval([0, 0], [3, 4]) == (0.0, 0.0, 0.0)
    assert interval([2], [0]) == (2.0, 2.0, 2.0)
    for wrong in ([], [[1]]):
        with pytest.raises(ValueError, match="one number per utterance"):
            interval(wrong, wrong)


def test_chunks_change_nothing_but_memory(monkeypatch):
    rng = np.random.default_rng(5)
    words, (a, b) = corpus(rng, 50, 2)
    whole = interval(a, words, seed=7), paired(a, b, words, seed=7)
    assert whole == (interval(a, words, seed=7), paired(a, b, words, seed=7))
    monkeypatch.setattr(bootstrap, "CELLS", 60)
    pieces = interval(a, words, seed=7), paired(a, b, words, 10_000, seed=7)
    assert np.allclose(pieces[0], whole[0], atol=0.02) and pieces[1] == pytest.approx(whole[1], abs=0.03)
