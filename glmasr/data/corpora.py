"""A folder of recordings, or a manifest of them, in; utterances out."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path

from glmasr.data.catalog import Skipped
from glmasr.data.verify import check_header
from glmasr.frontend.audio import AUDIO_SUFFIXES, UnreadableAudio, probe_audio
from glmasr.speech import InputError, Utterance

FOREIGN_SUFFIXES = (".m4a", ".mp4", ".aac", ".webm", ".wma", ".amr", ".mkv", ".mov")
"""Recordings libsndfile does not read: named to the user, not passed over in silence."""

TABLE_SUFFIX = ".trans.txt"
"""LibriSpeech's transcripts: an id, a space and the text on each line, for all recordings of a folder."""

CLAIMED_SECONDS = 0.5
"""A recording that is shorter than its manifest says by more was cut short; less is rounding."""

SPLIT_NAMES = {"train": "train", "dev": "dev", "test": "test"}
SPLIT_NAMES |= dict.fromkeys(("valid", "validation", "val"), "dev") | {"eval": "test"}


@dataclass(frozen=True)
class AudioFolder:
    """Recordings anywhere under `path`; transcripts in `<stem>.txt` beside them or in LibriSpeech's `*.trans.txt`.

    The speaker is the parent folder. The split is a folder called train, dev, valid or test (`test-clean` too);
    elsewhere `dev_share` of the recordings, by a hash of their id, are dev and the others train.
    """

    path: str
    language: str = ""
    dev_share: float = 0.05
    text_suffix: str = ".txt"

    @property
    def name(self) -> str:
        """The folder's own name."""
        return safe_name([self.path])

    def fingerprint(self) -> str:
        """A hash over the options and every recording and transcript; InputError where there is no recording."""
        recordings, transcripts = self._found()
        return fingerprint_of(self, [*recordings, *transcripts])

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """Recordings sorted by path, then the transcripts nobody claimed."""
        recordings, transcripts = self._found()
        tables = {os.path.dirname(file): file for file in transcripts if file.endswith(TABLE_SUFFIX)}
        read_table = lru_cache(1)(_read_transcript_table)
        unclaimed = set(transcripts) - set(tables.values())
        for file in recordings:
            stem, table = os.path.splitext(file)[0], tables.get(os.path.dirname(file))
            text = read_table(table).get(os.path.basename(stem)) if table else None
            if stem + self.text_suffix in unclaimed:
                unclaimed.discard(stem + self.text_suffix)
                text = _read_text(stem + self.text_suffix)
            try:
                yield self._utterance(file, text, table)
            except UnreadableAudio as error:
                yield Skipped(file, error.cause, str(error))
        for file in sorted(unclaimed):
            yield Skipped(file, "transcript without audio", f"'{file}' has no recording beside it", is_audio=False)

    def _utterance(self, file: str, text: str | None, table: str | None) -> Utterance:
        parts = Path(os.path.relpath(file, self.path)).with_suffix("").parts
        split = next(filter(None, map(split_of_folder, parts[:-1])), None)
        speaker = parts[-2] if len(parts) > 1 and not split_of_folder(parts[-2]) else ""
        if table:
            speaker = os.path.basename(table).split("-")[0]
        return Utterance(
            id="/".join(parts),
            audio=file,
            duration_seconds=probe_audio(file).duration_seconds,
            text=text,
            language=self.language,
            speaker=speaker,
            split=split or split_by_hash("/".join(parts), self.dev_share),
        )

    def _found(self) -> tuple[list[str], list[str]]:
        """Absolute paths of the recordings and of the transcripts; InputError where there is no recording."""
        self._check_path()
        files = []
        for folder, _, names in os.walk(os.path.abspath(self.path), followlinks=True):
            files += [os.path.join(folder, name) for name in names if not name.startswith(".")]
        files.sort()
        recordings = [file for file in files if file.lower().endswith(AUDIO_SUFFIXES + FOREIGN_SUFFIXES)]
        if not any(file.lower().endswith(AUDIO_SUFFIXES) for file in recordings):
            known = ", ".join(suffix[1:] for suffix in AUDIO_SUFFIXES[:6])
            remedy = f"convert '{recordings[0]}' and the like with ffmpeg" if recordings else "check data.path"
            raise InputError(f"there is no recording ({known}…) under '{self.path}'; {remedy}")
        return recordings, [file for file in files if file.endswith((self.text_suffix, TABLE_SUFFIX))]

    def _check_path(self) -> None:
        if not self.path:
            raise InputError("no corpus is named: give the path of a folder of recordings, as in data.path=recordings")
        if not os.path.exists(self.path):
            raise InputError(f"the folder '{self.path}' does not exist; check data.path")
        if not os.path.isdir(self.path):
            raise InputError(f"'{self.path}' is a file; name a folder of recordings, or use data=manifest for JSONL")


