"""Transcript files for NIST's sclite: read back here, and by sclite itself where it is installed."""

import random
import re
import shutil
import subprocess

import pytest

from glmasr.speech import InputError
from glmasr.text.errors import ErrorCounts, count_errors
from glmasr.text.normalize import units
from glmasr.text.trn import trn_name, write_trn

LINE = re.compile(r"(?:(?P<text>.*) )?\((?P<speaker>[a-z0-9_.]+)-(?P<utterance>[a-z0-9_.-]+)\)")
WORDS = ["alpha", "bravo", "我", "想", "book", "nei5", "hou2", "$20", "3.5", "90%", "x", "-"]


def read_trn(path) -> list[tuple[str, str]]:
    """(name, text) of each line; fails where a line is none, or two names differ in their case only."""
    found = [LINE.fullmatch(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert all(found)
    names = [f"{line['speaker']}-{line['utterance']}" for line in found]
    assert len({name.lower() for name in names}) == len(names)
    return list(zip(names, (line["text"] or "" for line in found), strict=True))


def test_what_is_written_is_read_back(tmp_path):
    rows = [("u1", "s1", "我 想 book"), ("u-2", "s1", ""), ("u1", "s2", "nei5  hou2"), ("u3", "", "x")]
    write_trn(tmp_path / "a.trn", rows)
    assert (tmp_path / "a.trn").read_text() == (
        "我 想 book (s1-u1)\n(s1-u-2)\nnei5 hou2 (s2-u1)\n" + f"x ({trn_name('u3', '')})\n"
    )
    assert [text for _, text in read_trn(tmp_path / "a.trn")] == ["我 想 book", "", "nei5 hou2", "x"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.trn"]


def test_names_are_plain_and_stay_apart(tmp_path):
    ids = ["a b", "a_b", "A_b", "a/b", "a(b)", "李", "王", "a-b", "-", "a\nb", "é"]
    speakers = ["s", "S", "s-1", "s_1", "", "講者"]
    rows = [(name, speaker, "x") for name in ids for speaker in speakers]
    write_trn(tmp_path / "a.trn", rows)
    assert len(read_trn(tmp_path / "a.trn")) == len(rows)
    assert trn_name("1034-121119-0000", "1034") == "1034-1034-121119-0000"
    assert re.fullmatch("s_1-a_[0-9a-f]{8}", trn_name("A", "S-1"))


def test_a_name_does_not_depend_on_the_other_rows(tmp_path):
    rows = [("A", "s", "x"), ("a", "s", "y"), ("ä", "s", "z")]
    write_trn(tmp_path / "a.trn", rows)
    write_trn(tmp_path / "b.trn", rows[::-1])
    assert read_trn(tmp_path / "a.trn") == read_trn(tmp_path / "b.trn")[::-1]


def test_text_cannot_be_taken_for_syntax(tmp_path):
    write_trn(tmp_path / "a.trn", [("u", "s", ";; {a / @} (b) \\\n c")])
    assert read_trn(tmp_path / "a.trn") == [("s-u", "；； ｛a ／ ＠｝ （b） ＼ c")]


def test_one_name_twice_is_refused_and_the_old_file_stays(tmp_path):
    write_trn(tmp_path / "a.trn", [("u", "s", "old")])
    with pytest.raises(InputError, match="'u'"):
        write_trn(tmp_path / "a.trn", [("u", "s", "new"), ("u", "s", "newer")])
    assert read_trn(tmp_path / "a.trn") == [("s-u", "old")]
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_trn(tmp_path / "a.trn", [("u", "s", "old")])
    monkeypatch.setattr("glmasr.text.trn.os.replace", lambda *paths: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_trn(tmp_path / "a.trn", [("u", "s", "new")])
    assert read_trn(tmp_path / "a.trn") == [("s-u", "old")]


def test_sclite_counts_as_we_do(tmp_path):
    if not shutil.which("sclite"):
        pytest.skip("sclite is not on the PATH (Debian: package sctk, then /usr/lib/sctk/bin)")
    rng = random.Random(0)
    pairs = [tuple(" ".join(rng.choices(WORDS, k=rng.randint(0, 9))) for _ in range(2)) for _ in range(300)]
    for side, name in enumerate(["reference.trn", "system.trn"]):
        rows = [(f"U/{i}", f"S{i % 7}", " ".join(units(pair[side], "zh", "mer"))) for i, pair in enumerate(pairs)]
        write_trn(tmp_path / name, rows)
    counted = [count_errors(*pair, "zh", "mer") for pair in pairs]
    command = ["sclite", "-r", "reference.trn", "trn", "-h", "system.trn", "trn", "-i", "spu_id", "-e", "utf-8", "-s"]
    told = subprocess.run([*command, "-o", "pra", "stdout"], cwd=tmp_path, capture_output=True, text=True, check=True)
    scores = {
        name: ErrorCounts(substitutions=int(s), deletions=int(d), insertions=int(i), hits=int(c))
        for name, c, s, d, i in re.findall(
            r"id: \((.+)\)\nScores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", told.stdout
        )
    }
    theirs = [scores[trn_name(f"U/{i}", f"S{i % 7}")] for i in range(len(pairs))]
    assert [count.words for count in theirs] == [count.words for count in counted]
    assert all(a.errors >= b.errors for a, b in zip(theirs, counted, strict=True))
    assert sum(a.errors > b.errors for a, b in zip(theirs, counted, strict=True)) <= len(pairs) // 50
