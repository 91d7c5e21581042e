"""CTC log-probabilities in, hypotheses out (Graves et al. 2006)."""

from itertools import groupby
from math import exp

from jaxtyping import Float
from torch import Tensor

from glmasr.decoding.hypothesis import Hypothesis
from glmasr.text.tokenizer import BLANK


def greedy(log_probs: Float[Tensor, "T V"]) -> Hypothesis:
    """The best token of every frame, repeats merged, blanks dropped."""
    best, tokens = log_probs.max(-1)
    best, tokens = best.tolist(), tokens.tolist()
    runs = [list(group) for _, group in groupby(range(len(tokens)), key=tokens.__getitem__)]
    spoken = [run for run in runs if tokens[run[0]] != BLANK]
    return Hypothesis(
        tokens=tuple(tokens[run[0]] for run in spoken),
        score=sum(best),
        starts=tuple(run[0] for run in spoken),
        ends=tuple(run[-1] + 1 for run in spoken),
        confidences=tuple(exp(max(best[i] for i in run)) for run in spoken),
    )
