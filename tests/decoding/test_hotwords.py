"""A hotword gains where it stands as a whole word, and nothing is left of it where it breaks off."""

from itertools import accumulate

import pytest
import torch

from glmasr.decoding.ctc import beam_search
from glmasr.decoding.hotwords import Hotwords
from glmasr.speech import InputError
from glmasr.text.tokenizer import BLANK, CharacterTokenizer, Tokenizer, learn_characters, learn_mixed

LETTERS = learn_characters(["abcdefghijklmnopqrstuvwxyz '", "今天天气很好格力空调"])


def gains(guide: Hotwords, tokens: list[int]) -> tuple[list[float], float]:
    """What each token gains, and the end."""
    state, found = guide.begin(), []
    for token in tokens:
        state, gain = guide.extend(state, token)
        found.append(gain)
    return found, guide.finish(state)


def total(guide: Hotwords, text: str, tokenizer: Tokenizer = LETTERS) -> float:
    found, end = gains(guide, tokenizer.encode(text))
    return sum(found) + end


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("anna", 4),
        ("see anna now", 4),
        ("anna anna", 8),
        ("hanna", 0),
        ("annabel", 0),
        ("ann", 0),
        ("an anna", 4),
        ("anna schmidt", 12),
        ("anna schmitt", 4),
        ("anna schmidtchen", 4),
        ("schmidt", 0),
        ("格力", 2),
        ("今天格力空调", 2),
        ("格 力", 0),
        ("格", 0),
        ("", 0),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_only_whole_hotwords_gain(text, whole, order):
    guide = Hotwords(["Anna", "anna schmidt", "格力"][::order], 1.5, LETTERS)
    assert total(guide, text) == pytest.approx(1.5 * whole)


def test_credit_comes_token_by_token_and_goes_at_once():
    assert gains(Hotwords(["anna"], 2.0, LETTERS), LETTERS.encode("annx a"))[0] == [2, 2, 2, -6, 0, 2]


def test_no_step_gains_more_than_the_ceiling_and_no_sum_falls_below_zero():
    guide = Hotwords(["anna", "an", "na na", "n"], 1.0, LETTERS)
    drawn = torch.Generator().manual_seed(0)
    for _ in range(200):
        text = "".join("an "[i] for i in torch.randint(3, (12,), generator=drawn).tolist())
        found, end = gains(guide, LETTERS.encode(text))
        assert max(found, default=0.0) <= guide.ceiling and min(accumulate(found)) >= 0.0 and sum(found) + end >= 0.0


def test_in_pieces_and_bytes_it_is_the_same():
    mixed = learn_mixed(["see anna now", "an anna", "hanna annabel", "今天天气"], size=20, minimum_count=1, tags=False)
    guide = Hotwords(["anna", "鑫"], 1.0, mixed)
    assert total(guide, "see anna now", mixed) == len(mixed.encode("anna")) and total(guide, "今天", mixed) == 0
    assert total(guide, "今鑫天", mixed) == 3  # its bytes


@pytest.mark.parametrize("hotword", ["naïve", "", "  "])
def test_what_the_model_cannot_write_is_told(hotword):
    with pytest.raises(InputError, match="hotword"):
        Hotwords(["anna", hotword], 1.0, LETTERS)


def heard(text: str, rival: str, share: float, tokenizer: CharacterTokenizer = LETTERS) -> torch.Tensor:
    """Scores of a clear text whose letters are, where the two differ, with this `share` the rival's."""
    probs = torch.full((4 * len(text), tokenizer.size), 1e-4)
    for i, (one, other) in enumerate(zip(tokenizer.encode(text), tokenizer.encode(rival), strict=True)):
        probs[4 * i : 4 * i + 4, BLANK] = 1.0
        probs[4 * i + 1] = 1e-4
        probs[4 * i + 1, other] = share
        probs[4 * i + 1, one] = 1.0 - share if one != other else 1.0
    return (probs / probs.sum(1, keepdim=True)).log()


def test_a_search_finds_a_hotword_that_was_nearly_heard_and_none_that_was_not():
    lengths = torch.tensor([4 * len("call anna now")])
    unclear = heard("call hanna now".replace("h", ""), "call ammy now", 0.6)[None]
    assert LETTERS.decode(beam_search(unclear, lengths, 10)[0][0].tokens) == "call ammy now"
    guide = Hotwords(["anna"], 1.5, LETTERS)
    assert LETTERS.decode(beam_search(unclear, lengths, 10, guide=guide)[0][0].tokens) == "call anna now"
    clear = heard("call ammy now", "call ammy now", 0.0)[None]
    assert LETTERS.decode(beam_search(clear, lengths, 10, guide=guide)[0][0].tokens) == "call ammy now"
