"""Errors and words per utterance in; a 95 % interval, paired tests of two systems, the words a difference needs out.

The interval is the studentized bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 12.5)
of the rate's square root, whose spread hardly depends on the rate. The percentiles that are common for word error rates
(Bisani and Ney, 2004) miss the truth too often where utterances or speakers are few. Drawn by utterance, it and the
tests speak of other utterances of the *same* talkers and rooms; drawn by speaker (`clusters`), the interval speaks of
other talkers, and so does `paired` on each speaker's sums. benchmarks/intervals.py measures what all of them keep of
their promise.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtrit

CELLS = 1 << 21
"""Random numbers held at once: memory stays flat however large the test set."""

USABLE = 0.9
"""Where fewer of the draws know a spread (three speakers, errors in two utterances), percentiles must do, drawn further
out for the small number (Hesterberg, "What teachers should know about the bootstrap", 2015)."""


def interval(
    errors: ArrayLike, words: ArrayLike, samples: int = 1000, seed: int = 0, clusters: ArrayLike | None = None
) -> tuple[float, float, float]:
    """(corpus rate, low, high), 95 %; the rate is all errors over all words, not a mean of utterance rates.

    `clusters` names each utterance's speaker: speakers are drawn, each with all of their utterances. A ValueError where
    all are of one speaker, since one cannot tell how speakers differ.
    """
    errors, words = _columns(errors, words)
    if clusters is not None:
        errors, words = _by_cluster(clusters, errors, words)
    rng = np.random.default_rng(seed)
    moments = np.stack([errors, words, errors**2, errors * words, words**2], axis=1)
    drawn = [
        moments[rng.integers(0, len(errors), (rows, len(errors)))].sum(1) for rows in _chunks(samples, 5 * len(errors))
    ]
    rates, spreads = _rate_and_spread(np.concatenate(drawn), len(errors))
    (rate,), (spread,) = _rate_and_spread(moments.sum(0)[None], len(errors))
    if not np.ptp(rates):
        return float(rate), float(rate), float(rate)
    usable = (spreads > 0) & (rates > 0)
    if spread == 0 or usable.mean() < USABLE:
        tail_percent = _expanded(2.5, len(errors))
        low, high = np.percentile(rates, [tail_percent, 100 - tail_percent])
        return float(rate), float(min(low, rate)), float(max(high, rate))
    root, root_spread = math.sqrt(rate), spread / (2 * math.sqrt(rate))
    roots = np.sqrt(rates[usable])
    pivots = (roots - root) / (spreads[usable] / (2 * roots))
    far, near = np.percentile(pivots, [97.5, 2.5])
    return float(rate), max(root - far * root_spread, 0.0) ** 2, float((root - near * root_spread) ** 2)


def _rate_and_spread(sums: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Rate and its standard error of each row of sums (errors, words, errors², errors × words, words²) over `number`.

    The error is that of a ratio of sums: the spread of errors − rate × words (Cochran 1977, section 6.3).
    """
    errors, words, squares, products, word_squares = sums.T
    words = np.maximum(words, 1)
    rate = errors / words
    scatter = np.maximum(squares - 2 * rate * products + rate**2 * word_squares, 0.0)
    # What rounding leaves of equal rates is none.
    scatter[scatter < 1e-9 * np.maximum(squares, 1e-9)] = 0.0
    return rate, np.sqrt(scatter * number / max(number - 1, 1)) / words