@dataclass(frozen=True)
class Manifest:
    """One JSON object a line: `audio_filepath` (relative to the manifest) and, as far as known, `offset`, `duration`,
    `text`, `lang` or `language`, `speaker`, `split`, `id`.

    `path` is a JSONL file, a folder that holds manifest.jsonl, or several of them in a list or joined by commas; ids
    are then prefixed with the name of the corpus. A text of "" means that there is none. Rows without a split: as in
    `AudioFolder`.
    """

    path: str | list[str]
    language: str = ""
    dev_share: float = 0.05

    @property
    def name(self) -> str:
        """The names of the manifests, or of the folders that hold a manifest.jsonl."""
        return safe_name([_corpus_name(file) for file in self._manifests()])

    def fingerprint(self) -> str:
        """A hash over the options, the manifests and every recording they name."""
        files = self._manifests()
        recordings = {_audio_path(file, row) for file in files for _, row in _read_manifest(file)}
        return fingerprint_of(self, [*files, *sorted(recordings)])

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """Rows in the order of the manifests; InputError with the line number where one is not understood."""
        probe = lru_cache(4096)(probe_audio)
        files = self._manifests()
        for file in files:
            prefix = f"{_corpus_name(file)}/" if len(files) > 1 else ""
            for line, row in _read_manifest(file):
                audio = _audio_path(file, row)
                offset = _seconds(row, "offset", file, line) or 0.0
                claimed = _seconds(row, "duration", file, line)
                try:
                    info = probe(audio)
                    left = info.duration_seconds - offset
                    if left > 0 and (claimed or 0.0) - left > CLAIMED_SECONDS:
                        check_header(info, audio)  # what is too strange to be speech has a reason of its own
                        raise UnreadableAudio(f"'{audio}' has {left:.2f} of the {claimed:.2f} s claimed", "truncated")
                except UnreadableAudio as error:
                    yield Skipped(audio, error.cause, f"{error} (line {line} of '{file}')")
                    continue
                if left <= 0:
                    detail = f"'{audio}' ends before offset {offset:g} s (line {line} of '{file}')"
                    yield Skipped(audio, "outside the recording", detail)
                    continue
                yield self._utterance(row, audio, offset, min(claimed or left, left), prefix)

    def _utterance(self, row: dict, audio: str, offset: float, duration: float, prefix: str) -> Utterance:
        stem = os.path.splitext(row["audio_filepath"])[0]
        own = str(row.get("id") or (f"{stem}@{offset:g}" if offset else stem))
        split = str(row.get("split") or split_by_hash(own, self.dev_share))
        text = row.get("text")
        return Utterance(
            id=prefix + own,
            audio=audio,
            duration_seconds=duration,
            offset_seconds=offset,
            text=None if text is None else " ".join(str(text).split()) or None,
            language=str(row.get("language") or row.get("lang") or self.language),
            speaker=prefix + str(row["speaker"]) if row.get("speaker") else "",
            split=SPLIT_NAMES.get(split, split),
        )

    def _manifests(self) -> list[str]:
        given = self.path.split(",") if isinstance(self.path, str) else list(self.path or [])
        paths = [os.path.expanduser(str(one).strip()) for one in given if str(one).strip()]
        if not paths:
            raise InputError("no corpus is named: give the path of a manifest, as in data.path=corpus/manifest.jsonl")
        return [_manifest_file(one) for one in paths]


