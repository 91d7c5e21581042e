"""A reference and a hypothesis in; substitutions, deletions and insertions out, counted by jiwer under the protocol."""

from dataclasses import dataclass

import jiwer

from glmasr.text.normalize import units
from glmasr.text.syllables import is_syllable


@dataclass(frozen=True)
class ErrorCounts:
    """How a hypothesis differs from its reference; counts of several utterances add up."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    hits: int = 0

    @property
    def errors(self) -> int:
        """Edits that turn the reference into the hypothesis."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def words(self) -> int:
        """Units of the reference in the metric counted (characters under "cer")."""
        return self.substitutions + self.deletions + self.hits

    @property
    def rate(self) -> float:
        """Errors per reference unit, above 1 where insertions abound; an empty reference counts as one unit."""
        return self.errors / max(self.words, 1)

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.hits + other.hits,
        )


def count_errors(reference: str, hypothesis: str, language: str, metric: str = "wer") -> ErrorCounts:
    """Compare two raw texts under one of `normalize.METRICS`; against an empty reference all units are insertions."""
    expected, heard = units(reference, language, metric), units(hypothesis, language, metric)
    found = jiwer.process_words(" ".join(expected), " ".join(heard))
    return ErrorCounts(found.substitutions, found.deletions, found.insertions, found.hits)


def align(reference: str, hypothesis: str, language: str, metric: str = "wer") -> list[tuple[str, str, str]]:
    """Unit by unit (operation, reference, hypothesis), "" where one side has none.

    The operation is "equal", "substitute", "delete" (the system missed it) or "insert" (it was never said).
    """
    expected, heard = units(reference, language, metric), units(hypothesis, language, metric)
    steps: list[tuple[str, str, str]] = []
    for chunk in jiwer.process_words(" ".join(expected), " ".join(heard)).alignments[0]:
        left = expected[chunk.ref_start_idx : chunk.ref_end_idx]
        right = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
        left, right = left or [""] * len(right), right or [""] * len(left)
        steps += [(chunk.type, a, b) for a, b in zip(left, right, strict=True)]
    return steps


def tone_errors(reference: str, hypothesis: str, language: str = "") -> tuple[int, int]:
    """(tones misheard, syllables whose letters were heard right), the second being what the first is a share of.

    Both texts are as under "ser" and `language`. They are aligned by the letters alone, so that a wrong tone cannot
    push a syllable away from its own reference.
    """
    expected, heard = (units(text, language, "ser") for text in (reference, hypothesis))
    left, right = (" ".join(unit[:-1] if is_syllable(unit) else unit for unit in side) for side in (expected, heard))
    pairs = [
        (a, b)
        for chunk in jiwer.process_words(left, right).alignments[0]
        if chunk.type == "equal"
        for a, b in zip(
            expected[chunk.ref_start_idx : chunk.ref_end_idx],
            heard[chunk.hyp_start_idx : chunk.hyp_end_idx],
            strict=True,
        )
        if is_syllable(a) and is_syllable(b)
    ]
    return sum(a != b for a, b in pairs), len(pairs)
