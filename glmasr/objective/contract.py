"""What every pretraining objective is given and gives back: View → Loss(total, parts)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class View:
    """One batch as an objective sees it.

    `context` is what the encoder made of the damaged, masked input; of hidden frames, where the encoder never computes
    them, what a predictor inferred; then `encoded` is what the encoder made, None otherwise. `stem` makes `frames`,
    the stem's output for the clean waveform (gradients flow), once they are asked for. `features` are its normalized
    log-mel, `clean` the same with four feature frames stacked per frame. `mask` is True where the input was hidden,
    `padding` where there is no speech. `step` counts optimizer steps.
    """

    context: Float[Tensor, "B T D"]
    stem: Callable[[], Float[Tensor, "B T D"]]
    clean: Float[Tensor, "B T S"]
    mask: Bool[Tensor, "B T"]
    padding: Bool[Tensor, "B T"]
    lengths: Int[Tensor, " B"]
    step: int
    features: Float[Tensor, "B F M"]
    feature_lengths: Int[Tensor, " B"]
    encoded: Float[Tensor, "B T D"] | None = None

    @cached_property
    def frames(self) -> Float[Tensor, "B T D"]:
        """What only some objectives look at, and no other pays for."""
        return self.stem()


@dataclass(frozen=True)
class Loss:
    """`total` is differentiated; `parts` are detached scalars to log."""

    total: Float[Tensor, ""]
    parts: dict[str, Tensor]


class Objective(Protocol):
    """A module with its own heads; built from one YAML under conf/objective/."""

    def __call__(self, view: View) -> Loss: ...
