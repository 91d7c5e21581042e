"""What a search returns: tokens, how sure it is, and where in the recording they stand."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """`score` is a log-probability; `starts` and `ends` are the encoder frames of each token, where known."""

    tokens: tuple[int, ...]
    score: float
    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    confidences: tuple[float, ...] = ()
