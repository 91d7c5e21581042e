"""Systems and test sets in; what each system heard, its error rates with intervals, and paired tests out."""

import functools
import hashlib
import itertools
import json
import logging
import os
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from glmasr.evaluation.bootstrap import holm, interval, mapsswe, paired, words_needed
from glmasr.evaluation.conditions import CLEAN, Condition
from glmasr.evaluation.memory import PeakMemory
from glmasr.frontend.audio import read_audio
from glmasr.speech import RATE_HZ, InputError, System, Transcript, Utterance
from glmasr.text.errors import ErrorCounts, count_errors
from glmasr.text.normalize import base_language, metrics_for, units

log = logging.getLogger(__name__)

LATENCY_CALLS = 5
"""Utterances heard alone, spread over the durations, of whose times the median is the latency."""

SMALL_DIFFERENCE = 0.01
"""An absolute difference in error rate worth knowing of: the one `Comparison.words_needed` is for."""

REFERENCE = "ref"
"""What the references are called where files are named after systems."""


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
    speaker: str = ""


@dataclass(frozen=True)
class Run:
    """One system on one test set."""

    system: str
    test_set: str
    condition: str
    heard: tuple[Heard, ...]

    @property
    def is_silent(self) -> bool:
        """Whether nothing was said: there is no rate, every word written is made up."""
        return not any(h.reference.strip() for h in self.heard)

    @functools.cached_property
    def metrics(self) -> tuple[str, ...]:
        """What suits the test set, the one it is known by first."""
        language = Counter(h.language for h in self.heard).most_common(1)[0][0]
        return metrics_for(language, [h.reference for h in self.heard])

    @functools.cached_property
    def counts(self) -> dict[str, list[ErrorCounts]]:
        """Per metric, one count per utterance."""
        return {
            metric: [count_errors(h.reference, h.hypothesis, h.language, metric) for h in self.heard]
            for metric in self.metrics
        }

    @functools.cached_property
    def written(self) -> list[int]:
        """Words (Han characters counting each) of every hypothesis, in any language."""
        return [len(units(h.hypothesis, h.language, "mer")) for h in self.heard]

    @property
    def speakers(self) -> np.ndarray | None:
        """Each utterance's speaker, where all are known and there are two at least."""
        names = [h.speaker for h in self.heard]
        return np.array(names) if all(names) and len(set(names)) > 1 else None

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
    """A corpus error rate as a fraction, with its 95 % interval; `words` are reference units of the metric.

    The interval is over utterances; the one of `speaker_low` and `speaker_high` is over `speakers`, where known.
    """

    system: str
    test_set: str
    condition: str
    metric: str
    value: float
    low: float
    high: float
    words: int
    rtf: float
    speakers: int = 0
    speaker_low: float | None = None
    speaker_high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """`delta` = rate of a − rate of b: negative where a makes fewer errors.

    `p_value` is of the paired permutation test, `p_holm` the same corrected for all comparisons of the report.
    `words_needed` are the reference words that show a SMALL_DIFFERENCE; None where the two differ nowhere.
    """

    a: str
    b: str
    test_set: str
    condition: str
    metric: str
    delta: float
    p_value: float
    p_mapsswe: float = 1.0
    p_holm: float = 1.0
    words_needed: int | None = None


@dataclass(frozen=True)
class Card:
    """What a system is and costs, apart from its errors; None where it could not be measured.

    `latency_seconds` is the median time to the text of one utterance alone, `peak_bytes` by how much the process grew
    while the system was loaded and ran, `rtf` seconds of computing per second of audio over all test sets.
    """

    name: str
    parameters: int
    size_bytes: int
    rtf: float | None = None
    latency_seconds: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Outcome:
    """Everything a report needs; `data` is the fingerprint of the test sets."""

    systems: tuple[Card, ...]
    runs: tuple[Run, ...]
    results: tuple[Result, ...]
    comparisons: tuple[Comparison, ...]
    data: str
    seed: int
    test_sets: tuple[TestSet, ...] = ()