def paired(
    errors_a: ArrayLike, errors_b: ArrayLike, words: ArrayLike, samples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """(rate of a − rate of b, two-sided p) by sign flips, the paired permutation test.

    Under the null hypothesis it does not matter which system made which of an utterance's two results, so each pair is
    exchanged at random. Chosen over a bootstrap shifted to the null because it is exact at any number of utterances: a
    bootstrap of few utterances knows too little of the tails and finds differences that are not there. The seen order
    is itself one of the orders, so p = (k + 1) / (n + 1) is never 0.
    """
    errors_a, errors_b, words = _columns(errors_a, errors_b, words)
    difference = errors_a - errors_b
    delta = float(difference.sum() / max(words.sum(), 1))
    moved = difference[difference != 0]  # equal pairs stay equal when exchanged
    rng = np.random.default_rng(seed)
    as_extreme = 0
    for rows in _chunks(samples, len(moved)):
        signs = rng.integers(0, 2, (rows, len(moved)), dtype=np.int8)
        flipped = moved.sum() - 2 * (signs @ moved)
        as_extreme += int((np.abs(flipped) >= abs(moved.sum()) - 1e-9).sum())
    return delta, (as_extreme + 1) / (samples + 1)


def mapsswe(errors_a: ArrayLike, errors_b: ArrayLike) -> tuple[float, float]:
    """(errors of a − errors of b, two-sided p) by the matched-pairs test on sentence segments.

    Gillick & Cox, "Some statistical issues in the comparison of speech recognition algorithms", 1989, with the variance
    (n − 1) and the normal tail of NIST's sc_stats. Each entry is a segment, here an utterance; NIST's tool cuts
    utterances further, at stretches both systems have right. As there, p is 1 where all differences are equal: nothing
    is known of their spread. The normal tail needs some 50 utterances; with fewer, trust `paired`.
    """
    errors_a, errors_b = _columns(errors_a, errors_b)
    difference = errors_a - errors_b
    if len(difference) < 2 or np.ptp(difference) == 0:
        return float(difference.sum()), 1.0
    z = difference.mean() / (difference.std(ddof=1) / math.sqrt(len(difference)))
    return float(difference.sum()), 2 * float(ndtr(-abs(z)))


def holm(p_values: ArrayLike) -> list[float]:
    """p-values corrected for their number, in the order given (Holm, 1979).

    To call significant what is below 0.05 then errs in any of them at most once in 20 times, however they depend on
    each other.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("needs a list of p-values between 0 and 1")
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return corrected.tolist()


def words_needed(
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    words: ArrayLike,
    difference: float,
    power: float = 0.8,
    level: float = 0.05,
) -> int:
    """Reference words with which `paired` finds a `difference` in rate (0.01 = one point) with probability `power`.

    The two systems' differences are taken to spread over utterances as seen, about a mean moved to `difference`. A
    ValueError where the systems differ nowhere: their spread is unknown.
    """
    errors_a, errors_b, words = _columns(errors_a, errors_b, words)
    seen = errors_a - errors_b
    if difference == 0 or not seen.any() or words.sum() == 0:
        raise ValueError("needs a difference to find, words, and systems that differ in some utterance")
    moved = seen + (difference - seen.sum() / words.sum()) * words
    # The sum of n differences has the spread √n·std; sign flips know the mean is there and have √n·rms under the null.
    null = ndtri(1 - level / 2) * math.sqrt(np.square(moved).mean())
    alternative = ndtri(power) * moved.std()
    utterances = ((null + alternative) / moved.mean()) ** 2
    return math.ceil(utterances * words.mean())


def _by_cluster(clusters: ArrayLike, *columns: np.ndarray) -> list[np.ndarray]:
    """One sum per cluster in each column."""
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if index.shape != columns[0].shape:
        raise ValueError("needs one cluster per utterance")
    if len(names) < 2:
        raise ValueError("needs utterances of two speakers or more: one cannot tell how speakers differ")
    return [np.bincount(index, column) for column in columns]


def _expanded(tail_percent: float, drawn: int) -> float:
    """The percentile further out that makes up for the bootstrap's narrowness where few things are drawn."""
    t = stdtrit(max(drawn - 1, 1), tail_percent / 100)
    return 100 * float(ndtr(t * math.sqrt(drawn / max(drawn - 1, 1))))


def _columns(*columns: ArrayLike) -> list[np.ndarray]:
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    if arrays[0].size == 0 or any(array.shape != arrays[0].shape or array.ndim != 1 for array in arrays):
        raise ValueError("needs one number per utterance in every column, and at least one utterance")
    return arrays


def _chunks(samples: int, width: int) -> Iterator[int]:
    """Row counts that add up to `samples`, none of them above CELLS random numbers."""
    rows = max(1, CELLS // max(width, 1))
    while samples > 0:
        yield min(rows, samples)
        samples -= rows
