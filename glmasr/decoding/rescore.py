"""Hypotheses of a CTC search in, the same in the order of CTC and attention together out (Zhang et al. 2020, U2)."""

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from glmasr.decoding.hypothesis import Hypothesis
from glmasr.model.decoder import Decoder
from glmasr.text.tokenizer import BOUNDARY


@torch.no_grad()
def rescore(
    decoder: Decoder, context: Tensor, padding: Tensor, found: Sequence[Sequence[Hypothesis]], ctc_weight: float
) -> list[list[Hypothesis]]:
    """Best first by (1 - ctc_weight) · attention + ctc_weight · the score they came with; all in one pass."""
    most = max((len(one) for one in found), default=0)
    if not most:
        return [[] for _ in found]
    texts = [list(one.tokens) for several in found for one in padded(several, most)]
    told = [torch.tensor([BOUNDARY, *text, BOUNDARY], device=context.device) for text in texts]
    tokens = pad_sequence(told, batch_first=True, padding_value=BOUNDARY)
    logits, _ = decoder.step(tokens[:, :-1], decoder.remember(context, padding))
    each = logits.float().log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0].double()
    counts = torch.tensor([len(text) + 1 for text in texts], device=context.device)
    inside = torch.arange(each.shape[1], device=context.device) < counts[:, None]
    attention = each.where(inside, 0.0).sum(1).view(len(found), most).tolist()
    return [
        sorted(
            (
                replace(one, score=(1 - ctc_weight) * score + ctc_weight * one.score)
                for one, score in zip(several, scores, strict=False)
            ),
            key=attrgetter("score"),
            reverse=True,
        )
        for several, scores in zip(found, attention, strict=True)
    ]


def padded(found: Sequence[Hypothesis], most: int) -> list[Hypothesis]:
    """Empty texts behind, up to `most` of them."""
    return [*found, *([Hypothesis((), 0.0)] * (most - len(found)))]
