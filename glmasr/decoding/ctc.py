"""CTC log-probabilities in, hypotheses out (Graves et al. 2006)."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from math import exp, log
from operator import attrgetter
from typing import Any

import numpy as np
from jaxtyping import Float

from glmasr.decoding.hypothesis import Guide, Hypothesis
from glmasr.text.tokenizer import BLANK

SMALL = 1e-100
"""Masses below it are scaled up, so that what lies 200 orders of magnitude behind the best is still a double."""
BY_TOTAL = attrgetter("total")
SCALED_EVERY = 8
"""Frames between looks at how small the exact scores' masses are."""


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
    """The start of a text, as a node of a tree, and the mass of the alignments that spell it up to some frame."""

    __slots__ = ("alive", "blank", "children", "parent", "spoken", "state", "stays", "token", "total", "weight")

    def __init__(self, parent: "Prefix | None", token: int, state: Any, weight: float):
        self.parent, self.token, self.state, self.weight = parent, token, state, weight
        self.blank = self.spoken = self.stays = self.total = 0.0
        self.children: dict[int, Prefix] = {}
        self.alive = False

    def tokens(self) -> tuple[int, ...]:
        """From the first to the last."""
        found, node = [], self
        while node.parent is not None:
            found.append(node.token)
            node = node.parent
        return tuple(reversed(found))

    def gain(self) -> float:
        """What the guide gave for the tokens."""
        total, node = 0.0, self
        while node.parent is not None:
            total += log(node.weight)
            node = node.parent
        return total


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
        best, chosen = likeliest(own, tokens + 1)
        flat = memoryview(own.reshape(-1))  # type: ignore[arg-type]
        kept = search_one(flat, np.exp(best.astype(np.float64)).tolist(), chosen.tolist(), beam, guide, margin)
        exact = exact_scores(own, [one.tokens for one, _ in kept]).tolist()
        # Masses that a double no longer holds are missing from the exact sum, too.
        counted = [
            replace(one, score=max(one.score, sure + gain)) for (one, gain), sure in zip(kept, exact, strict=True)
        ]
        found.append(sorted(counted, key=attrgetter("score"), reverse=True))
    return found


