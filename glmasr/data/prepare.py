"""A reader of some corpus layout in; a verified catalog, a manifest, a data report, and their journal out."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from glmasr.build import build
from glmasr.data.catalog import (
    Catalog,
    Gathering,
    Reader,
    Skipped,
    joined_catalogs,
    open_catalog,
    write_catalog,
    write_whole,
)
from glmasr.data.corpora import fingerprint_of
from glmasr.data.measure import VERSION, Measures, measure
from glmasr.data.remote import fetch, is_location
from glmasr.data.verify import check_header, check_whole, name_cause
from glmasr.frontend.audio import UnreadableAudio, probe_audio
from glmasr.speech import InputError, Interrupted, Utterance

CATALOG, JOURNAL, LISTING, REPORT = "catalog", "measured.jsonl", "skipped.tsv", "report.json"

STOPS = (signal.SIGINT, signal.SIGTERM)

AHEAD = 16
"""Recordings in the hands of each process, so that none waits and little is lost when all are stopped."""

Verdict = Measures | tuple[str, str]
"""What examining a recording gives: its measures, or a cause and the sentence that goes with it."""

Submit = Callable[..., "Future[Verdict]"]

_Begun = tuple[Utterance | Skipped, str, "Future[Verdict] | None"]
"""What a reader found, its key in the journal, and its verdict to come where that does not have it."""


@dataclass(frozen=True)
class Prepared:
    """Corpora that `make prepare` left under `root`, by one name or several, opened where they lie."""

    name: str | list[str]
    root: str

    def open(self) -> Catalog:
        """The catalog, or all of them behind one another; InputError that names what is prepared where one is not."""
        catalogs = [open_catalog(folder) for folder in self._folders()]
        return catalogs[0] if len(catalogs) == 1 else joined_catalogs(catalogs)

    def fingerprint(self) -> str:
        """A hash over the catalogs' files."""
        return fingerprint_of(self, sorted(str(file) for folder in self._folders() for file in folder.iterdir()))

    def utterances(self) -> Iterator[Utterance]:
        """The catalog's rows."""
        yield from self.open()

    def _folders(self) -> list[Path]:
        names = [self.name] if isinstance(self.name, str) else list(self.name)
        folders = [Path(self.root) / name / CATALOG for name in names]
        for name, folder in zip(names, folders, strict=True):
            if not folder.is_dir():
                known = (
                    ", ".join(sorted(report.parent.name for report in Path(self.root).glob(f"*/{REPORT}"))) or "none"
                )
                raise InputError(
                    f"there is no prepared corpus '{name}' in '{self.root}' (there: {known}); "
                    f'make prepare ARGS="source=… path=… name={name}"'
                )
        return folders


def prepare_corpus(config: dict[str, Any]) -> Path:
    """`make prepare`: the folder of catalog and report. What has been measured before is not measured again.

    Where all audio is files, NeMo's manifest lies beside the catalog, for other toolkits and for `noise_path`.
    Interrupted on Ctrl-C and SIGTERM; InputError where too much is broken, which then only leaves `skipped.tsv`.
    """
    # imported here: a Prepared needs no figures, and an export needs this file
    from glmasr.data.export import MANIFEST, to_manifest
    from glmasr.data.report import document, write_report

    source = build(config["source"])
    home = Path(config["catalogs"]) / (config["name"] or source.name)
    state = _state(source, config)
    if _is_current(home, state):
        print(f"glmasr: {home} is up to date: nothing to do", file=sys.stderr)
        return home
    home.mkdir(parents=True, exist_ok=True)
    staged = home / ".catalog.new"
    shutil.rmtree(staged, ignore_errors=True)
    (home / LISTING).unlink(missing_ok=True)
    with Journal(home / JOURNAL) as journal, _stoppable(journal), _examiners(config["workers"]) as submit:
        verified = Verified(source, journal, submit, AHEAD * max(1, config["workers"]))
        gathering = Gathering(verified, config["max_skipped_share"], home / LISTING)
        write_catalog(gathering.utterances(), staged)
        rows = list(verified.rows.values())
        told = document(rows, gathering.skipped, config["tokenizer"])
        journal.keep(verified.keys)
        _replace(staged, home / CATALOG)
        if all(one.audio and not is_location(one.audio) for one, _ in rows):
            to_manifest(open_catalog(home / CATALOG), home / MANIFEST)
        else:
            (home / MANIFEST).unlink(missing_ok=True)
        told = {"name": home.name, "source": config["source"], **told, "state": state}
        write_report(home, told, rows)
    print(f"glmasr: {told['utterances']} utterances, {told['hours']:.2f} h: see {home / 'report.md'}", file=sys.stderr)
    return home


