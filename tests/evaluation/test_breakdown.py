"""Errors made on purpose are found where they were made, and curves and claims are drawn from the right runs."""

import pytest

from glmasr.evaluation import breakdown
from glmasr.evaluation.benchmark import Card, Heard, Outcome, Run, TestSet, summarize
from glmasr.evaluation.conditions import CLEAN, Condition
from glmasr.speech import Utterance

TALKERS = ("ann", "bob")


def run_of(pairs, language="en", system="ours", condition="clean", seconds=(0.5, 3.0), speakers=TALKERS):
    heard = tuple(
        Heard(f"u{i}", language, said, heard, seconds[i % len(seconds)], 0.1, speaker=speakers[i % len(speakers)])
        for i, (said, heard) in enumerate(pairs)
    )
    return Run(system, "set", condition, heard)


def outcome_of(runs, conditions=()):
    sets = tuple(TestSet("set", [Utterance("u0", b"", 1.0, text="x")], one.name, one) for one in conditions)
    results = tuple(summarize(run, metric, 100) for run in runs for metric in run.metrics)
    return Outcome((Card("ours", 1, 1),), tuple(runs), results, (), "", 0, sets)


def test_errors_are_counted_for_the_group_that_made_them():
    rows = list(breakdown.groups(outcome_of([run_of([("a b", "a"), ("c d", "c d"), ("e f", "x y"), ("g h", "g h")])])))
    assert {row["by"] for row in rows} == {"duration", "speaker"}  # one language says nothing
    found = {row["group"]: (row["utterances"], row["words"], row["rates"]["ours"]) for row in rows}
    assert found == {"ann": (2, 4, 0.75), "bob": (2, 4, 0.0), "0–1\u00a0s": (2, 4, 0.75), "2–5\u00a0s": (2, 4, 0.0)}
    assert [row["group"] for row in rows if row["by"] == "duration"] == ["0–1\u00a0s", "2–5\u00a0s"]


def test_only_the_first_condition_is_broken_down():
    runs = [run_of([("a", "a"), ("b", "b")]), run_of([("a", "x"), ("b", "x")], condition="snr=0")]
    assert {row["condition"] for row in breakdown.groups(outcome_of(runs))} == {"clean"}


def test_the_most_frequent_confusion_is_first():
    pairs = [("red blue", "green blue"), ("red", "green"), ("pink", "gray"), ("pink", "")]
    found = breakdown.confusions(run_of(pairs))
    assert [(row["said"], row["heard"], row["count"]) for row in found] == [("red", "green", 2), ("pink", "gray", 1)]
    assert breakdown.tones(run_of(pairs)) is None


def test_tones_of_syllables():
    run = run_of([("nei5 hou2", "nei4 hou2"), ("zoi3 gin3", "zoi6 gin1 aa3"), ("sik6", "faan6")], "yue")
    found = breakdown.tones(run)
    assert (found["misheard"], found["compared"], found["tone_only"]) == (3, 4, 3)
    assert {"said": "5", "heard": "4", "count": 1} in found["pairs"]
    kinds = {row["said"]: row["kind"] for row in breakdown.confusions(run)}
    assert (kinds["nei5"], kinds["sik6"]) == ("tone", "")


def test_homophones_and_tones_of_characters():
    run = run_of([("他买书", "她卖书"), ("好吃", "好喝")], "zh")
    found = breakdown.tones(run)
    assert (found["homophones"], found["tone_only"], found["errors"]) == (1, 1, 3)
    assert found["pairs"] == [{"said": "3", "heard": "4", "count": 1}]
    kinds = {row["said"]: row["kind"] for row in breakdown.confusions(run)}
    assert kinds == {"他": "homophone", "买": "tone", "吃": ""}


def test_words_on_silence_by_the_minute():
    run = run_of([("", "thank you"), ("", ""), ("", "谢谢")], seconds=(30.0,))
    (row,) = breakdown.silence([run, run_of([("a", "a")])])
    assert (row["words"], row["clips"], row["clips_with_words"]) == (4, 3, 2)
    assert row["words_per_minute"] == pytest.approx(4 / 1.5)


@pytest.mark.parametrize(("wrong", "above"), [(0, True), (100, False), (14, None)])
def test_the_claim_is_held_against_10_db_alone(wrong, above):
    noisy = [
        Condition(snr_db=10.0, recordings=("n.wav",)),
        Condition(snr_db=10.0, noise="unseen"),
        Condition(snr_db=10.0, level_db=-20.0),
        Condition(snr_db=5.0),
        CLEAN,
    ]
    pairs = [("a", "x" if i < wrong else "a") for i in range(100)]
    rows = breakdown.accuracy_at_10_db(outcome_of([run_of(pairs, condition=one.name) for one in noisy], noisy))
    assert [row["condition"] for row in rows] == ["snr=10", "snr=10,noise=unseen"]
    assert rows[0]["value"] == pytest.approx(1 - wrong / 100) and rows[0]["low"] <= rows[0]["value"] <= rows[0]["high"]
    assert {row["above_claim"] for row in rows} == {above} and {row["metric"] for row in rows} == {"wer"}


def test_chinese_is_held_against_the_claim_by_characters():
    noisy = [Condition(snr_db=10.0)]
    (row,) = breakdown.accuracy_at_10_db(outcome_of([run_of([("你好", "你号")], "zh", condition="snr=10")], noisy))
    assert (row["metric"], row["value"]) == ("cer", 0.5)


def test_a_curve_has_its_points_in_order_and_ends_without_noise():
    made = [CLEAN, Condition(snr_db=10.0), Condition(snr_db=-5.0), Condition(level_db=-20.0)]
    wrong = {"clean": 0, "snr=10": 1, "snr=-5": 4, "level=-20": 2}
    runs = [run_of([("a", "x" if i < wrong[one.name] else "a") for i in range(4)], condition=one.name) for one in made]
    (snr,) = breakdown.curves(outcome_of(runs, made), "snr_db")
    assert [(x, rate) for x, rate, *_ in snr["points"]["ours"]] == [(-5.0, 1.0), (10.0, 0.25), (None, 0.0)]
    (level,) = breakdown.curves(outcome_of(runs, made), "level_db")
    assert [(x, rate) for x, rate, *_ in level["points"]["ours"]] == [(-20.0, 0.5), (0.0, 0.0)]
    assert (snr["rest"], level["rest"]) == ({}, {})


def test_groups_of_noise_have_curves_of_their_own():
    made = [CLEAN, *(Condition(snr_db=db, noise=noise) for noise in ("seen", "unseen") for db in (0.0, 10.0))]
    runs = [run_of([("a", "a")], condition=one.name) for one in made]
    found = list(breakdown.curves(outcome_of(runs, made), "snr_db"))
    assert [row["rest"] for row in found] == [{"noise": "seen"}, {"noise": "unseen"}]
    assert all([x for x, *_ in row["points"]["ours"]] == [0.0, 10.0, None] for row in found)


def test_one_point_is_no_curve():
    assert not list(breakdown.curves(outcome_of([run_of([("a", "a")])], [CLEAN]), "snr_db"))
