"""A reference and a hypothesis in; substitutions, deletions and insertions out, counted by jiwer under the protocol."""

from dataclasses import dataclass

import jiwer

from glmasr.text.normalize import units


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
        """Units of the reference (characters under "cer")."""
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
    """Compare two raw texts; an empty reference makes every unit of the hypothesis an insertion."""
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
