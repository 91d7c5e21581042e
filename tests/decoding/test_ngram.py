"""The estimate sums to one, is Kneser-Ney by hand, and KenLM reads it; as a guide it gives what KenLM gives."""

import json
import math
from pathlib import Path

import kenlm
import pytest

from glmasr.decoding.ngram import LanguageModel, build_language_model, discounts, units_of, write_arpa
from glmasr.speech import InputError
from glmasr.text.tokenizer import learn_characters, learn_mixed, learn_pieces

TEXTS = [
    "the cat sat on the mat",
    "the dog sat on the log",
    "a cat and a dog",
    "the mat on the log",
    "今天天气很好 the cat",
    "今天很好",
]


def built(folder: Path, **more) -> str:
    """A model of TEXTS."""
    (folder / "text.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    config = {"texts": str(folder / "text.txt"), "path": str(folder / "lm" / "x.arpa"), "order": 3, "unit": "word"}
    return str(build_language_model({**config, **more}))


@pytest.mark.parametrize("order", [2, 3, 4])
def test_after_any_words_the_probabilities_sum_to_one(tmp_path, order):
    model = kenlm.Model(built(tmp_path, order=order))
    sentences = [units_of(text, "word") for text in TEXTS]
    words = sorted({word for sentence in sentences for word in sentence})
    contexts = [
        (start, sentence[i:j])
        for start in (True, False)
        for sentence in sentences
        for i in range(3)
        for j in range(i, i + 4)
    ]
    for start, context in [*contexts, (False, ["log", "cat", "nobody"]), (True, ["dog", "dog"])]:
        state = kenlm.State()
        (model.BeginSentenceWrite if start else model.NullContextWrite)(state)
        for word in context:
            after = kenlm.State()
            model.BaseScore(state, word, after)
            state = after
        assert math.fsum(10 ** model.BaseScore(state, word, kenlm.State()) for word in [*words, "</s>", "nobody"]) == (
            pytest.approx(1.0, abs=1e-5)
        )


def test_it_is_kneser_ney_by_hand(tmp_path):
    """`a b` twice and `c b` once: counts 2 of <s> a, a b; 1 of <s> c, c b; 3 of b </s>; too few to tell discounts."""
    write_arpa([["a", "b"], ["a", "b"], ["c", "b"]], 2, tmp_path / "x.arpa")
    model = kenlm.Model(str(tmp_path / "x.arpa"))
    # Of unigrams it counts what stands before them: <s> before a and c, a and c before b, b before </s>: 5 in all.
    left = (0.5 + 0.5 + 1.0 + 0.5) / 5
    unigram = {"a": 0.5 / 5 + left / 5, "b": 1.0 / 5 + left / 5, "nobody": left / 5}
    assert 10 ** model.score("b", bos=False, eos=False) == pytest.approx(unigram["b"], rel=1e-5)
    after_begin = (1.0 + 0.5) / 3
    expected = (2 - 1.0) / 3 + after_begin * unigram["a"]
    assert 10 ** model.score("a", bos=True, eos=False) == pytest.approx(expected, rel=1e-5)
    assert 10 ** model.score("nobody", bos=True, eos=False) == pytest.approx(after_begin * unigram["nobody"], rel=1e-5)


def test_discounts_are_chen_and_goodmans():
    grams = {(str(i),): count for i, count in enumerate([1] * 10 + [2] * 4 + [3] * 2 + [4])}
    share = 10 / 18
    assert discounts(grams) == pytest.approx((1 - 2 * share * 4 / 10, 2 - 3 * share * 2 / 4, 3 - 4 * share * 1 / 2))


@pytest.mark.parametrize("kind", ["characters", "pieces", "mixed"])
@pytest.mark.parametrize("unit", ["word", "character"])
def test_token_by_token_a_text_gets_what_kenlm_gives_it_whole(tmp_path, kind, unit):
    english = [text for text in TEXTS if text.isascii()]
    tokenizer = {
        "characters": lambda: learn_characters(TEXTS),
        "pieces": lambda: learn_pieces(english, 275),
        "mixed": lambda: learn_mixed(TEXTS, 25, 1, False),
    }[kind]()
    path = built(tmp_path, unit=unit)
    guide, model = LanguageModel(path, 0.7, tokenizer), kenlm.Model(path)
    for text in ["the cat", "the dog sat on a log", "cat", "", *([] if kind == "pieces" else TEXTS[-2:])]:
        state, total = guide.begin(), 0.0
        for token in tokenizer.encode(text):
            state, gain = guide.extend(state, token)
            assert gain <= guide.ceiling
            total += gain
        expected = 0.7 * math.log(10) * model.score(" ".join(units_of(text, unit)))
        assert total + guide.finish(state) == pytest.approx(expected, abs=1e-4)


def test_a_word_counts_when_it_has_ended_and_a_han_character_at_once(tmp_path):
    tokenizer = learn_characters(TEXTS)
    guide = LanguageModel(built(tmp_path), 1.0, tokenizer)
    state, gains = guide.begin(), []
    for token in tokenizer.encode("cat 今天"):
        state, gain = guide.extend(state, token)
        gains.append(gain != 0.0)
    assert gains == [False, False, False, True, True, True]


def test_it_says_what_it_is_made_of_and_takes_manifests(tmp_path):
    lines = [json.dumps({"audio_filepath": "x.wav", "text": text}) for text in ("THE CAT", "a dog", None)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    path = built(tmp_path, texts=[str(tmp_path / "train.jsonl"), str(tmp_path / "train.jsonl")], unit="character")
    told = json.loads(Path(path + ".json").read_text())
    assert (told["unit"], told["sentences"], told["units"], told["ngrams"][0]) == ("character", 4, 24, 12)
    assert LanguageModel(path, 1.0, learn_characters(["the cat"])).unit == "character"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"unit": "syllable"}, "word, character"),
        ({"order": 1}, "2 to 6"),
        ({"texts": "nowhere.txt"}, "nowhere.txt"),
        ({"texts": []}, "not a word"),
    ],
)
def test_what_it_cannot_build_is_told(tmp_path, given, said):
    with pytest.raises(InputError, match=said):
        built(tmp_path, **given)


def test_what_it_cannot_read_is_told(tmp_path):
    tokenizer = learn_characters(TEXTS)
    (tmp_path / "bad.arpa").write_text("no model")
    with pytest.raises(InputError, match=r"bad\.arpa"):
        LanguageModel(tmp_path / "bad.arpa", 1.0, tokenizer)
    with pytest.raises(InputError, match="there is no"):
        LanguageModel(tmp_path / "none.arpa", 1.0, tokenizer)
    path = Path(built(tmp_path))
    Path(f"{path}.json").write_text('{"unit": "phone"}')
    with pytest.raises(InputError, match="phone"):
        LanguageModel(path, 1.0, tokenizer)
    Path(f"{path}.json").unlink()
    assert LanguageModel(path, 1.0, tokenizer).unit == "word"
