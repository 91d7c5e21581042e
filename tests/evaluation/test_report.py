"""The report's JSON is the interface it promises; its HTML stands alone and cannot be broken into."""

import base64
import html.parser
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from glmasr.evaluation.benchmark import Card, Comparison, Heard, Outcome, Run, TestSet, compare, summarize
from glmasr.evaluation.conditions import CLEAN, Condition
from glmasr.evaluation.report import chart, count, in_words, seconds, with_audio, worst_misses, write_report
from glmasr.frontend.audio import encode_audio, read_audio
from glmasr.speech import InputError, Utterance

NASTY = "<script>alert('x')</script> & | `co`"
REFERENCES = ["please select the word pin", "please select the word tin", "please select the word fin"]
CONDITIONS = (CLEAN, Condition(snr_db=10.0, recordings=("a.wav",)))
CONFIG = {"name": NASTY, "conditions": [{}, {"snr_db": 10}]}
TONE = encode_audio(np.sin(np.arange(16000) / 5).astype(np.float32) / 4)


def make_outcome(conditions=CONDITIONS) -> Outcome:
    sets = tuple(
        TestSet(
            "rhyme",
            [Utterance(f"u{i}<b>", TONE, 1.0, text=text, speaker="ab"[i % 2]) for i, text in enumerate(REFERENCES)],
            condition.name,
            replace(condition, snr_db=None) if condition.snr_db else condition,  # the test has no noise to read
        )
        for condition in conditions
    )

    def run(system, hypotheses, condition, failure=""):
        heard = [
            Heard(f"u{i}<b>", "", reference, hypothesis, 2.0, 0.5, "" if hypothesis else failure, "ab"[i % 2])
            for i, (reference, hypothesis) in enumerate(zip(REFERENCES, hypotheses, strict=True))
        ]
        return Run(system, "rhyme", condition.name, tuple(heard))

    runs = tuple(
        one
        for condition in conditions
        for one in (
            run(
                "scratch", ["please word pin", "please select a word tin tin", ""], condition, f"RuntimeError: {NASTY}"
            ),
            run(NASTY, REFERENCES, condition),
            run("plain", [*REFERENCES[:2], f"please {NASTY} fin"], condition),
        )
    )
    nothing = tuple(Heard(f"s{i}", "", "", text, 30.0, 0.1) for i, text in enumerate(["", "thank you"]))
    return Outcome(
        tuple(Card(r.system, 37_188_864, 78_000_000, 0.25, 0.4, 200_000_000) for r in runs[:3]),
        (*runs, Run("plain", "silence", "clean", nothing)),
        tuple(summarize(r, metric, 200, 0) for r in runs for metric in r.metrics),
        tuple(compare(runs, 999)),
        "abc",
        0,
        sets,
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
    hashes = {("rhyme", "clean"): "5a" * 32}
    written = write_report(folder, make_outcome(), f"Title {NASTY}", config=CONFIG, hashes=hashes)
    assert written == folder / "report.html"
    named = {file.name for file in folder.iterdir() if file.suffix != ".trn"}
    assert named == {"report.html", "report.json", "report.md", "utterances"}
    return folder


def test_json_is_the_interface(written):
    content = json.loads((written / "report.json").read_text())
    places = ["test_set", "condition", "metric"]
    assert list(content["systems"][0])[:3] == ["name", "parameters", "size_bytes"]
    assert (content["systems"][0]["rtf"], content["systems"][0]["rtfx"]) == (0.25, 4.0)
    assert list(content["results"][0])[:9] == ["system", *places, "value", "low", "high", "words", "rtf"]
    assert list(content["comparisons"][0])[:7] == ["a", "b", *places, "delta", "p_value"]
    assert {"p_holm", "p_mapsswe", "words_needed", "condition_detail"} <= set(content["comparisons"][0])
    assert len(content["results"]) == len(content["comparisons"]) == 3 * 2 * 2
    scratch = content["results"][0]
    assert (scratch["value"], scratch["words"], scratch["rtf"]) == (9 / 15, 15, 0.25)
    assert (scratch["speakers"], scratch["condition"], scratch["condition_detail"]) == (2, "clean", {})
    assert content["errors"][0] == {
        "system": "scratch",
        "test_set": "rhyme",
        "condition": "clean",
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
    assert {"torch", "jiwer", "faster-whisper"} <= set(provenance["versions"]) and provenance["config"] == CONFIG
    assert content["protocol"].startswith("glmasr scoring") and content["test_sets"][0]["samples_sha256"] == "5a" * 32
    assert content["silence"][0]["words_per_minute"] == 2.0 and content["silence"][0]["examples"] == ["thank you"]


def test_html_needs_nothing_else(written):
    text = (written / "report.html").read_text()
    document = Document(text)
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & set(document.tags)
    assert not {"href", "srcset", "data"} & {name for name, _ in document.attributes}
    players = [value for name, value in document.attributes if name == "src"]
    assert len(players) == 6 and all(value.startswith("data:audio/flac;base64,") for value in players)
    assert "url(" not in text and "@import" not in text
    assert ("name", "viewport") in document.attributes and "prefers-color-scheme: dark" in text


def test_no_table_is_outside_a_box_that_scrolls(written):
    text = (written / "report.html").read_text()
    assert text.count("<table>") == text.count('<div class="scroll"><table>') > 8


def test_html_shows_everything_escaped(written):
    document = Document((written / "report.html").read_text())
    shown = "".join(document.text)
    assert shown.count(NASTY) >= 5 and "b" not in document.tags
    for expected in (
        "60.0 %",
        "37.2 M",
        "78 MB",
        "200 MB",
        "400 ms",
        "failed",
        "u2<b>",
        "thank you",
        "Every comparison",
    ):
        assert expected in shown
    assert {"del", "ins", "svg"} <= set(document.tags)
    widths = [float(value[:-1]) for name, value in document.attributes if name in ("width", "x1", "x2")]
    assert widths and min(widths) >= 0 and max(widths) <= 100


def test_markdown_tables_hold_together(written):
    text = (written / "report.md").read_text()
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) == 4 + 1 + 1 + 1 + 1 + 1  # rankings, matrix, silence, cost, speakers, comparisons
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    prose, _, settings = text.partition("## Resolved settings")
    assert not re.search(r"(?<!\\)<script", prose)
    assert all(line.startswith("    ") for line in settings.splitlines() if line)  # indented: code, not markup


def test_ranking_is_best_first(written):
    first_table = re.findall(r"^\| 1 .*", (written / "report.md").read_text(), re.MULTILINE)[0]
    assert "alert" in first_table and "0.0 %" in first_table


def test_the_three_files_have_the_same_tables(written):
    content = json.loads((written / "report.json").read_text())
    shown = "".join(Document((written / "report.html").read_text()).text)
    written_down = (written / "report.md").read_text()
    for result in content["results"]:
        assert f"{100 * result['value']:.1f} %" in shown and f"**{100 * result['value']:.1f} %**" in written_down
    assert {row["by"] for row in content["groups"]} == {"speaker"}
    for row in content["groups"]:
        rate = f"{100 * row['rates']['scratch']:.1f} %"
        assert rate in shown and f"| {row['group']} | {row['utterances']} | {row['words']} | {rate} |" in written_down
    for pair in content["confusions"][0]["pairs"]:
        assert f"{pair['said']} → {pair['heard']} ({pair['count']})" in written_down


def test_sclite_and_leaderboard_files(written):
    names = {"scratch.rhyme", "ref.rhyme", "scratch.rhyme.snr_10", "ref.silence", "plain.silence"}
    assert names <= {re.sub("=", "_", file.stem) for file in written.glob("*.trn")}
    reference = (written / "ref.rhyme.trn").read_text().splitlines()
    assert reference[0].startswith("please select the word pin (a-u0") and len(reference) == 3
    heard = (written / "scratch.rhyme.trn").read_text().splitlines()
    assert heard[0].startswith("please word pin (a-") and heard[2].startswith("(a-")
    assert [line.split("(")[-1] for line in heard] == [line.split("(")[-1] for line in reference]
    rows = [json.loads(line) for line in (written / "utterances" / "plain.jsonl").read_text().splitlines()]
    assert {"audio_filepath", "duration", "time", "text", "pred_text"} <= set(rows[0])
    assert [(row["test_set"], row["condition"]) for row in rows[::3]] == [
        ("rhyme", "clean"),
        ("rhyme", "snr=10"),
        ("silence", "clean"),
    ]
    scratch = json.loads((written / "utterances" / "scratch.jsonl").read_text().splitlines()[0])
    assert (scratch["text"], scratch["pred_text"]) == (REFERENCES[0], "please word pin")
    assert rows[0]["pred_text"] == rows[0]["text"] == REFERENCES[0] and rows[0]["audio_filepath"] == "u0<b>"


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
    assert in_words(Comparison("a", "b", "set", "clean", "wer", delta, 0.0, p_holm=p_value), rates) == sentence


def test_counts_for_people():
    assert [count(n) for n in (0, 999, 3_200_000, 1_510_000_000)] == ["0", "999", "3.2 M", "1.51 G"]


def test_times_for_people():
    assert [seconds(t) for t in (None, 0.0123, 3.44)] == ["–", "12 ms", "3.4 s"]


def test_the_worst_of_every_system_come_in_turn_and_the_page_has_a_limit():
    outcome = make_outcome(CONDITIONS[:1])
    (found,) = worst_misses(outcome.runs, 2)
    assert [miss.heard.id for miss in found.misses] == ["u2<b>", "u0<b>"]
    assert [attempt.counts.errors for attempt in found.misses[0].attempts][:2] == [5, 0]
    (full,) = with_audio([found], outcome.test_sets, 8.0)
    played = read_audio(base64.b64decode(full.misses[0].audio.split(",")[1]))
    assert len(played) == 16000 and all(miss.audio for miss in full.misses)
    (part,) = with_audio([found], outcome.test_sets, 1.5e-6 * len(full.misses[0].audio))
    assert [bool(miss.audio) for miss in part.misses] == [True, False]
    gone = replace(
        outcome.test_sets[0], utterances=[replace(u, audio="gone.wav") for u in outcome.test_sets[0].utterances]
    )
    assert not any(miss.audio for miss in with_audio([found], [gone], 8.0)[0].misses)


def test_a_player_plays_what_was_heard():
    outcome = make_outcome(CONDITIONS[:1])
    quiet = replace(outcome.test_sets[0], damage=Condition(level_db=-40.0))
    (found,) = with_audio(worst_misses(outcome.runs, 1), [quiet], 8.0)
    played = read_audio(base64.b64decode(found.misses[0].audio.split(",")[1]))
    assert np.abs(played).max() == pytest.approx(0.25 * 0.01, rel=0.05)


def test_a_chart_keeps_to_its_frame_and_its_order():
    points = {"a": [[0.0, 1.9, 1.5, 2.5], [10.0, 0.5, 0.4, 0.6], [None, 0.1, 0.0, 0.2]]}
    row = {"test_set": "s", "metric": "wer", "axis": "snr_db", "rest": {"level_db": -20.0}, "points": points}
    drawn = chart(row)
    width, height, left, right, top, bottom = drawn["size"]
    xs, ys, titles = zip(*drawn["lines"][0]["marks"], strict=True)
    assert list(xs) == sorted(xs) and list(ys) == sorted(ys) and left <= min(xs) and max(xs) <= width - right
    assert top <= min(ys) and max(ys) <= height - bottom and "190.0 %" in titles[0]
    assert [label for _, label in drawn["x_ticks"]] == ["0", "10", "clean"] and drawn["rest"] == "level -20.0"
    corners = [float(y) for _, y in re.findall(r"([\d.]+),([\d.]+)", drawn["lines"][0]["band"])]
    assert len(corners) == 6 and top <= min(corners) and max(corners) <= height - bottom


def test_unwritable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="writable folder"):
        write_report(tmp_path / "file", make_outcome())
