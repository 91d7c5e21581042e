"""Encoder context in, hypotheses of the attention decoder out."""

import torch
from torch import Tensor

from glmasr.decoding.hypothesis import Hypothesis
from glmasr.model.decoder import Decoder
from glmasr.text.tokenizer import BOUNDARY


@torch.no_grad()
def greedy(decoder: Decoder, context: Tensor, lengths: Tensor, padding: Tensor) -> list[Hypothesis]:
    """The best next token until the boundary, for a whole batch at once.

    An utterance never gets more tokens than it has encoder frames, so a decoder that loops comes to an end.
    """
    tokens = torch.full((len(context), 1), BOUNDARY, dtype=torch.long, device=context.device)
    scores = torch.zeros(len(context), device=context.device)
    ended = torch.zeros(len(context), dtype=torch.bool, device=context.device)
    for position in range(int(lengths.max())):
        log_probs = decoder(tokens, context, padding)[:, -1].float().log_softmax(-1)
        best, chosen = log_probs.max(-1)
        ended = ended | (position >= lengths)
        scores = scores + best.masked_fill(ended, 0.0)
        chosen = chosen.masked_fill(ended, BOUNDARY)
        tokens = torch.cat((tokens, chosen[:, None]), dim=1)
        ended = ended | (chosen == BOUNDARY)
        if bool(ended.all()):
            break
    return [
        Hypothesis(tuple(t for t in row[1:] if t != BOUNDARY), score)
        for row, score in zip(tokens.tolist(), scores.tolist(), strict=True)
    ]
