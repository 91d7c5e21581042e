"""Two reports of known difference: a change is named, chance is not, what cannot be compared is warned of."""

import json
import shutil

import numpy as np
import pytest

from glmasr.evaluation import benchmark as bench
from glmasr.evaluation.bootstrap import paired
from glmasr.evaluation.compare import Change, Retest, compare_reports, differences, read_heard, utterance_file
from glmasr.evaluation.report import write_report
from glmasr.speech import InputError, Transcript, Utterance

WORDS = ["red", "green", "blue", "white", "black", "gray", "pink", "brown", "cyan", "olive"]
TEXTS = [" ".join(np.random.default_rng(i).permutation(WORDS)[: 3 + i % 6]) for i in range(60)]


UNNAMED = '{"results": [{"system": 1, "test_set": "s", "metric": "wer", "value": 0.5}]}'


class Parrot:
    """Says back the text whose number is the waveform's first sample, and drops the last word of one in `drops`."""

    parameters, size_bytes = 10, 20

    def __init__(self, name, drops=0):
        self.name, self.drops = name, drops

    def __call__(self, waveforms):
        texts = [(i, TEXTS[i].split()) for i in (round(float(waveform[0])) for waveform in waveforms)]
        return [Transcript(" ".join(t[:-1] if self.drops and i % self.drops == 0 else t), 1.0) for i, t in texts]


