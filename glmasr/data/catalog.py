"""A reader of some corpus layout in, a memory-mapped table of utterances on disk out."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import datasets
import numpy as np
import pyarrow.compute
from datasets.arrow_writer import ArrowWriter
from tqdm import tqdm

from glmasr.data.remote import blocks_of, fetch, is_location
from glmasr.speech import InputError, Utterance

datasets.disable_progress_bars()

SCHEMA = datasets.Features(
    id=datasets.Value("string"),
    audio_path=datasets.Value("string"),
    audio_bytes=datasets.Value("binary"),
    offset_seconds=datasets.Value("float64"),
    duration_seconds=datasets.Value("float64"),
    text=datasets.Value("string"),
    language=datasets.Value("string"),
    speaker=datasets.Value("string"),
    split=datasets.Value("string"),
)

PARITY = {"even": 0, "odd": 1}


@dataclass(frozen=True)
class Skipped:
    """A file a reader could not use and why: `cause` in a few words to count by, `detail` the whole sentence.

    `is_audio` is False for a stray that is no recording; such a one never makes a corpus fail.
    """

    name: str
    cause: str
    detail: str
    is_audio: bool = True


class Source(Protocol):
    """Where utterances come from."""

    @property
    def name(self) -> str:
        """What to call the corpus in a folder's name."""
        ...

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """Every utterance in a fixed order, and what had to be skipped."""
        ...


class Reader(Source, Protocol):
    """A corpus layout: knows where utterances are and how to tell that they have changed."""

    def fingerprint(self) -> str:
        """A hash over options and the files' paths, sizes and times; InputError where there is no corpus."""
        ...


@runtime_checkable
class Ready(Protocol):
    """A reader of what `make prepare` has read before."""

    def open(self) -> "Catalog":
        """The catalog as it lies on disk."""
        ...


