"""Packed corpora in, tar shards of WeNet and WebDataset or Parquet shards; utterances with their audio as bytes out."""

import json
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.parquet

from glmasr.data.catalog import Skipped
from glmasr.data.corpora import SPLIT_NAMES, fingerprint_of, safe_name, split_by_hash
from glmasr.data.recordings import corpus_folder, files_below, joined, lines_of, split_in_name
from glmasr.frontend.audio import AUDIO_SUFFIXES, UnreadableAudio, probe_audio
from glmasr.speech import InputError, Utterance

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
TEXT_KEYS = ("text", "txt", "transcript", "transcription", "sentence")
SPEAKER_KEYS = ("speaker", "speaker_id", "spk")
LANGUAGE_KEYS = ("language", "lang", "locale")
ROWS_AT_A_TIME = 32
SHARD_LIST = "shards.json"
"""What an export means to write, written before its first shard: without all of them it is not finished."""


@dataclass(frozen=True)
class TarShards:
    """Tar files whose members share a name: `key.flac` (or another sound) with `key.txt` or `key.json` next to it.

    `path` is a folder of them, one of them, or a list as WeNet's tools write it, a tar file a line. The split is in a
    shard's or its folder's name, or else `dev_share` of the keys are dev. The catalog holds a copy of the audio.
    """

    path: str
    language: str = ""
    dev_share: float = 0.05

    @property
    def name(self) -> str:
        """The folder's or the file's own name."""
        return safe_name([self.path])

    def fingerprint(self) -> str:
        """A hash over the options and the shards; InputError where there are none."""
        return fingerprint_of(self, self._shards()[1])

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """Shard by shard in the order of their members; of a shard that breaks off, what is before the break."""
        root, shards = self._shards()
        for shard in shards:
            split = split_in_name(os.path.relpath(shard, root))
            try:
                for key, members in members_of(shard):
                    yield self._utterance(key, members, split, shard)
            except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
                yield Skipped(shard, "damaged", f"'{shard}' breaks off or is no tar file ({error}); fetch it again")

    def _utterance(self, key: str, members: dict[str, bytes], split: str | None, shard: str) -> Utterance | Skipped:
        audio = next((content for suffix, content in members.items() if suffix in AUDIO_SUFFIXES), None)
        if audio is None:
            sounds = not {".txt", ".json"} & set(members)
            cause = "not audio" if sounds else "transcript without audio"
            detail = f"'{key}' in '{shard}' has no audio that can be read here, only {', '.join(sorted(members))}"
            return Skipped(key, cause, detail, is_audio=sounds)
        try:
            about = json.loads(members.get(".json", b"{}"))
            about = about if isinstance(about, dict) else {}
            text = members[".txt"].decode("utf-8-sig") if ".txt" in members else _first(about, TEXT_KEYS)
        except ValueError as error:
            return Skipped(key, "transcript is damaged", f"the text of '{key}' in '{shard}' cannot be read ({error})")
        try:
            seconds = probe_audio(audio).duration_seconds
        except UnreadableAudio as error:
            return Skipped(key, error.cause, f"'{key}' in '{shard}': {error}")
        return Utterance(
            id=key,
            audio=audio,
            duration_seconds=seconds,
            text=joined(text),
            language=self.language or _first(about, LANGUAGE_KEYS),
            speaker=_first(about, SPEAKER_KEYS),
            split=split or split_by_hash(key, self.dev_share),
        )

    def _shards(self) -> tuple[str, list[str]]:
        path = os.path.abspath(os.path.expanduser(self.path or ""))
        if os.path.isfile(path) and path.endswith(TAR_SUFFIXES):
            return os.path.dirname(path), [path]
        if os.path.isfile(path):
            shards = [os.path.join(os.path.dirname(path), line.strip()) for line in lines_of(path)]
            absent = next((shard for shard in shards if not os.path.isfile(shard)), None)
            if absent or not shards:
                raise InputError(f"'{self.path}' names the shard '{absent}', which does not exist; correct the list")
            return os.path.dirname(path), shards
        root = corpus_folder(self.path, "tar shards")
        shards = files_below(root, TAR_SUFFIXES)
        if not shards:
            raise InputError(f"there is no {', '.join(TAR_SUFFIXES)} under '{self.path}'; check data.path")
        return root, shards


