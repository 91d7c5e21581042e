"""Counted errors agree with jiwer, with an independent edit distance, and with their own alignment."""

import random

import jiwer
import pytest

from glmasr.text.errors import ErrorCounts, align, count_errors
from glmasr.text.normalize import units

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


@pytest.mark.parametrize("metric", ["wer", "cer"])
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
