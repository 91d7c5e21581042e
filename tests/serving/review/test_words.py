"""What was said as it is compared: each piece normalized, with its own times, and shown as it was."""

from glmasr.serving.review.words import shown, units_in, units_of, words_of
from glmasr.speech import Segment, Word


def spoken(*words: tuple[str, float, float]) -> list[Segment]:
    return [Segment("", 0.0, 9.0, tuple(Word(*word) for word in words))]


def test_words_without_times_are_spread_over_their_segment():
    units = units_of([Segment("ab cd 北京", 2.0, 8.0)], "zh")
    assert [unit.text for unit in units] == ["ab", "cd", "北", "京"]
    assert [unit.start_seconds for unit in units] == [2.0, 4.0, 6.0, 7.0] and units[-1].end_seconds == 8.0
    assert words_of(Segment("", 0.0, 1.0)) == [Word("", 0.0, 1.0)] and units_of([Segment("", 0.0, 1.0)], "en") == []


def test_a_word_that_becomes_two_shares_its_time_and_is_shown_once():
    units = units_of(spoken(("I", 0, 1), ("can't,", 1, 3), ("uh", 3, 4), ("lose", 4, 5)), "en")
    assert [(unit.text, unit.start_seconds, unit.end_seconds) for unit in units] == [
        *(("i", 0, 1), ("can", 1, 2), ("not", 2, 3), ("lose", 4, 5)),
    ]
    assert shown(units) == "I can't, lose" and shown(units[2:]) == "can't, lose" and shown([]) == ""


def test_a_word_of_several_characters_is_cut_into_them():
    """Whisper's Chinese words."""
    units = units_of(spoken(("您好，", 0, 3), ("iPhone", 3, 4)), "zh", "坐席")
    assert [unit.text for unit in units] == ["您", "好", "iphone"] and {unit.speaker for unit in units} == {"坐席"}
    assert units[1].start_seconds == 1 and shown(units) == "您好 iPhone"
    units = units_of(spoken(("保證", 0, 2), ("iPhone手机", 2, 10)), "zh")
    assert [unit.text for unit in units] == ["保", "证", "iphone", "手", "机"], "as Mandarin is compared: simplified"
    assert [unit.start_seconds for unit in units] == [0, 1, 2, 8, 9] and shown(units[1:4]) == "證 iPhone 手"


def test_segments_follow_one_another():
    units = units_of([*spoken(("no", 0, 1)), *spoken(("no", 5, 6))], "en")
    assert [unit.start_seconds for unit in units] == [0, 5] and shown(units) == "no no"


def test_phrases_are_cut_as_words_are():
    for text in ("can't lose", "twenty one dollars", "保證 20 收益", "nei5hou2 世界", "don't  say:  so!"):
        for language in ("en", "zh", "yue", ""):
            words = spoken(*((word, i, i + 1) for i, word in enumerate(text.split())))
            assert units_in(text, language) == [unit.text for unit in units_of(words, language)]
    assert units_in("uh, um…", "en") == []
