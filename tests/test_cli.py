"""`glmasr transcribe` and `compare`: files in, text out; what cannot be read is one sentence and stops no other."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from glmasr import cli
from glmasr.speech import InputError, Segment
from glmasr.text.subtitles import FORMATS
from glmasr.text.tokenizer import learn_characters
from tests.small import random_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "bundle"
    random_bundle(folder, learn_characters(["abc de"]))
    return folder


@pytest.fixture
def clip(rhyme_root, tmp_path):
    shutil.copyfile(rhyme_root / "rhyme_test" / "audio" / "M4_b1_w1.flac", tmp_path / "clip.flac")
    return str(tmp_path / "clip.flac")


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Exit code (or last words), stdout and stderr of `glmasr transcribe --bundle folder …`."""

    def call(*arguments, bundle=folder):
        monkeypatch.setattr(sys, "argv", ["glmasr", "transcribe", "--bundle", str(bundle), *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code, *capsys.readouterr()

    return call


def test_every_format_is_printed_and_written(run, clip, tmp_path):
    assert set(cli.FORMATS) == set(FORMATS)
    printed = {form: run(clip, "--format", form) for form in cli.FORMATS}
    assert all(code == 0 and not err for code, _, err in printed.values())
    text = printed["txt"][1].strip()
    assert text and json.loads(printed["json"][1])["text"] == text
    assert printed["srt"][1].startswith("1\n00:00:0") and printed["vtt"][1].startswith("WEBVTT")
    for form in cli.FORMATS:
        assert run(clip, "--format", form, "--output", tmp_path / "out")[:2] == (0, "")
        assert (tmp_path / "out" / f"clip.{form}").read_text().rstrip("\n") == printed[form][1].rstrip("\n")
    assert run(clip)[1] == printed["txt"][1]


def test_one_unreadable_file_does_not_stop_the_rest(run, clip, tmp_path):
    (tmp_path / "fake.wav").write_text("this is no sound")
    code, out, err = run(tmp_path / "fake.wav", clip, tmp_path / "gone.wav")
    assert code == 1 and len(out.splitlines()) == 1
    assert [line.startswith("glmasr: '") for line in err.splitlines()] == [True, True]
    assert "fake.wav' is not audio" in err and "gone.wav' does not exist" in err


def test_searches_and_their_settings_stand_among_the_files(run, clip):
    greedy = run(clip)[1]
    code, attention, _ = run(clip, "--decoding", "attention")
    assert code == 0 and attention == run("decoding=attention", clip)[1] != greedy
    settings = ["decoding=joint", "decoding.beam=2", "decoding.hotwords=[ab, c]"]
    assert run(*settings, clip)[0] == 0
    assert run("decoding=streaming", "decoding.chunk_frames=4", clip)[1] != greedy
    assert "did you mean 'beam'" in str(run("decoding=joint", "decoding.beem=2", clip)[0])
    assert "decoding 'huge' is unknown: choose one of ctc_greedy" in str(run(clip, "decoding=huge")[0])
    assert "'decoding.hotwords=[ab' is not readable" in str(run(clip, "decoding.hotwords=[ab")[0])
    assert "no file is given" in str(run("decoding=joint")[0])


def test_words_have_lines_of_their_own(run, clip):
    code, out, _ = run(clip, "--words")
    head, *lines = out.splitlines()
    assert code == 0 and head == "start\tend\tconfidence\tword" and len(lines) == len(run(clip)[1].split())
    assert out == run(clip, "--format", "words.tsv")[1]


def test_language_script_and_vad_are_handed_on(run, clip, tmp_path):
    assert json.loads(run(clip, "--language", "yue", "--format", "json")[1])["language"] == "yue"
    assert run(clip, "--script", "traditional", "--numerals")[0] == 0
    soundfile.write(tmp_path / "hiss.wav", 0.1 * np.random.default_rng(0).standard_normal(30_000), 16_000)
    assert run(tmp_path / "hiss.wav")[:2] == (0, "\n")
    assert run(tmp_path / "hiss.wav", "--no-vad")[1].strip()


def test_a_folder_is_written_once_and_goes_on_where_it_was(run, clip, tmp_path):
    talks, out = tmp_path / "talks", tmp_path / "out"
    (talks / "day").mkdir(parents=True)
    for name in ("one.flac", "day/two.flac"):
        shutil.copyfile(clip, talks / name)
    (talks / "notes.md").write_text("no sound")
    assert run(talks, "--output", out)[:2] == (0, "")
    made = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert made == ["day/two.txt", "one.txt"]
    (out / "one.txt").write_text("mine")
    os.utime(talks / "day" / "two.flac", (4e9, 4e9))
    (out / "day" / "two.txt").write_text("old")
    code, _, err = run(talks, "--output", out)
    assert code == 0 and "kept 1 of 2 transcripts (--overwrite writes them again)" in err
    assert (out / "one.txt").read_text() == "mine" and (out / "day" / "two.txt").read_text() != "old"
    assert run(talks, "--output", out, "--overwrite")[0] == 0 and (out / "one.txt").read_text() != "mine"
    (tmp_path / "nothing").mkdir()
    assert "there is no audio file (.wav" in str(run(tmp_path / "nothing")[0])
    shutil.copyfile(clip, talks / "one.wav")
    assert "would both be written to" in str(run(talks, "--output", out)[0])


@pytest.mark.parametrize("seconds", [0.0, 0.01, 2.0])
def test_nothing_short_and_silence_are_a_sentence_or_no_words(run, tmp_path, seconds):
    soundfile.write(tmp_path / "clip.wav", np.zeros(round(16_000 * seconds)), 16_000)
    code, out, err = run(tmp_path / "clip.wav")
    assert not out.strip() and code == (seconds == 0) and err.count("\n") == (seconds == 0)


def test_captions_are_printed_as_they_come(run, clip, monkeypatch):
    """What live captions are is tests/test_live.py's business."""
    shown = []

    class LiveTranscriber:
        def __init__(self, transcriber):
            self.heard = 0

        def hear(self, samples):
            self.heard += len(samples)
            shown.append(len(samples))
            return [SimpleNamespace(segment=Segment("par", 0.0, 1.0), is_final=False)] if len(shown) == 2 else []

        def finish(self):
            return [SimpleNamespace(segment=Segment("partial", 0.0, self.heard / 16_000), is_final=True)]

    monkeypatch.setitem(sys.modules, "glmasr.live", SimpleNamespace(LiveTranscriber=LiveTranscriber))
    code, out, _ = run(clip, "--stream")
    partial, final = out.splitlines()
    assert code == 0 and partial == "[    0.00     1.00] … par" and final.endswith("] partial")
    assert set(shown[:-1]) == {1600}


def test_what_stops_everything_is_one_sentence(run, clip, tmp_path):
    code, out, err = run(clip, bundle=tmp_path)
    assert str(code).startswith(f"glmasr: {tmp_path} is not a bundle") and not out + err
    (tmp_path / "file").touch()
    code, _, err = run(clip, "--output", tmp_path / "file" / "sub")
    assert str(code).startswith(f"glmasr: {tmp_path}/file") and "Not a directory" in str(code) and not err
    assert run(clip, "--format", "doc")[0] == 2
    assert "leave it out" in run(clip, "--offload")[0]
    for device in ("nosuch", "cuda:77"):
        assert f"glmasr: device '{device}' cannot be used here" in run(clip, "--device", device)[0]


def test_the_installed_command_says_what_is_wrong(tmp_path):
    command = [sys.executable, "-m", "glmasr.cli", "transcribe", "--bundle", str(tmp_path / "nowhere"), "a.wav"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith(f"glmasr: {tmp_path}/nowhere is not a bundle") and done.stderr.count("\n") == 1


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """Exit code (or last words), stdout and stderr of `glmasr compare` on two small reports and more arguments."""
    row = {"system": "ours", "test_set": "set", "condition": "clean", "metric": "wer", "low": 0.1, "high": 0.3}
    for name, value in (("a", 0.2), ("b", 0.15)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"results": [row | {"value": value}]}))

    def call(*arguments, after="b.json"):
        paths = [str(tmp_path / name) for name in ("a.json", after)]
        monkeypatch.setattr(sys, "argv", ["glmasr", "compare", *paths, *arguments])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code, *capsys.readouterr()

    return call


def test_compare_prints_a_table_or_json(compare):
    code, out, err = compare()
    assert (code, err) == (0, "") and "| 20.0 % (10.0-30.0) | 15.0 % (10.0-30.0) | -5.0 " in out
    code, out, _ = compare("--json")
    assert code == 0 and json.loads(out)["changes"][0]["delta"] == pytest.approx(-0.05)


def test_compare_says_what_is_no_report(compare, tmp_path):
    (tmp_path / "other.json").write_text("{}")
    code, out, err = compare(after="other.json")
    assert str(code).startswith(f"glmasr: '{tmp_path}/other.json' is not a benchmark report: give") and not out + err
    assert "gone.json' cannot be read" in str(compare(after="gone.json")[0])


@pytest.mark.parametrize(("content", "key"), [(b"sesame \n# mine\n", "sesame"), (b"", None), (b"\xff\xfe\n", None)])
def test_a_key_is_the_first_line_of_its_file_or_a_sentence(tmp_path, monkeypatch, content, key):
    (tmp_path / "key").write_bytes(content)
    if key is None:
        with pytest.raises(InputError, match=r"key. .* on its first line|key. is no text"):
            cli._key(tmp_path / "key")
    else:
        assert cli._key(tmp_path / "key") == key
    monkeypatch.setenv("GLMASR_API_KEY", content.decode(errors="ignore").splitlines()[0] if key else " ")
    assert cli._key(None) == key
