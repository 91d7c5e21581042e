"""Characters and spellings in two romanizations: the libraries' own syllables, their parts, and words in between."""

import json

import pytest
import ToJyutping
from pypinyin import Style, lazy_pinyin
from pypinyin.contrib.tone_convert import to_initials

from glmasr.speech import InputError
from glmasr.text.characters import HAN
from glmasr.text.syllables import is_syllable, parts, syllables

PHRASES = ["重庆银行行长", "今日天气好唔好", "音乐和快乐", "你睡着了吗", "佢哋喺邊度食嘢", "我嘅銀行户口"]


def transcripts(folder) -> list[str]:
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.mark.parametrize("text", PHRASES)
def test_characters_are_read_as_the_libraries_read_them(text):
    pinyin = lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True)
    assert syllables(text, "pinyin") == pinyin and len(pinyin) == len(text)
    assert syllables(text, "jyutping") == ToJyutping.get_jyutping_text(text).split()
    assert all(is_syllable(one) for scheme in ("pinyin", "jyutping") for one in syllables(text, scheme))


def test_a_phrase_decides_between_readings():
    assert syllables("重庆很重", "pinyin") == ["chong2", "qing4", "hen3", "zhong4"]
    assert syllables("银行不行", "pinyin")[1::2] == ["hang2", "xing2"] and syllables("好吗", "pinyin")[1] == "ma5"
    assert syllables("銀行行得通", "jyutping")[1:3] == ["hong4", "haang4"]


def test_real_transcripts_are_read_as_the_library_reads_them(shared_corpora):
    for text in transcripts(shared_corpora / "aishell_sample")[::5]:
        han = "".join(character for character in text if character > "\u3400")
        assert syllables(han, "pinyin") == lazy_pinyin(han, style=Style.TONE3, neutral_tone_with_five=True)
        assert syllables(han, "jyutping") == ToJyutping.get_jyutping_text(han).split()


def test_what_is_no_character_stays_and_punctuation_goes():
    mixed = "今日去 central 食，lunch 好唔好 ok吗？29度 don't"
    words = ["central", "lunch", "ok", "29", "don't"]
    for scheme, first in (("pinyin", "jin1"), ("jyutping", "gam1")):
        found = syllables(mixed, scheme)
        assert found[0] == first and [one for one in found if not is_syllable(one)] == words
        assert len(found) == sum(HAN[0] <= one or one >= "\u3400" for one in mixed if one not in "，？") + len(words)


@pytest.mark.parametrize("scheme", [None, "pinyin", "jyutping"])
def test_what_is_in_syllables_already_stays(scheme):
    assert syllables("nei5 hou2, ni3hao3 lü4 ok!", scheme) == ["nei5", "hou2", "ni3", "hao3", "lü4", "ok"]
    assert syllables("", scheme) == [] and syllables(" ,. ", scheme) == []


def test_a_character_the_library_does_not_know_is_a_unit():
    assert syllables("\u9fff\u9ffe好", "jyutping") == ["\u9fff", "\u9ffe", "hou2"]
    assert syllables("\u3402好", "pinyin") == ["\u3402", "hao3"] and not is_syllable("\u34025")


def test_what_cannot_be_read_is_an_input_error():
    with pytest.raises(InputError, match=r"'今日' is in characters, not in syllables: add tokenizer\.romanize=pinyin"):
        syllables("今日", None)
    with pytest.raises(InputError, match="romanize=ipa is unknown: choose pinyin, jyutping"):
        syllables("今日", "ipa")


def test_a_syllable_is_letters_and_a_tone():
    assert [one for one in ("nei5", "m4", "lü4", "ok", "29", "nei", "5", "nei10", "nei0") if is_syllable(one)] == [
        "nei5",
        "m4",
        "lü4",
    ]


def test_parts_are_initial_and_final_with_its_tone():
    split = {"gwong2": ["gw", "ong2"], "ngo5": ["ng", "o5"], "zyut6": ["z", "yut6"], "yi1": ["y", "i1"]}
    whole = ["aa1", "m4", "ng5", "er2", "ang2"]
    assert {one: parts(one) for one in split} == split and all(parts(one) == [one] for one in whole)


def test_initials_of_real_syllables_are_pypinyins(shared_corpora):
    found = {one for text in transcripts(shared_corpora / "mandarin_words") for one in syllables(text, "pinyin")}
    spelled = [one for one in found if is_syllable(one)]
    assert len(spelled) > 900
    for one in spelled:
        initial = "".join(parts(one)[:-1])
        expected = "" if one == "n2" else to_initials(one, strict=False)  # 嗯, a nasal alone
        assert initial == expected and "".join(parts(one)) == one


def test_every_cantonese_syllable_has_a_known_initial_and_few_finals(shared_corpora):
    found = {one for text in transcripts(shared_corpora / "cantonese_syllables") for one in syllables(text, None)}
    split = [parts(one) for one in found]
    initials, finals = {one[0] for one in split if len(one) == 2}, {one[-1].rstrip("123456") for one in split}
    assert len(found) > 1500 and all(is_syllable(one) for one in found)
    assert initials == {*"bpmfdtnlgkhzcsjwy", "gw", "kw", "ng"} and 50 < len(finals) < 70
