"""A place in a Parquet shard, anywhere fsspec reaches, in; the bytes of the audio file there out.

Audio comes a row group at a time, which each loader process keeps for its neighbors in the order of `sampler.Windows`.
"""

import functools
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

import fsspec.core
import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from glmasr.frontend.audio import UnreadableAudio

KEPT_BYTES = 1 << 30
"""Of fetched row groups in a process; the one in use stays whatever its size."""

TRIES = 4
FIRST_WAIT_SECONDS = 0.5

Result = TypeVar("Result")


@dataclass
class Fetched:
    """The row groups a process has fetched last, up to `most_bytes` of audio, and the tables of contents of shards."""

    most_bytes: int = KEPT_BYTES

    def __post_init__(self) -> None:
        self._groups: OrderedDict[str, pyarrow.ChunkedArray] = OrderedDict()
        self._held = 0

    def audio(self, location: str) -> bytes:
        """The audio file at `url#group:row`; UnreadableAudio where it cannot be had after several tries."""
        place, row = location.rsplit(":", 1)
        if place not in self._groups:
            self._fetch(place)
        self._groups.move_to_end(place)
        return self._groups[place][int(row)].as_py()

    def _fetch(self, place: str) -> None:
        url, group = place.rsplit("#", 1)
        try:
            column = patiently(lambda: _audio_column(url, int(group)))
        except (OSError, pyarrow.ArrowException, ValueError, ImportError) as error:
            message = f"the shard '{url}' cannot be read ({error}); check the network, then start again to go on"
            raise UnreadableAudio(message, "not reached") from error
        self._groups[place] = column
        self._held += column.nbytes
        while self._held > self.most_bytes and len(self._groups) > 1:
            self._held -= self._groups.popitem(last=False)[1].nbytes


@functools.cache
def _fetched_by(process: int) -> Fetched:
    """One for each process, so that a forked loader does not inherit what it will never ask for."""
    return Fetched()


def fetch(location: str) -> bytes:
    """The bytes of the audio file at `url#group:row`; UnreadableAudio where they cannot be had."""
    return _fetched_by(os.getpid()).audio(location)


def is_location(audio: str | bytes) -> TypeGuard[str]:
    """Whether this is a place in a shard, and not the path of a file."""
    return isinstance(audio, str) and ".parquet#" in audio


def blocks_of(paths: pyarrow.ChunkedArray) -> np.ndarray | None:
    """The row group of each row as a number, from the column of paths; None where the rows do not lie in shards."""
    if not len(paths) or paths[0].as_py() is None or not is_location(paths[0].as_py()):
        return None
    groups = pyarrow.compute.call_function(
        "utf8_rtrim", [paths], pyarrow.compute.TrimOptions("0123456789")
    )  # url#group: is left
    encoded = groups.dictionary_encode().unify_dictionaries()
    return np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])


def _audio_column(url: str, group: int) -> pyarrow.ChunkedArray:
    with opened(url) as file, pyarrow.parquet.ParquetFile(file, metadata=_footer(url), pre_buffer=True) as shard:
        table = shard.read_row_group(group, columns=["audio.bytes"])
    return pyarrow.chunked_array([chunk.field("bytes") for chunk in table.column("audio").chunks])


@functools.lru_cache(256)
def _footer(url: str) -> pyarrow.parquet.FileMetaData:
    with opened(url) as file:
        return pyarrow.parquet.read_metadata(file)


def opened(url: str) -> Any:
    """The file at a URL, over a network without reading ahead: each piece asked for is one request."""
    system, path = fsspec.core.url_to_fs(url)
    return system.open(path, "rb", **({} if "file" in system.protocol else {"cache_type": "none"}))


def patiently(attempt: Callable[[], Result]) -> Result:
    """The result of one of `TRIES` tries, with longer and longer waits between them; OSError where none gave one.

    A file that is not there, or not what it should be, is not asked for again.
    """
    for number in range(TRIES):
        try:
            return attempt()
        except (FileNotFoundError, PermissionError, ImportError, pyarrow.ArrowInvalid):
            raise
        except Exception as error:  # whatever the libraries of networks raise
            if number == TRIES - 1:
                raise OSError(str(error).split("\n")[0] or type(error).__name__) from error
            time.sleep(FIRST_WAIT_SECONDS * 2**number)
    raise AssertionError
