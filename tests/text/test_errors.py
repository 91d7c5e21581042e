"""Counted errors agree with jiwer, with an independent edit distance, and with their own alignment."""

import random

import jiwer
import pytest

from glmasr.text.errors import ErrorCounts, align, count_errors, tone_errors
from glmasr.text.normalize import units

MIXED = [
    ("我想book一间酒店", "我想book一间酒店", 0, 7),
    ("我想book一间酒店", "我想look一间酒店", 1, 7),
    ("我想book一间酒店", "我想布克一间酒店", 2, 7),
    ("我想book一间酒店", "我想 book 一 間 酒 店。", 0, 7),
    ("我想book一间酒店", "", 7, 7),
    ("", "我想 book", 3, 0),
    ("这个project的deadline是明天", "这个项目的deadline是明天", 2, 8),
    ("这个project的deadline是明天", "这个project的dead line是明天", 2, 8),
    ("这个project的deadline是明天", "这 project 的 Deadline 是今天", 2, 8),
    ("你 check 下 email 先啦", "你 check 下 email 先", 1, 6),
    ("你 check 下 email 先啦", "你check吓email先啦", 1, 6),
    ("佢哋嘅meeting取消咗", "佢哋嘅 meeting 取消左", 1, 7),
    ("佢哋嘅meeting取消咗", "他们的 meeting 取消了", 4, 7),
    ("佢哋嘅meeting取消咗", "佢哋既meeting取消咗", 1, 7),
    ("OK，没问题", "ok 沒問題", 0, 4),
    ("OK，没问题", "okay，没问题", 1, 4),
    ("I don't know 点解", "i dont know 點解", 0, 5),
    ("I don't know 点解", "I do not know 点解", 2, 5),
    ("Let's 去食 dim sum", "lets 去 dim sum", 1, 5),
    ("Let's 去食 dim sum", "去食点心", 3, 5),
    ("用iPhone 15打电话", "用 iphone 十五 打电话", 0, 7),
    ("用iPhone 15打电话", "用 iphone 五十 打电话", 2, 7),
    ("花了3.5%的budget", "花了百分之三点五的budget", 0, 10),
    ("花了3.5%的budget", "花了百分之三的budget", 2, 10),
    ("2026年的KPI", "二零二六年的kpi", 0, 7),
    ("听mp3，嗯，uh，不错", "听 MP3 不错", 0, 4),
    ("听mp3不错", "听 mp 3 不错", 2, 4),
    ("full-time 的工作", "full time 的 工作", 0, 5),
    ("full-time 的工作", "fulltime 的工作", 2, 5),
    ("please turn on the light", "please turn of the light", 1, 5),
]
"""(reference, hypothesis, errors, units of the reference), counted by hand."""
WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"]


def random_pairs(number: int, empty: bool) -> list[tuple[str, str]]:
    rng = random.Random(0)
    shortest = 0 if empty else 1
    return [tuple(" ".join(rng.choices(WORDS, k=rng.randint(shortest, 9))) for _ in range(2)) for _ in range(number)]


def edit_distance(reference: list[str], hypothesis: list[str]) -> int:
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, 1):
        above, row = row, [i]
        for j, heard in enumerate(hypothesis, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (expected != heard)))
    return row[-1]


def test_corpus_rates_equal_jiwer():
    pairs = random_pairs(300, empty=False)
    references, hypotheses = map(list, zip(*pairs, strict=True))
    words = sum((count_errors(*pair, "en", "wer") for pair in pairs), ErrorCounts())
    characters = sum((count_errors(*pair, "en", "cer") for pair in pairs), ErrorCounts())
    assert words.rate == pytest.approx(jiwer.wer(references, hypotheses), abs=1e-12)
    bare = [[text.replace(" ", "") for text in texts] for texts in (references, hypotheses)]
    assert characters.rate == pytest.approx(jiwer.cer(*bare), abs=1e-12)