def likeliest(log_probs: Float[np.ndarray, "T V"], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Each frame's `count` best log-probabilities, or all there are, best first, and their tokens."""
    count = min(count, log_probs.shape[-1])
    found = np.argpartition(-log_probs, count - 1, axis=-1)[:, :count]
    order = np.argsort(-np.take_along_axis(log_probs, found, -1), axis=-1, kind="stable")
    chosen = np.take_along_axis(found, order, -1)
    return np.take_along_axis(log_probs, chosen, -1), chosen


def search_one(
    log_probs: Sequence[float],
    best: list[list[float]],
    chosen: list[list[int]],
    beam: int,
    guide: Guide | None,
    margin: float,
) -> list[tuple[Hypothesis, float]]:
    """One utterance: hypotheses, and how much of their scores is the guide's. `log_probs` has all frames in a row,
    `best` and `chosen` each frame's best probabilities and their tokens.

    Masses are probabilities, scaled up when they get small: to add them costs a tenth of adding logs.
    """
    root = Prefix(None, BLANK, guide.begin() if guide else None, 1.0)
    root.blank, root.total, root.alive = 1.0, 1.0, True
    beams, scale = [root], 0.0
    ceiling, share = exp(guide.ceiling) if guide else 1.0, exp(-margin)
    width = len(log_probs) // max(len(chosen), 1)
    for frame, (probs, ids) in enumerate(zip(best, chosen, strict=True)):
        start = frame * width
        blank_prob, floor = exp(log_probs[start + BLANK]), beams[0].total * probs[0] * share
        masses = []
        for node in beams:  # its text as it is: said on, or reached from a parent that is in the beam too
            masses.append(node.total * blank_prob)
            parent, token, mass = node.parent, node.token, node.spoken
            if parent is None:
                continue
            if parent.alive:
                mass += (parent.blank if parent.token == token else parent.total) * node.weight
            node.stays = mass = mass * exp(log_probs[start + token])
            masses.append(mass)
        if len(masses) > beam:
            masses.sort(reverse=True)
            floor = max(floor, masses[beam - 1])
        reached = extend(beams, probs, ids, floor / ceiling, beam, guide)
        for node in beams:
            node.blank, node.spoken = node.total * blank_prob, node.stays
        if reached:
            beams += reached
            masses += [node.spoken for node in reached]
            if len(masses) > beam:
                masses.sort(reverse=True)
                floor = max(floor, masses[beam - 1])
        largest = max(masses)
        beams = prune(beams, max(floor, largest * share))
        if largest < SMALL:
            scale += log(largest)
            for node in beams:
                node.blank, node.spoken, node.total = node.blank / largest, node.spoken / largest, node.total / largest
    found = []
    for node in beams:
        if node.total > 0.0:
            end = guide.finish(node.state) if guide else 0.0
            found.append(
                (Hypothesis(node.tokens(), log(node.total) + scale + end), end + (node.gain() if guide else 0.0))
            )
    return found


def prune(nodes: list[Prefix], floor: float) -> list[Prefix]:
    """Those with a state that has mass, best first; a state has none below `floor`."""
    kept = []
    for node in nodes:
        if node.blank < floor:
            node.blank = 0.0
        if node.spoken < floor:
            node.spoken = 0.0
        node.total = total = node.blank + node.spoken
        if total > 0.0:
            node.alive = True
            kept.append(node)
        else:
            node.alive = False
    kept.sort(key=BY_TOTAL, reverse=True)
    return kept


def extend(
    beams: list[Prefix], probs: list[float], ids: list[int], floor: float, beam: int, guide: Guide | None
) -> list[Prefix]:
    """New prefixes, one token longer, that may have more mass than `floor`; `beams` has the best first."""
    reached = []
    for rank, node in enumerate(beams):
        total, known = node.total, node.children
        if total * probs[0] <= floor:
            break
        # By sound alone each of `rank` better prefixes goes before with each of so many better tokens, repeats aside.
        places = len(ids) if guide else (beam + 1) // (rank + 1) + 2
        for prob, token in zip(probs[:places], ids, strict=False):
            mass = total * prob
            if mass <= floor:
                break
            if token == BLANK:
                continue
            if token == node.token:
                mass = node.blank * prob  # without a blank between it would be the same token said on
            child = known.get(token)
            if child is None:
                state, gain = guide.extend(node.state, token) if guide else (None, 0.0)
                child = known[token] = Prefix(node, token, state, exp(gain))
            elif child.alive:
                continue  # this mass is in what it has by staying
            child.blank, child.spoken = 0.0, mass * child.weight
            reached.append(child)
    return reached


def exact_scores(log_probs: Float[np.ndarray, "T V"], texts: Sequence[Sequence[int]]) -> Float[np.ndarray, " N"]:
    """The log-probability of each text, all its alignments summed (Graves et al. 2006, section 4.1).

    All texts go together, in probabilities that are scaled up now and then; torch's own takes several times as long.
    """
    width = 2 * max(map(len, texts), default=0) + 1
    labels = np.full((len(texts), width), BLANK)
    for row, text in zip(labels, texts, strict=True):
        row[1 : 2 * len(text) : 2] = text
    leaps = np.zeros(labels.shape)  # over a blank, between tokens that differ
    leaps[:, 1:2] = 1.0  # and from before the first blank
    leaps[:, 2:] = (labels[:, 2:] != BLANK) & (labels[:, 2:] != labels[:, :-2])
    needed, places = np.unique(labels, return_inverse=True)
    emissions = np.exp(log_probs[:, needed].astype(np.float64))[:, places.reshape(labels.shape)]
    masses = np.zeros((len(texts), width + 2))
    masses[:, 1] = 1.0  # all of it is before the first blank
    here, before, two_before = masses[:, 2:], masses[:, 1:-1], masses[:, :-2]
    scales = np.zeros(len(texts))
    after = np.empty_like(leaps)
    for frame, emitted in enumerate(emissions):
        np.multiply(leaps, two_before, out=after)
        after += here
        after += before
        np.multiply(after, emitted, out=here)
        masses[:, 1] = 0.0
        if frame % SCALED_EVERY == SCALED_EVERY - 1:
            largest = np.maximum(masses.max(1), SMALL)
            masses /= largest[:, None]
            scales += np.log(largest)
    ends = np.array([[2 * len(text) + 1, 2 * len(text) + 2] for text in texts])
    with np.errstate(divide="ignore"):
        return np.log(np.take_along_axis(masses, ends, 1).sum(1)) + scales
