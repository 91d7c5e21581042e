"""A folder in; each recording that arrives in it out, once it has stopped growing."""

import glob
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from glmasr.speech import InputError

State = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""
REST = 9.0
"""A folder so large that looking through it takes long is looked through a tenth of the time."""


def arrivals(
    folder: str | Path,
    suffixes: tuple[str, ...],
    still_seconds: float = 2.0,
    poll_seconds: float = 0.5,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Path]:
    """Files below a folder, those that are there included, each once its size and time stood for `still_seconds`.

    One that changes afterwards comes again. Hidden ones, as programs that copy name what is unfinished, never come.
    Goes on for ever; InputError where there is no such folder to begin with.
    """
    if not Path(folder).is_dir():
        raise InputError(f"'{folder}' is no folder to watch: make it first")
    told: dict[Path, State] = {}
    since: dict[Path, tuple[State, float]] = {}
    while True:
        begun = clock()
        there = states(folder, suffixes)
        since = {
            path: since[path] if path in since and since[path][0] == state else (state, begun)
            for path, state in there.items()
        }
        told = {path: state for path, state in told.items() if path in there}
        ready = [path for path, state in there.items() if told.get(path) != state]
        ready = [path for path in ready if begun - since[path][1] >= still_seconds]
        for path in sorted(ready, key=lambda path: (there[path][1], path)):
            if state_of(path) == there[path]:  # what came before it may have taken long
                told[path] = there[path]
                yield path
        if not ready:
            sleep(max(poll_seconds, REST * (clock() - begun)))


def states(folder: str | Path, suffixes: tuple[str, ...]) -> dict[Path, State]:
    """What each file below a folder that has one of these suffixes is like now; none of a folder that is gone."""
    found: dict[Path, State] = {}
    for home, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(home, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() in suffixes and (state := state_of(path)) is not None:
                found[path] = state
    return found


def state_of(path: Path) -> State | None:
    """What a file is like now; None where it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def owner(path: Path, suffixes: tuple[str, ...]) -> Path:
    """Whose transcript is written under the name that `path` has: of files that differ in suffix alone, the oldest."""
    named_alike = [one for one in path.parent.glob(f"{glob.escape(path.stem)}.*") if one.stem == path.stem]
    ages = [(state_of(one), one) for one in named_alike if one.suffix.lower() in suffixes]
    return min(((state[1], one) for state, one in ages if state), default=(0, path))[1]
