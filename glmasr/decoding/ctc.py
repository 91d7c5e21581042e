"""CTC log-probabilities in, hypotheses out (Graves et al. 2006)."""

from collections.abc import Mapping, Sequence
from heapq import heapreplace
from itertools import accumulate, groupby
from math import exp, inf, log
from operator import attrgetter, mul
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from glmasr.decoding.hypothesis import Guide, Hypothesis
from glmasr.text.tokenizer import BLANK

SMALL = 1e-100
"""Masses below it are scaled up, so that what lies 200 orders of magnitude behind the best is still a double."""
BY_TOTAL, BY_SCORE = attrgetter("total"), attrgetter("score")
SCALED_EVERY = 8
"""Frames between looks at how small the exact scores' masses are."""
SHORT = 20
"""Frames up to which Python sums alignments faster than numpy begins to."""
WIDE = 200
"""Tokens of a vocabulary from which it is cheaper to look up those needed than to list all."""


def greedy(log_probs: Float[np.ndarray, "T V"]) -> Hypothesis:
    """The best token of every frame, repeats merged, blanks dropped."""
    scores = np.asarray(log_probs)
    best, tokens = scores.max(-1).tolist(), scores.argmax(-1).tolist()
    runs = [list(group) for _, group in groupby(range(len(tokens)), key=tokens.__getitem__)]
    spoken = [run for run in runs if tokens[run[0]] != BLANK]
    return Hypothesis(
        tokens=tuple(tokens[run[0]] for run in spoken),
        score=sum(best),
        starts=tuple(run[0] for run in spoken),
        ends=tuple(run[-1] + 1 for run in spoken),
        confidences=tuple(exp(max(best[i] for i in run)) for run in spoken),
    )


class Prefix:
    """The start of a text, as a node of a tree, and the mass of the alignments that spell it up to some frame.

    `key` + token finds a child. That parents hold no children leaves Python's garbage collector no cycles.
    """

    __slots__ = ("blank", "key", "parent", "spoken", "state", "token", "total", "weight")
    parent: "Prefix"

    def path(self) -> "list[Prefix]":
        """From the first token's to this one."""
        found, node = [], self
        while node.token != BLANK:
            found.append(node)
            node = node.parent
        found.reverse()
        return found


def follow(parent: Prefix | None, token: int, key: int, state: Any = None, weight: float = 1.0) -> Prefix:
    """A prefix of no mass; as a method called __init__ it would take twice the time."""
    node = Prefix()
    node.parent, node.token, node.key = parent, token, key  # type: ignore[assignment]
    node.state, node.weight = state, weight
    node.blank = node.spoken = node.total = 0.0
    return node


class Probabilities(dict[int, float]):
    """Those of a frame, by token, each from its log when it is first looked at."""

    def __init__(self, log_probs: Float[np.ndarray, " V"]):
        self.log_probs = memoryview(log_probs)  # type: ignore[arg-type]

    def __missing__(self, token: int) -> float:
        found = self[token] = exp(self.log_probs[token])
        return found


def beam_search(
    log_probs: Float[np.ndarray, "B T V"],
    lengths: Sequence[int],
    beam: int,
    tokens: int = 20,
    guide: Guide | None = None,
    margin: float = 15.0,
) -> list[list[Hypothesis]]:
    """The best texts of each utterance by the summed mass of their alignments (after Hannun et al. 2014, algorithm 1).

    The beam holds `beam` states: a text that ends in a blank and the same that ends in its last token are two. (Beams
    of as many whole texts found worse ones in unsure scores.) A frame extends texts by its `tokens` best; what is
    `margin` (a natural log) behind the best state is given up, too. Scores are natural logs with what the guide gave,
    and exact: of what is found also those alignments are counted that left the beam on their way.
    """
    found = []
    for row, length in zip(np.asarray(log_probs), np.asarray(lengths).tolist(), strict=True):
        own = np.ascontiguousarray(row[:length], np.float32)
        width = own.shape[1]
        rows = np.exp(own.astype(np.float64)).tolist() if width < WIDE else [Probabilities(one) for one in own]
        kept, scale = search_one(rows, likeliest(own, tokens).tolist(), width, beam, guide, margin)
        paths = [node.path() for node in kept]
        texts = [tuple([node.token for node in path]) for path in paths]
        is_short = 0 < len(own) <= SHORT and width < WIDE
        exact = short_scores(rows, paths) if is_short else exact_scores(own, texts).tolist()
        counted = []
        for node, path, text, score in zip(kept, paths, texts, exact, strict=True):
            gain = sum([log(one.weight) for one in path]) if guide else 0.0
            # Masses that a double no longer holds are missing from the exact sum, too.
            score = max(score + gain, log(node.total) + scale)
            counted.append(Hypothesis(text, score + guide.finish(node.state) if guide else score))
        counted.sort(key=BY_SCORE, reverse=True)
        found.append(counted)
    return found


