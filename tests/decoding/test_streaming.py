"""Chunks change nothing of what greedy CTC finds, and nothing found is taken back."""

import pytest
import torch

from glmasr.decoding import ctc
from glmasr.decoding.streaming import Greedy


def scores(frames: int, seed: int = 0) -> torch.Tensor:
    """Peaky, with repeats across any border."""
    torch.manual_seed(seed)
    logits = torch.randn(frames, 5)
    return logits.repeat_interleave(3, 0)[:frames].log_softmax(-1)


@pytest.mark.parametrize("size", [1, 2, 5, 16, 200])
def test_in_chunks_it_is_greedy_ctc(size):
    for seed in range(5):
        log_probs, found, before = scores(97, seed), Greedy(), ()
        for chunk in log_probs.split(size):
            found = found.extended(chunk.numpy())
            assert found.found.tokens[: len(before)] == before
            before = found.found.tokens
        expected = ctc.greedy(log_probs)
        assert found.frames == 97 and found.found.tokens == expected.tokens and len(expected.tokens) > 10
        assert (found.found.starts, found.found.ends) == (expected.starts, expected.ends)
        assert found.found.confidences == pytest.approx(expected.confidences)
        assert found.found.score == pytest.approx(expected.score, rel=1e-5)


def test_a_beginning_stands_alone():
    found = Greedy().extended(scores(60).numpy())
    part = found.settled(3)
    assert part.tokens == found.found.tokens[:3] and part.ends == found.found.ends[:3]
