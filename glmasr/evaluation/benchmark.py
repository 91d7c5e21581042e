"""Systems and test sets in; what each system heard, its error rates with intervals, and paired tests out."""

import functools
import hashlib
import itertools
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from glmasr.evaluation.bootstrap import interval, paired
from glmasr.evaluation.conditions import CLEAN, Condition
from glmasr.frontend.audio import read_audio
from glmasr.speech import RATE_HZ, InputError, System, Transcript, Utterance
from glmasr.text.errors import ErrorCounts, count_errors

log = logging.getLogger(__name__)

METRICS = ("wer", "cer")


@dataclass(frozen=True)
class TestSet:
    """Transcribed utterances under one condition ("clean", "snr=5", …); those without a text cannot be scored.

    `damage` is what makes the condition, where the recordings are clean.
    """

    __test__ = False  # pytest would take the name for a test

    name: str
    utterances: Sequence[Utterance]
    condition: str = "clean"
    damage: Condition = CLEAN

    def scored(self) -> list[Utterance]:
        """The utterances that have a reference; an InputError where none has, or where two share an id."""
        kept = [utterance for utterance in self.utterances if utterance.text is not None]
        if not kept:
            raise InputError(f"test set '{self.name}' has no transcribed utterance: give its manifest a text field")
        if len({utterance.id for utterance in kept}) < len(kept):
            raise InputError(f"test set '{self.name}' has two utterances with one id: make the ids differ")
        return kept

    def fingerprint(self) -> str:
        """Names the content, the same on every machine: ids, references, languages and durations."""
        rows = [[u.id, u.text, u.language, u.offset_seconds, round(u.duration_seconds, 3)] for u in self.scored()]
        return _digest([self.name, self.condition, rows, *self.damage.identity()])


@dataclass(frozen=True)
class Heard:
    """One utterance as one system heard it; `failure` is what it raised instead, the hypothesis then is empty."""

    id: str
    language: str
    reference: str
    hypothesis: str
    audio_seconds: float
    compute_seconds: float
    failure: str = ""


