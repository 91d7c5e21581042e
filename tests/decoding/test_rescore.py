"""Rescored hypotheses have the plain decoder's log-probabilities in their scores, whatever else is in the batch."""

import pytest
import torch

from glmasr.decoding.hypothesis import Hypothesis
from glmasr.decoding.rescore import rescore
from glmasr.lengths import padding_mask
from glmasr.model.decoder import Decoder
from glmasr.text.tokenizer import BOUNDARY

V, C = 9, 12
FOUND = [
    [Hypothesis((3, 4, 5), -1.0), Hypothesis((3, 4), -1.5), Hypothesis((), -2.0)],
    [Hypothesis((8, 8, 3, 4, 7), -0.1)],
    [],
]


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3, 1.0])
def test_scores_are_the_weighted_sum_and_the_best_comes_first(ctc_weight):
    torch.manual_seed(0)
    decoder = Decoder(V, C, 16, 2, 2).eval()
    decoder.project.weight.data *= 5
    context, lengths = torch.randn(3, 7, C), torch.tensor([7, 4, 1])
    rescored = rescore(decoder, context, padding_mask(lengths, 7), FOUND, ctc_weight)
    assert [len(several) for several in rescored] == [3, 1, 0]
    for row, (several, before) in enumerate(zip(rescored, FOUND, strict=True)):
        assert [one.score for one in several] == sorted((one.score for one in several), reverse=True)
        came_with = {one.tokens: one.score for one in before}
        for one in several:
            tokens = torch.tensor([[BOUNDARY, *one.tokens, BOUNDARY]])
            nothing = torch.zeros(1, int(lengths[row]), dtype=torch.bool)
            with torch.no_grad():
                log_probs = decoder(tokens[:, :-1], context[row : row + 1, : lengths[row]], nothing).log_softmax(-1)
            attention = log_probs.gather(2, tokens[:, 1:, None]).sum().item()
            expected = (1 - ctc_weight) * attention + ctc_weight * came_with[one.tokens]
            assert one.score == pytest.approx(expected, abs=1e-4)


def test_nothing_found_is_nothing_to_order():
    decoder = Decoder(V, C, 16, 1, 2).eval()
    assert rescore(decoder, torch.randn(2, 3, C), torch.zeros(2, 3, dtype=torch.bool), [[], []], 0.5) == [[], []]
