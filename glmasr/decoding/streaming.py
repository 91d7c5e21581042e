"""CTC scores chunk by chunk in, the hypothesis so far out; it only ever grows."""

from dataclasses import dataclass, replace
from math import exp

import numpy as np
from jaxtyping import Float

from glmasr.decoding.hypothesis import Hypothesis
from glmasr.text.tokenizer import BLANK

NOTHING = Hypothesis((), 0.0)


@dataclass(frozen=True)
class Greedy:
    """Greedy CTC of the frames heard so far: `ctc.greedy` of them all, whatever the chunks.

    `last` is the token of the last frame, which more frames of it continue.
    """

    found: Hypothesis = NOTHING
    frames: int = 0
    last: int = BLANK

    def extended(self, log_probs: Float[np.ndarray, "T V"]) -> "Greedy":
        """With some more frames. No token ever goes away or changes; the last one's end may move on."""
        best, tokens = log_probs.max(-1).tolist(), log_probs.argmax(-1).tolist()
        chosen, score = list(self.found.tokens), self.found.score
        starts, ends, confidences = list(self.found.starts), list(self.found.ends), list(self.found.confidences)
        last = self.last
        for frame, (log_prob, token) in enumerate(zip(best, tokens, strict=True), self.frames):
            score += log_prob
            if token != BLANK and token == last:
                ends[-1], confidences[-1] = frame + 1, max(confidences[-1], exp(log_prob))
            elif token != BLANK:
                chosen.append(token)
                starts.append(frame)
                ends.append(frame + 1)
                confidences.append(exp(log_prob))
            last = token
        found = Hypothesis(tuple(chosen), score, tuple(starts), tuple(ends), tuple(confidences))
        return Greedy(found, self.frames + len(tokens), last)

    def settled(self, count: int) -> Hypothesis:
        """The first `count` tokens alone."""
        found = self.found
        return replace(
            found,
            tokens=found.tokens[:count],
            starts=found.starts[:count],
            ends=found.ends[:count],
            confidences=found.confidences[:count],
        )
