"""A recognizer that is trained and labelled audio in; how much CTC should have to say in each search, out.

A decoder that has learned to listen is worth more than CTC, one that has not is worth little, and where between them a
recognizer stands depends on its data alone: on digits attention alone has a quarter of greedy's errors, on an hour of
sentences it has more (docs/LOG.md). So the weight is chosen where the snapshot was: on dev.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from glmasr.decoding.search import CTC_WEIGHTS, open_search
from glmasr.model.recognizer import Recognizer
from glmasr.speech import Batch
from glmasr.text.tokenizer import Tokenizer

USELESS = 0.9
"""Share of errors from which on a recognizer has no preference yet."""


@torch.inference_mode()
def weigh_ctc(
    recognizer: Recognizer,
    ear: nn.Module,
    batches: Sequence[Batch],
    tokenizer: Tokenizer,
    errors_in: Callable[[Batch, list[str]], tuple[int, int]],
    weights: Sequence[float],
) -> dict[str, dict[float, float]]:
    """For `joint` and `rescore` the share of errors at each of `weights`; empty where there is nothing to choose.

    `errors_in` counts errors, and what they are errors of, in what was heard of a batch. The audio is heard once.
    Nothing is tried without a decoder, or where greedy search has more than USELESS of it wrong.
    """
    if recognizer.decoder is None or not weights:
        return {}
    recognizer.eval()
    there = [batch.to(recognizer.ctc.weight.device) for batch in batches]
    heard = [(batch, recognizer(*ear(batch.waveform, batch.lengths))) for batch in there]

    def errors(decoding: str | dict) -> float:
        search = open_search(decoding, recognizer, tokenizer)
        counts = [errors_in(batch, texts(search(one))) for batch, one in heard]
        return sum(wrong for wrong, _ in counts) / max(1, sum(units for _, units in counts))

    def texts(found: list) -> list[str]:
        return [tokenizer.decode(best.tokens) for best, *_ in found]

    if errors("ctc_greedy") > USELESS:
        return {}
    return {name: {weight: errors({"name": name, "ctc_weight": weight}) for weight in weights} for name in CTC_WEIGHTS}


def best_weights(tried: dict[str, dict[float, float]]) -> dict[str, float]:
    """For each search the weight with the fewest errors; among equals the one nearest to the usual."""
    return {
        name: min(errors, key=lambda weight: (errors[weight], abs(weight - CTC_WEIGHTS[name])))
        for name, errors in tried.items()
    }
