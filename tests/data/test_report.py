"""The data report: every number it was given, remarks on what is wrong only where something is, figures beside it."""

import json
from dataclasses import replace

import pytest

from glmasr.data.catalog import Skipped
from glmasr.data.measure import Measures
from glmasr.data.report import document, markdown, write_report
from glmasr.speech import InputError, Utterance
from glmasr.text.tokenizer import learn_characters

PLAIN = Measures(16_000, 1, 3.6, -20.0, 0.0, 25.0, 8000, 0.1, "", "")


def row(n: int, measures: Measures = PLAIN, **more):
    given = {"text": f"text {n}", "language": "en", "speaker": f"s{n}", **more}
    return Utterance(f"u{n}", f"{n}.wav", 3.6, **given), replace(measures, digest=measures.digest or str(n))


ROWS = [*(row(n, text="x") for n in range(8)), row(8, text="a | b"), row(9, text="text 0", split="dev")]


def told(rows=ROWS, skipped=(), tokenizer=None) -> dict:
    return {"name": "mine", "source": {"path": "p"}, **document(rows, skipped, tokenizer)}


def test_the_numbers_are_those_of_the_corpus():
    skipped = [Skipped("a", "empty", ""), Skipped("b", "truncated", ""), Skipped("c", "empty", "")]
    found = told([*ROWS, row(10, language="zh", speaker="s0", text=None)], skipped)
    assert (found["utterances"], found["hours"], found["transcribed"], found["speakers"]) == (11, 0.011, 10, 10)
    assert found["skipped"] == {"empty": 2, "truncated": 1}
    assert found["splits"]["train"] == {"utterances": 10, "hours": 0.01, "transcribed": 9, "speakers": 9}
    assert found["languages"]["zh"]["utterances"] == 1 and found["rates_hz"] == {"16000": 11}
    assert found["measured"]["duration_seconds"]["median"] == 3.6
    json.dumps(found)


SOUNDS = {
    "have the bandwidth of a telephone": replace(PLAIN, bandwidth_hz=4000),
    "are clipped": replace(PLAIN, clipped_share=0.01),
    "are silent": replace(PLAIN, snr_db=None, bandwidth_hz=0),
    "under -45 dBFS": replace(PLAIN, level_dbfs=-50.0),
    "SNR under 5 dB": replace(PLAIN, snr_db=2.0),
    "repeat the samples": replace(PLAIN, digest="0"),
}


@pytest.mark.parametrize("words", SOUNDS)
def test_a_fault_is_remarked_on_where_it_is_and_not_elsewhere(words):
    clean = [row(n) for n in range(4)]
    assert told(clean)["remarks"] == []
    [remark] = told([*clean, row(4, SOUNDS[words])])["remarks"]
    assert words in remark and remark.startswith("1 ")


def test_telephone_audio_counts_as_hidden_only_in_wide_files():
    narrow = replace(PLAIN, bandwidth_hz=4000)
    found = told([row(0), row(1, narrow), row(2, replace(narrow, rate_hz=8000))])["narrow"]
    assert found == {"utterances": 2, "in_wide_files": 1, "hours": 0.002}


def test_what_splits_share_and_what_cannot_be_written_is_said(tmp_path):
    [said, lacking] = told([*ROWS[1:], row(0)])["remarks"], told(ROWS)["remarks"]
    assert any("1 of 1 utterances of dev and test say what train says too" in remark for remark in said)
    assert any("3 characters of dev and test that train lacks" in remark for remark in lacking)
    learn_characters(["text 0123456789"]).save(tmp_path)
    found = told(ROWS, tokenizer=str(tmp_path))["characters"]
    assert found["characters"] == {"a": 1, "|": 1, "b": 1} and found["utterances"] == 1
    with pytest.raises(InputError, match="holds no tokenizer"):
        told(ROWS, tokenizer=str(tmp_path / "none"))


def test_a_page_shows_it_all_and_nothing_breaks_its_tables(tmp_path):
    found = told([*ROWS, row(10, text="text 0", speaker="s|9")], [Skipped("a", "empty", "")])
    write_report(tmp_path, found, ROWS)
    page = (tmp_path / "report.md").read_text()
    assert page == markdown(found) and json.loads((tmp_path / "report.json").read_text())["name"] == "mine"
    for words in ("11 utterances", "| empty | 1 |", "| dev | 1 |", "u10", "Haitsma", "skipped.tsv"):
        assert words in page
    for stem in ("durations", "levels", "snr", "bandwidths"):
        assert f"(figures/{stem}.svg)" in page
        assert "train (9)" in (tmp_path / "figures" / f"{stem}.svg").read_text()
    lines = [line for line in page.splitlines() if line.startswith("|")]
    widths = {line.replace("\\|", "").count("|") for line in lines}
    assert widths <= {3, 5, 6, 7}