def benchmark(
    systems: Iterable[System],
    test_sets: Sequence[TestSet],
    folder: str | Path,
    group: int = 16,
    samples: int = 1000,
    permutations: int = 10_000,
    seed: int = 0,
    hears: Mapping[str, Sequence[str]] | None = None,
) -> Outcome:
    """Every system on every test set, or on those that `hears` names for it.

    `folder`/utterances keeps what was heard, and a second start goes on from it. One system after the other: an
    iterator that builds each when it is asked for has only one in memory at a time, and what it takes is then measured
    from before it is built.
    """
    places = [(test_set.name, test_set.condition) for test_set in test_sets]
    if not places or len(set(places)) < len(places):
        raise InputError(f"a benchmark needs test sets, each with a name of its own; it was given {places}")
    cards: list[Card] = []
    ran: list[Run] = []
    taken = {REFERENCE: "the references"}
    waiting = iter(systems)
    while True:
        with PeakMemory() as memory:
            if (system := next(waiting, None)) is None:
                break
            _take_names(system, test_sets, taken)
            given = (hears or {}).get(system.name)
            meant = [one for one in test_sets if _is_meant_for(system, one) and (given is None or one.name in given)]
            if not meant:
                log.warning("%s is left out: none of the test sets is for it", system.name)
                continue
            own = [evaluate(system, one, folder, group) for one in meant]
            latency = _latency(system, meant, Path(folder))
        cards.append(_card(system, own, latency, memory.peak_bytes, Path(folder)))
        ran += own
        del system  # before the next is built
    if not cards:
        raise InputError("a benchmark needs systems, each with a name of its own; it was given none")
    runs = tuple(sorted(ran, key=lambda run: places.index((run.test_set, run.condition))))
    spoken = [run for run in runs if not run.is_silent]
    return Outcome(
        tuple(cards),
        runs,
        tuple(summarize(run, metric, samples, seed) for run in spoken for metric in run.metrics),
        tuple(compare(spoken, permutations, seed)),
        _digest([test_set.fingerprint() for test_set in test_sets])[:16],
        seed,
        tuple(test_sets),
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
    heard = tuple(replace(journal.rows[u.id], speaker=u.speaker) for u in utterances)
    run = Run(system.name, test_set.name, test_set.condition, heard)
    if run.failures:
        log.warning("%s failed on %d of %d utterances of %s", run.system, run.failures, len(utterances), run.test_set)
    return run


def compare(runs: Iterable[Run], permutations: int = 10_000, seed: int = 0) -> list[Comparison]:
    """The tests for every pair of systems on every test set and metric, corrected for their number."""
    found = []
    for a, b in itertools.combinations(runs, 2):
        if (a.test_set, a.condition) != (b.test_set, b.condition):
            continue
        for metric in a.metrics:
            (errors_a, words), (errors_b, _) = a.columns(metric), b.columns(metric)
            delta, p_value = paired(errors_a, errors_b, words, permutations, seed)
            tests = Comparison(a.system, b.system, a.test_set, a.condition, metric, delta, p_value)
            needed = _words_needed(errors_a, errors_b, words)
            found.append(replace(tests, p_mapsswe=mapsswe(errors_a, errors_b)[1], words_needed=needed))
    corrected = holm([one.p_value for one in found]) if found else []
    return [replace(one, p_holm=float(p)) for one, p in zip(found, corrected, strict=True)]


def summarize(run: Run, metric: str, samples: int = 1000, seed: int = 0) -> Result:
    """The corpus rate of a run with its intervals."""
    errors, words = run.columns(metric)
    value, low, high = interval(errors, words, samples, seed)
    result = Result(run.system, run.test_set, run.condition, metric, value, low, high, int(words.sum()), run.rtf)
    if (speakers := run.speakers) is None:
        return result
    _, low, high = interval(errors, words, samples, seed, clusters=speakers)
    return replace(result, speakers=len(set(speakers.tolist())), speaker_low=low, speaker_high=high)


def file_name(text: str) -> str:
    """`text` as part of a file's name."""
    return re.sub(r"[^\w.=+-]", "_", text)


def _words_needed(errors_a: np.ndarray, errors_b: np.ndarray, words: np.ndarray) -> int | None:
    try:
        return words_needed(errors_a, errors_b, words, SMALL_DIFFERENCE)
    except ValueError:
        return None


def _is_meant_for(system: System, test_set: TestSet) -> bool:
    """False for recorded hypotheses of another condition, and where a system's `languages` lack one of the set's."""
    if hasattr(system, "recall") and getattr(system, "condition", test_set.condition) != test_set.condition:
        return False
    known, spoken = getattr(system, "languages", None), {base_language(u.language) for u in test_set.utterances} - {""}
    return known is None or spoken <= set(known)


def _take_names(system: System, test_sets: Iterable[TestSet], taken: dict[str, str]) -> None:
    """Note the names of a system's files, or an InputError where another system writes one of them."""
    own = {_journal_path(Path(), system, test_set).stem for test_set in test_sets} | {file_name(system.name)}
    for name in sorted(own & set(taken)):
        raise InputError(f"a benchmark needs systems, each with a name of its own: '{system.name}' and {taken[name]}")
    taken.update(dict.fromkeys(own, f"'{system.name}'"))


def _latency(system: System, test_sets: Sequence[TestSet], folder: Path) -> float | None:
    """Median seconds of calls with one utterance, as measured now or at an earlier start; None for what is recalled."""
    kept = _kept_cost(system, folder)
    if kept or hasattr(system, "recall"):
        return kept.get("latency_seconds")
    ordered = sorted(test_sets[0].scored(), key=lambda u: (u.duration_seconds, u.id))
    chosen = [ordered[round(i * (len(ordered) - 1) / LATENCY_CALLS)] for i in range(LATENCY_CALLS + 1)]
    heard = [_hear(system, [utterance], test_sets[0].damage)[0] for utterance in chosen][1:]  # the first warms up
    return statistics.median([h.compute_seconds for h in heard if not h.failure] or [float("nan")])


def _card(system: System, runs: Sequence[Run], latency: float | None, peak_bytes: int | None, folder: Path) -> Card:
    """What a system cost, the greatest memory of all starts; kept on disk for the next one."""
    peaks = [peak for peak in (peak_bytes, _kept_cost(system, folder).get("peak_bytes")) if peak is not None]
    heard = [h for run in runs for h in run.heard]
    rtf = sum(h.compute_seconds for h in heard) / max(sum(h.audio_seconds for h in heard), 1e-9)
    measured = {"latency_seconds": latency if latency == latency else None, "peak_bytes": max(peaks, default=None)}
    if hasattr(system, "recall"):  # reading a file says nothing of what made it
        return Card(system.name, system.parameters, system.size_bytes)
    path = _cost_path(system, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"fingerprint": _digest(_system_identity(system))} | measured), encoding="utf-8")
    return Card(system.name, system.parameters, system.size_bytes, rtf, **measured)


