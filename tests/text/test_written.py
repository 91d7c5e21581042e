"""What was said in, how people write it out: scripts, numbers, dates, and words that are no numbers."""

import pytest

from glmasr.speech import InputError, Segment, Transcript, Word
from glmasr.text.written import joined, written


def said(text, language="zh"):
    """A transcript whose words last a second each."""
    words = text.split() if language == "en" else [one for one in text if one != " "]
    timed = tuple(Word(word, float(i), i + 1.0, 0.9 - 0.01 * i) for i, word in enumerate(words))
    return Transcript(text, len(words), (Segment(text, 0.0, float(len(words)), timed),), language)


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("今天是二零二六年三月五号下午三点半", "今天是2026年3月5号下午3点半"),
        ("二〇一九年十二月三十一日", "2019年12月31日"),
        ("兩點五十九分", "2點59分"),
        ("佢話呢個要三千萬元", "佢話呢個要3000萬元"),
        ("电话是一三八零零一三八零零零", "电话是13800138000"),
        ("百分之五十的人", "50%的人"),
        ("万一我们一起去四川十分高兴", "万一我们一起去四川十分高兴"),
        ("三五个人", "三五个人"),
    ],
)
def test_chinese_numbers(text, digits):
    assert written(said(text), numerals=True).text == digits


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("i have twenty three dollars on march fifth twenty twenty six", "i have $23 on march 5 2026"),
        ("one hundred percent", "100%"),
        ("one of the best", "one of the best"),
        ("", ""),
    ],
)
def test_english_numbers(text, digits):
    assert written(said(text, "en"), numerals=True).text == digits


def test_a_number_is_one_word_with_the_times_of_all():
    words = written(said("i have twenty three dogs", "en"), numerals=True).segments[0].words
    assert words[2] == Word("23", 2.0, 4.0, pytest.approx(0.87)) and [w.text for w in words] == [
        "i",
        "have",
        "23",
        "dogs",
    ]


def test_scripts():
    assert written(said("发展中国家的头发"), script="traditional").text == "發展中國家的頭髮"
    assert written(said("發展中國家的頭髮"), script="simplified").text == "发展中国家的头发"
    assert written(said("我在这里面", "yue"), script="traditional").text == "我在這裏面"  # Hong Kong's 裏
    words = written(said("头发 ok"), script="traditional").segments[0].words
    assert [w.text for w in words] == ["頭", "髮", "o", "k"] and words[1].start_seconds == 1.0


def test_other_languages_and_no_choice_leave_all_as_it_is():
    german = Transcript("ein hundert", 1.0, (Segment("ein hundert", 0.0, 1.0),), "de")
    assert written(german, numerals=True) == german
    assert written(said("二十")) == said("二十")
    with pytest.raises(InputError, match="script 'cursive' is unknown: choose one of traditional, simplified"):
        written(german, script="cursive")


def test_only_what_is_written_with_spaces_is_joined_with_one():
    assert joined(["你好", "世界", "ok", "then", "好"]) == "你好世界 ok then 好" and joined([]) == ""
