"""Corpora published as recordings with a table of transcripts in; utterances out."""

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmasr.data.catalog import Skipped
from glmasr.data.corpora import SPLIT_NAMES, TABLE_SUFFIX, fingerprint_of, split_of_folder
from glmasr.data.recordings import (
    corpus_file,
    corpus_folder,
    files_below,
    folders_below,
    joined,
    lines_of,
    pairs_of,
    stretch_of,
)
from glmasr.speech import InputError, Utterance


@dataclass(frozen=True)
class LibriSpeech:
    """`<part>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac` with a `.trans.txt` in each chapter.

    `parts` are those to read (train-clean-100, dev-other …), null all that are there: the split is a part's first word.
    """

    path: str
    parts: list[str] | None = None
    language: str = "en"

    name = "librispeech"

    def fingerprint(self) -> str:
        """A hash over the options, the transcripts and the chapters' folders; InputError where there are none."""
        tables = self._tables()
        return fingerprint_of(self, [*tables, *map(os.path.dirname, tables)])

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """Every line of every chapter's transcripts, by part, speaker and chapter."""
        root = corpus_folder(self.path, "LibriSpeech")
        for table in self._tables():
            chapter = os.path.dirname(table)
            split = split_of_folder(os.path.relpath(chapter, root).split(os.sep)[0]) or "train"
            for identity, text in pairs_of(table).items():
                known: dict[str, Any] = {"language": self.language, "speaker": identity.split("-")[0], "split": split}
                yield stretch_of(os.path.join(chapter, f"{identity}.flac"), identity, text=joined(text), **known)

    def _tables(self) -> list[str]:
        root = corpus_folder(self.path, "LibriSpeech")
        present = sorted(part for part in os.listdir(root) if split_of_folder(part))
        absent = sorted(set(self.parts or ()) - set(present))
        if absent or not present:
            named = f"has no part {', '.join(absent)}" if absent else "has no part such as train-clean-100"
            there = f"; there are {', '.join(present)}" if present else ""
            raise InputError(f"'{self.path}' {named}{there}: correct data.parts or data.path")
        parts = present if self.parts is None else self.parts
        tables = [table for part in parts for table in files_below(os.path.join(root, part), (TABLE_SUFFIX,))]
        if not tables:
            raise InputError(f"no *{TABLE_SUFFIX} is under '{self.path}'; set data.path to the unpacked LibriSpeech")
        return tables


@dataclass(frozen=True)
class Aishell1:
    """`wav/{train,dev,test}/<speaker>/<id>.wav` with all transcripts in `transcript/aishell_transcript_v0.8.txt`.

    `path` is `data_aishell` or the folder that holds it. The spaces between words are taken out.
    """

    path: str
    language: str = "zh"

    name = "aishell1"

    def fingerprint(self) -> str:
        """A hash over the options, the transcripts and the speakers' folders; InputError where it is not AISHELL-1."""
        root, table = self._found()
        return fingerprint_of(self, [table, *folders_below(os.path.join(root, "wav"))])

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """Recordings by split, speaker and id; one without a transcript has no text."""
        root, table = self._found()
        texts = pairs_of(table)
        recordings = files_below(os.path.join(root, "wav"), (".wav",))
        if not recordings:
            raise InputError(f"'{root}' has no wav/*/*/*.wav; unpack the archives in its folder wav")
        for file in recordings:
            identity, (split, speaker) = Path(file).stem, Path(file).parts[-3:-1]
            known: dict[str, Any] = {
                "language": self.language,
                "speaker": speaker,
                "split": SPLIT_NAMES.get(split, "train"),
            }
            yield stretch_of(file, identity, text=joined(texts.pop(identity, None)), **known)
        # The published table has some lines more than there are recordings: no reason to fail.
        for identity in texts:
            yield Skipped(identity, "transcript without audio", f"'{identity}' in '{table}' has no recording", False)

    def _found(self) -> tuple[str, str]:
        root = corpus_folder(self.path, "AISHELL-1")
        inner = os.path.join(root, "data_aishell")
        root = inner if os.path.isdir(inner) else root
        return root, corpus_file(root, os.path.join("transcript", "aishell_transcript_v0.8.txt"), "AISHELL-1")


@dataclass(frozen=True)
class Aishell2:
    """Folders that hold `wav.scp` and `trans.txt`: `iOS/{data,dev,test}`, also `Android` and `Mic`.

    The split is the folder's name, `data` being train; the ids of the other channels than iOS begin with the channel.
    """

    path: str
    channels: tuple[str, ...] | list[str] = ("iOS",)
    language: str = "zh"

    name = "aishell2"

    def fingerprint(self) -> str:
        """A hash over the options, the tables and the recordings' folders; InputError where there are none."""
        homes = self._homes()
        tables = [os.path.join(home, name) for home, _ in homes for name in ("wav.scp", "trans.txt")]
        folders = [folder for home, _ in homes for folder in folders_below(os.path.join(home, "wav"))]
        return fingerprint_of(self, [*tables, *folders])

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """Every recording that a wav.scp names, folder by folder."""
        for home, channel in self._homes():
            texts = pairs_of(os.path.join(home, "trans.txt"))
            split = split_of_folder(os.path.basename(home)) or "train"
            prefix = "" if channel == "iOS" else f"{channel}/"
            for identity, where in pairs_of(os.path.join(home, "wav.scp")).items():
                known: dict[str, Any] = {"language": self.language, "speaker": Path(where).parent.name, "split": split}
                text = _without_stray_quotes(joined(texts.get(identity)))
                yield stretch_of(os.path.join(home, where), prefix + identity, text=text, **known)

    def _homes(self) -> list[tuple[str, str]]:
        root = corpus_folder(self.path, "AISHELL-2")
        homes = []
        for table in files_below(root, ("wav.scp",)):
            home = os.path.dirname(table)
            channel = next((part for part in Path(home).parts[::-1] if part in ("iOS", "Android", "Mic")), "iOS")
            if channel in self.channels and os.path.isfile(os.path.join(home, "trans.txt")):
                homes.append((home, channel))
        if not homes:
            wanted = " or ".join(self.channels)
            raise InputError(
                f"no folder under '{self.path}' has a wav.scp beside a trans.txt for {wanted}; check data.path"
            )
        return homes