@dataclass(frozen=True)
class ParquetShards:
    """Parquet files with audio as bytes in them: what `to_shards` writes, or a hub dataset's files fetched by hand.

    `audio`, `text`, `id` and `speaker` name columns; the first holds `{bytes, path}`, bytes or a path, null stands for
    none of the others. The split is in a column `split`, in a file's or folder's name, or else by `dev_share`. The
    catalog holds a copy of the audio.
    """

    path: str
    audio: str = "audio"
    text: str | None = "text"
    id: str | None = "id"
    speaker: str | None = "speaker"
    language: str = ""
    dev_share: float = 0.05

    @property
    def name(self) -> str:
        """The folder's own name."""
        return safe_name([self.path])

    def fingerprint(self) -> str:
        """A hash over the options and the files; InputError where there are none, or an export is not finished."""
        return fingerprint_of(self, self._files()[1])

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """File by file, row by row; InputError where a column that is named is not there."""
        root, files = self._files()
        columns = Columns(self.audio, self.text, self.id, self.speaker, self.language, self.dev_share)
        for file in files:
            name = os.path.splitext(os.path.relpath(file, root))[0]
            try:
                with pyarrow.parquet.ParquetFile(file) as table:
                    columns.check(table.schema_arrow.names, file)
                    wanted = [one for one in table.schema_arrow.names if one in columns.wanted]
                    batches = table.iter_batches(ROWS_AT_A_TIME, columns=wanted)
                    rows = (row for batch in batches for row in batch.to_pylist())
                    for number, row in enumerate(rows):
                        yield columns.utterance(row, f"{name}/{number}", split_in_name(name), os.path.dirname(file))
            except (pyarrow.ArrowException, OSError) as error:
                yield Skipped(file, "damaged", f"'{file}' is no whole Parquet file ({error}); fetch it again")

    def _files(self) -> tuple[str, list[str]]:
        path = os.path.abspath(os.path.expanduser(self.path or ""))
        if os.path.isfile(path):
            return os.path.dirname(path), [path]
        root = corpus_folder(self.path, "Parquet shards")
        files = files_below(root, (".parquet",))
        if not files:
            raise InputError(f"there is no *.parquet under '{self.path}'; check data.path")
        listing = os.path.join(root, SHARD_LIST)
        if os.path.isfile(listing):
            with open(listing, encoding="utf-8") as stream:
                named = [os.path.join(root, shard) for shard in json.load(stream)["shards"]]
            absent = sorted(set(named) - set(files))
            if absent:
                raise InputError(f"the export in '{self.path}' lacks {len(absent)} shards; run the export again")
            files = named
        return root, files


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are what an utterance needs; a `language` that is given goes before a column."""

    audio: str
    text: str | None
    id: str | None
    speaker: str | None
    language: str
    dev_share: float

    @property
    def wanted(self) -> set[str]:
        """Every column that is read where it is there."""
        return {self.audio, "split", *LANGUAGE_KEYS} | {one for one in (self.text, self.id, self.speaker) if one}

    def check(self, names: Iterable[str], place: str) -> None:
        """InputError where the column of audio, or the one of texts, is not among `names`."""
        names = list(names)
        for role, column in (("audio", self.audio), ("text", self.text)):
            if column and column not in names:
                raise InputError(f"'{place}' has no column '{column}': set data.{role} to one of {', '.join(names)}")

    def utterance(self, row: dict[str, Any], place: str, split: str | None, folder: str) -> Utterance | Skipped:
        """The utterance in a row; where no column has an id, it is the audio file's name below `place`, or `place`."""
        audio, file_name = _audio_of(row.get(self.audio), folder)
        stem = os.path.splitext(os.path.basename(file_name))[0]
        identity = row.get(self.id) if self.id else None
        if identity is None:
            identity = f"{os.path.dirname(place)}/{stem}".lstrip("/") if stem else place
        if audio is None:
            return Skipped(str(identity), "no audio", f"'{identity}' ({place}) has no audio in column '{self.audio}'")
        try:
            seconds = probe_audio(audio).duration_seconds
        except UnreadableAudio as error:
            return Skipped(str(identity), error.cause, f"'{identity}' ({place}): {error}")
        speaker = row.get(self.speaker) if self.speaker else None
        own = str(row.get("split") or "")
        return Utterance(
            id=str(identity),
            audio=audio,
            duration_seconds=seconds,
            text=joined(str(row[self.text])) if self.text and row.get(self.text) is not None else None,
            language=self.language or _first(row, LANGUAGE_KEYS),
            speaker="" if speaker is None else str(speaker),
            split=SPLIT_NAMES.get(own, own) or split or split_by_hash(str(identity), self.dev_share),
        )


def members_of(shard: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The neighbors of a tar file that share a name up to the last dot: the name, and each one's content by suffix."""
    key, members = "", dict[str, bytes]()
    with tarfile.open(shard, "r|*") as tar:
        for member in tar:
            stem, suffix = os.path.splitext(member.name)
            if not member.isfile() or os.path.basename(stem).startswith(".") or not suffix:
                continue
            stem = stem.removeprefix("./")
            if stem != key and members:
                yield key, members
                members = {}
            key, content = stem, tar.extractfile(member)
            members[suffix.lower()] = content.read() if content else b""
    if members:
        yield key, members


def _audio_of(value: Any, folder: str) -> tuple[str | bytes | None, str]:
    """A file's bytes or its path, and its name."""
    if isinstance(value, dict):
        name = str(value.get("path") or "")
        return value.get("bytes") or (os.path.join(folder, name) if name else None), name
    if isinstance(value, str):
        return os.path.join(folder, value), value
    return (value if isinstance(value, bytes) else None), ""


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> str:
    return next((str(row[key]) for key in keys if row.get(key) not in (None, "")), "")
