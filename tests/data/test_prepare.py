"""Preparing a corpus: whole files only, once each, whatever stops it, and the catalog that trainings open."""

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from glmasr.augment.noise import list_recordings
from glmasr.build import build
from glmasr.data import prepare
from glmasr.data.catalog import prepare_catalog, write_catalog
from glmasr.data.corpora import AudioFolder, Manifest
from glmasr.data.export import to_shards
from glmasr.data.prepare import Journal, Prepared, prepare_corpus
from glmasr.frontend.audio import read_audio
from glmasr.speech import InputError, Interrupted
from tests.small import REPOSITORY, composed, corpus

__all__ = ["corpus"]


def asked(path, home, *overrides: str) -> dict:
    given = [f"source.path={path}", "source.language=en", f"catalogs={home}", "name=mine", "workers=0"]
    return composed("prepare", "data@source=folder", *given, *overrides)


@pytest.fixture
def examined(monkeypatch) -> list[str]:
    """The names of what is decoded."""
    names, real = [], prepare.examine

    def counting(audio, offset, duration, name):
        names.append(name)
        return real(audio, offset, duration, name)

    monkeypatch.setattr(prepare, "examine", counting)
    return names


def copied(corpus, folder) -> Path:
    shutil.copytree(corpus, folder)
    return folder


def test_a_prepared_corpus_is_the_reader_s_and_trainings_open_it_by_name(corpus, tmp_path):
    home = prepare_corpus(asked(corpus, tmp_path))
    expected = list(AudioFolder(str(corpus), "en").utterances())
    source = build(composed("pretrain", "data=prepared", "data.name=mine", f"data.root={tmp_path}")["data"])
    assert list(prepare_catalog(source, str(tmp_path / "unused"))) == expected == list(source.utterances())
    assert not (tmp_path / "unused").exists()
    told = json.loads((home / "report.json").read_text())
    assert (told["utterances"], told["speakers"], told["skipped"]) == (12, 3, {})
    assert told["hours"] == pytest.approx(sum(u.duration_seconds for u in expected) / 3600, abs=1e-4)
    assert told["overlap"]["speaker"] == 2 and told["overlap"]["splits"]["test"]["speaker"]["count"] == 0
    page = (home / "report.md").read_text()
    pictures = sorted(path.name for path in (home / "figures").iterdir())
    assert len(pictures) == 4 and all(f"figures/{name}" in page for name in pictures)


def test_other_toolkits_find_a_manifest_beside_the_catalog_of_files(corpus, tmp_path):
    home = prepare_corpus(asked(corpus, tmp_path))
    catalog = list(Prepared("mine", str(tmp_path)).open())
    assert list(Manifest(str(home)).utterances()) == catalog
    assert list_recordings(str(home)) == [one.audio for one in catalog if one.split == "train"]
    shards = to_shards(write_catalog(catalog, tmp_path / "again"), tmp_path / "shards")
    for source, setting in (("parquet_shards", "path"), ("streamed_shards", "url")):
        given = [f"catalogs={tmp_path}", "name=mine", "workers=0", f"source.{setting}={shards[0].parent}"]
        prepare_corpus(composed("prepare", f"data@source={source}", *given))
        assert not (home / "manifest.jsonl").exists() and len(Prepared("mine", str(tmp_path)).open()) == 12
        (home / "manifest.jsonl").write_text("of yesterday")


def test_an_unchanged_corpus_is_left_alone(corpus, tmp_path, examined, capsys):
    home = prepare_corpus(asked(corpus, tmp_path))
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    assert len(examined) == 12 and prepare_corpus(asked(corpus, tmp_path)) == home
    assert len(examined) == 12 and "nothing to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def test_only_what_changed_is_decoded_again(corpus, tmp_path, examined):
    mine = copied(corpus, tmp_path / "audio")
    home = prepare_corpus(asked(mine, tmp_path))
    files = sorted(map(str, mine.rglob("*.flac")))
    os.remove(files[0])
    shutil.copyfile(files[1], files[2])
    Path(files[3]).with_suffix(".txt").write_text("said otherwise")
    prepare_corpus(asked(mine, tmp_path))
    assert examined[12:] == [files[2]]
    told = json.loads((home / "report.json").read_text())
    assert told["utterances"] == 11 and told["duplicates"]["exact"] == 1
    assert "said otherwise" in Prepared("mine", str(tmp_path)).open().texts()
    assert len((home / "measured.jsonl").read_text().splitlines()) == 11
    assert not [path.name for path in home.iterdir() if path.name.startswith(".")]


