"""Greedy CTC: repeats merged, blanks dropped, every token with its frames and its confidence."""

from itertools import groupby

import pytest
import torch

from glmasr.decoding.ctc import greedy
from glmasr.text.tokenizer import BLANK


def scores(path: list[int], size: int = 6, probability: float = 0.9) -> torch.Tensor:
    others = torch.full((len(path), size), (1 - probability) / (size - 1))
    return others.scatter(1, torch.tensor(path, dtype=torch.long)[:, None], probability).log()


def test_repeats_merge_unless_a_blank_lies_between():
    hypothesis = greedy(scores([0, 3, 3, 0, 3, 4, 4, 4, 0, 0, 5]))
    assert hypothesis.tokens == (3, 3, 4, 5)
    assert hypothesis.starts == (1, 4, 5, 10) and hypothesis.ends == (3, 5, 8, 11)
    assert hypothesis.score == pytest.approx(11 * torch.tensor(0.9).log().item(), rel=1e-5)


def test_the_confidence_is_that_of_the_surest_frame():
    log_probs = torch.cat([scores([3], probability=p) for p in (0.6, 0.8, 0.7)] + [scores([0, 4], probability=0.5)])
    assert greedy(log_probs).confidences == pytest.approx((0.8, 0.5))


@pytest.mark.parametrize("path", [[], [BLANK], [BLANK] * 5])
def test_blanks_alone_and_nothing_at_all_say_nothing(path):
    hypothesis = greedy(scores(path) if path else torch.zeros(0, 6))
    assert (hypothesis.tokens, hypothesis.starts, hypothesis.ends, hypothesis.confidences) == ((), (), (), ())


def test_on_random_scores_it_is_the_definition():
    log_probs = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    path, hypothesis = log_probs.argmax(-1).tolist(), greedy(log_probs)
    assert list(hypothesis.tokens) == [token for token, _ in groupby(path) if token != BLANK]
    assert hypothesis.score == pytest.approx(log_probs.amax(-1).sum().item(), rel=1e-5)
    for token, start, end in zip(hypothesis.tokens, hypothesis.starts, hypothesis.ends, strict=True):
        assert set(path[start:end]) == {token} and path[end : end + 1] != [token]