class Catalog:
    """Utterances in a table on disk, of which only the rows asked for come into memory.

    Audio that lies in streamed shards is fetched as an utterance is asked for: UnreadableAudio where that fails.
    """

    def __init__(self, table: datasets.Dataset, rows: np.ndarray | None = None):
        self._table = table
        self._rows = np.arange(len(table)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> Utterance:
        found = self._table[int(self._rows[row])]
        path, content = found.pop("audio_path"), found.pop("audio_bytes")
        if path is not None:
            content = fetch(path) if is_location(path) else path
        return Utterance(audio=content, **found)

    def __iter__(self) -> Iterator[Utterance]:
        return (self[row] for row in range(len(self)))

    @property
    def durations(self) -> np.ndarray:
        """Seconds of every utterance, float32."""
        return self._column("duration_seconds").astype(np.float32)

    @property
    def ids(self) -> np.ndarray:
        """What each utterance is called."""
        return self._column("id")

    @property
    def speakers(self) -> np.ndarray:
        """Who speaks each utterance."""
        return self._column("speaker")

    @property
    def languages_by_row(self) -> np.ndarray:
        """The language of each utterance as a number, one of them for what is not known."""
        encoded = self._table.data.column("language").dictionary_encode().unify_dictionaries()
        return np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])[self._rows]

    @property
    def blocks(self) -> np.ndarray | None:
        """The row group of a shard in which each utterance's audio is fetched, numbered; None where it is on disk."""
        blocks = blocks_of(self._table.data.column("audio_path"))
        return None if blocks is None else blocks[self._rows]

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that occur, sorted; an unknown one is left out."""
        return tuple(sorted(set(self._column("language")) - {""}))

    @property
    def splits(self) -> dict[str, int]:
        """How many utterances each split has."""
        return dict(sorted(Counter(self._column("split")).items()))

    def texts(self) -> list[str]:
        """The transcripts of the utterances that have one, in order."""
        return [text for text in self._column("text") if text is not None]

    def subset(
        self,
        split: str | None = None,
        labelled: bool = False,
        min_seconds: float = 0.0,
        max_seconds: float | None = None,
        max_total_minutes: float | None = None,
        max_per_text: int | None = None,
        positions: str | None = None,
        seed: int = 0,
    ) -> "Catalog":
        """The utterances that meet every condition, in their order; InputError where none does.

        `positions` takes every other row of the split, counted before anything else is asked, so that choices and
        reports can share a split whatever else they ask. `max_total_minutes` is a label budget: utterances drawn by
        `seed`, the speakers taking turns, until the next would exceed it; `max_per_text` another: so many utterances
        of each transcript, drawn alike. A smaller budget of the same seed is part of a larger one.
        """
        seconds = self._column("duration_seconds")
        keep = (seconds >= min_seconds) & (seconds <= (np.inf if max_seconds is None else max_seconds))
        in_split = np.ones(len(self), dtype=bool) if split is None else self._is("split", split)
        keep &= in_split
        if positions is not None:
            if positions not in PARITY:
                raise InputError(
                    f"'{positions}' are no positions in a split: name {' or '.join(PARITY)}, or null for all"
                )
            keep &= (np.cumsum(in_split) - 1) % 2 == PARITY[positions]
        if labelled or max_per_text is not None:
            keep &= self._has_text()
        chosen = np.flatnonzero(keep)
        if max_per_text is not None:
            rng, texts = np.random.default_rng(seed), self._column("text")[chosen]
            groups = [chosen[texts == text] for text in sorted(set(texts))]
            speakers = self._column("speaker")
            drawn = [group[take_turns(speakers[group], rng)[:max_per_text]] for group in groups]
            chosen = np.sort(np.concatenate([chosen[:0], *drawn]))
        if max_total_minutes is not None:
            turns = take_turns(self._column("speaker")[chosen], np.random.default_rng(seed))
            within = np.cumsum(seconds[chosen][turns]) <= max_total_minutes * 60 + 1e-6
            chosen = np.sort(chosen[turns[within]])
        if not len(chosen):
            raise InputError(
                self._nothing_left(
                    split=split,
                    labelled=labelled,
                    min_seconds=min_seconds,
                    max_seconds=max_seconds,
                    max_total_minutes=max_total_minutes,
                    max_per_text=max_per_text,
                    positions=positions,
                )
            )
        return self.rows(chosen)

    def rows(self, chosen: np.ndarray) -> "Catalog":
        """The utterances at these places, in this order."""
        return Catalog(self._table, self._rows[chosen])

    def _column(self, name: str) -> np.ndarray:
        return self._table.data.column(name).to_numpy()[self._rows]

    def _is(self, column: str, value: str) -> np.ndarray:
        """Compared where the table lies: 10⁷ strings are not made for it."""
        return pyarrow.compute.call_function("equal", [self._table.data.column(column), value]).to_numpy()[self._rows]

    def _has_text(self) -> np.ndarray:
        return self._table.data.column("text").is_valid().to_numpy()[self._rows]

    def _nothing_left(self, **wanted) -> str:
        asked = ", ".join(f"{name}={value}" for name, value in wanted.items() if value not in (None, False, 0.0))
        present = ", ".join(f"{name or '(none)'} ({count})" for name, count in self.splits.items())
        labelled = int(self._has_text().sum())
        return (
            f"no utterance is left for {asked or 'this choice'}; the splits here are {present}; {labelled} have a text"
        )


def joined_catalogs(catalogs: Sequence[Catalog]) -> Catalog:
    """The utterances of several catalogs behind one another, with the ids that they have."""
    tables = [catalog._table for catalog in catalogs]
    ends = np.cumsum([0, *map(len, tables)])
    rows = [catalog._rows + begin for catalog, begin in zip(catalogs, ends, strict=False)]
    return Catalog(datasets.concatenate_datasets(tables), np.concatenate(rows))


def take_turns(speakers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order of rows in which every speaker has a turn before anyone has the next."""
    shuffled = rng.permutation(len(speakers))
    turns = np.empty(len(speakers), dtype=np.int64)
    spoken: Counter = Counter()
    for row in shuffled:
        turns[row] = spoken[speakers[row]]
        spoken[speakers[row]] += 1
    return shuffled[np.argsort(turns[shuffled], kind="stable")]