@dataclass(frozen=True)
class CommonVoice:
    """`<locale>/{train,dev,test}.tsv` with the recordings in `<locale>/clips/`, as Mozilla publishes them.

    `path` is the folder of a release, or that of the locale. `validated` also trains on what is in validated.tsv, but
    for the speakers and the sentences of dev and test: in small locales that is several times more.
    """

    path: str
    locale: str
    language: str
    validated: bool = False

    @property
    def name(self) -> str:
        """common_voice and the locale."""
        return f"common_voice_{self.locale}"

    def fingerprint(self) -> str:
        """A hash over the options, the tables and the folder of clips; InputError where there is no such locale."""
        home, tables = self._found()
        return fingerprint_of(self, [*tables.values(), os.path.join(home, "clips")])

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """The rows of test, dev and train, each clip once."""
        home, tables = self._found()
        taken: set[str] = set()
        tested: set[str] = set()  # speakers and sentences of dev and test
        for table, file in tables.items():
            held_back = table in ("dev", "test")
            for row in _rows(file):
                clip, speaker, sentence = row.get("path"), row.get("client_id", ""), _unquoted(row.get("sentence", ""))
                if not clip or "sentence" not in row:
                    yield Skipped(clip or file, "malformed", f"a row of '{file}' lacks its clip or its sentence: {row}")
                    continue
                if clip in taken or (table == "validated" and {speaker, sentence} & tested):
                    continue
                taken.add(clip)
                if held_back:
                    tested |= {speaker, sentence}
                audio = os.path.join(home, "clips", clip if os.path.splitext(clip)[1] else f"{clip}.mp3")
                known: dict[str, Any] = {
                    "language": self.language,
                    "speaker": speaker,
                    "split": table if held_back else "train",
                }
                yield stretch_of(audio, os.path.splitext(clip)[0], text=sentence or None, **known)

    def _found(self) -> tuple[str, dict[str, str]]:
        root = corpus_folder(self.path, f"Common Voice ({self.locale})")
        inner = os.path.join(root, self.locale)
        home = inner if os.path.isdir(inner) else root
        names = ["test", "dev", "train", *(["validated"] if self.validated else [])]
        return home, {name: corpus_file(home, f"{name}.tsv", f"Common Voice's {self.locale}") for name in names}


@dataclass(frozen=True)
class Mdcc:
    """`cnt_asr_{train,valid,test}_metadata.csv`, each row an audio file in `audio/` and a text file of its own."""

    path: str
    language: str = "yue"

    name = "mdcc"

    def fingerprint(self) -> str:
        """A hash over the options, the tables and the folders of audio and texts; InputError where it is not MDCC."""
        root, tables = self._found()
        return fingerprint_of(
            self, [*tables.values(), *(os.path.join(root, part) for part in ("audio", "transcription"))]
        )

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """The rows of train, dev and test; one whose text file is missing is skipped."""
        root, tables = self._found()
        for split, table in tables.items():
            for row in csv.reader(list(lines_of(table))[1:]):
                fields = [field.strip() for field in row]
                if len(fields) < 2:
                    yield Skipped(",".join(row), "malformed", f"'{','.join(row)}' in '{table}' names no text file")
                    continue
                audio, text = os.path.join(root, "audio", os.path.basename(fields[0])), os.path.join(root, fields[1])
                if not os.path.isfile(text):
                    yield Skipped(audio, "text is missing", f"'{text}' does not exist; unpack the transcriptions")
                    continue
                transcript = joined(" ".join(lines_of(text)))
                yield stretch_of(audio, Path(audio).stem, text=transcript, language=self.language, split=split)

    def _found(self) -> tuple[str, dict[str, str]]:
        root = corpus_folder(self.path, "MDCC")
        splits = {"train": "train", "dev": "valid", "test": "test"}
        return root, {
            ours: corpus_file(root, f"cnt_asr_{theirs}_metadata.csv", "MDCC") for ours, theirs in splits.items()
        }


def _rows(file: str) -> Iterator[dict[str, str]]:
    """The rows of a table of Common Voice, whose quotation marks belong to the sentences."""
    rows = csv.reader(lines_of(file), delimiter="\t", quoting=csv.QUOTE_NONE)
    header = next(rows, [])
    if not {"client_id", "path", "sentence"} <= set(header):
        raise InputError(f"'{file}' lacks one of client_id, path, sentence in its first line; fetch it again")
    yield from (dict(zip(header, row, strict=False)) for row in rows)


def _unquoted(sentence: str) -> str:
    sentence = " ".join(sentence.split())
    if len(sentence) > 1 and sentence.startswith('"') and sentence.endswith('"'):
        sentence = sentence[1:-1].replace('""', '"')
    return sentence


def _without_stray_quotes(text: str | None) -> str | None:
    """AISHELL-2 has quotation marks between Chinese characters; those in English words stay."""
    return re.sub("(?<![A-Za-z])'|'(?![A-Za-z])", "", text) or None if text else None
