"""Encoder context in, hypotheses of the attention decoder out, one token at a time."""

import math
from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glmasr.decoding.hypothesis import Guide, Hypothesis
from glmasr.decoding.joint import Prefixes
from glmasr.model.decoder import Decoder
from glmasr.model.recognizer import Heard
from glmasr.text.tokenizer import BOUNDARY

REPEATS, PHRASE_TOKENS = 8, 8
"""A phrase of up to so many tokens, said so many times in a row, is a decoder that loops: there the text ends."""
END_MARGIN = -math.log(1e-10)
"""What is so far behind a text that has ended is given up (the threshold of Watanabe et al. 2017, section II-E)."""


@torch.no_grad()
def greedy(decoder: Decoder, context: Tensor, lengths: Tensor, padding: Tensor) -> list[Hypothesis]:
    """The best next token until the boundary, for a whole batch at once.

    An utterance never gets more tokens than it has encoder frames, nor a phrase REPEATS times in a row and again.
    """
    tokens = torch.full((len(context), 1), BOUNDARY, dtype=torch.long, device=context.device)
    scores = torch.zeros(len(context), device=context.device)
    ended = torch.zeros(len(context), dtype=torch.bool, device=context.device)
    memory = decoder.remember(context, padding)
    for position in range(int(lengths.max())):
        logits, memory = decoder.step(tokens[:, -1:], memory)
        best, chosen = logits[:, -1].float().log_softmax(-1).max(-1)
        ended = ended | (position >= lengths) | is_looping(tokens[:, 1:])
        scores = scores + best.masked_fill(ended, 0.0)
        chosen = chosen.masked_fill(ended, BOUNDARY)
        tokens = torch.cat((tokens, chosen[:, None]), dim=1)
        ended = ended | (chosen == BOUNDARY)
        if bool(ended.all()):
            break
    return [Hypothesis(spoken(row), score) for row, score in zip(tokens[:, 1:].tolist(), scores.tolist(), strict=True)]


@torch.no_grad()
def beam_search(
    decoder: Decoder,
    heard: Heard,
    beam: int,
    ctc_weight: float = 0.0,
    length_bonus: float = 0.0,
    guide: Guide | None = None,
    candidates: int = 20,
) -> list[list[Hypothesis]]:
    """Up to `beam` texts of each utterance by attention and, with `ctc_weight`, CTC in one pass, best first.

    The score is (1 - ctc_weight) · attention + ctc_weight · CTC (Watanabe et al. 2017, section II-E; the CTC part is
    that of all texts with this prefix until the text has ended), `length_bonus` for each token, and what a guide gives,
    who is asked about each hypothesis' `candidates` best next tokens. A text that has ended keeps its place in the beam
    until better ones take it; an utterance is done when none of its places goes on.
    """
    search = Beam(heard, beam, guide)
    ctc = Prefixes.begin(heard.ctc_log_probs, heard.lengths, beam) if ctc_weight else None
    memory = decoder.remember(heard.context, heard.padding)
    newest = torch.full((len(heard.lengths) * beam, 1), BOUNDARY, device=heard.context.device)
    while not bool(search.ended.all()):
        logits, memory = decoder.step(newest, memory)
        gains = (1 - ctc_weight) * logits[:, -1].double().log_softmax(-1).view(len(heard.lengths), beam, -1)
        if ctc is not None:
            gains = gains + ctc_weight * ctc.gains()
        rows, newest = search.go_on(gains.nan_to_num(nan=-math.inf), length_bonus, candidates)
        memory = memory.select(rows)
        ctc = ctc.extend(rows, newest[:, 0]) if ctc is not None else None
    return search.hypotheses()


