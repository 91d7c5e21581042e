"""What a search returns: tokens, how sure it is, and where in the recording they stand; and what may guide one."""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Hypothesis:
    """`score` is a log-probability; `starts` and `ends` are the encoder frames of each token, where known."""

    tokens: tuple[int, ...]
    score: float
    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    confidences: tuple[float, ...] = ()


class Guide(Protocol):
    """What knows of texts, not of sound: a language model, hotwords. States are immutable; gains natural logs."""

    @property
    def ceiling(self) -> float:
        """What one more token gains at most."""
        ...

    def begin(self) -> Any:
        """The state before the first token."""
        ...

    def extend(self, state: Any, token: int) -> tuple[Any, float]:
        """The state behind one more token, and what that token gains or costs."""
        ...

    def finish(self, state: Any) -> float:
        """What it gains or costs to end here."""
        ...


@dataclass(frozen=True)
class Guides:
    """Several guides as one, and `token_bonus` for every token."""

    guides: tuple[Guide, ...]
    token_bonus: float = 0.0

    @property
    def ceiling(self) -> float:
        return self.token_bonus + sum(guide.ceiling for guide in self.guides)

    def begin(self) -> tuple:
        return tuple(guide.begin() for guide in self.guides)

    def extend(self, state: tuple, token: int) -> tuple[tuple, float]:
        steps = [guide.extend(one, token) for guide, one in zip(self.guides, state, strict=True)]
        return tuple(one for one, _ in steps), self.token_bonus + sum(gain for _, gain in steps)

    def finish(self, state: tuple) -> float:
        return sum(guide.finish(one) for guide, one in zip(self.guides, state, strict=True))