@dataclass(frozen=True)
class Run:
    """One system on one test set."""

    system: str
    test_set: str
    condition: str
    heard: tuple[Heard, ...]

    @functools.cached_property
    def counts(self) -> dict[str, list[ErrorCounts]]:
        """Per metric, one count per utterance."""
        return {
            metric: [count_errors(h.reference, h.hypothesis, h.language, metric) for h in self.heard]
            for metric in METRICS
        }

    def columns(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """(errors, words) per utterance."""
        counts = self.counts[metric]
        return np.array([c.errors for c in counts]), np.array([c.words for c in counts])

    @property
    def rtf(self) -> float:
        """Seconds of computing per second of audio, on the machine and at the group size of the run."""
        return sum(h.compute_seconds for h in self.heard) / max(sum(h.audio_seconds for h in self.heard), 1e-9)

    @property
    def failures(self) -> int:
        """Utterances the system raised on."""
        return sum(bool(h.failure) for h in self.heard)


@dataclass(frozen=True)
class Result:
    """A corpus error rate as a fraction, with its 95 % interval; `words` are reference units of the metric."""

    system: str
    test_set: str
    condition: str
    metric: str
    value: float
    low: float
    high: float
    words: int
    rtf: float


@dataclass(frozen=True)
class Comparison:
    """`delta` = rate of a − rate of b: negative where a makes fewer errors."""

    a: str
    b: str
    test_set: str
    condition: str
    metric: str
    delta: float
    p_value: float


@dataclass(frozen=True)
class Card:
    """What a system is before it has heard anything."""

    name: str
    parameters: int
    size_bytes: int


@dataclass(frozen=True)
class Outcome:
    """Everything a report needs; `data` is the fingerprint of the test sets."""

    systems: tuple[Card, ...]
    runs: tuple[Run, ...]
    results: tuple[Result, ...]
    comparisons: tuple[Comparison, ...]
    data: str
    seed: int


def benchmark(
    systems: Sequence[System],
    test_sets: Sequence[TestSet],
    folder: str | Path,
    group: int = 16,
    samples: int = 1000,
    permutations: int = 10_000,
    seed: int = 0,
) -> Outcome:
    """Every system on every test set; `folder`/utterances keeps what was heard, and a second start goes on from it."""
    for kind, names in {
        "systems": [system.name for system in systems],
        "test sets": [(test_set.name, test_set.condition) for test_set in test_sets],
    }.items():
        if not names or len(set(names)) < len(names):
            raise InputError(f"a benchmark needs {kind}, each with a name of its own; it was given {names}")
    runs = tuple(evaluate(system, test_set, folder, group) for test_set in test_sets for system in systems)
    return Outcome(
        tuple(Card(system.name, system.parameters, system.size_bytes) for system in systems),
        runs,
        tuple(_result(run, metric, samples, seed) for run in runs for metric in METRICS),
        tuple(compare(runs, permutations, seed)),
        _digest([test_set.fingerprint() for test_set in test_sets])[:16],
        seed,
    )


def evaluate(system: System, test_set: TestSet, folder: str | Path, group: int = 16) -> Run:
    """One system on one test set, `group` utterances of similar length a call, only the call timed.

    What was heard goes to `folder`/utterances/`system`.`test_set`.jsonl group by group; rows found there are taken over
    with their times if system and data are still the same. A first call on one utterance is thrown away.
    """
    utterances = test_set.scored()
    journal = _Journal(_journal_path(Path(folder), system, test_set), _identity(system, test_set))
    left = sorted((u for u in utterances if u.id not in journal.rows), key=lambda u: (u.duration_seconds, u.id))
    if left:
        _hear(system, left[:1], test_set.damage)
    with tqdm(
        total=len(utterances), initial=len(journal.rows), desc=f"{system.name} · {test_set.name}", disable=None
    ) as bar:
        for start in range(0, len(left), group):
            heard = _hear(system, left[start : start + group], test_set.damage)
            journal.add(heard)
            bar.update(len(heard))
    run = Run(system.name, test_set.name, test_set.condition, tuple(journal.rows[u.id] for u in utterances))
    if run.failures:
        log.warning("%s failed on %d of %d utterances of %s", run.system, run.failures, len(utterances), run.test_set)
    return run


def compare(runs: Iterable[Run], permutations: int = 10_000, seed: int = 0) -> list[Comparison]:
    """The paired test for every pair of systems on every test set and metric; p is not corrected for their number."""
    found = []
    for a, b in itertools.combinations(runs, 2):
        if (a.test_set, a.condition) != (b.test_set, b.condition):
            continue
        for metric in METRICS:
            (errors_a, words), (errors_b, _) = a.columns(metric), b.columns(metric)
            delta, p_value = paired(errors_a, errors_b, words, permutations, seed)
            found.append(Comparison(a.system, b.system, a.test_set, a.condition, metric, delta, p_value))
    return found


def _result(run: Run, metric: str, samples: int, seed: int) -> Result:
    errors, words = run.columns(metric)
    value, low, high = interval(errors, words, samples, seed)
    return Result(run.system, run.test_set, run.condition, metric, value, low, high, int(words.sum()), run.rtf)


def _hear(system: System, utterances: Sequence[Utterance], damage: Condition) -> list[Heard]:
    """Transcribe together; where that raises, one by one, so that one bad file costs one hypothesis."""
    waveforms = [damage.apply(read_audio(u.audio, u.offset_seconds, u.duration_seconds), u.id) for u in utterances]
    start = time.perf_counter()
    try:
        transcripts, failure = _call(system, waveforms), ""
    except InputError:
        raise
    except Exception as error:  # any system may be measured, and may raise anything
        if len(utterances) > 1:
            return [heard for utterance in utterances for heard in _hear(system, [utterance], damage)]
        transcripts, failure = [Transcript("", 0.0)], f"{type(error).__name__}: {error}"
    elapsed = time.perf_counter() - start
    seconds = [len(waveform) / RATE_HZ for waveform in waveforms]
    return [
        Heard(u.id, u.language, u.text or "", t.text, s, elapsed * s / max(sum(seconds), 1e-9), failure)
        for u, t, s in zip(utterances, transcripts, seconds, strict=True)
    ]


def _call(system: System, waveforms: list[np.ndarray]) -> list[Transcript]:
    transcripts = system(waveforms)
    if len(transcripts) != len(waveforms):
        raise ValueError(f"{len(transcripts)} transcripts for {len(waveforms)} waveforms")
    return transcripts


class _Journal:
    """Rows heard so far, in memory and on disk; a file of another system or other data is begun anew."""

    def __init__(self, path: Path, identity: str):
        self.path = path
        self.rows: dict[str, Heard] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        head = json.dumps({"fingerprint": identity})
        if lines[:1] == [head]:
            self.rows = {row.id: row for row in _whole_rows(lines[1:])}
        whole = [head, *(_line(row) for row in self.rows.values())]
        aside = path.with_suffix(".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text("\n".join(whole) + "\n", encoding="utf-8")
            os.replace(aside, path)
        except OSError as error:
            raise InputError(f"'{path}' cannot be written ({error.strerror}): choose a writable folder") from error

    def add(self, rows: Iterable[Heard]) -> None:
        """Keep rows, on disk before they are counted as done."""
        rows = list(rows)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(_line(row) + "\n" for row in rows)
        self.rows.update((row.id, row) for row in rows)


def _line(row: Heard) -> str:
    return json.dumps(asdict(row), ensure_ascii=True)  # ASCII: no character in a text can look like a line's end


def _whole_rows(lines: Iterable[str]) -> Iterable[Heard]:
    """The rows up to the first that an interruption cut short."""
    for line in lines:
        try:
            yield Heard(**json.loads(line))
        except (ValueError, TypeError):
            return


def _journal_path(folder: Path, system: System, test_set: TestSet) -> Path:
    condition = "" if test_set.condition == "clean" else f".{test_set.condition}"
    name = re.sub(r"[^\w.=+-]", "_", f"{system.name}.{test_set.name}{condition}")
    return folder / "utterances" / f"{name}.jsonl"


def _identity(system: System, test_set: TestSet) -> str:
    """System and data in one word; a system that can change without changing size says so by a `fingerprint`."""
    own = getattr(system, "fingerprint", "")
    audio = [_state(utterance.audio) for utterance in test_set.scored()]
    return _digest([system.name, system.parameters, system.size_bytes, own, test_set.fingerprint(), audio])


def _state(audio: str | bytes) -> list:
    """Names the content of an audio source without decoding it."""
    if isinstance(audio, bytes):
        return [hashlib.sha256(audio).hexdigest()]
    found = Path(audio)
    return [audio, found.stat().st_size, found.stat().st_mtime_ns] if found.exists() else [audio]


def _digest(content: list) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