def wav(samples: bytes, channels: int = 1, rate_hz: int = 16_000) -> bytes:
    pace = min(rate_hz * channels * 2, 2**32 - 1)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate_hz, pace, channels * 2, 16)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(samples)) + samples
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def broken(waveform: np.ndarray) -> dict[str, bytes | None]:
    """A recording broken ten ways, by the cause it is to be counted under; None is never written."""
    opus, floats, flac = io.BytesIO(), io.BytesIO(), io.BytesIO()
    soundfile.write(opus, waveform, 16_000, format="OGG", subtype="OPUS")
    holed = waveform.copy()
    holed[1000] = np.nan
    soundfile.write(floats, holed, 16_000, format="WAV", subtype="FLOAT")
    soundfile.write(flac, waveform, 16_000, format="FLAC")
    samples = (waveform[:6000] * 32767).astype("<i2").tobytes()
    return {
        "truncated": opus.getvalue()[: len(opus.getvalue()) // 2],
        "truncated ": wav(samples)[:-1000],
        "empty": b"",
        "a web page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "not finite": floats.getvalue(),
        "more than 64 channels": wav(samples[: 510 * 20], 255),
        "impossible sample rate": wav(samples, 1, 655_350),
        "missing": None,
        "damaged": flac.getvalue()[:500] + np.random.default_rng(0).bytes(len(flac.getvalue()) - 500),
        "not audio": b"This was meant to be a recording of a voice.\n" * 9,
    }


def test_what_is_broken_is_counted_by_cause_and_the_rest_is_as_if_it_had_never_been(corpus, tmp_path):
    clean = copied(corpus, tmp_path / "audio")
    rows = [{"audio_filepath": str(path), "text": "t"} for path in sorted(clean.rglob("*.flac"))]
    (tmp_path / "clean.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = broken(read_audio(rows[0]["audio_filepath"]))
    for number, content in enumerate(files.values()):
        if content is not None:
            (tmp_path / f"{number}.opus").write_bytes(content)
        rows.insert(number * 2, {"audio_filepath": str(tmp_path / f"{number}.opus")})
    (tmp_path / "mixed.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = [f"catalogs={tmp_path}", "workers=0", "max_skipped_share=0.5"]
    homes = {
        name: prepare_corpus(composed("prepare", f"source.path={tmp_path / name}.jsonl", f"name=of_{name}", *given))
        for name in ("clean", "mixed")
    }
    told = json.loads((homes["mixed"] / "report.json").read_text())
    assert told["skipped"] == {cause: 1 + (cause == "truncated") for cause in files if not cause.endswith(" ")}
    assert list(Prepared("of_mixed", str(tmp_path)).open()) == list(Prepared("of_clean", str(tmp_path)).open())
    listed = [line.split("\t") for line in (homes["mixed"] / "skipped.tsv").read_text().splitlines()]
    assert [Path(name).name for name, *_ in listed] == [f"{number}.opus" for number in range(len(files))]
    strict = composed("prepare", f"source.path={tmp_path}/mixed.jsonl", "name=strict", *given[:2])
    with pytest.raises(InputError, match=r"10 of 22 recordings .*truncated 2.*skipped\.tsv"):
        prepare_corpus(strict)
    assert {path.name for path in (tmp_path / "strict").iterdir()} == {"measured.jsonl", "skipped.tsv"}


def test_an_interrupted_preparation_goes_on_where_it_was(corpus, tmp_path, examined, monkeypatch):
    real = prepare.examine

    def stopped(*arguments):
        if len(examined) == 7:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(prepare, "examine", stopped)
    with pytest.raises(Interrupted, match="stopped after 7 recordings; the same command goes on"):
        prepare_corpus(asked(corpus, tmp_path))
    assert not (tmp_path / "mine" / "catalog").exists()
    monkeypatch.setattr(prepare, "examine", real)
    prepare_corpus(asked(corpus, tmp_path))
    assert len(examined) == 12 == len(set(examined))
    assert list(Prepared("mine", str(tmp_path)).open()) == list(AudioFolder(str(corpus), "en").utterances())


SLOW = """
import sys, time
from glmasr.data import corpora, prepare
real = corpora.probe_audio
corpora.probe_audio = lambda file: (time.sleep(0.1), real(file))[1]
prepare.prepare_corpus({config})
"""


def test_a_killed_preparation_leaves_no_process_and_goes_on_where_it_was(corpus, tmp_path, examined):
    program = SLOW.format(config=asked(corpus, tmp_path, "workers=2"))
    process = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, start_new_session=True)
    journal, end = tmp_path / "mine" / "measured.jsonl", time.monotonic() + 120
    while not (journal.exists() and journal.read_text().count("\n") >= 3) and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
    measured = journal.read_text().count("\n")
    assert 3 <= measured < 12 and not (tmp_path / "mine" / "catalog").exists()
    prepare_corpus(asked(corpus, tmp_path))
    assert len(examined) == 12 - measured
    assert list(Prepared("mine", str(tmp_path)).open()) == list(AudioFolder(str(corpus), "en").utterances())


def test_sigterm_stops_like_ctrl_c(corpus, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(prepare, "examine", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        prepare_corpus(asked(corpus, tmp_path))
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_line_that_a_kill_cut_off_is_not_believed(tmp_path):
    path = tmp_path / "measured.jsonl"
    with Journal(path) as journal:
        journal.add("a", ("empty", "it is empty"))
    path.write_text(path.read_text() + '["b", ["emp')
    with Journal(path) as journal:
        assert "a" in journal and "b" not in journal
        journal.add("c", ("missing", "gone"))
    assert Journal(path).known == {"a": ("empty", "it is empty"), "c": ("missing", "gone")}


def test_a_corpus_nobody_prepared_is_an_input_error_that_names_those_there(tmp_path):
    (tmp_path / "yours").mkdir()
    (tmp_path / "yours" / "report.json").write_text("{}")
    with pytest.raises(InputError, match=r"'mine'.*there: yours.*make prepare"):
        Prepared("mine", str(tmp_path)).open()


def test_the_script_takes_what_people_write(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    from importlib import import_module

    addressed = import_module("prepare").addressed
    written = ["source=folder", "path=/a", "source.language=en", "name=path=x"]
    assert [addressed(one) for one in written] == ["data@source=folder", "source.path=/a", *written[2:]]


def test_several_prepared_corpora_are_one(corpus, tmp_path):
    for name in ("one", "two"):
        write_catalog(AudioFolder(str(corpus), "en").utterances(), tmp_path / name / "catalog")
    both = Prepared(["one", "two"], str(tmp_path)).open()
    assert len(both) == 2 * len(Prepared("one", str(tmp_path)).open())
    with pytest.raises(InputError, match="no prepared corpus 'three'"):
        Prepared(["one", "three"], str(tmp_path)).open()
