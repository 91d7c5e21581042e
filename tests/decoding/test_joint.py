"""CTC prefix scores are what enumerating all alignments gives; joint search at its two ends is CTC and attention."""

from math import exp, log

import pytest
import torch

from glmasr.decoding.attention import beam_search
from glmasr.decoding.joint import Prefixes, recursion
from glmasr.lengths import padding_mask
from glmasr.model.decoder import Decoder
from glmasr.model.recognizer import Heard
from glmasr.text.tokenizer import BLANK, BOUNDARY
from tests.decoding import brute

V, FRAMES = 5, 6


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("text", [(), (3,), (4, 4), (3, 4, 3), (1, 4, 4, 3)])
def test_a_prefix_is_worth_all_texts_that_begin_so(seed, text):
    log_probs = brute.scores(FRAMES, V, seed)
    texts = brute.texts(log_probs)
    prefixes = Prefixes.begin(torch.stack((log_probs, log_probs)), torch.tensor([FRAMES, FRAMES]), 1)
    for token in text:
        prefixes = prefixes.extend(torch.arange(2), torch.tensor([token, token]))
    begun = sum(p for one, p in texts.items() if one[: len(text)] == text)
    assert prefixes.scores.tolist() == pytest.approx([log(begun)] * 2, abs=1e-5)
    worth = (prefixes.gains()[:, 0] + prefixes.scores[:, None]).exp()
    assert torch.equal(worth[0], worth[1])
    for token in range(V):
        longer = (*text, token)
        expected = sum(p for one, p in texts.items() if one[: len(longer)] == longer)
        if token == BLANK:
            expected = 0.0
        elif token == BOUNDARY:
            expected = texts[text]
        assert worth[0, token].item() == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_rows_may_change_places_within_their_utterance_and_padding_never_leaks():
    log_probs = torch.stack([brute.scores(FRAMES, V, seed) for seed in (1, 2)])
    lengths, beam = torch.tensor([FRAMES, 4]), 3
    prefixes = Prefixes.begin(log_probs, lengths, beam)
    prefixes = prefixes.extend(torch.tensor([0, 0, 0, 3, 3, 3]), torch.tensor([1, 3, 4, 4, 3, 1]))
    prefixes = prefixes.extend(torch.tensor([2, 0, 1, 3, 3, 5]), torch.tensor([4, 3, 3, 4, 1, 4]))
    expected = [(4, 4), (1, 3), (3, 3), (4, 4), (4, 1), (1, 4)]
    for row, text in enumerate(expected):
        alone = log_probs[row // beam, : lengths[row // beam]]
        ended = prefixes.gains().flatten(0, 1)[row, BOUNDARY] + prefixes.scores[row]
        assert ended.item() == pytest.approx(brute.exact(alone, text), abs=1e-5)


def test_the_cumulative_sum_is_the_recursion_also_over_long_recordings():
    inflow, steps = torch.randn(2, 2001).double() * 3 - 300, -30 * torch.rand(2, 2000).double() - 1
    inflow[:, :5] = float("-inf")
    found, value = recursion(inflow, steps), torch.full((2,), float("-inf"), dtype=torch.float64)
    for frame in range(2000):
        value = torch.logaddexp(value, inflow[:, frame]) + steps[:, frame]
        torch.testing.assert_close(found[:, frame + 1], value, rtol=0, atol=1e-7)


@pytest.fixture
def model() -> Decoder:
    torch.manual_seed(0)
    made = Decoder(V, 12, 16, 1, 2).eval()
    made.project.weight.data *= 4
    return made


def heard(seed: int) -> Heard:
    context = 3 * torch.randn(2, FRAMES, 12, generator=torch.Generator().manual_seed(seed))
    lengths = torch.tensor([FRAMES, 4])
    scores = torch.stack([brute.scores(FRAMES, V, 10 * seed + row, 3.0) for row in range(2)])
    return Heard(context, lengths, padding_mask(lengths, FRAMES), scores)


@pytest.mark.parametrize("seed", range(3))
def test_with_weight_1_it_is_the_order_of_ctc(model, seed):
    one = heard(seed)
    for row, found in enumerate(beam_search(model, one, 60, ctc_weight=1.0)):
        texts = brute.texts(one.ctc_log_probs[row, : one.lengths[row]])
        spoken = {text: p for text, p in texts.items() if BOUNDARY not in text}
        expected = sorted(spoken, key=spoken.__getitem__, reverse=True)[:8]
        assert [hypothesis.tokens for hypothesis in found[:8]] == expected
        assert [exp(hypothesis.score) for hypothesis in found[:8]] == pytest.approx(
            [spoken[t] for t in expected], rel=1e-4
        )


@pytest.mark.parametrize("ctc_weight", [0.3, 0.7])
def test_between_it_is_the_weighted_sum(model, ctc_weight):
    one = heard(3)
    attention = {text.tokens: text.score for text in beam_search(model, one, 300, ctc_weight=0.0)[0]}
    found = beam_search(model, one, 60, ctc_weight)[0]
    assert len(found) > 5 and found[0].tokens in attention
    for hypothesis in (text for text in found if text.tokens in attention):
        ctc = brute.exact(one.ctc_log_probs[0], hypothesis.tokens)
        expected = (1 - ctc_weight) * attention[hypothesis.tokens] + ctc_weight * ctc
        assert hypothesis.score == pytest.approx(expected, abs=1e-4)
    best = max(
        (1 - ctc_weight) * score + ctc_weight * log(p)
        for text, p in brute.texts(one.ctc_log_probs[0]).items()
        if (score := attention.get(text)) is not None
    )
    assert found[0].score == pytest.approx(best, abs=1e-4)
