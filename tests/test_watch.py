"""`glmasr transcribe --watch`: recordings that arrive become subtitles, also after a restart; signals end it well."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glmasr import cli
from glmasr.serving import watch
from glmasr.text.tokenizer import learn_characters
from tests.small import random_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watch") / "bundle"
    random_bundle(folder, learn_characters(["abc de"]))
    return folder


@pytest.fixture
def clip(rhyme_root) -> bytes:
    return (rhyme_root / "rhyme_test" / "audio" / "M4_b1_w1.flac").read_bytes()


def watched(monkeypatch, capsys, bundle: Path, inbox: Path, *arguments: str, arriving=()) -> tuple[int, str, str]:
    """What a watch prints that sees what is there, then each of `arriving` happen, and then Ctrl-C."""
    events = iter([*arriving, None])

    def sleep(_):
        event = next(events)
        if event is None:
            raise KeyboardInterrupt
        event()

    original = watch.arrivals
    monkeypatch.setattr(watch, "arrivals", lambda *given: original(*given, still_seconds=0.0, sleep=sleep))
    there = ["glmasr", "transcribe", "--bundle", str(bundle), "--watch", str(inbox), "--format", "srt"]
    monkeypatch.setattr(sys, "argv", [*there, *arguments])
    with pytest.raises(SystemExit) as done:
        cli.main()
    monkeypatch.undo()
    return done.value.code, *capsys.readouterr()


def test_what_arrives_is_written_beside_it_and_kept(monkeypatch, capsys, folder, clip, tmp_path):
    (tmp_path / "a.flac").write_bytes(clip)
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    arriving = [lambda: (tmp_path / "b.flac").write_bytes(clip), lambda: None, lambda: None]
    code, out, err = watched(monkeypatch, capsys, folder, tmp_path, arriving=arriving)
    assert code == 0 and out.split() == [str(tmp_path / "a.srt"), str(tmp_path / "b.srt")]
    assert "-->" in (tmp_path / "b.srt").read_text() and err.count("bad.wav' is not audio") == 1
    assert err.rstrip().splitlines()[-1].endswith("2 transcripts written, 1 could not be")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.srt")}
    code, out, err = watched(monkeypatch, capsys, folder, tmp_path)
    assert out == "" and "0 transcripts written" in err and err.count("bad.wav' is not audio") == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.srt")} == before
    assert watched(monkeypatch, capsys, folder, tmp_path, "--overwrite")[1].count(".srt") == 2


def test_a_file_that_changes_is_written_again_and_a_folder_apart_mirrors_it(
    monkeypatch, capsys, folder, clip, tmp_path
):
    inbox, there = tmp_path / "in", tmp_path / "out"
    (inbox / "deep").mkdir(parents=True)
    file = inbox / "deep" / "a.flac"
    file.write_bytes(clip[:5000])

    def completed():
        file.write_bytes(clip)
        os.utime(file, (1, 1))  # copied with its old time: it changed all the same

    code, out, err = watched(monkeypatch, capsys, folder, inbox, "--output", str(there), arriving=[completed])
    assert code == 0 and out.split()[-1] == str(there / "deep" / "a.srt")
    assert (there / "deep" / "a.srt").is_file() and not list(inbox.rglob("*.srt")), err


def test_two_of_one_name_do_not_overwrite_each_other(monkeypatch, capsys, folder, clip, tmp_path):
    (tmp_path / "a.flac").write_bytes(clip)
    os.utime(tmp_path / "a.flac", (1, 1))
    (tmp_path / "a.wav").write_bytes(clip)
    _, out, err = watched(monkeypatch, capsys, folder, tmp_path)
    assert out.split() == [str(tmp_path / "a.srt")] and "a.wav' would be written to" in err and "rename it" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["a.wav"], "leave files and --stream out"), (["--stream"], "leave files and --stream out"), ([], "is no folder")],
)
def test_what_cannot_be_watched_is_a_sentence(monkeypatch, capsys, folder, tmp_path, arguments, says):
    assert says in watched(monkeypatch, capsys, folder, tmp_path / "none", *arguments)[0]


def test_sigterm_ends_it_with_a_sentence(folder, clip, tmp_path):
    """A real process, as it runs under systemd or docker; Ctrl-C is in every other test."""
    (tmp_path / "a.flac").write_bytes(clip)
    command = [sys.executable, "-m", "glmasr.cli", "transcribe", "--bundle", folder, "--watch", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().strip() == str(tmp_path / "a.txt")
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in said
    assert said.rstrip().endswith(f"stopped watching '{tmp_path}': 1 transcripts written")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flac", "a.txt"]


def test_the_words_of_a_watch_are_those_of_a_plain_run(monkeypatch, capsys, folder, clip, tmp_path):
    (tmp_path / "a.flac").write_bytes(clip)
    watched(monkeypatch, capsys, folder, tmp_path)
    monkeypatch.setattr(sys, "argv", ["glmasr", "transcribe", "--bundle", str(folder), "--format", "srt"])
    sys.argv.append(str(tmp_path / "a.flac"))
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out.strip() == (tmp_path / "a.srt").read_text().strip()
