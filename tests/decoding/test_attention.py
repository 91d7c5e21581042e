"""Greedy attention decoding: as if each utterance were decoded alone, token by token."""

import pytest
import torch

from glmasr.decoding.attention import greedy
from glmasr.lengths import padding_mask
from glmasr.model.decoder import Decoder
from glmasr.text.tokenizer import BOUNDARY

V, C = 7, 12
LENGTHS = torch.tensor([9, 4, 1])
PADDING = padding_mask(LENGTHS, 9)


@pytest.fixture
def context() -> torch.Tensor:
    return 3 * torch.randn(3, 9, C, generator=torch.Generator().manual_seed(1))


def decoder(boundary_bias: float) -> Decoder:
    torch.manual_seed(0)
    made = Decoder(V, C, 16, 1, 2).eval()
    made.project.weight.data *= 4
    made.project.bias.data[BOUNDARY] += boundary_bias
    return made


@torch.no_grad()
def explicit(model: Decoder, context: torch.Tensor) -> tuple[list[int], float]:
    """One utterance, one token at a time, no more tokens than frames."""
    said, score = [BOUNDARY], 0.0
    while len(said) <= len(context):
        nothing = torch.zeros(1, len(context), dtype=torch.bool)
        log_probs = model(torch.tensor([said]), context[None], nothing)[0, -1].log_softmax(-1)
        best = int(log_probs.argmax())
        score += log_probs[best].item()
        if best == BOUNDARY:
            break
        said.append(best)
    return said[1:], score


@pytest.mark.parametrize("boundary_bias", [-50.0, -0.5, 0.0, 0.5, 50.0])
def test_each_utterance_is_decoded_as_if_alone(context, boundary_bias):
    model = decoder(boundary_bias)
    hypotheses = greedy(model, context, LENGTHS, PADDING)
    for row, (length, hypothesis) in enumerate(zip(LENGTHS.tolist(), hypotheses, strict=True)):
        tokens, score = explicit(model, context[row, :length])
        assert list(hypothesis.tokens) == tokens and hypothesis.score == pytest.approx(score, abs=1e-4)


def test_a_decoder_that_loops_comes_to_an_end_at_the_length(context):
    hypotheses = greedy(decoder(-50.0), context, LENGTHS, PADDING)
    assert [len(hypothesis.tokens) for hypothesis in hypotheses] == LENGTHS.tolist()


def test_one_that_ends_at_once_says_nothing_and_is_asked_once(context):
    model, asked = decoder(50.0), []
    model.register_forward_hook(lambda *_: asked.append(1))
    assert [hypothesis.tokens for hypothesis in greedy(model, context, LENGTHS, PADDING)] == [()] * 3
    assert len(asked) == 1