def write_catalog(rows: Iterable[Utterance], folder: Path) -> Catalog:
    """Write `rows` as a `datasets` folder that appears whole or not at all; one already there is left as it is."""
    folder = Path(folder)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        stream = unfinished / "stream.arrow"
        with ArrowWriter(path=str(stream), features=SCHEMA, writer_batch_size=500) as writer:
            for utterance in rows:
                writer.write(_as_row(utterance))
            count, _ = writer.finalize()
        if not count:
            raise InputError(f"no utterances to write to '{folder}'; check the corpus it is made from")
        datasets.Dataset.from_file(str(stream)).save_to_disk(str(unfinished / "table"))
        _publish(unfinished / "table", folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return open_catalog(folder)


def open_catalog(folder: Path) -> Catalog:
    """The catalog that `write_catalog` left in `folder`; InputError where there is none."""
    try:
        table = datasets.load_from_disk(str(folder))
    except (FileNotFoundError, OSError, ValueError) as error:
        raise InputError(f"'{folder}' is not a catalog ({error}); delete it and prepare the data again") from error
    if not isinstance(table, datasets.Dataset) or set(SCHEMA) - set(table.column_names):
        raise InputError(f"'{folder}' is another kind of dataset; delete it and prepare the data again")
    return Catalog(table)


def prepare_catalog(source: Reader, root: str, max_skipped_share: float = 0.05) -> Catalog:
    """The catalog of a corpus, made once under `root/<name>-<fingerprint>/` and opened from there ever after.

    What cannot be read is skipped, counted on stderr and listed in `skipped.tsv` beside the catalog; InputError
    where that is more than `max_skipped_share` of the recordings, or where nothing is left. A source that is a
    catalog already is opened where it is.
    """
    if isinstance(source, Ready):
        return source.open()
    home = Path(root) / f"{source.name}-{source.fingerprint()[:10]}"
    folder = home / "catalog"
    if folder.exists():
        return open_catalog(folder)
    home.mkdir(parents=True, exist_ok=True)
    gathering = Gathering(source, max_skipped_share, home / "skipped.tsv")
    return write_catalog(gathering.utterances(), folder)


@dataclass
class Gathering:
    """One pass over utterances that sets aside what cannot be used and judges the whole at its end."""

    source: Source
    max_skipped_share: float
    listing: Path
    skipped: list[Skipped] = field(default_factory=list)

    def utterances(self) -> Iterator[Utterance]:
        """What can be used; InputError behind the last where it is too little."""
        used: set[str] = set()
        seconds = 0.0
        for found in tqdm(self.source.utterances(), desc=self.source.name, unit=" utterances", disable=None):
            if isinstance(found, Utterance) and found.id in used:
                found = Skipped(found.id, "id used twice", f"the id '{found.id}' is used twice; rename one recording")
            if isinstance(found, Skipped):
                self.skipped.append(found)
                continue
            used.add(found.id)
            seconds += found.duration_seconds
            yield found
        self._judge(len(used), seconds)

    def _judge(self, used: int, seconds: float) -> None:
        """Raised before the catalog is published, so that a corpus found bad leaves only its list."""
        if not self.skipped and not used:
            raise InputError(f"the corpus '{self.source.name}' holds no recordings; check its path")
        if not self.skipped:
            return
        write_whole(self.listing, "".join(f"{one.name}\t{one.cause}\t{one.detail}\n" for one in self.skipped))
        counts = Counter(one.cause for one in self.skipped).most_common()
        causes = ", ".join(f"{cause} {count}" for cause, count in counts)
        lost = [one for one in self.skipped if one.is_audio]
        if not used or len(lost) > self.max_skipped_share * (used + len(lost)):
            share = f"{len(lost)} of {used + len(lost)} recordings of '{self.source.name}' cannot be used"
            first = (lost or self.skipped)[0]
            raise InputError(f"{share} ({causes}), listed in '{self.listing}'; mend them, the first is: {first.detail}")
        kept = f"{self.source.name}: {used} utterances, {seconds / 3600:.2f} h"
        print(f"{kept}; skipped {len(self.skipped)} ({causes}), listed in {self.listing}", file=sys.stderr)


def write_whole(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(text, "utf-8")
    os.replace(unfinished, path)


def _as_row(utterance: Utterance) -> dict:
    row = dict(vars(utterance))
    audio = row.pop("audio")
    is_bytes = isinstance(audio, bytes)
    return {**row, "audio_path": None if is_bytes else str(audio), "audio_bytes": audio if is_bytes else None}


def _publish(finished: Path, folder: Path) -> None:
    """Give a finished folder its name, unless another process was first."""
    try:
        finished.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