def _kept_cost(system: System, folder: Path) -> dict:
    """What an earlier start measured of the same system; nothing where there was none."""
    try:
        kept = json.loads(_cost_path(system, folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if kept.get("fingerprint") == _digest(_system_identity(system)) else {}


def _cost_path(system: System, folder: Path) -> Path:
    return folder / "costs" / f"{file_name(system.name)}.json"


def _hear(system: System, utterances: Sequence[Utterance], damage: Condition) -> list[Heard]:
    """Transcribe together; where that raises, one by one, so that one bad file costs one hypothesis."""
    waveforms = [damage.apply(read_audio(u.audio, u.offset_seconds, u.duration_seconds), u.id) for u in utterances]
    start = time.perf_counter()
    try:
        transcripts, failure = _call(system, utterances, waveforms), ""
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


def _call(system: System, utterances: Sequence[Utterance], waveforms: list[np.ndarray]) -> list[Transcript]:
    """A system that only has transcripts made elsewhere recalls them by utterance; every other one listens."""
    recall = getattr(system, "recall", None)
    transcripts = recall(utterances) if recall else system(waveforms)
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
    return folder / "utterances" / f"{file_name(f'{system.name}.{test_set.name}{condition}')}.jsonl"


def _identity(system: System, test_set: TestSet) -> str:
    """System and data in one word; a system that can change without changing size says so by a `fingerprint`."""
    audio = [_state(utterance.audio) for utterance in test_set.scored()]
    return _digest([*_system_identity(system), test_set.fingerprint(), audio])


def _system_identity(system: System) -> list:
    return [system.name, system.parameters, system.size_bytes, getattr(system, "fingerprint", "")]


def _state(audio: str | bytes) -> list:
    """Names the content of an audio source without decoding it."""
    if isinstance(audio, bytes):
        return [hashlib.sha256(audio).hexdigest()]
    found = Path(audio)
    return [audio, found.stat().st_size, found.stat().st_mtime_ns] if found.exists() else [audio]


def _digest(content: list) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
