"""Attention decoding: as if each utterance were decoded alone, token by token; a wide beam is the enumeration."""

from itertools import product

import pytest
import torch

from glmasr.decoding.attention import END_MARGIN, beam_search, greedy, is_looping
from glmasr.lengths import padding_mask
from glmasr.model.decoder import Decoder
from glmasr.model.recognizer import Heard
from glmasr.text.tokenizer import BOUNDARY
from tests.decoding import brute

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


def test_one_that_ends_at_once_says_nothing_and_is_asked_once(context, monkeypatch):
    model, asked, step = decoder(50.0), [], Decoder.step
    monkeypatch.setattr(Decoder, "step", lambda *given: asked.append(1) or step(*given))
    assert [hypothesis.tokens for hypothesis in greedy(model, context, LENGTHS, PADDING)] == [()] * 3
    assert len(asked) == 1


def heard(context: torch.Tensor, lengths: torch.Tensor = LENGTHS) -> Heard:
    scores = torch.stack([brute.scores(context.shape[1], V, seed, 2.0) for seed in range(len(context))])
    return Heard(context, lengths, padding_mask(lengths, context.shape[1]), scores)


@torch.no_grad()
def worth(model: Decoder, context: torch.Tensor, text: tuple[int, ...]) -> float:
    """The log-probability of a whole text by plain `forward`."""
    tokens = torch.tensor([[BOUNDARY, *text, BOUNDARY]])
    nothing = torch.zeros(1, len(context), dtype=torch.bool)
    log_probs = model(tokens[:, :-1], context[None], nothing).log_softmax(-1)
    return log_probs.gather(2, tokens[:, 1:, None]).sum().item()


def test_a_wide_beam_is_the_enumeration_of_all_texts(context):
    model, short = decoder(0.0), context[:, :3]
    lengths = torch.tensor([3, 2, 1])
    found = beam_search(model, heard(short, lengths), 400)
    for row, length in enumerate(lengths.tolist()):
        others = [token for token in range(V) if token != BOUNDARY]
        texts = [text for size in range(length + 1) for text in product(others, repeat=size)]
        expected = {text: worth(model, short[row, :length], text) for text in texts}
        best = max(expected.values())
        sure = {text for text, score in expected.items() if score > best - END_MARGIN / 2}
        assert found[row][0].tokens == max(expected, key=expected.__getitem__)
        assert sure <= {one.tokens for one in found[row]}
        assert {one.tokens: one.score for one in found[row]} == pytest.approx(
            {one.tokens: expected[one.tokens] for one in found[row]}, abs=1e-4
        )


@pytest.mark.parametrize("boundary_bias", [-50.0, 0.0, 0.5, 50.0])
def test_a_beam_of_one_is_greedy(context, boundary_bias):
    model = decoder(boundary_bias)
    expected = greedy(model, context, LENGTHS, PADDING)
    found = beam_search(model, heard(context), 1)
    assert [one[0].tokens for one in found] == [one.tokens for one in expected]
    for (one,), other, length in zip(found, expected, LENGTHS.tolist(), strict=True):
        if len(other.tokens) < length:  # at the limit greedy does not pay for the end
            assert one.score == pytest.approx(other.score, abs=1e-4)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.4])
def test_a_beam_of_a_batch_is_as_of_each_alone(context, ctc_weight):
    model, together = decoder(0.0), heard(context)
    found = beam_search(model, together, 4, ctc_weight)
    for row, length in enumerate(LENGTHS.tolist()):
        one = slice(row, row + 1)
        alone = Heard(context[one, :length], LENGTHS[one], PADDING[one, :length], together.ctc_log_probs[one, :length])
        expected = beam_search(model, alone, 4, ctc_weight)[0]
        assert [one.tokens for one in found[row]] == [one.tokens for one in expected]
        assert [one.score for one in found[row]] == pytest.approx([one.score for one in expected], abs=1e-4)


def test_a_wider_beam_is_no_worse(context):
    best = [beam_search(decoder(0.0), heard(context), beam)[0][0].score for beam in (1, 4, 16)]
    assert best == sorted(best)


def test_the_length_bonus_counts_each_token(context):
    plain, longer = (beam_search(decoder(0.0), heard(context), 6, length_bonus=bonus)[0] for bonus in (0.0, 2.0))
    assert len(longer[0].tokens) > len(plain[0].tokens)
    assert longer[0].score == pytest.approx(
        worth(decoder(0.0), context[0], longer[0].tokens) + 2 * len(longer[0].tokens), abs=1e-4
    )


class Wants:
    """A guide that gives 30 for 5 and 6 in turns and takes 7 for every end: what it gives depends on its state."""

    ceiling = 30.0

    def begin(self):
        return 5

    def extend(self, state, token):
        return (11 - state, 30.0) if token == state else (state, 0.0)

    def finish(self, state):
        return -7.0


def test_a_guide_is_asked_about_each_token_and_the_end(context):
    best = beam_search(decoder(0.0), heard(context), 3, guide=Wants())[0][0]
    assert best.tokens == (5, 6, 5, 6, 5, 6, 5, 6, 5)
    expected = worth(decoder(0.0), context[0], best.tokens) + 30.0 * 9 - 7.0
    assert best.score == pytest.approx(expected, abs=1e-3)


def test_a_loop_ends_after_eight_turns():
    for phrase in ([3], [3, 4], [3, 3, 4, 5, 6, 3, 4, 4]):
        said = torch.tensor([[5, 6, 5, *phrase * 8], [5, 6, 5, 1, *(phrase * 8)[1:]]])
        assert is_looping(said).tolist() == [True, False]
        assert not is_looping(said[:, :-1]).any()
    assert not is_looping(torch.arange(30)[None]).any()


@pytest.mark.parametrize("search", ["greedy", "beam"])
def test_a_decoder_that_loops_is_stopped(search):
    class Looping(Decoder):
        """Says 3, 4, 3, 4 …"""

        def step(self, tokens, memory):
            logits, memory = super().step(tokens, memory)
            wanted = torch.where(tokens[:, -1] == 3, 4, 3)
            return logits.scatter(2, wanted[:, None, None], 60.0), memory

    model, context = Looping(V, C, 16, 1, 2).eval(), torch.randn(1, 200, C)
    lengths, padding = torch.tensor([200]), torch.zeros(1, 200, dtype=torch.bool)
    if search == "greedy":
        tokens = greedy(model, context, lengths, padding)[0].tokens
    else:
        scores = torch.zeros(1, 200, V).log_softmax(-1)
        tokens = beam_search(model, Heard(context, lengths, padding, scores), 1)[0][0].tokens
    assert tokens == (3, 4) * 8


def test_nothing_heard_is_nothing_said(context):
    found = beam_search(decoder(0.0), heard(context, torch.tensor([9, 0, 2])), 3, ctc_weight=0.3)
    assert found[1][0].tokens == () and all(one.tokens for one in found[0])