def likeliest(scores: Float[np.ndarray, "T V"], count: int) -> Int[np.ndarray, "T K"]:
    """Each frame's `count` best tokens but the blank, or all there are, best first."""
    count = min(count, scores.shape[1] - 1)
    wanted = -scores
    wanted[:, BLANK] = np.nan  # behind all others
    if not 0 < 4 * count < scores.shape[1]:
        return wanted.argsort(-1)[:, :count]
    # To find the value that parts them and then who is ahead of it takes half the time of argpartition.
    worst = np.partition(wanted, count - 1, -1)[:, count - 1 : count]
    found = np.flatnonzero(wanted <= worst)
    if len(found) != count * len(scores):  # some are equal to the worst
        found = wanted.argpartition(count, -1)[:, :count]
    else:
        found = found.reshape(len(scores), count) % scores.shape[1]
    return np.take_along_axis(found, np.take_along_axis(wanted, found, -1).argsort(-1), -1)


def search_one(
    rows: Sequence[Any], chosen: list[list[int]], width: int, beam: int, guide: Guide | None, margin: float
) -> tuple[list[Prefix], float]:
    """One utterance's texts, and the log of what their masses are to be multiplied by.

    `rows` has each frame's probabilities by token, `chosen` the tokens to extend by, best first; `width` is that of
    the vocabulary. Masses are probabilities, scaled up when they get small: to add them costs a tenth of adding logs.
    """
    root = follow(follow(None, BLANK, 0), BLANK, 0, guide.begin() if guide else None)
    root.blank = root.total = 1.0
    beams, known, scale = [root], dict[int, Prefix](), 0.0
    ceiling, share = exp(guide.ceiling) if guide else 1.0, exp(-margin)
    for row, ids in zip(rows, chosen, strict=True):
        blank_prob = row[BLANK]
        blanks, stays = [], []
        for node in beams:  # its text as it is: said on, or reached from a parent that is in the beam too
            blanks.append(node.total * blank_prob)
            token, parent = node.token, node.parent
            mass = parent.blank if parent.token == token else parent.total
            stays.append((node.spoken + mass * node.weight) * row[token])
        masses = blanks + stays
        if len(masses) < beam:
            masses += [0.0] * (beam - len(masses))
        masses.sort()
        del masses[:-beam]
        floor = max(masses[0], masses[-1] * share)
        reached = extend(beams, row, ids, masses, floor, known, width, guide, ceiling)
        floor = max(masses[0], max(masses) * share)
        kept = []
        for node, blank, spoken in zip(beams, blanks, stays):  # noqa: B905
            if blank < floor:
                blank = 0.0
                if spoken < floor:
                    node.total = node.blank = 0.0
                    continue
            elif spoken < floor:
                spoken = 0.0
            node.blank, node.spoken, node.total = blank, spoken, blank + spoken
            kept.append(node)
        for mass, node, token, child in reached:
            if mass >= floor:
                if child is None:
                    child = known[node.key + token] = follow(node, token, width * (len(known) + 1))
                child.spoken = child.total = mass
                kept.append(child)
        kept.sort(key=BY_TOTAL, reverse=True)
        beams = kept
        largest = beams[0].total
        if largest < SMALL:
            scale += log(largest)
            for node in beams:
                node.blank, node.spoken, node.total = node.blank / largest, node.spoken / largest, node.total / largest
    return [node for node in beams if node.total > 0.0], scale