def test_ten_thousand_pairs_equal_jiwer():
    pairs = random_pairs(10_000, empty=True)
    assert sum(not reference for reference, _ in pairs) > 500
    whole = jiwer.process_words(*map(list, zip(*pairs, strict=True)))
    words = sum((count_errors(*pair, "en", "wer") for pair in pairs), ErrorCounts())
    assert words == ErrorCounts(whole.substitutions, whole.deletions, whole.insertions, whole.hits)
    assert words.rate == whole.wer
    for reference, hypothesis in pairs[::20]:
        assert count_errors(reference, hypothesis, "zh", "mer").errors == edit_distance(
            reference.split(), hypothesis.split()
        )


@pytest.mark.parametrize(("reference", "hypothesis", "errors", "number"), MIXED)
def test_mixed_errors_as_counted_by_hand(reference, hypothesis, errors, number):
    for language in ("en", "zh", "yue", ""):
        counts = count_errors(reference, hypothesis, language, "mer")
        assert (counts.errors, counts.words) == (errors, number)


def test_thirty_mixed_sentences():
    assert len(MIXED) == 30


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("nei5 hou2", "nei5 hou2", (0, 2)),
        ("nei5 hou2", "nei5 hou3", (1, 2)),
        ("nei5 hou2", "lei5 hou3", (1, 1)),
        ("nei5 hou2", "hou3", (1, 1)),
        ("ma1 ma2 ma3", "ma1 ma3", (1, 2)),
        ("Gam1jat6!", "gam1 jat6", (0, 2)),
        ("lü4 hao0", "lv3 hao5", (1, 2)),
        ("好 nei5 ok", "好 nei4 ok", (1, 1)),
        ("nei5", "你", (0, 0)),
        ("nei5", "", (0, 0)),
        ("", "nei5", (0, 0)),
    ],
)
def test_tones(reference, hypothesis, expected):
    assert tone_errors(reference, hypothesis) == expected


def test_syllables_are_counted_under_an_english_tag():
    assert count_errors("gam1 jat6", "gam1 jat3", "en", "ser") == ErrorCounts(substitutions=1, hits=1)
    assert align("gam1jat6", "gam1", "yue", "ser") == [("equal", "gam1", "gam1"), ("delete", "jat6", "")]


@pytest.mark.parametrize("metric", ["wer", "cer", "mer", "ser"])
def test_counts_and_alignment_are_an_edit_distance(metric):
    for reference, hypothesis in random_pairs(200, empty=True):
        counts, steps = (f(reference, hypothesis, "en", metric) for f in (count_errors, align))
        left, right = units(reference, "en", metric), units(hypothesis, "en", metric)
        assert counts.errors == edit_distance(left, right)
        assert counts.words == len(left)
        assert [a for _, a, _ in steps if a] == left
        assert [b for _, _, b in steps if b] == right
        kinds = [kind for kind, _, _ in steps]
        assert [kinds.count(kind) for kind in ("substitute", "delete", "insert", "equal")] == list(
            vars(counts).values()
        )
        assert all((kind == "equal") == (a == b) for kind, a, b in steps)


def test_empty_sides():
    assert count_errors("", "", "en") == ErrorCounts()
    assert count_errors("?!", "two words", "en") == ErrorCounts(insertions=2)
    assert count_errors("two words", "", "en") == ErrorCounts(deletions=2)
    assert align("", "ah so", "en") == [("insert", "", "ah"), ("insert", "", "so")]
    assert align("so", "", "en") == [("delete", "so", "")]
    assert (ErrorCounts().rate, ErrorCounts(insertions=2).rate) == (0.0, 2.0)


def test_errors_follow_the_protocol():
    assert count_errors("It's the colour RED.", "it is the color red", "en").errors == 0
    assert count_errors("你好，世界", "你好 世介", "zh", "wer") == ErrorCounts(substitutions=1, hits=3)
