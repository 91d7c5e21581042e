"""Recordings of hours in; utterances of seconds that point into them, cut where nobody speaks, out."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import threading
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from glmasr.data.catalog import Skipped, write_whole
from glmasr.data.corpora import FOREIGN_SUFFIXES, fingerprint_of, safe_name, split_by_hash, split_of_folder
from glmasr.data.recordings import corpus_folder, files_below
from glmasr.data.verify import check_header, check_whole
from glmasr.frontend import vad
from glmasr.frontend.audio import AUDIO_SUFFIXES, UnreadableAudio, probe_audio, read_blocks
from glmasr.frontend.vad import FRAME_SECONDS, VadState, speech_probabilities, speech_regions
from glmasr.speech import InputError, Utterance

VERSION = 1
"""Raised when recordings are cut otherwise, so that pieces remembered from before are not believed."""

PADDING_SECONDS = 0.1
"""Kept on both sides of a region, for the breath of a word that the model is not sure of."""

Region = tuple[float, float]
"""Start and end in seconds from the start of the recording."""


@dataclass(frozen=True)
class LongRecordings:
    """Recordings of any length anywhere under `path`, cut into pieces of speech; nothing is written but `cache`.

    A piece's id is the recording's path and the piece's place in ms. The parent folder counts as the speaker. The split
    is a folder called train, dev, valid or test; elsewhere `dev_share` of the recordings, each as a whole, are dev.
    `workers` processes listen, 0 does so in the main one. `cache` is a folder that remembers the pieces of every
    recording as soon as it is heard; None does not.
    """

    path: str
    language: str = ""
    min_seconds: float = 2.0
    max_seconds: float = 30.0
    dev_share: float = 0.05
    workers: int = 2
    cache: str | None = None

    def __post_init__(self):
        if not 0 < 2 * self.min_seconds <= self.max_seconds:
            asked = f"pieces of {self.min_seconds:g} to {self.max_seconds:g} s cannot be cut"
            raise InputError(f"{asked}; let data.max_seconds be at least twice data.min_seconds, and that above 0")

    @property
    def name(self) -> str:
        """The folder's own name."""
        return safe_name([self.path])

    def fingerprint(self) -> str:
        """A hash over the options, the recordings and the way of cutting; InputError where there is no recording.

        Nothing is listened to. How many processes do and where they remember it changes nothing.
        """
        given = f"{fingerprint_of(replace(self, workers=0, cache=None), self._recordings())} {_way_of_cutting()}"
        return hashlib.sha256(given.encode()).hexdigest()

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """The pieces of each recording in their order, recordings sorted by path."""
        recordings = self._recordings()
        cut = partial(_cut, min_seconds=self.min_seconds, max_seconds=self.max_seconds, cache=self.cache)
        if self.cache:
            Path(self.cache).mkdir(parents=True, exist_ok=True)
        with contextlib.closing(_in_order(cut, recordings, min(self.workers, len(recordings)))) as found:
            for audio, pieces in zip(recordings, found, strict=True):
                if isinstance(pieces, Skipped):
                    yield pieces
                else:
                    yield from self._utterances(audio, pieces)

    def _utterances(self, audio: str, pieces: list[Region]) -> Iterator[Utterance | Skipped]:
        parts = Path(os.path.relpath(audio, os.path.abspath(self.path))).with_suffix("").parts
        stem, folders = "/".join(parts), parts[:-1]
        split = next(filter(None, map(split_of_folder, folders)), None) or split_by_hash(stem, self.dev_share)
        speaker = folders[-1] if folders and not split_of_folder(folders[-1]) else ""
        known: dict[str, Any] = {"language": self.language, "speaker": speaker, "split": split}
        for start, stop in pieces:
            yield Utterance(f"{stem}@{round(start * 1000)}", audio, round(stop - start, 3), round(start, 3), **known)
        if not pieces:
            detail = f"'{audio}' has no stretch of {self.min_seconds:g} s or more in which somebody speaks"
            yield Skipped(audio, "no speech", detail, is_audio=False)

    def _recordings(self) -> list[str]:
        folder = corpus_folder(self.path, "the recordings")
        found = files_below(folder, AUDIO_SUFFIXES + FOREIGN_SUFFIXES)
        if not any(file.lower().endswith(AUDIO_SUFFIXES) for file in found):
            known = ", ".join(suffix[1:] for suffix in AUDIO_SUFFIXES[:6])
            remedy = f"convert '{found[0]}' and the like with ffmpeg" if found else "check data.path"
            raise InputError(f"there is no recording ({known}…) under '{self.path}'; {remedy}")
        return found


def hear(path: str) -> tuple[np.ndarray, float]:
    """The probability of speech in each frame (T) of a recording and its length in seconds, heard block by block.

    UnreadableAudio where it is damaged or not as long as it claims.
    """
    check_whole(path, path)
    check_header(info := probe_audio(path), path)
    state, heard = VadState(), []
    for block in read_blocks(path):
        found, state = speech_probabilities(block, state)
        heard.append(found)
    found, _ = speech_probabilities(np.zeros(0, np.float32), state, last=True)
    return np.concatenate([*heard, found]), info.duration_seconds


