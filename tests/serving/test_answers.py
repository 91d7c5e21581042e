"""A transcript without words or without any segment has an answer in every format too."""

import json

import pytest

from glmasr.serving.answers import FORMATS, answer, delta, done, verbose
from glmasr.speech import Segment, Transcript

PLAIN = Transcript("今天", 1.5, (Segment("今天", 0.25, 1.25),), "zh-CN")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("transcript", [PLAIN, Transcript("", 0.0)])
def test_every_format_of_what_has_no_words(form, transcript):
    body = answer(transcript, form, ("word", "segment") if form == "verbose_json" else ()).body.decode()
    assert transcript.text in body
    if "json" in form:
        assert json.loads(body)["text"] == transcript.text


def test_what_is_not_known_is_empty():
    found = verbose(PLAIN, ("segment", "word"))
    assert found["language"] == "chinese" and found["words"] == []
    assert found["segments"][0]["avg_logprob"] == 0.0 and found["segments"][0]["tokens"] == []
    assert "words" not in verbose(PLAIN, ("segment",)) and "segments" not in verbose(PLAIN, ("word",))


def test_an_event_is_one_line_of_json():
    for event in (delta("a\n\nb"), done(PLAIN)):
        assert event.startswith("data: ") and event.endswith("\n\n") and event.count("\n") == 2
        assert json.loads(event[6:])["type"].startswith("transcript.text.")
