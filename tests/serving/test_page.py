"""What the page shows is what was said: escaped, with its times, with subtitles that another library reads."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import srt

from glmasr.serving.page import COLUMNS, HEIGHT, failed, shown, waveforms
from glmasr.speech import Segment, Transcript, Word
from glmasr.text.subtitles import FORMATS

HOSTILE = "</span><script>alert('\"&')</script>"
TRANSCRIPT = Transcript(
    HOSTILE,
    75.2,
    (
        Segment("今天天气很好", 0.5, 59.96, (Word("今天天气很好", 0.5, 59.96, 0.9),)),
        Segment(HOSTILE, 59.96, 74.0, (Word(HOSTILE, 59.96, 74.0, 0.9),)),
    ),
    "zh",
)


class Read(HTMLParser):
    """What a browser would make of it: the tags, their attributes, and the text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def links(page: str) -> dict[str, tuple[str, str]]:
    """The name and content of each download by its ending."""
    found = [attributes for tag, attributes in Read(page).tags if tag == "a"]
    return {
        one["download"].rpartition(".")[2]: (
            one["download"],
            base64.b64decode(one["href"].partition("base64,")[2]).decode(),
        )
        for one in found
    }


@pytest.mark.parametrize("page", [shown(HOSTILE, TRANSCRIPT), failed(HOSTILE, HOSTILE)])
def test_nothing_that_was_said_or_named_becomes_html(page):
    read = Read(page)
    assert {tag for tag, _ in read.tags} <= {
        "article",
        "header",
        "h3",
        "small",
        "ol",
        "li",
        "time",
        "span",
        "nav",
        "a",
        "p",
    }
    assert read.text.count(HOSTILE) == 2


def test_lines_have_the_times_they_begin():
    text = Read(shown("a.wav", TRANSCRIPT)).text
    assert text[text.index("今天天气很好") - 1] == "0:00.5" and text[text.index(HOSTILE) - 1] == "1:00.0"
    assert "75.2 s · 中文" in text


def test_downloads_are_what_the_library_writes():
    found = links(shown("my.talk.mp3", TRANSCRIPT))
    assert found == {form: (f"my.talk.{form}", FORMATS[form](TRANSCRIPT)) for form in ("srt", "vtt", "txt", "json")}
    assert next(srt.parse(found["srt"][1])).content == "今天天气很好"


def test_what_is_not_whole_has_no_downloads_and_silence_says_so():
    assert not links(shown("a.wav", TRANSCRIPT, is_whole=False)) and not links(shown("a.wav", Transcript("", 1.0)))
    assert "No speech" in shown("a.wav", Transcript("", 1.0))
    assert "Listening" in shown("a.wav", Transcript("", 1.0), is_whole=False)


def test_both_curves_are_drawn_at_one_scale():
    quiet = np.zeros(48_000, np.float32)
    quiet[24_000:] = 0.1
    paths = [tag["d"] for name, tag in Read(waveforms(quiet, quiet * 4)).tags if name == "path"]
    tops = [np.array(re.findall(r"M\d+ (-?[\d.]+)V", path), float) for path in paths]
    assert [len(top) for top in tops] == [COLUMNS, COLUMNS]
    assert np.allclose([top[COLUMNS // 2 + 1 :].mean() for top in tops], [-HEIGHT / 4 - 0.4, -HEIGHT - 0.4], atol=0.06)
    assert np.allclose([top[: COLUMNS // 2].mean() for top in tops], -0.4)
    assert waveforms(quiet, None).count("<svg") == 1 and "3.0 s" in waveforms(quiet, None)
    assert "<svg" in waveforms(quiet[:0], None)
