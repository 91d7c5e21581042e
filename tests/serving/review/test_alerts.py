"""Captions one by one: an alert as soon as a phrase is final, and one when its time has passed."""

from itertools import pairwise

from glmasr.live import Caption
from glmasr.serving.review.alerts import Alerts
from glmasr.serving.review.rules import Rule, Rules
from glmasr.speech import Segment

RISK = Rule("risk", ("there is no risk",), ("exact", "fuzzy"), severity="high")
GREETING = Rule("greeting", ("thank you for calling",), ("exact", "fuzzy"), by_seconds=10.0)
CLOSING = Rule("closing", ("good bye",))


def caption(text: str, start: float, end: float, is_final: bool = True, language: str = "en") -> Caption:
    return Caption(Segment(text, start, end), is_final, "", language)


def alerts(**options) -> Alerts:
    return Alerts(Rules(sensitive=(RISK,), required=(GREETING, CLOSING)), **options)


def kinds(found) -> list[tuple[str, str]]:
    return [(alert["kind"], alert["rule"]) for alert in found]


def test_a_final_caption_alerts_and_a_partial_one_does_not():
    stream = alerts(speaker=None)
    assert stream.hear(caption("there is no risk", 1.0, 2.0, is_final=False)) == []
    (alert,) = stream.hear(caption("there is no risk", 1.0, 2.0))
    assert alert == {
        **{"type": "alert", "kind": "sensitive", "rule": "risk", "severity": "high", "match": "exact", "score": 1.0},
        **{"phrase": "there is no risk", "heard": "there is no risk", "start": 1.0, "end": 2.0, "speaker": ""},
        "context": "there is no risk",
    }
    assert stream.hear(caption("all is well", 3.0, 4.0)) == []


def test_a_phrase_over_two_captions_is_found_once():
    stream = alerts()
    assert stream.hear(caption("i say there is", 1.0, 3.0)) == []
    (alert,) = stream.hear(caption("no risk at all", 3.5, 5.0))
    assert alert["start"] < 3.0 and alert["end"] > 3.5 and alert["context"].startswith("i say there is no risk")
    assert stream.hear(caption("at all", 6.0, 7.0)) == [] and stream.hear(caption("no", 7.0, 8.0)) == []


def test_a_phrase_cut_anywhere_is_found_once():
    words = ["so", "then", "there", "is", "no", "risk", "in", "it", "my", "friend"]
    for cut in range(1, len(words)):
        for more in range(cut, len(words)):
            parts = [words[a:b] for a, b in pairwise((0, cut, more, len(words))) if a < b]
            stream, heard, at = alerts(), [], 0
            for part in parts:
                heard += stream.hear(caption(" ".join(part), at, at + len(part)))
                at += len(part)
            assert kinds(heard) == [("sensitive", "risk")], parts


def test_a_deadline_is_told_of_once_and_when_it_is_sure():
    stream = alerts()
    assert stream.until(9.0) == [] and stream.until(11.0) == []
    stream.hear(caption("thank you", 9.5, 10.5, is_final=False))
    assert stream.until(20.0) == [], "what he began to say in time may be it"
    assert kinds(stream.hear(caption("thank you for calling", 9.5, 21.0))) == [("said", "greeting")]
    assert stream.until(90.0) == []
    late = alerts()
    assert late.until(13.0) == [
        {
            **{"type": "alert", "kind": "missing", "rule": "greeting", "severity": "medium"},
            **{"phrase": "thank you for calling", "start": 10.0},
        }
    ]
    assert late.until(14.0) == [] and late.hear(caption("thank you for calling", 14.0, 15.0)) == []


def test_what_is_said_too_late_is_missing_at_its_deadline():
    stream = alerts()
    (alert,) = stream.hear(caption("thank you for calling", 14.0, 15.0))
    assert (alert["kind"], alert["start"]) == ("missing", 10.0)
    assert kinds(stream.finish(20.0)) == [("missing", "closing")]


def test_the_end_tells_what_was_never_said():
    stream = alerts()
    stream.hear(caption("good bye", 3.0, 4.0))
    assert stream.finish(5.0)[0]["start"] == 5.0 and stream.finish(5.0) == []


def test_another_speaker_owes_nothing_and_a_language_comes_with_its_caption():
    rules = Rules(
        sensitive=(Rule("投诉", ("投诉",), ("sound",)),), required=(Rule("hello", ("hello",), speaker="agent"),)
    )
    customer = Alerts(rules, speaker="customer", language="en")
    assert customer.finish(5.0) == []
    assert kinds(customer.hear(caption("我要头诉", 0.0, 1.0, language="zh"))) == [("sensitive", "投诉")]
    assert kinds(Alerts(rules, speaker="agent").finish(5.0)) == [("missing", "hello")]


def test_what_is_remembered_is_bounded():
    stream = alerts()
    for second in range(200):
        stream.hear(caption("one two three four five", second, second + 1))
    assert len(stream.recent) < 40
