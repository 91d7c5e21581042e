"""CTC log-probabilities and hypotheses in, what each next token is worth out (Watanabe et al. 2017, section II-D).

A search that goes from token to token can so ask CTC, which goes from frame to frame. The recursions over frames are
linear, so they are sums over earlier frames: one cumulative sum instead of a step per frame. For the same reason the
worth of every token of the vocabulary is one product of matrices.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glmasr.text.tokenizer import BLANK, BOUNDARY


@dataclass(frozen=True)
class Prefixes:
    """N = B · beam prefixes, those of an utterance side by side; T + 1 states: before the first frame, behind each.

    `blank` and `spoken` are the log-probabilities of alignments that spell exactly the prefix and end in a blank or in
    its last token; `scores` those of all texts that begin so. All in double precision: cumulative sums cancel.
    """

    log_probs: Float[Tensor, "B T V"]
    probs: Float[Tensor, "B T V"]
    lengths: Int[Tensor, " B"]
    blank: Float[Tensor, "N T1"]
    spoken: Float[Tensor, "N T1"]
    last: Int[Tensor, " N"]
    scores: Float[Tensor, " N"]

    @staticmethod
    def begin(log_probs: Float[Tensor, "B T V"], lengths: Int[Tensor, " B"], beam: int) -> "Prefixes":
        """`beam` empty prefixes of each utterance."""
        log_probs = log_probs.double()
        behind = torch.arange(log_probs.shape[1], device=log_probs.device) >= lengths[:, None]
        probs = log_probs.exp().masked_fill(behind[..., None], 0.0)
        probs[..., BLANK] = 0.0  # no token
        blank = sums(log_probs[..., BLANK]).repeat_interleave(beam, 0)
        nothing = torch.full_like(blank, -math.inf)
        last = torch.full_like(lengths, BLANK).repeat_interleave(beam)
        return Prefixes(log_probs, probs, lengths, blank, nothing, last, blank.new_zeros(len(blank)))

    def gains(self) -> Float[Tensor, "B beam V"]:
        """What each token adds to a prefix' score; for the boundary: what it is to be the whole text."""
        batch, beam = len(self.lengths), len(self.last) // len(self.lengths)
        together = torch.logaddexp(self.blank, self.spoken)
        scores = self.weighed(together[:, :-1])
        # Its own last token begins anew only behind a blank.
        repeated = self.weighed(self.blank[:, :-1]).gather(2, self.last.view(batch, beam, 1))
        scores = scores.scatter(2, self.last.view(batch, beam, 1), repeated)
        scores[..., BLANK] = -math.inf
        ends = self.lengths.repeat_interleave(beam)[:, None]
        scores[..., BOUNDARY] = together.gather(1, ends).view(batch, beam)
        return scores - self.scores.view(batch, beam, 1)

    def weighed(self, before: Float[Tensor, "N T"]) -> Float[Tensor, "B beam V"]:
        """For every token: log Σ over frames of what comes before it, times the token's probability there."""
        before = before.view(len(self.lengths), -1, before.shape[1])
        largest = before.amax(-1, keepdim=True).clamp(min=-1e30)  # all may be -inf
        return (before - largest).exp().matmul(self.probs).log() + largest

    def extend(self, rows: Int[Tensor, " N"], tokens: Int[Tensor, " N"]) -> "Prefixes":
        """The prefixes in `rows` with one more token each; rows stay with their utterance."""
        batch, beam = len(self.lengths), len(self.last) // len(self.lengths)
        gains = self.gains().flatten(0, 1)[rows].gather(1, tokens[:, None])[:, 0]
        before = torch.where(
            (tokens == self.last[rows])[:, None],
            self.blank[rows],
            torch.logaddexp(self.blank[rows], self.spoken[rows]),
        )
        own = self.log_probs.gather(2, tokens.view(batch, 1, beam).expand(-1, self.log_probs.shape[1], -1))
        spoken = recursion(before, own.transpose(1, 2).flatten(0, 1))
        blank = recursion(spoken, self.log_probs[..., BLANK].repeat_interleave(beam, 0))
        return replace(self, blank=blank, spoken=spoken, last=tokens, scores=self.scores[rows] + gains)


def sums(steps: Float[Tensor, "N T"]) -> Float[Tensor, "N T1"]:
    """Sums of the first 0, 1 … T steps."""
    return torch.cat((steps.new_zeros(len(steps), 1), steps.cumsum(-1)), -1)


def recursion(inflow: Float[Tensor, "N T1"], steps: Float[Tensor, "N T"]) -> Float[Tensor, "N T1"]:
    """log x of x[0] = 0, x[t] = (x[t-1] + exp inflow[t-1]) · exp steps[t], all at once."""
    total = sums(steps)
    found = total[:, 1:] + (inflow[:, :-1] - total[:, :-1]).logcumsumexp(-1)
    return torch.cat((torch.full_like(found[:, :1], -math.inf), found), -1)