def split_of_folder(name: str) -> str | None:
    """The split a folder's name stands for (`dev`, `test-clean`, `Valid`), or None."""
    word = re.split(r"[-_.]", name.lower())[0]
    return SPLIT_NAMES.get(word)


def split_by_hash(identity: str, dev_share: float) -> str:
    """`dev` for a fixed `dev_share` of all ids, else `train`, whatever else is in the corpus."""
    return "dev" if int(hashlib.sha256(identity.encode()).hexdigest()[:12], 16) < dev_share * 16**12 else "train"


def safe_name(paths: list[str]) -> str:
    """The last parts of `paths` joined into one short name for a folder."""
    names = [re.sub(r"[^\w.-]+", "_", os.path.basename(os.path.abspath(one))) for one in paths]
    return "+".join(names)[:80]


def fingerprint_of(reader, files: list[str]) -> str:
    """A hash over a reader's fields and the path, size and time of each file; a missing file counts as such."""
    digest = hashlib.sha256(repr((type(reader).__name__, astuple(reader))).encode())
    for file in files:
        try:
            found = os.stat(file)
            digest.update(f"{file}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{file}\0missing\n".encode())
    return digest.hexdigest()


def _read_text(file: str) -> str | None:
    try:
        return " ".join(Path(file).read_text("utf-8-sig").split()) or None
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"the transcript '{file}' is not UTF-8 text ({error}); save it as UTF-8") from error


def _read_transcript_table(file: str) -> dict[str, str]:
    try:
        lines = Path(file).read_text("utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"the transcripts '{file}' are not UTF-8 text ({error}); save them as UTF-8") from error
    return {parts[0]: " ".join(parts[1:]) for parts in map(str.split, lines) if len(parts) > 1}


def _manifest_file(path: str) -> str:
    if not os.path.exists(path):
        raise InputError(f"the manifest '{path}' does not exist; check data.path")
    file = os.path.join(path, "manifest.jsonl") if os.path.isdir(path) else path
    if not os.path.isfile(file):
        raise InputError(f"'{path}' has no manifest.jsonl; name the manifest, or use data=folder for plain recordings")
    if not os.path.getsize(file):
        raise InputError(f"the manifest '{file}' is empty; write one JSON object a line into it")
    return os.path.abspath(file)


def _corpus_name(file: str) -> str:
    stem = os.path.splitext(os.path.basename(file))[0]
    return os.path.basename(os.path.dirname(file)) if stem == "manifest" else stem


def _audio_path(manifest: str, row: dict) -> str:
    return os.path.join(os.path.dirname(manifest), os.path.expanduser(row["audio_filepath"]))


def _read_manifest(file: str) -> Iterator[tuple[int, dict]]:
    """Each row with its line number, its `audio_filepath` checked to be there."""
    try:
        with open(file, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _read_row(line, number, file)
    except UnicodeDecodeError as error:
        raise InputError(f"'{file}' is not UTF-8 text ({error}); a manifest has one JSON object a line") from error


def _read_row(line: str, number: int, file: str) -> dict:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"line {number} of '{file}' is not JSON ({error}); write one JSON object a line") from error
    if not isinstance(row, dict) or not isinstance(row.get("audio_filepath"), str) or not row["audio_filepath"]:
        raise InputError(f'line {number} of \'{file}\' names no recording; add "audio_filepath": "…"')
    return row


def _seconds(row: dict, key: str, file: str, line: int) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise InputError(f"line {line} of '{file}': {key} is {value!r}; give seconds as a number, or leave it out")
    return float(value)
