"""Layouts of corpora, as people have them and as people break them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from glmasr.build import build
from glmasr.data.catalog import Skipped, prepare_catalog
from glmasr.data.corpora import AudioFolder, Manifest, split_by_hash
from glmasr.frontend.audio import write_audio
from glmasr.speech import InputError

CONF = Path(__file__).parents[2] / "conf" / "data"


def record(path: Path, seconds: float = 0.25) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, np.full(round(seconds * 16_000), 0.1, np.float32))


def write_manifest(folder: Path, rows: list[dict]) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(folder / "manifest.jsonl")


def test_a_folder_is_read_with_texts_speakers_and_splits(tmp_path):
    record(tmp_path / "train" / "anna" / "1.wav", 0.5)
    (tmp_path / "train" / "anna" / "1.txt").write_text("  hello\n there ")
    record(tmp_path / "valid" / "ben" / "2.flac")
    record(tmp_path / "test-clean" / "3.wav")
    record(tmp_path / ".hidden.wav")
    first, second, third = sorted(
        AudioFolder(str(tmp_path), "en").utterances(), key=lambda u: os.path.basename(u.audio)
    )
    assert (first.id, first.text, first.speaker, first.split) == ("train/anna/1", "hello there", "anna", "train")
    assert (first.duration_seconds, first.language, os.path.isabs(first.audio)) == (0.5, "en", True)
    assert (second.text, second.speaker, second.split) == (None, "ben", "dev")
    assert (third.speaker, third.split) == ("", "test")


def test_librispeech_tables_give_text_and_speaker(tmp_path):
    folder = tmp_path / "dev-clean" / "84" / "121123"
    record(folder / "84-121123-0000.flac")
    (folder / "84-121123.trans.txt").write_text("84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT\n")
    [found] = AudioFolder(str(tmp_path)).utterances()
    assert (found.text, found.speaker, found.split) == ("GO DO YOU HEAR", "84", "dev")


def test_strays_and_unreadable_files_are_reported_not_lost(tmp_path):
    record(tmp_path / "a.wav")
    (tmp_path / "b.txt").write_text("nobody said this")
    (tmp_path / "c.wav").write_bytes(b"")
    (tmp_path / "d.m4a").write_bytes(b"\0\0\0 ftypM4A ")
    skipped = {os.path.basename(s.name): s for s in AudioFolder(str(tmp_path)).utterances() if isinstance(s, Skipped)}
    assert {name: s.cause for name, s in skipped.items()} == {
        "b.txt": "transcript without audio",
        "c.wav": "empty",
        "d.m4a": "not audio",
    }
    assert not skipped["b.txt"].is_audio and "ffmpeg" in skipped["d.m4a"].detail


def test_a_folder_without_recordings_is_an_input_error_that_says_why(tmp_path):
    with pytest.raises(InputError, match="no corpus is named"):
        AudioFolder("").fingerprint()
    with pytest.raises(InputError, match="does not exist"):
        AudioFolder(str(tmp_path / "nowhere")).fingerprint()
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(InputError, match="no recording"):
        AudioFolder(str(tmp_path)).fingerprint()
    with pytest.raises(InputError, match="is a file"):
        AudioFolder(str(tmp_path / "a.txt")).fingerprint()
    (tmp_path / "a.m4a").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.m4a.*ffmpeg"):
        AudioFolder(str(tmp_path)).fingerprint()
    record(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        list(AudioFolder(str(tmp_path)).utterances())


def test_a_changed_file_changes_the_fingerprint(tmp_path):
    record(tmp_path / "a.wav")
    before = AudioFolder(str(tmp_path)).fingerprint()
    assert before == AudioFolder(str(tmp_path)).fingerprint() != AudioFolder(str(tmp_path), "en").fingerprint()
    (tmp_path / "a.txt").write_text("now with text")
    assert before != AudioFolder(str(tmp_path)).fingerprint()


def test_a_manifest_is_read_in_both_spellings(tmp_path):
    record(tmp_path / "wavs" / "a.wav", 1.0)
    record(tmp_path / "b.wav", 1.0)
    rows = [
        {
            "audio_filepath": "wavs/a.wav",
            "duration": 0.4,
            "offset": 0.5,
            "text": " hi  you ",
            "lang": "en",
            "split": "valid",
        },
        {
            "audio_filepath": str(tmp_path / "b.wav"),
            "text": "",
            "language": "zh",
            "speaker": 7,
            "id": "bee",
            "split": "test",
        },
        {"audio_filepath": "b.wav", "duration": 1.2, "offset": 0.25},
    ]
    first, second, third = Manifest(write_manifest(tmp_path, rows), "yue").utterances()
    assert (first.offset_seconds, first.duration_seconds, first.text) == (0.5, 0.4, "hi you")
    assert (first.language, first.split, first.audio) == ("en", "dev", str(tmp_path / "wavs" / "a.wav"))
    assert (second.id, second.text, second.language, second.speaker, second.split) == ("bee", None, "zh", "7", "test")
    assert (third.duration_seconds, third.language) == (0.75, "yue") and third.split in ("train", "dev")


def test_a_recording_shorter_than_its_manifest_says_is_skipped(tmp_path):
    """Its transcript says more than can be heard; half a second is rounding."""
    record(tmp_path / "b.wav", 1.0)
    rows = [{"audio_filepath": "b.wav", "duration": seconds} for seconds in (1.4, 1.6)]
    first, second = Manifest(write_manifest(tmp_path, rows)).utterances()
    assert (
        first.duration_seconds == 1.0
        and second.cause == "truncated"
        and "1.00 of the 1.60 s claimed (line 2 of" in second.detail
    )


def test_missing_recordings_and_late_offsets_are_skipped(tmp_path):
    record(tmp_path / "a.wav", 1.0)
    rows = [{"audio_filepath": "a.wav"}, {"audio_filepath": "gone.wav"}, {"audio_filepath": "a.wav", "offset": 5}]
    found = list(Manifest(write_manifest(tmp_path, rows)).utterances())
    assert [one.cause for one in found if isinstance(one, Skipped)] == ["missing", "outside the recording"]
    assert "line 2" in found[1].detail


def test_supplying_a_missing_recording_changes_the_fingerprint(tmp_path):
    path = write_manifest(tmp_path, [{"audio_filepath": "a.wav"}])
    before = Manifest(path).fingerprint()
    record(tmp_path / "a.wav")
    assert Manifest(path).fingerprint() != before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "line 3 .*not JSON"),
        ("[1]", "line 3 .*audio_filepath"),
        ('{"audio_filepath": ""}', "line 3 .*audio_filepath"),
        ('{"audio_filepath": "a.wav", "duration": "long"}', "line 3.*duration is 'long'"),
        ('{"audio_filepath": "a.wav", "offset": -1}', "line 3.*offset"),
    ],
)
def test_a_line_not_understood_is_named_by_number(tmp_path, line, message):
    record(tmp_path / "a.wav")
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "a.wav"}\n\n' + line + "\n")
    with pytest.raises(InputError, match=message):
        list(Manifest(str(tmp_path / "m.jsonl")).utterances())


def test_a_path_that_is_no_manifest_is_an_input_error(tmp_path):
    for empty in ("", [], " , "):
        with pytest.raises(InputError, match="no corpus is named"):
            Manifest(empty).fingerprint()
    with pytest.raises(InputError, match="does not exist"):
        Manifest(str(tmp_path / "nowhere.jsonl")).name  # noqa: B018
    with pytest.raises(InputError, match="data=folder"):
        Manifest(str(tmp_path)).fingerprint()
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(InputError, match="is empty"):
        Manifest(str(tmp_path)).fingerprint()
    record(tmp_path / "a.wav")
    with pytest.raises(InputError, match="one JSON object a line"):
        Manifest(str(tmp_path / "a.wav")).fingerprint()


def test_several_manifests_become_one_corpus(tmp_path):
    for name in ("one", "two"):
        record(tmp_path / name / "a.wav")
        write_manifest(tmp_path / name, [{"audio_filepath": "a.wav", "id": "a", "speaker": "s"}])
    paths = [str(tmp_path / "one"), str(tmp_path / "two" / "manifest.jsonl")]
    both = Manifest(paths)
    assert both.name == "one+two" == Manifest(",".join(paths)).name
    assert [(u.id, u.speaker) for u in both.utterances()] == [("one/a", "one/s"), ("two/a", "two/s")]


def test_the_dev_share_is_kept_and_is_stable():
    splits = [split_by_hash(f"id{n}", 0.1) for n in range(3000)]
    assert 0.08 < splits.count("dev") / 3000 < 0.12
    assert splits[:50] == [split_by_hash(f"id{n}", 0.1) for n in range(50)]
    assert {split_by_hash(f"id{n}", 0.0) for n in range(50)} == {"train"}


def test_real_manifests_of_several_languages_are_prepared(shared_corpora, tmp_path):
    source = Manifest([str(shared_corpora / name) for name in ("librispeech_mini", "aishell_sample", "drink_orders")])
    catalog = prepare_catalog(source, str(tmp_path))
    assert len(catalog) == 301 + 750 + 619 and catalog.languages == ("en", "zh")
    assert 203 < catalog.durations.sum() / 60 < 205
    assert len(catalog.subset(labelled=True)) == 301 + 750
    ten = catalog.subset(split="train", labelled=True, max_total_minutes=10, seed=1)
    assert 9.4 < ten.durations.sum() / 60 <= 10.0 and len({u.speaker for u in ten}) == len(ten)


@pytest.mark.parametrize("name", ["folder", "manifest", "rhyme_test"])
def test_the_configs_name_exactly_the_parameters(name):
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert next(iter(config)) == "_target_"
    reader = build(config)
    assert list(config)[1:] == list(type(reader).__dataclass_fields__)
