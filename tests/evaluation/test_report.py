"""The report's JSON is the interface it promises; its HTML stands alone and cannot be broken into."""

import html.parser
import json
import re

import pytest

from glmasr.evaluation.benchmark import METRICS, Card, Comparison, Heard, Outcome, Run, _result, compare
from glmasr.evaluation.report import count, in_words, write_report
from glmasr.speech import InputError

NASTY = "<script>alert('x')</script> & | `co`"


def make_outcome() -> Outcome:
    references = ["please select the word pin", "please select the word tin", "please select the word fin"]

    def run(system, hypotheses, failure=""):
        heard = [
            Heard(f"u{i}<b>", "", reference, hypothesis, 2.0, 0.5, "" if hypothesis else failure)
            for i, (reference, hypothesis) in enumerate(zip(references, hypotheses, strict=True))
        ]
        return Run(system, "rhyme", "snr=5", tuple(heard))

    runs = (
        run("scratch", ["please word pin", "please select a word tin tin", ""], f"RuntimeError: {NASTY}"),
        run(NASTY, references),
        run("plain", [references[0], references[1], f"please {NASTY} fin"]),
    )
    return Outcome(
        tuple(Card(r.system, 37_188_864, 78_000_000) for r in runs),
        runs,
        tuple(_result(r, metric, 200, 0) for r in runs for metric in METRICS),
        tuple(compare(runs, 999)),
        "abc",
        0,
    )


class Document(html.parser.HTMLParser):
    """Collects tags, attributes and text, and fails where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new" / "report"
    assert write_report(folder, make_outcome(), f"Title {NASTY}") == folder / "report.html"
    assert sorted(file.name for file in folder.iterdir()) == ["report.html", "report.json", "report.md"]
    return folder


def test_json_is_the_interface(written):
    content = json.loads((written / "report.json").read_text())
    assert [list(s) for s in content["systems"]] == [["name", "parameters", "size_bytes"]] * 3
    places = ["test_set", "condition", "metric"]
    assert [list(r) for r in content["results"]] == [["system", *places, "value", "low", "high", "words", "rtf"]] * 6
    assert [list(c) for c in content["comparisons"]] == [["a", "b", *places, "delta", "p_value"]] * 6
    scratch = content["results"][0]
    assert (scratch["value"], scratch["words"], scratch["rtf"]) == (9 / 15, 15, 0.25)
    assert content["errors"][0] == {
        "system": "scratch",
        "test_set": "rhyme",
        "condition": "snr=5",
        "metric": "wer",
        "substitutions": 1,
        "deletions": 7,
        "insertions": 1,
        "hits": 7,
        "utterances": 3,
        "failures": 1,
    }
    provenance = content["provenance"]
    assert {"command", "date", "git_commit", "seed", "data", "versions", "machine"} <= set(provenance)
    assert {"torch", "jiwer", "faster-whisper"} <= set(provenance["versions"])
    assert content["protocol"].startswith("glmasr scoring")


def test_html_needs_nothing_else(written):
    text = (written / "report.html").read_text()
    document = Document(text)
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & set(document.tags)
    assert not {"src", "href", "srcset", "data"} & {name for name, _ in document.attributes}
    assert "url(" not in text and "@import" not in text
    assert ("name", "viewport") in document.attributes and "prefers-color-scheme: dark" in text


def test_html_shows_everything_escaped(written):
    document = Document((written / "report.html").read_text())
    shown = "".join(document.text)
    assert shown.count(NASTY) >= 5 and "b" not in document.tags
    for expected in ("60.0 %", "37.2 M", "78 MB", "snr=5", "failed", "u2<b>"):
        assert expected in shown
    assert {"del", "ins", "svg"} <= set(document.tags)
    widths = [float(value[:-1]) for name, value in document.attributes if name in ("width", "x1", "x2")]
    assert widths and min(widths) >= 0 and max(widths) <= 100


def test_markdown_tables_hold_together(written):
    text = (written / "report.md").read_text()
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) == 3
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert not re.search(r"(?<!\\)<script", text)


def test_ranking_is_best_first(written):
    first_table = re.findall(r"^\| 1 .*", (written / "report.md").read_text(), re.MULTILINE)[0]
    assert "alert" in first_table and "0.0 %" in first_table


@pytest.mark.parametrize(
    ("delta", "p_value", "sentence"),
    [
        (-0.31, 0.0003, "a makes 62 % fewer word errors than b (19.0 % against 50.0 %), p = 0.0003."),
        (-0.31, 0.41, "No difference in word errors is shown between a and b (19.0 % against 50.0 %), p = 0.41."),
        (0.31, 0.01, "b makes 62 % fewer word errors than a (19.0 % against 50.0 %), p = 0.01."),
        (0.0, 1.0, "a and b make equally many word errors (19.0 %), p = 1."),
    ],
)
def test_comparison_in_plain_words(delta, p_value, sentence):
    rates = {"a": 0.19, "b": 0.19 - delta} if delta <= 0 else {"a": 0.5, "b": 0.19}
    assert in_words(Comparison("a", "b", "set", "clean", "wer", delta, p_value), rates) == sentence


def test_counts_for_people():
    assert [count(n) for n in (0, 999, 3_200_000, 1_510_000_000)] == ["0", "999", "3.2 M", "1.51 G"]


def test_unwritable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="writable folder"):
        write_report(tmp_path / "file", make_outcome())
