"""Pages and JSON of reviews: everything escaped, nothing fetched, the gravest call first."""

import json
from html.parser import HTMLParser

import pytest

from glmasr.serving.review.call import review
from glmasr.serving.review.report import Entry, clock, marked, write_batch, write_call
from glmasr.serving.review.rules import Rule, Rules
from glmasr.speech import Segment, Transcript

EVIL = "<script>alert(1)</script>"
RULES = Rules(
    sensitive=(Rule(f"rule {EVIL}", ("no risk",), severity="high"),),
    required=(Rule("hello", (f"hello {EVIL}",), by_seconds=5, severity="low"),),
    speakers=(f"agent {EVIL}", "customer"),
)


def called(text: str, name: str = "call"):
    told = Transcript(text, 65.0, (Segment(text, 1.0, 9.0, (), "Speaker 1"),), "en")
    return review(name, told, RULES)


class Page(HTMLParser):
    """What a page is made of, and whether its elements are closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.text, self.links = [], [], "", []
        self.feed(text)
        assert self.open == [], self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src", "action", "srcset")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_call_is_a_page_and_json(tmp_path):
    write_call(called("there is no risk today & tomorrow"), tmp_path / "deep" / "call")
    page = Page((tmp_path / "deep" / "call.review.html").read_text())
    assert page.tags.count("mark") == 2 and page.links == [] and "script" not in page.tags
    assert "no risk today & tomorrow" in page.text and EVIL in page.text and "missing" in page.text
    assert "prefers-color-scheme: dark" in (tmp_path / "deep" / "call.review.html").read_text()
    found = json.loads((tmp_path / "deep" / "call.review.json").read_text())
    assert found["review"]["sensitive"][0]["heard"] == "no risk" and found["segments"][0]["speaker"].startswith("agent")
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["call.review.html", "call.review.json"]


@pytest.mark.parametrize("text", [EVIL, f"no risk {EVIL}", '"><img src=x onerror=alert(1)>', "", "a&b"])
def test_whatever_is_said_stays_text(tmp_path, text):
    write_call(called(text, name=f"{EVIL}"[:9]), tmp_path / "call")
    write_batch([Entry(called(text, name=EVIL), '"><b>.html')], [(EVIL, EVIL)], tmp_path)
    for name in ("call.review.html", "review.html"):
        page = Page((tmp_path / name).read_text())
        assert not {"script", "img", "b"} & set(page.tags)
        assert text in page.text


def test_the_gravest_call_comes_first(tmp_path):
    quiet = review("quiet", Transcript("", 1.0), Rules())
    entries = [Entry(quiet, None), Entry(called("fine", "b"), "b.html"), Entry(called("no risk", "a"), "x/a b.html")]
    write_batch(entries, [("broken.wav", "it is empty")], tmp_path / "out")
    found = json.loads((tmp_path / "out" / "review.json").read_text())
    assert [(one["name"], one["worst"]) for one in found["calls"]] == [("a", "high"), ("b", "low"), ("quiet", None)]
    assert found["failed"] == [{"name": "broken.wav", "why": "it is empty"}]
    page = Page((tmp_path / "out" / "review.html").read_text())
    assert page.links == ["x/a%20b.html", "b.html"] and "it is empty" in page.text


def test_marks_do_not_nest_or_cut_what_is_escaped():
    assert marked("no risk & no", ["no risk", "risk", "none"]) == "<mark>no risk</mark> &amp; no"
    assert marked("<b>", ["b"]) == "&lt;<mark>b</mark>&gt;"
    assert marked("a", [""]) == "a"


def test_times_are_read_at_a_glance():
    assert [clock(seconds) for seconds in (0, 59.96, 75.04, 3600)] == ["0:00.0", "1:00.0", "1:15.0", "60:00.0"]