class Beam:
    """The hypotheses of a batch: tokens (B, beam, U), scores, which have ended, and what the guide knows of each."""

    def __init__(self, heard: Heard, beam: int, guide: Guide | None):
        device, batch = heard.lengths.device, len(heard.lengths)
        self.limits, self.beam, self.guide = heard.lengths, beam, guide
        self.tokens = torch.empty(batch, beam, 0, dtype=torch.long, device=device)
        self.scores = torch.full((batch, beam), -math.inf, dtype=torch.float64, device=device)
        self.scores[:, 0] = 0.0
        self.ended = torch.isinf(self.scores)
        self.states: list[Any] = [guide.begin() if guide else None] * (batch * beam)

    def go_on(
        self, gains: Float[Tensor, "B beam V"], length_bonus: float, candidates: int
    ) -> tuple[Int[Tensor, " N"], Int[Tensor, "N 1"]]:
        """Keep the best continuations: the row each goes on from, in a batch of B · beam, and its new token."""
        gains = gains + length_bonus
        gains[..., BOUNDARY] -= length_bonus
        must_end = self.must_end() | self.ended
        impossible = must_end[..., None].expand_as(gains).clone()
        impossible[..., BOUNDARY] = False
        gains = gains.masked_fill(impossible, -math.inf)
        gains[..., BOUNDARY] = gains[..., BOUNDARY].masked_fill(self.ended, 0.0)
        states: dict[tuple[int, int], Any] = {}
        if self.guide:
            gains = self.guided(gains, candidates, states)
        size = gains.shape[-1]
        self.scores, index = (self.scores[..., None] + gains).flatten(1).topk(self.beam)
        parents, chosen = index.div(size, rounding_mode="floor"), index % size
        rows = (parents + torch.arange(len(parents), device=parents.device)[:, None] * self.beam).flatten()
        self.tokens = torch.cat((self.tokens.flatten(0, 1)[rows].unflatten(0, parents.shape), chosen[..., None]), -1)
        if self.guide:
            pairs = zip(rows.tolist(), chosen.flatten().tolist(), strict=True)
            self.states = [states.get(pair, self.states[pair[0]]) for pair in pairs]
        self.ended = (chosen == BOUNDARY) | torch.isinf(self.scores)
        self.give_up()
        return rows, chosen.reshape(-1, 1)

    def must_end(self) -> Bool[Tensor, "B beam"]:
        """As many tokens as frames, or a loop: only the end may follow."""
        looping = is_looping(self.tokens.flatten(0, 1)).view_as(self.ended)
        return looping | (self.tokens.shape[-1] >= self.limits)[:, None]

    def guided(self, gains: Tensor, candidates: int, states: dict[tuple[int, int], Any]) -> Tensor:
        """Gains with the guide's for the best next tokens of each running hypothesis, no other may follow; the guide's
        states behind them, by row and token, go into `states`."""
        assert self.guide is not None
        best, tokens = gains.flatten(0, 1).topk(min(candidates, gains.shape[-1]))
        kept = torch.full_like(gains.flatten(0, 1), -math.inf)
        done = self.ended.flatten().tolist()
        for row, (values, ids) in enumerate(zip(best.tolist(), tokens.tolist(), strict=True)):
            for place, (value, token) in enumerate(zip(values, ids, strict=True)):
                if done[row] or value == -math.inf:
                    continue
                if token == BOUNDARY:
                    values[place] = value + self.guide.finish(self.states[row])
                else:
                    states[row, token], gain = self.guide.extend(self.states[row], token)
                    values[place] = value + gain
            kept[row, tokens[row]] = torch.tensor(values, dtype=kept.dtype, device=kept.device)
        return kept.view_as(gains)

    def give_up(self) -> None:
        """What runs END_MARGIN behind the best text that has ended will not come back."""
        best = self.scores.masked_fill(~self.ended, -math.inf).amax(1, keepdim=True)
        lost = ~self.ended & (self.scores < best - END_MARGIN)
        self.scores = self.scores.masked_fill(lost, -math.inf)
        self.ended = self.ended | lost

    def hypotheses(self) -> list[list[Hypothesis]]:
        """Those with any probability, best first."""
        found = []
        for rows, scores in zip(self.tokens.tolist(), self.scores.tolist(), strict=True):
            pairs = zip(rows, scores, strict=True)
            kept = [Hypothesis(spoken(row), score) for row, score in pairs if score > -math.inf]
            found.append(sorted(kept, key=attrgetter("score"), reverse=True) or [Hypothesis((), -math.inf)])
        return found


def spoken(tokens: list[int]) -> tuple[int, ...]:
    """All but boundaries."""
    return tuple(token for token in tokens if token != BOUNDARY)


def is_looping(tokens: Int[Tensor, "N U"]) -> Bool[Tensor, " N"]:
    """Whether the last PHRASE_TOKENS or fewer tokens have been said REPEATS times in a row."""
    looping = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    for size in range(1, min(PHRASE_TOKENS, tokens.shape[1] // REPEATS) + 1):
        tail = tokens[:, -size * REPEATS :]
        looping |= (tail[:, size:] == tail[:, :-size]).all(1)
    return looping
