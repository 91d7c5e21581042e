"""A waveform in, the same waveform after several damages one after another out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from glmasr.speech import InputError


@dataclass(frozen=True)
class Chain:
    """Augmentations by name in their order, which should be that of the world: room, noise, microphone, line, level.

    Each draws by itself whether it acts. Names let a command reach into one (`….noise.probability=0.3`); None leaves
    one out. InputError where something is no augmentation.
    """

    augmentations: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray] | None]

    def __post_init__(self):
        if not isinstance(self.augmentations, Mapping):
            raise InputError("a chain needs a name for each augmentation: write `name: {_target_: …}`, not a list")
        for name, augmentation in self.augmentations.items():
            if augmentation is not None and not callable(augmentation):
                raise InputError(
                    f"'{name}' in the chain is no augmentation: give it a _target_, or null to leave it out"
                )

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N) → (N)."""
        for augmentation in self.augmentations.values():
            if augmentation is not None:
                waveform = augmentation(waveform, rng)
        return waveform
