"""What a corpus claims about a stretch of a recording in; an utterance, or why there is none, out."""

import gzip
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from glmasr.data.catalog import Skipped
from glmasr.data.corpora import SPLIT_NAMES
from glmasr.frontend.audio import AudioInfo, UnreadableAudio, probe_audio
from glmasr.speech import InputError, Utterance

CHUNK_CHARACTERS = 1 << 20
"""Of a JSON file read at a time: those of the large corpora do not fit into memory."""

_IDEOGRAPHS = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SEPARATORS = re.compile(r"[\s,]*")
_BETWEEN_IDEOGRAPHS = re.compile(rf"(?<=[{_IDEOGRAPHS}])\s+(?=[{_IDEOGRAPHS}])")

Probe = Callable[[str], AudioInfo]


def remembering_probe() -> Probe:
    """`probe_audio` that reads the header of a long recording once for all the stretches in it."""
    return lru_cache(1024)(probe_audio)


def stretch_of(
    audio: str,
    identity: str,
    probe: Probe = probe_audio,
    offset_seconds: float = 0.0,
    duration_seconds: float | None = None,
    **known: Any,
) -> Utterance | Skipped:
    """The utterance in a recording from `offset_seconds` on, `duration_seconds` long or to the end, whichever is first.

    Skipped where the recording cannot be read or has nothing there.
    """
    if duration_seconds is not None and not duration_seconds > 0:
        return Skipped(audio, "empty stretch", f"'{identity}' ends before it starts in '{audio}'; correct its times")
    try:
        left = probe(audio).duration_seconds - offset_seconds
    except UnreadableAudio as error:
        return Skipped(audio, error.cause, str(error))
    if not (offset_seconds >= 0 and left > 0):
        detail = f"'{audio}' has nothing at {offset_seconds:g} s, where '{identity}' should be; correct its times"
        return Skipped(audio, "outside the recording", detail)
    duration = left if duration_seconds is None else min(duration_seconds, left)
    return Utterance(identity, audio, duration, offset_seconds, **known)


def joined(text: str | None) -> str | None:
    """A transcript with single spaces, and none between Chinese characters; None where nothing is left."""
    return _BETWEEN_IDEOGRAPHS.sub("", " ".join((text or "").split())) or None


def seconds_of(value: Any) -> float:
    """A time that a file claims; ValueError where it is none."""
    if isinstance(value, bool) or not math.isfinite(seconds := float(value)):
        raise ValueError(f"{value!r} is not a time in seconds")
    return seconds


def split_in_name(name: str) -> str | None:
    """The split that the words of a file's or folder's name stand for (`cuts_dev-clean`, `train_dev`), or None."""
    found = {SPLIT_NAMES.get(word) for word in re.split(r"[^a-z]+", name.lower())}
    return next((split for split in ("dev", "test", "train") if split in found), None)


def corpus_folder(path: str, corpus: str) -> str:
    """The absolute path of a corpus; InputError where there is no such folder."""
    if not path:
        raise InputError(f"no corpus is named: set data.path to the folder of {corpus}")
    folder = os.path.abspath(os.path.expanduser(path))
    if not os.path.isdir(folder):
        raise InputError(f"the folder '{path}' does not exist; set data.path to where {corpus} is unpacked")
    return folder


def corpus_file(folder: str, name: str, corpus: str) -> str:
    """The path of a file that makes the layout; InputError where the folder lacks it."""
    file = os.path.join(folder, name)
    if not os.path.isfile(file):
        raise InputError(f"'{folder}' has no {name}, so it is not {corpus}; set data.path to the folder that has it")
    return file


def files_below(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    """Files with these suffixes anywhere in a folder, sorted; hidden ones are left out."""
    found = []
    for home, _, names in os.walk(folder, followlinks=True):
        kept = [name for name in names if name.lower().endswith(suffixes) and not name.startswith(".")]
        found += [os.path.join(home, name) for name in kept]
    return sorted(found)


def folders_below(folder: str) -> list[str]:
    """A folder and all in it, sorted: their times tell of files that came or went, at less cost than the files'."""
    return sorted(home for home, _, _ in os.walk(folder, followlinks=True))


def lines_of(file: str) -> Iterator[str]:
    """The lines of a text file, gzipped or not, without ends and without empty ones; InputError if it is no text."""
    try:
        with (
            gzip.open(file, "rt", encoding="utf-8-sig")
            if file.endswith(".gz")
            else open(file, encoding="utf-8-sig", newline="\n") as lines
        ):
            yield from (line.rstrip("\r\n") for line in lines if line.strip())
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"'{file}' is not whole UTF-8 text ({error}); fetch it again or save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"'{file}' cannot be read ({error.strerror or error}); check data.path") from error


def pairs_of(file: str) -> dict[str, str]:
    """A table with an id and the rest on each line; an id alone has an empty rest."""
    fields = (line.split(maxsplit=1) for line in lines_of(file))
    return {parts[0]: parts[1].strip() if len(parts) > 1 else "" for parts in fields}


def objects_in(file: str, key: str | None = None) -> Iterator[dict]:
    """The objects of a JSON list, or of one under a `key`, or one a line, one at a time however large the file is."""
    decoder = json.JSONDecoder()
    try:
        with open(file, encoding="utf-8-sig") as stream:
            text = stream.read(CHUNK_CHARACTERS)
            text = text.lstrip().removeprefix("[") if key is None else _behind_key(stream, text, key, file)
            place, ended = 0, False
            while True:
                place = _SEPARATORS.match(text, place).end()  # type: ignore[union-attr]
                try:
                    found, place = decoder.raw_decode(text, place)
                except ValueError:
                    if text[place : place + 1] == "]" or (ended and place == len(text)):
                        return
                    if ended:
                        wrong = text[place : place + 40]
                        raise InputError(f"'{file}' breaks off or is not JSON at '{wrong}'; fetch it again") from None
                    more = stream.read(max(CHUNK_CHARACTERS, len(text) - place))
                    text, place, ended = text[place:] + more, 0, not more
                    continue
                if isinstance(found, dict):
                    yield found
    except UnicodeDecodeError as error:
        raise InputError(f"'{file}' is not UTF-8 text ({error}); fetch it again") from error


def _behind_key(stream, text: str, key: str, file: str) -> str:
    pattern = re.compile(rf'"{key}"\s*:\s*\[')
    while not (found := pattern.search(text)):
        more = stream.read(CHUNK_CHARACTERS)
        if not more:
            raise InputError(f"'{file}' has no list of \"{key}\", so it is another kind of JSON; check data.path")
        text = text[-100:] + more
    return text[found.end() :]
