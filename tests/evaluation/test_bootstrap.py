"""Intervals cover the truth, tests raise no more false alarms than they say, corrections are the textbook's."""

import runpy

import numpy as np
import pytest
from scipy import stats

from glmasr.evaluation import bootstrap
from glmasr.evaluation.bootstrap import holm, interval, mapsswe, paired, words_needed
from tests.small import REPOSITORY

SIMULATION = runpy.run_path(str(REPOSITORY / "benchmarks" / "intervals.py"))


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


def test_the_interval_is_the_textbooks():
    """Step by step, on draws made the same way."""
    rng = np.random.default_rng(6)
    words, (errors,) = corpus(rng, 30, 1)

    def root_and_spread(e, w):
        rate = e.sum() / w.sum()
        residuals = e - rate * w
        spread = np.sqrt(np.square(residuals).sum() * len(e) / (len(e) - 1)) / w.sum()
        return np.sqrt(rate), spread / (2 * np.sqrt(rate))

    root, spread = root_and_spread(errors, words)
    drawn = [root_and_spread(errors[i], words[i]) for i in np.random.default_rng(0).integers(0, 30, (1000, 30))]
    pivots = [(one - root) / its_spread for one, its_spread in drawn]
    far, near = np.quantile(pivots, [0.975, 0.025])
    expected = (root**2, (root - far * spread) ** 2, (root - near * spread) ** 2)
    assert interval(errors, words) == pytest.approx(expected)
    assert interval(errors, words) == interval(errors, words, clusters=range(30))


def test_speakers_are_drawn_with_all_of_their_utterances():
    """Rates a bootstrap can reach with two speakers are three, whatever the order of utterances and names."""
    errors, words = np.array([1, 4, 0, 5]), np.array([10, 5, 10, 5])
    assert interval(errors, words, clusters=["x", "y", "x", "y"]) == (10 / 30, 1 / 20, 9 / 10)
    assert interval(errors[::-1], words[::-1], clusters=["b", "a", "b", "a"]) == (10 / 30, 1 / 20, 9 / 10)


def test_few_utterances_with_errors_have_percentiles_drawn_further_out():
    errors, words = np.array([3, 0, 0, 0, 0, 0]), np.full(6, 4)
    chosen = np.random.default_rng(0).integers(0, 6, (1000, 6))
    rates = errors[chosen].sum(1) / words[chosen].sum(1)
    tail = stats.norm.cdf(stats.t.ppf(0.025, 5) * np.sqrt(6 / 5))
    assert interval(errors, words)[1:] == pytest.approx(tuple(np.quantile(rates, [tail, 1 - tail])))


def test_one_speaker_has_no_interval_and_every_utterance_needs_one():
    with pytest.raises(ValueError, match="two speakers or more"):
        interval([1, 2], [3, 3], clusters=["a", "a"])
    with pytest.raises(ValueError, match="one cluster per utterance"):
        interval([1, 2], [3, 3], clusters=["a", "b", "c"])


def test_simulated_systems_with_known_error():
    """A small edition of benchmarks/intervals.py; bounds are four standard errors wider than what it measures."""
    coverage, false_alarms, tests = (SIMULATION[name] for name in ("coverage", "false_alarms", "TESTS"))
    assert 0.89 <= coverage(100, None, 300) <= 0.985
    assert 0.89 <= coverage(200, 20, 300) <= 0.985
    assert coverage(200, 20, 300, blind=True) < 0.85
    for test in tests.values():
        assert 0.01 <= false_alarms(lambda rng: SIMULATION["alike"](rng, 60), test, 400) <= 0.09


def test_mapsswe_is_the_paired_normal_test():
    rng = np.random.default_rng(7)
    words, (a,) = corpus(rng, 300, 1)
    b = np.minimum(words, a + rng.binomial(words, 0.01))
    delta, p_value = mapsswe(a, b)
    t = stats.ttest_rel(a, b).statistic
    assert (delta, p_value) == (a.sum() - b.sum(), pytest.approx(2 * stats.norm.sf(abs(t)), rel=1e-9))
    assert mapsswe(b, a) == (-delta, p_value)
    assert 1e-12 < p_value < 0.01


def test_mapsswe_on_the_example_nist_ships():
    """SCTK, src/sclite/testdata/base_sc_stats/test1a.stats.mapsswe: 3 segments, 9 and 7 errors, one segment right in b.

    It prints mean 0.667, standard deviation 0.577, Z 2.000, different at 95 %.
    """
    delta, p_value = mapsswe([1, 4, 4], [0, 3, 4])
    assert delta == 2 and p_value == pytest.approx(2 * stats.norm.sf(2.0)) and p_value < 0.05


def test_mapsswe_knows_nothing_without_spread():
    assert mapsswe([1, 2, 0], [1, 2, 0]) == (0.0, 1.0)
    assert mapsswe([2, 3], [1, 2]) == (2.0, 1.0)
    assert mapsswe([2], [1]) == (1.0, 1.0)


def test_holm_is_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R: p.adjust(p, "holm")
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0] and holm([0.02]) == [0.02]
    p_values = np.random.default_rng(8).random(20) ** 4
    for level in (0.01, 0.05, 0.3):
        rejected, ranked = set(), sorted(range(20), key=lambda i: p_values[i])
        for step, i in enumerate(ranked):
            if p_values[i] > level / (20 - step):
                break
            rejected.add(i)
        assert {i for i, p in enumerate(holm(p_values)) if p <= level} == rejected and 0 < len(rejected) < 20
    for wrong in ([0.1, float("nan")], [1.5]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            holm(wrong)


@pytest.mark.parametrize(("power", "level"), [(0.8, 0.05), (0.5, 0.01)])
def test_that_many_words_find_the_difference(power, level):
    """On fresh utterances of the same spread with the stated difference, as many as the pilot says."""
    rng = np.random.default_rng(9)

    def draw(utterances, difference):
        words = rng.integers(5, 20, utterances)
        hard = rng.beta(2, 8, utterances)
        return rng.binomial(words, hard), rng.binomial(words, hard + difference * hard / 0.2), words

    pilot = draw(4000, 0.03)
    needed = words_needed(*pilot, 0.03, power, level)
    utterances = round(needed / 12)
    found = sum(paired(*draw(utterances, 0.03), 400, trial)[1] < level for trial in range(300))
    assert found / 300 == pytest.approx(power, abs=0.09)
    assert words_needed(*pilot, -0.03, power, level) == pytest.approx(needed, rel=0.1)
    assert words_needed(*pilot, 0.015, power, level) / needed == pytest.approx(4, rel=0.15)


def test_words_needed_asks_for_a_spread():
    for case in (([1, 0], [1, 0], [4, 4], 0.01), ([1, 0], [0, 0], [4, 4], 0.0), ([1, 0], [0, 0], [0, 0], 0.01)):
        with pytest.raises(ValueError, match="differ in some utterance"):
            words_needed(*case)
