"""CTC log-probabilities and the tokens they stand for in, when each was said and how surely out (forced alignment)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from glmasr.speech import RATE_HZ
from glmasr.text.tokenizer import BLANK

EARLY_SECONDS, LATE_SECONDS, END_SHARE = 0.07, 0.16, 0.65
"""How long before its first token is named a word begins, and behind its last one ends; and the share of the time
between two words that belongs to the first."""

PAUSE_SECONDS, QUIET_SHARE, PULL_DB = 0.2, 0.4, 60.0
"""A pause is so long below so much of the way from the quietest to the loudest; a place a second off the expected one
must be quieter by so much. Chosen on the train split of fsdd, as are those above."""

STEP_SECONDS, WINDOW_SAMPLES, SILENCE = 0.01, 400, 1e-10


@dataclass(frozen=True)
class Alignment:
    """Of each token its first encoder frame, the one behind its last, and its mean probability in them."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    confidences: tuple[float, ...]


def frames_needed(tokens: Sequence[int]) -> int:
    """How few frames can hold the tokens: one each, and a blank between two that are the same."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def align(log_probs: Float[np.ndarray, "T V"], tokens: Sequence[int]) -> Alignment:
    """The likeliest path through `log_probs` that spells `tokens`; ValueError where there are too few frames for them.

    What the greedy search found is aligned as it was found, since its path is the likeliest of all.
    """
    log_probs = np.asarray(log_probs)
    if len(log_probs) < frames_needed(tokens):
        raise ValueError(f"{len(log_probs)} frames cannot hold {len(tokens)} tokens")
    if not tokens:
        return Alignment((), (), ())
    path = log_probs.argmax(-1)
    if _spelled(path) != list(tokens):
        path = likeliest_path(log_probs, tokens)
    turns = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    spans = [(start, end) for start, end in pairwise(turns) if path[start] != BLANK]
    probabilities = np.exp(log_probs[np.arange(len(path)), path])
    return Alignment(
        tuple(start for start, _ in spans),
        tuple(end for _, end in spans),
        tuple(min(1.0, float(probabilities[start:end].mean())) for start, end in spans),
    )


def likeliest_path(log_probs: Float[np.ndarray, "T V"], tokens: Sequence[int]) -> Int[np.ndarray, " T"]:
    """The token of each frame, blanks between them: Viterbi's path through the states blank, token, blank … blank.

    As torchaudio's `forced_align` finds it, which would bring torch along.
    """
    labels = np.full(2 * len(tokens) + 1, BLANK)
    labels[1::2] = tokens
    leaps = np.zeros(len(labels), bool)  # over a blank, between tokens that differ
    leaps[3::2] = labels[3::2] != labels[1:-2:2]
    emissions = log_probs[:, labels].astype(np.float64)
    ways = np.full((3, len(labels)), -np.inf)  # to stay, to go one state on, to leap
    total = np.full(len(labels), -np.inf)
    total[:2] = emissions[0, :2]
    taken = np.zeros(emissions.shape, np.int8)
    for frame in range(1, len(emissions)):
        ways[0], ways[1, 1:] = total, total[:-1]
        ways[2, 2:] = np.where(leaps[2:], total[:-2], -np.inf)
        taken[frame] = ways.argmax(0)
        total = ways.max(0) + emissions[frame]
    state = len(labels) - 1 if total[-1] > total[-2] else len(labels) - 2
    states = np.empty(len(emissions), np.int64)
    for frame in range(len(emissions) - 1, -1, -1):
        states[frame] = state
        state -= int(taken[frame, state])
    return labels[states]


def _spelled(path: Int[np.ndarray, " T"]) -> list[int]:
    firsts = path[np.flatnonzero(np.diff(path, prepend=-1))]
    return firsts[firsts != BLANK].tolist()


def word_times(
    heard: Sequence[tuple[float, float]], duration_seconds: float, waveform: np.ndarray | None = None
) -> list[tuple[float, float]]:
    """When words were said, in seconds, from when CTC named the first and the last token of each.

    CTC names tokens in the middle of their sounds: on strings of spoken digits words begin 0.07 s before and end 0.16 s
    behind what it names (benchmarks/alignment.py). So one word ends and the next begins where the `waveform` (N) is
    quietest between them, or where a pause of PAUSE_SECONDS begins and ends, if there is one. Without a waveform only
    the usual lateness counts.
    """
    if not heard:
        return []
    levels = None if waveform is None or not len(waveform) else _levels(waveform)
    floor, ceiling = (0.0, 0.0) if levels is None or not len(levels) else np.percentile(levels, (5, 95))
    loud = floor + QUIET_SHARE * (ceiling - floor)
    gaps = [(0.0, heard[0][0]), *((a[1], b[0]) for a, b in pairwise(heard)), (heard[-1][1], duration_seconds)]
    edges = [_edge(max(begin, 0.0), min(end, duration_seconds), levels, loud) for begin, end in gaps]
    starts, stops = [start for _, start in edges[:-1]], [stop for stop, _ in edges[1:]]
    # At the recording's own ends nobody else speaks: without a pause the usual lateness counts there.
    if levels is None or edges[0][0] == edges[0][1]:
        starts[0] = max(heard[0][0] - EARLY_SECONDS, 0.0)
    if levels is None or edges[-1][0] == edges[-1][1]:
        stops[-1] = heard[-1][1] + LATE_SECONDS
    return [
        (min(start, duration_seconds), min(max(start, stop), duration_seconds))
        for start, stop in zip(starts, stops, strict=True)
    ]


def _edge(begin: float, end: float, levels: np.ndarray | None, loud: float) -> tuple[float, float]:
    """Between what was heard until `begin` and from `end` on: where the first ends, and where the second begins."""
    middle = begin + END_SHARE * (end - begin)
    if levels is None:
        return min(middle, begin + LATE_SECONDS), max(middle, end - EARLY_SECONDS)
    first, last = int(begin / STEP_SECONDS), min(int(end / STEP_SECONDS), len(levels))
    if last - first < 2:
        return middle, middle
    quiet = np.flatnonzero(np.diff(levels[first:last] < loud, prepend=0, append=0))
    pauses = [(a, b) for a, b in quiet.reshape(-1, 2) if (b - a) * STEP_SECONDS >= PAUSE_SECONDS]
    if pauses:
        return float(first + pauses[0][0]) * STEP_SECONDS, float(first + pauses[-1][1]) * STEP_SECONDS
    times = (np.arange(first, last) + 0.5) * STEP_SECONDS
    place = float(times[(levels[first:last] + PULL_DB * np.abs(times - middle)).argmin()])
    return place, place


def _levels(waveform: np.ndarray) -> np.ndarray:
    """dB of every 10 ms, over 25 ms."""
    step, window = round(STEP_SECONDS * RATE_HZ), WINDOW_SAMPLES
    sums = np.cumsum(np.square(np.pad(waveform, (window // 2 + 1, window)), dtype=np.float64))
    starts = np.arange(len(waveform) // step) * step + step // 2
    return 10 * np.log10((sums[starts + window] - sums[starts]) / window + SILENCE)