def examine(audio: str | bytes, offset_seconds: float, duration_seconds: float, name: str) -> Verdict:
    """Decode and measure one utterance, or say why it cannot be used."""
    try:
        audio = fetch(audio) if is_location(audio) else audio
        check_whole(audio, name)
        check_header(probe_audio(audio), name)
        return measure(audio, offset_seconds, duration_seconds)
    except UnreadableAudio as error:
        return error.cause, str(error)


@dataclass
class Verified:
    """A reader's utterances in its order, each decoded to its end by another process; what fails becomes Skipped.

    `rows` has the first of each id with its measures, without audio that is not a path; `keys` are those of the
    journal. `ahead` recordings are under way at a time.
    """

    source: Reader
    journal: "Journal"
    submit: Submit
    ahead: int
    rows: dict[str, tuple[Utterance, Measures]] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The reader's own."""
        return self.source.name

    def utterances(self) -> Iterator[Utterance | Skipped]:
        """Every utterance that can be decoded, and what was skipped."""
        waiting: deque[_Begun] = deque()
        try:
            for found in self.source.utterances():
                waiting.append(self._begin(found))
                while waiting and (len(waiting) > self.ahead or _is_done(waiting[0][2])):
                    yield self._finish(*waiting.popleft())
            while waiting:
                yield self._finish(*waiting.popleft())
        except BrokenProcessPool as error:
            raise InputError(
                "a decoding process died, for want of memory or on a file it cannot bear; free memory, or find the "
                "file with workers=0"
            ) from error

    def _begin(self, found: Utterance | Skipped) -> _Begun:
        if isinstance(found, Skipped):
            return found, "", None
        key = key_of(found)
        if key in self.journal:
            return found, key, None
        name = found.id if isinstance(found.audio, bytes) else str(found.audio)
        return found, key, self.submit(examine, found.audio, found.offset_seconds, found.duration_seconds, name)

    def _finish(self, found: Utterance | Skipped, key: str, examined: "Future[Verdict] | None") -> Utterance | Skipped:
        if isinstance(found, Skipped):
            return name_cause(found)
        if examined is not None:
            self.journal.add(key, examined.result())
        self.keys.add(key)
        verdict = self.journal[key]
        is_path = not isinstance(found.audio, bytes)
        if not isinstance(verdict, Measures):
            return Skipped(str(found.audio) if is_path else found.id, *verdict)
        self.rows.setdefault(found.id, (found if is_path else replace(found, audio=""), verdict))
        return found


