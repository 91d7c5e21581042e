"""Phrases in what was said: exactly, by sound, nearly; where and by whom, and never twice for one rule."""

import json

from glmasr.serving.review.matches import Finder
from glmasr.serving.review.rules import MATCHES, Rule, Rules
from glmasr.serving.review.words import units_of
from glmasr.speech import Segment, Word


def said(text: str, language: str = "en", seconds: float = 1.0, speaker: str = ""):
    """Units of words that are `seconds` long each, one after another."""
    texts = text.split()
    words = tuple(Word(one, i * seconds, (i + 1) * seconds) for i, one in enumerate(texts))
    return units_of([Segment(text, 0.0, seconds * len(texts), words)], language, speaker)


def found(text: str, *phrases: str, match=("exact",), language="en", speaker="", **rule):
    rules = Rules(sensitive=(Rule("r", phrases, match, **rule),), context_words=2)
    return Finder(rules, language).find(said(text, language, speaker=speaker))


def test_a_phrase_is_found_with_its_time_and_what_stands_around_it():
    (hit,) = found("well there is No risk, at all here", "no risk")
    assert (hit.start_seconds, hit.end_seconds, hit.score, hit.match) == (3.0, 5.0, 1.0, "exact")
    assert hit.heard == "No risk," and hit.context == "there is No risk, at all"
    assert [h.start_seconds for h in found("no risk no risk", "no risk")] == [0.0, 2.0]


def test_words_are_whole_and_in_order():
    assert not found("risk no matter, none risks", "no risk")
    assert not found("classified", "class")


def test_what_is_written_otherwise_is_the_same():
    """As in scoring: contractions, spelling, hesitations, punctuation, numbers, script and width."""
    assert found("You are uh Guaranteed a colour", "you're guaranteed", "color")[0].heard == "You are Guaranteed"
    (hit,) = found("i can't lose", "can not lose")
    assert hit.heard == "can't lose" and hit.context == "i can't lose"
    assert found("保 證 收 益 １０ %", "保证收益", language="zh")


def test_by_sound_whatever_the_tones_and_characters():
    for match, heard in (("sound", "头诉"), ("sound", "tou2 su4"), ("accent", "投数")):
        (hit,) = found(" ".join(heard) if " " not in heard else heard, "投诉", match=("exact", match), language="zh")
        assert hit.match == match
    assert not found("投 数", "投诉", match=("exact", "sound"), language="zh")
    assert not found("投 资", "投诉", match=("sound", "accent"), language="zh")


def test_a_reading_is_that_of_its_neighbors():
    """重 is chong in 重新 and zhong in 重要: the words around it tell which."""
    assert found("重 新 开 始", "虫新", match=("sound",), language="zh")
    assert not found("重 要 问 题", "虫要", match=("sound",), language="zh")


def test_cantonese_is_read_as_cantonese():
    assert found("nei5 hou2 maa3", "你好", match=("sound",), language="yue")
    assert found("lei5 hou2", "你好", match=("accent",), language="yue")
    assert not found("lei5 hou2", "你好", match=("sound",), language="yue")
    assert not found("nei5 hou2", "你好", match=("sound",), language="zh")


def test_nearly_is_by_letters_and_one_word_more_or_less():
    (hit,) = found("we garantee a profit today", "guarantee a profit", match=("fuzzy",))
    assert hit.heard == "garantee a profit" and 0.9 < hit.score < 1
    assert found("we guarantee profit today", "guarantee a profit", match=("fuzzy",))
    assert not found("we warrant a refund today", "guarantee a profit", match=("fuzzy",))
    assert not found("we garantee a profit", "guarantee a profit", match=("fuzzy",), least_score=0.99)
    assert found("保 正 收 益 率", "保证收益率", match=("fuzzy",), language="zh", least_score=0.75)


def test_each_rule_has_its_own_bar():
    rules = (Rule("strict", ("good morning",), ("fuzzy",), 0.99), Rule("lax", ("good evening",), ("fuzzy",), 0.6))
    names = [hit.rule.name for hit in Finder(Rules(sensitive=rules), "en").find(said("good mornin"))]
    assert names == ["lax"]


def test_the_surest_of_hits_that_overlap_is_kept_for_each_rule():
    (hit,) = found("there is no risk", "no risk", "is no risk", match=("exact", "fuzzy", "sound"))
    assert hit.match == "exact" and hit.heard == "is no risk"
    two = Rules(sensitive=(Rule("a", ("no risk",)), Rule("b", ("risk",))))
    assert [hit.rule.name for hit in Finder(two, "en").find(said("no risk"))] == ["a", "b"]


def test_only_words_of_the_rules_speaker_count_where_it_is_known():
    rules = Rules(sensitive=(Rule("r", ("no risk",), ("exact", "fuzzy"), speaker="agent"),), speakers=("agent", "it"))
    finder = Finder(rules, "en")
    assert finder.find(said("no risk", speaker="agent")) and finder.find(said("no risk"))
    assert not finder.find(said("no risk", speaker="it"))


def test_nothing_said_and_a_phrase_that_nobody_could_hear():
    assert not found("", "no risk") and not found("uh", "no risk", match=("fuzzy", "sound"))
    assert not found("um a", "um", match=MATCHES)


def test_homophones_of_real_words_are_one_to_the_sound_and_not_to_the_eye(shared_corpora):
    """Words of the Mandarin corpus that are written differently and read alike, each found as the other."""
    from pypinyin import lazy_pinyin

    rows = [
        json.loads(line) for line in (shared_corpora / "mandarin_words" / "manifest.jsonl").read_text().splitlines()
    ]
    readings: dict[tuple[str, ...], set[str]] = {}
    for text in {row["text"] for row in rows if "两" not in row["text"]}:  # which scoring makes 二
        readings.setdefault(tuple(lazy_pinyin(text)), set()).add(text)
    pairs = [sorted(words)[:2] for words in readings.values() if len(words) > 1]
    assert len(pairs) > 20
    by_sound = [bool(found(" ".join(one), other, match=("sound",), language="zh")) for one, other in pairs]
    exactly = [bool(found(" ".join(one), other, language="zh")) for one, other in pairs]
    assert [pair for pair, is_found in zip(pairs, by_sound, strict=True) if not is_found] == []
    assert not any(exactly)
