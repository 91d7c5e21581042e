"""Simulated systems whose true error rate is known in; how often intervals cover it and tests raise false alarms out.

python benchmarks/intervals.py                              # 1,000 trials of each line
python benchmarks/intervals.py --trials 1000 --json intervals.json

Words per utterance are log-normal (median 10, 1 to 50). An utterance's errors are beta-binomial: the utterance has a
hardness of its own (mean: the true rate), each of its words is wrong with that chance. Where speakers matter, hardness
spreads about the speaker's own rate, which spreads about the true rate. Two systems without a true difference either
draw errors from the same hardness ("alike"), or from hardness of their own that spreads more in one than in the other
("uneven"), or have, besides, speakers of their own that suit them ("by speaker": what a test by utterance cannot see).
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from glmasr.evaluation.bootstrap import interval, mapsswe, paired

RATE = 0.15
SPEAKER_SPREAD, UTTERANCE_SPREAD = 15.0, 8.0
"""Sizes of the beta distributions about their mean, larger is narrower: speakers have 15 ± 9 %."""

LEVEL = 0.05
FLIPS = 2000
"""Sign flips of a paired test; with 10,000 the figures are the same and the wait is longer."""

Column = np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    started, rows = time.perf_counter(), []
    for row in measured(asked.trials):
        rows.append(row)
        print(f"{row['what']:16} {row['of']:48} {row['share']:6.1%}   wanted {row['wanted']}", flush=True)
    print(f"{asked.trials} trials a line, {time.perf_counter() - started:.0f} s")
    if asked.json:
        asked.json.write_text(json.dumps({"trials": asked.trials, "true_rate": RATE, "lines": rows}, indent=1) + "\n")


def measured(trials: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Coverage by number of utterances and speakers, then false alarms by number of utterances."""
    for utterances in (50, 100, 200, 500):
        yield line("coverage", f"{utterances} independent utterances", coverage(utterances, None, trials, seed))
    for speakers in (5, 10, 20, 40, 100):
        utterances, what = 10 * speakers, f"{speakers} speakers, {10 * speakers} utterances"
        yield line("coverage", f"{what}, by speaker", coverage(utterances, speakers, trials, seed))
        yield line("coverage", f"{what}, by utterance", coverage(utterances, speakers, trials, seed, blind=True), "-")
    for kind in (alike, uneven):
        for utterances in (20, 50, 100, 200):
            for name, test in TESTS.items():
                share = false_alarms(lambda rng, n=utterances, k=kind: k(rng, n), test, trials, seed)
                yield line("false alarms", f"{name}, {utterances} utterances, {kind.__name__}", share)
    for name, test in TESTS.items():
        share = false_alarms(lambda rng: by_speaker(rng, 200, 20)[:3], test, trials, seed)
        yield line("false alarms", f"{name}, 200 utterances of 20 speakers, by speaker", share, "-")
    share = false_alarms(lambda rng: summed(*by_speaker(rng, 200, 20)), TESTS["paired"], trials, seed)
    yield line("false alarms", "paired on speakers' sums, the same", share)


def line(what: str, of: str, share: float, wanted: str = "") -> dict[str, Any]:
    """One figure of the report and what it should be; "-" where it is shown for what it is."""
    return {
        "what": what,
        "of": of,
        "share": share,
        "wanted": wanted or {"coverage": "93-97 %", "false alarms": "4-6 %"}[what],
    }


def coverage(utterances: int, speakers: int | None, trials: int, seed: int = 0, blind: bool = False) -> float:
    """Share of trials whose 95 % interval holds RATE; `blind` draws by utterance where speakers matter."""
    rng, covered = np.random.default_rng([seed, utterances, speakers or 0]), 0
    for trial in range(trials):
        words = lengths(rng, utterances)
        names = None if speakers is None else rng.integers(speakers, size=utterances)
        errors = rng.binomial(words, hardness(rng, utterances, names))
        _, low, high = interval(errors, words, seed=trial, clusters=None if blind else names)
        covered += low <= RATE <= high
    return covered / trials


def false_alarms(draw: Callable, test: Callable[..., float], trials: int, seed: int = 0) -> float:
    """Share of trials in which a test finds a difference between two systems that have the same true rate."""
    rng = np.random.default_rng(seed)
    return float(np.mean([test(*draw(rng), trial) < LEVEL for trial in range(trials)]))


TESTS: dict[str, Callable[..., float]] = {
    "paired": lambda a, b, words, seed: paired(a, b, words, FLIPS, seed)[1],
    "mapsswe": lambda a, b, words, seed: mapsswe(a, b)[1],
}
"""(errors a, errors b, words, seed) → p."""


def alike(rng: np.random.Generator, utterances: int) -> tuple[Column, Column, Column]:
    """(errors a, errors b, words): what is hard for one is as hard for the other."""
    words, chance = lengths(rng, utterances), hardness(rng, utterances)
    return rng.binomial(words, chance), rng.binomial(words, chance), words


def uneven(rng: np.random.Generator, utterances: int) -> tuple[Column, Column, Column]:
    """(errors a, errors b, words): the same mean, but b now hears all and now nothing."""
    words = lengths(rng, utterances)
    steady, erratic = hardness(rng, utterances, spread=50.0), hardness(rng, utterances, spread=1.0)
    return rng.binomial(words, steady), rng.binomial(words, erratic), words


def by_speaker(rng: np.random.Generator, utterances: int, speakers: int) -> tuple[Column, Column, Column, Column]:
    """(errors a, errors b, words, speakers): each system has speakers that suit it; over all, they are equal."""
    words, names = lengths(rng, utterances), rng.integers(speakers, size=utterances)
    a, b = (rng.binomial(words, hardness(rng, utterances, names)) for _ in range(2))
    return a, b, words, names


def summed(a: Column, b: Column, words: Column, names: Column) -> tuple[Column, Column, Column]:
    """(errors a, errors b, words) of each speaker."""
    return np.bincount(names, a), np.bincount(names, b), np.bincount(names, words)


def lengths(rng: np.random.Generator, utterances: int) -> Column:
    """Words per utterance."""
    return np.clip(np.round(rng.lognormal(np.log(10), 0.6, utterances)), 1, 50).astype(int)


def hardness(
    rng: np.random.Generator, utterances: int, names: Column | None = None, spread: float = UTTERANCE_SPREAD
) -> Column:
    """Chance of an error per word of each utterance, RATE on average; about its speaker's rate if `names` are given."""
    mean = np.full(utterances, RATE)
    if names is not None:
        mean = rng.beta(RATE * SPEAKER_SPREAD, (1 - RATE) * SPEAKER_SPREAD, names.max() + 1)[names]
    return rng.beta(mean * spread, (1 - mean) * spread)


if __name__ == "__main__":
    main()
