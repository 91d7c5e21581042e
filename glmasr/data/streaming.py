"""Parquet shards anywhere fsspec reaches (a folder, http, s3) in; utterances out, their audio left there."""

import hashlib
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.parquet

from glmasr.data.catalog import Skipped
from glmasr.data.corpora import SPLIT_NAMES, safe_name
from glmasr.data.recordings import joined
from glmasr.data.remote import opened, patiently
from glmasr.data.shards import SHARD_LIST
from glmasr.speech import InputError, Utterance

KNOWN = ("id", "duration", "text", "language", "speaker", "split")
"""The columns that `make shards` writes beside the audio."""

READERS = 16
"""Shards whose tables are read at a time: over a network most of it is waiting."""


@dataclass(frozen=True)
class StreamedShards:
    """Shards that `make shards` wrote, under one URL or several: a folder, `https://…`, `s3://bucket/…`, or what else
    fsspec knows.

    How to log in is fsspec's affair: its environment variables, `~/.aws`, AWS_ENDPOINT_URL for another S3 server.
    """

    url: str | list[str]
    language: str = ""

    @property
    def name(self) -> str:
        """The last part of each URL."""
        return safe_name([url.split("://")[-1] for url in self._urls()])

    def fingerprint(self) -> str:
        """A hash over the options and the list of shards, which changes with what they hold."""
        return hashlib.sha256(
            repr((self, [sorted(_listing(url).items()) for url in self._urls()])).encode()
        ).hexdigest()

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """Shard by shard, row by row, without reading audio; a shard that cannot be read is skipped."""
        urls = [f"{url}/{name}" for url in self._urls() for name in _listing(url)["shards"]]
        with ThreadPoolExecutor(READERS) as pool:
            for url, tables in zip(urls, pool.map(_described, urls), strict=True):
                if isinstance(tables, Exception):
                    yield Skipped(url, "damaged", f"'{url}' is no whole shard ({tables}); export it again")
                    continue
                for group, table in enumerate(tables):
                    for row, known in enumerate(table.to_pylist()):
                        yield self._utterance(known, f"{url}#{group}:{row}")

    def _utterance(self, known: dict[str, Any], location: str) -> Utterance:
        split = str(known["split"] or "train")
        return Utterance(
            id=str(known["id"]),
            audio=location,
            duration_seconds=float(known["duration"]),
            text=joined(known["text"]),
            language=self.language or known["language"] or "",
            speaker=known["speaker"] or "",
            split=SPLIT_NAMES.get(split, split),
        )

    def _urls(self) -> list[str]:
        urls = [self.url] if isinstance(self.url, str) else list(self.url)
        if not all(urls) or not urls:
            raise InputError(
                "no shards are named: set data.url to a folder, https://… or s3://… that make shards wrote"
            )
        return [url.rstrip("/") for url in urls]


def _listing(url: str) -> dict[str, Any]:
    """What the export says of itself; InputError where there is no export that can be read."""
    listing = f"{url}/{SHARD_LIST}"
    try:
        return json.loads(patiently(lambda: _bytes_of(listing)))
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"'{listing}' cannot be read ({reason}): check data.url, and that make shards has written there"
        ) from error


def _described(url: str) -> list[pyarrow.Table] | Exception:
    """All but the audio, by row group; the exception where that fails."""

    def read() -> list[pyarrow.Table]:
        with opened(url) as file, pyarrow.parquet.ParquetFile(file, pre_buffer=True) as shard:
            table, about = shard.read(columns=list(KNOWN)), shard.metadata
            sizes = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
        ends = list(itertools.accumulate(sizes))
        return [table.slice(end - size, size) for end, size in zip(ends, sizes, strict=True)]

    try:
        return patiently(read)
    except (OSError, pyarrow.ArrowException, ValueError) as error:
        return error


def _bytes_of(url: str) -> bytes:
    with opened(url) as file:
        return file.read()