def extend(
    beams: list[Prefix],
    row: Mapping[int, float] | list[float],
    ids: list[int],
    masses: list[float],
    floor: float,
    known: dict[int, Prefix],
    width: int,
    guide: Guide | None,
    ceiling: float,
) -> list[tuple[float, Prefix, int, Prefix | None]]:
    """What is one token longer and may have a place in the beam: mass, parent, token, and the prefix if it is known.

    `beams` has the best first; `masses`, a heap, has the largest of all states and takes in those reached.
    """
    reached, limit, first = [], floor / ceiling, row[ids[0]] if ids else 0.0
    for node in beams:
        total, last, start = node.total, node.token, node.key
        if total * first <= limit:
            break
        for token in ids:
            mass = total * row[token]
            if mass <= limit:
                break
            if token == last:
                mass = node.blank * row[token]  # without a blank between it would be the same token said on
            child = known.get(start + token)
            if child is not None and child.total > 0.0:
                continue  # this mass is in what it has by staying
            if guide:
                if child is None:
                    state, gain = guide.extend(node.state, token)
                    child = known[start + token] = follow(node, token, width * (len(known) + 1), state, exp(gain))
                mass *= child.weight
            if mass > floor:
                reached.append((mass, node, token, child))
                heapreplace(masses, mass)
                if masses[0] > floor:
                    floor = masses[0]
                    limit = floor / ceiling
    return reached


def short_scores(rows: Sequence[Any], paths: Sequence[Sequence[Prefix]]) -> list[float]:
    """The same as `exact_scores` of few frames' probabilities, where prefixes that texts share are summed once."""
    columns = list(zip(*rows, strict=True))
    blank_probs = columns[BLANK]
    silence = list(accumulate(blank_probs, mul, initial=1.0))
    known, found = dict[Prefix, list[float]](), []
    for path in paths:
        before = silence
        for node in path:
            totals = known.get(node)
            if totals is None:
                # `before` is the parent's mass ahead of each frame from `start` on, where it is first reached.
                start, probs = len(rows) + 1 - len(before), columns[node.token]
                if node.parent.token == node.token:
                    before = [0.0, *map(mul, before, blank_probs[start:])]
                totals, total, spoken = [], 0.0, 0.0
                for mass, prob, blank_prob in zip(before, probs[start:], blank_probs[start:]):  # noqa: B905
                    spoken = (spoken + mass) * prob
                    total = total * blank_prob + spoken
                    totals.append(total)
                known[node] = totals
            before = totals
        found.append(log(before[-1]) if before[-1] else -inf)
    return found


def exact_scores(log_probs: Float[np.ndarray, "T V"], texts: Sequence[Sequence[int]]) -> Float[np.ndarray, " N"]:
    """The log-probability of each text, all its alignments summed (Graves et al. 2006, section 4.1).

    All texts go together, in probabilities that are scaled up now and then; torch's own takes several times as long.
    """
    longest = max(map(len, texts), default=0)
    places = {token: place for place, token in enumerate({BLANK}.union(*texts))}
    padded = [[places[token] for token in text] + [0] * (longest - len(text)) for text in texts]
    labels = np.full((2 * longest + 1, len(texts)), places[BLANK])
    labels[1::2] = np.array(padded, int).reshape(len(texts), longest).T
    leaps = np.zeros(labels.shape)  # over a blank, between tokens that differ
    leaps[1:2] = 1.0  # and from before the first blank
    leaps[3::2] = labels[3::2] != labels[1:-2:2]
    emissions = np.exp(log_probs[:, list(places)].astype(np.float64))[:, labels]
    masses = np.zeros((2 * longest + 3, len(texts)))
    masses[1] = 1.0  # all of it is before the first blank
    here, before, two_before = masses[2:], masses[1:-1], masses[:-2]
    scales = np.zeros(len(texts))
    after = np.empty_like(leaps)
    for frame, emitted in enumerate(emissions):
        np.multiply(leaps, two_before, after)
        np.add(after, here, after)
        np.add(after, before, after)
        np.multiply(after, emitted, here)
        if not frame:
            masses[1] = 0.0
        if frame % SCALED_EVERY == SCALED_EVERY - 1:
            largest = np.maximum(masses.max(0), SMALL)
            masses /= largest
            scales += np.log(largest)
    each = np.arange(len(texts))
    ends = np.array([2 * len(text) + 1 for text in texts], int)
    with np.errstate(divide="ignore"):
        return np.log(masses[ends, each] + masses[ends + 1, each]) + scales
