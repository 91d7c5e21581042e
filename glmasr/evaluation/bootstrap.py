"""Errors and words per utterance in; a 95 % interval of the corpus rate, or a paired test of two systems out.

The interval is the percentile bootstrap over utterances (Bisani & Ney, "Bootstrap estimates for confidence intervals
in ASR performance evaluation", 2004). The unit that is drawn is the utterance: both speak of other utterances of the
*same* talkers and rooms, not of other talkers.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

CELLS = 1 << 21
"""Random numbers held at once: memory stays flat however large the test set."""


def interval(errors: ArrayLike, words: ArrayLike, samples: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """(corpus rate, low, high), 95 %; the rate is all errors over all words, not a mean of utterance rates."""
    errors, words = _columns(errors, words)
    rng = np.random.default_rng(seed)
    drawn = []
    for rows in _chunks(samples, len(errors)):
        index = rng.integers(0, len(errors), (rows, len(errors)))
        drawn.append(errors[index].sum(1) / np.maximum(words[index].sum(1), 1))
    low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5])
    return float(errors.sum() / max(words.sum(), 1)), float(low), float(high)


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