class Journal:
    """What has been measured, on disk as soon as it is: a line for each stretch of a recording, by `key_of`."""

    def __init__(self, path: Path):
        self.path = path
        self.known: dict[str, Verdict] = {}
        text = path.read_text("utf-8") if path.exists() else ""
        for line in text.splitlines():
            with contextlib.suppress(ValueError, TypeError):  # the line a kill cut off
                key, verdict = json.loads(line)
                self.known[key] = Measures(**verdict) if isinstance(verdict, dict) else (verdict[0], verdict[1])
        self.recalled, self._open_end = len(self.known), bool(text) and not text.endswith("\n")

    def __enter__(self) -> "Journal":
        self._file = self.path.open("a", encoding="utf-8")
        if self._open_end:
            self._file.write("\n")
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self.known

    def __getitem__(self, key: str) -> Verdict:
        return self.known[key]

    def add(self, key: str, verdict: Verdict) -> None:
        """Remember, and write down at once."""
        self.known[key] = verdict
        self._file.write(_line(key, verdict))
        self._file.flush()

    def keep(self, keys: set[str]) -> None:
        """Forget all but these, so that a corpus that changes does not leave an endless journal."""
        if set(self.known) - keys:
            self.known = {key: verdict for key, verdict in self.known.items() if key in keys}
            write_whole(self.path, "".join(_line(key, verdict) for key, verdict in self.known.items()))


def key_of(utterance: Utterance) -> str:
    """Names a stretch of a recording: another after the file's size or time, or the way of measuring, has changed."""
    audio = utterance.audio
    digest = hashlib.blake2b(f"{VERSION}\0{utterance.offset_seconds}\0{utterance.duration_seconds}\0".encode())
    if isinstance(audio, bytes):
        digest.update(audio)
    else:
        with contextlib.suppress(OSError):
            found = os.stat(audio)
            digest.update(f"{found.st_size}\0{found.st_mtime_ns}\0".encode())
        digest.update(os.fspath(audio).encode())
    return digest.hexdigest()[:24]


def _is_done(examined: "Future[Verdict] | None") -> bool:
    return examined is None or examined.done()


def _line(key: str, verdict: Verdict) -> str:
    content = asdict(verdict) if isinstance(verdict, Measures) else verdict
    return json.dumps([key, content], ensure_ascii=False) + "\n"


def _state(source: Reader, config: dict[str, Any]) -> str:
    """Changes with the corpus, the settings that matter, and the way of measuring."""
    tokenizer = config["tokenizer"]
    files = sorted(str(file) for file in Path(tokenizer).iterdir()) if tokenizer and os.path.isdir(tokenizer) else []
    given = [VERSION, source.fingerprint(), config["max_skipped_share"], tokenizer]
    given += [(file, os.stat(file).st_mtime_ns) for file in files]
    return hashlib.sha256(repr(given).encode()).hexdigest()[:16]


def _is_current(home: Path, state: str) -> bool:
    try:
        told = json.loads((home / REPORT).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return told.get("state") == state and (home / CATALOG).is_dir()


def _replace(staged: Path, folder: Path) -> None:
    """Put a finished folder in the place of an older one; a training that has the old one open keeps it."""
    old = folder.with_name(".catalog.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    staged.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _stoppable(journal: Journal) -> Iterator[None]:
    """Ctrl-C and SIGTERM end in Interrupted, with what to do next."""

    def stop(*_) -> None:
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if in_main else None
    try:
        yield
    except KeyboardInterrupt as error:
        measured = len(journal.known) - journal.recalled
        raise Interrupted(f"stopped after {measured} recordings; the same command goes on from there") from error
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _examiners(workers: int) -> Iterator[Submit]:
    """`submit(function, *arguments)` to so many processes; 0 does it at once, here."""
    if not workers:
        yield _at_once
        return
    pool = ProcessPoolExecutor(workers, initializer=_begin_worker)
    # A stop that comes while processes fork can be lost in Python's own hooks: it waits until they run.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        pool.submit(os.getpid).result()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def submit(function: Callable[..., Verdict], *arguments: Any) -> "Future[Verdict]":
        return pool.submit(function, *arguments)

    try:
        yield submit
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _at_once(function: Callable[..., Verdict], *arguments: Any) -> "Future[Verdict]":
    done: Future[Verdict] = Future()
    done.set_result(function(*arguments))
    return done


def _begin_worker() -> None:
    """Ctrl-C is the parent's to answer, and a parent that was killed leaves no worker behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