def pieces_of(
    regions: list[Region],
    probabilities: np.ndarray,
    min_seconds: float,
    max_seconds: float,
    gap_seconds: float = 1.0,
) -> list[Region]:
    """Pieces of `min_seconds` to `max_seconds` from regions of speech, in order, none overlapping.

    Neighbors up to `gap_seconds` apart are joined to as few pieces as `max_seconds` allows, so that a piece ends in a
    pause. Where there is none it ends at the quietest of `probabilities` (T) in its second half. What is shorter than
    `min_seconds` with all its neighbors is left out.
    """
    found = []
    for chain in _chains(regions, gap_seconds):
        start, end = chain[0][0], chain[-1][1]
        between = [(stop, resumed) for (_, stop), (resumed, _) in pairwise(chain)]
        pauses = [pause for pause in between if end - pause[1] >= min_seconds]
        while end - start > max_seconds:
            earliest, latest = bisect_left(pauses, (start + min_seconds,)), bisect_left(pauses, (start + max_seconds,))
            stop, resumed = (
                pauses[latest - 1]
                if latest > earliest
                else _quietest(probabilities, start + max_seconds / 2, min(start + max_seconds, end - min_seconds))
            )
            found.append((start, stop))
            start = resumed
        if end - start >= min_seconds:
            found.append((start, end))
    return found


def _chains(regions: list[Region], gap_seconds: float) -> list[list[Region]]:
    """Regions with no long pause between them, together."""
    chains: list[list[Region]] = []
    for region in regions:
        if chains and region[0] - chains[-1][-1][1] <= gap_seconds:
            chains[-1].append(region)
        else:
            chains.append([region])
    return chains


def _quietest(probabilities: np.ndarray, begin: float, end: float) -> Region:
    """The middle of the frame between two times in which speech is least probable, the last of several."""
    first = int(np.ceil(begin / FRAME_SECONDS - 0.5))
    frames = probabilities[first : max(first, int(end / FRAME_SECONDS - 0.5)) + 1]
    least = len(frames) - 1 - int(np.argmin(frames[::-1]))
    place = min(max((first + least + 0.5) * FRAME_SECONDS, begin), end)
    return place, place


def _cut(path: str, min_seconds: float, max_seconds: float, cache: str | None) -> list[Region] | Skipped:
    """The pieces of one recording, from the cache where it has heard it."""
    try:
        remembered = _place_in(cache, path, min_seconds, max_seconds) if cache else None
        pieces = _recalled(remembered)
        if pieces is not None:
            return pieces
        probabilities, duration_seconds = hear(path)
    except UnreadableAudio as error:
        return Skipped(path, error.cause, str(error))
    except OSError as error:
        detail = f"'{path}' cannot be read ({error.strerror or error}); check its permissions and the disk"
        return Skipped(path, "not readable", detail)
    # In whole ms, as everywhere: a piece must not reach over the end.
    whole_seconds = int(duration_seconds * 1000) / 1000
    regions = speech_regions(probabilities, whole_seconds, padding_seconds=PADDING_SECONDS)
    pieces = pieces_of(regions, probabilities, min_seconds, max_seconds)
    if remembered:
        write_whole(remembered, json.dumps({"recording": path, "pieces": pieces}, ensure_ascii=False))
    return pieces


def _place_in(cache: str, path: str, min_seconds: float, max_seconds: float) -> Path:
    """Another after the recording's size or time, the options or the way of cutting have changed."""
    found = os.stat(path)
    key = f"{path}\0{found.st_size}\0{found.st_mtime_ns}\0{min_seconds}\0{max_seconds}\0{_way_of_cutting()}"
    return Path(cache) / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.json"


def _recalled(remembered: Path | None) -> list[Region] | None:
    """None where nothing, or nothing that makes sense, is remembered."""
    if remembered is None:
        return None
    try:
        return [(float(start), float(stop)) for start, stop in json.loads(remembered.read_text("utf-8"))["pieces"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _way_of_cutting() -> str:
    return f"{VERSION} {vad.VERSION}"


def _in_order(
    work: Callable[[str], list[Region] | Skipped], paths: list[str], workers: int
) -> Generator[list[Region] | Skipped, None, None]:
    """`work` of each path, in the order of the paths, done by so many processes; 0 does it here.

    The processes are daemons of their own, not a pool: a stop ends them at once, not behind the hour they listen to.
    """
    if not workers:
        yield from map(work, paths)
        return
    receivers, processes = [], []
    try:
        for number in range(workers):
            receiver, sender = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.Process(target=_listen, args=(work, paths[number::workers], sender), daemon=True)
            process.start()
            sender.close()  # so that a process that dies is heard of
            receivers.append(receiver)
            processes.append(process)
        for number, path in enumerate(paths):
            try:
                found = receivers[number % workers].recv()
            except EOFError as error:
                remedy = "free memory, or find the file with data.workers=0"
                raise InputError(f"a process died that listened to '{path}' or a file near it; {remedy}") from error
            if isinstance(found, Exception):
                raise found
            yield found
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _listen(work: Callable[[str], list[Region] | Skipped], paths: list[str], sender: Any) -> None:
    """Ctrl-C is the parent's to answer, and a parent that was killed leaves no process behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    for path in paths:
        try:
            sender.send(work(path))
        except Exception as error:
            sender.send(error)
