"""A probability in, whether an utterance is damaged out."""

import numpy as np

from glmasr.speech import InputError


class Sometimes:
    """A damage done with `probability`, which is refused where it is no share of utterances."""

    probability: float

    def __post_init__(self):
        if not 0.0 <= self.probability <= 1.0:
            what = f"{type(self).__name__}'s probability of {self.probability:g}"
            raise InputError(f"{what} is no share of utterances: take one from 0 to 1")

    def acts(self, rng: np.random.Generator) -> bool:
        """Whether this utterance is damaged, by one draw."""
        return rng.random() < self.probability