def write(folder, systems, condition="clean", seed=0):
    """A report as make benchmark writes it, on 60 utterances of numbers."""
    utterances = [Utterance(f"u{i}", str(i), 1.0, text=text, language="en") for i, text in enumerate(TEXTS)]
    sets = [bench.TestSet("colors", utterances, condition)]
    write_report(folder, bench.benchmark(systems, sets, folder, samples=100, permutations=100, seed=seed))
    return folder / "report.json"


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Better ("ours": every 2nd utterance wrong, then every 10th), unchanged ("peer"), and one new, one gone."""
    home = tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "read_audio", lambda source, *_: np.full(160, int(source), dtype=np.float32))
        for condition in ("clean", "snr=5"):
            a, b = home / condition / "a", home / condition / "b"
            write(a, [Parrot("ours", 2), Parrot("peer", 3), Parrot("gone")], condition)
            write(b, [Parrot("ours", 10), Parrot("peer", 3), Parrot("new")], condition)
    return home


@pytest.fixture
def pair(reports, tmp_path):
    """Copies of the two folders that a test may change."""
    shutil.copytree(reports / "clean", tmp_path / "pair")
    return tmp_path / "pair" / "a", tmp_path / "pair" / "b"


def retest_of(change: Change) -> Retest:
    """Its paired test, which there must be."""
    assert change.test
    return change.test


def edit(folder, change):
    path = folder / "report.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("condition", ["clean", "snr=5"])
def test_what_changed_is_told_from_what_did_not(reports, condition):
    a, b = reports / condition / "a", reports / condition / "b"
    found = differences(a, b / "report.json")
    assert [(c.system, c.condition, c.metric) for c in found.changes[:2]] == [
        ("ours", condition, m) for m in ("wer", "cer")
    ]
    ours, peer = found.changes[0], next(c for c in found.changes if (c.system, c.metric) == ("peer", "wer"))
    spoken = sum(len(text.split()) for text in TEXTS)
    assert (ours.before.value, ours.after.value) == (30 / spoken, 6 / spoken)
    assert ours.delta == pytest.approx(-24 / spoken) and ours.verdict == "fewer errors"
    assert (peer.delta, peer.verdict, retest_of(peer).p_value, retest_of(peer).corrected) == (
        0.0,
        "no change shown",
        1.0,
        1.0,
    )
    assert (retest_of(ours).utterances, retest_of(ours).left_out, ours.tested_on_other_rates) == (60, 0, False)
    assert (found.only_before, found.only_after, found.warnings) == (("system gone",), ("system new",), ())
    assert differences(b, a).changes[0].verdict == "more errors"


def test_the_test_is_the_paired_one_corrected_for_all(reports):
    found = differences(reports / "clean" / "a", reports / "clean" / "b")
    words = [len(text.split()) for text in TEXTS]
    before, after = ([int(i % drops == 0) for i in range(60)] for drops in (2, 10))
    assert retest_of(found.changes[0]).p_value == paired(after, before, words)[1]
    p_values = sorted(retest_of(c).p_value for c in found.changes)
    assert retest_of(found.changes[0]).corrected == pytest.approx(len(p_values) * p_values[0])


def test_the_table_says_it(reports):
    text = compare_reports(reports / "clean" / "a", reports / "clean" / "b")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in table}) == 1 and len(table) == 6
    cells = [cell.strip() for cell in table[2].split("|")[1:-1]]
    assert cells[:4] == ["ours", "colors", "clean", "WER"] and cells[-1] == "fewer errors"
    assert cells[4].startswith("9.1 % (") and cells[5].startswith("1.8 % (") and cells[6] == "-7.3"
    assert "2 of 4 tested rates changed" in text and "Only in" in text and "Warning" not in text
    assert "Without the per-utterance files" not in text and "Tested on other rates" not in text


def test_without_utterances_only_intervals_are_compared(pair):
    shutil.rmtree(pair[1] / "utterances")
    found = differences(*pair)
    assert [(c.test, c.verdict) for c in found.changes if c.system == "peer"] == [(None, "intervals overlap")] * 2
    assert found.changes[0].verdict == "intervals lie apart"
    assert "Without the per-utterance files of both reports" in compare_reports(*pair)
    edit(pair[0], lambda content: [row.pop("low") for row in content["results"]])
    edit(pair[1], lambda content: [row.update(high=None) for row in content["results"]])
    assert {c.verdict for c in differences(*pair).changes} == {"not tested"}
    assert "| 9.1 % " in compare_reports(*pair)


def test_other_rules_data_and_seeds_are_warned_of(pair):
    edit(pair[1], lambda content: content.update(protocol="glmasr scoring 0: all of it"))
    (warning,) = differences(*pair).warnings
    assert warning.startswith("scored by other rules: not comparable (before: glmasr scoring ")
    assert warning.endswith("; after: glmasr scoring 0).")
    edit(pair[1], lambda content: content["provenance"].update(data="other", seed=7, git_commit="fresh"))
    text = compare_reports(*pair)
    assert text.count("**Warning:**") == 3 and "other test data" in text and "after: 7" in text
    assert "- git commit: " in text and ", then fresh" in text
    edit(pair[1], lambda content: content.pop("protocol"))
    assert "after: not said" in differences(*pair).warnings[0]


def test_only_utterances_with_the_same_reference_are_paired(pair):
    path = utterance_file(pair[1], "ours", "colors", "clean")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    rows = {row["id"]: row for row in lines[1:]}
    rows["u0"]["reference"] = "something else"
    rows.pop("u1")
    path.write_text("\n".join(map(json.dumps, [lines[0], *rows.values(), {"id": "u99"}])) + '\n{"id": "u5", "lang')
    assert len(read_heard(path)) == 59
    change = differences(*pair).changes[0]
    assert (retest_of(change).utterances, retest_of(change).left_out, change.tested_on_other_rates) == (58, 2, True)
    assert retest_of(change).before == pytest.approx(29 / sum(len(TEXTS[i].split()) for i in range(2, 60)))
    assert "utterances in both (2 left out)" in compare_reports(*pair)


def test_conditions_are_names_objects_or_not_there(pair):
    def renew(content):
        for row in content["results"]:
            row["condition"] = {"name": "clean", "snr_db": None}

    edit(pair[1], renew)
    edit(pair[0], lambda content: [row.pop("condition") for row in content["results"]])
    assert {c.condition for c in differences(*pair).changes} == {"clean"} and differences(*pair).changes[0].test
    for folder in pair:
        edit(
            folder,
            lambda content: [row.update(condition={"snr_db": 5, "noise": "babble"}) for row in content["results"]],
        )
    assert differences(*pair).changes[0].condition == "snr_db=5 noise=babble"


def test_an_old_report_has_results_and_no_more(pair):
    content = json.loads((pair[0] / "report.json").read_text())
    (pair[0] / "report.json").write_text(json.dumps({"results": content["results"]}))
    found = differences(*pair)
    assert len(found.changes) == 4 and len(found.warnings) == 3
    edit(pair[0], lambda content: content.update(results=[]))
    assert "share no system on a test set" in compare_reports(*pair)


def test_json_is_strict_and_whole(pair):
    edit(pair[0], lambda content: content["results"][0].update(low=float("nan")))
    found = json.loads(json.dumps(differences(*pair).as_json(), allow_nan=False))
    assert {"before", "after", "warnings", "notes", "changes", "only_before", "only_after"} == set(found)
    assert found["changes"][0]["before"] == {"value": pytest.approx(0.0909, abs=1e-3), "interval": None}
    assert {"delta", "verdict", "test"} < set(found["changes"][0])


@pytest.mark.parametrize(
    "content",
    ['{"files": 3}', "[]", '{"results": [{"system": 1}]}', '{"results": {"a": 1}}', '{"results": "abc"}', UNNAMED],
)
def test_what_is_no_report_is_named(pair, content):
    (pair[1] / "report.json").write_text(content)
    with pytest.raises(InputError, match=r"b/report.json' is not a benchmark report: give the report.json"):
        compare_reports(*pair)


def test_what_cannot_be_read_is_named(pair):
    with pytest.raises(InputError, match="nowhere' cannot be read"):
        compare_reports(pair[0], pair[1] / "nowhere")
    for broken in (b"{", b"\xff\xfe"):
        (pair[1] / "report.json").write_bytes(broken)
        with pytest.raises(InputError, match="is not JSON"):
            compare_reports(*pair)
