"""A benchmark's outcome in; report.json, report.md, a report.html that needs nothing but itself, and exports out."""

import base64
import datetime
import functools
import importlib.metadata
import itertools
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import torch
import yaml

from glmasr.evaluation import breakdown
from glmasr.evaluation.benchmark import (
    REFERENCE,
    SMALL_DIFFERENCE,
    Comparison,
    Heard,
    Outcome,
    Result,
    Run,
    TestSet,
    file_name,
)
from glmasr.evaluation.breakdown import total
from glmasr.evaluation.conditions import hear, turn_down
from glmasr.frontend.audio import encode_audio
from glmasr.speech import InputError, Utterance
from glmasr.text.errors import ErrorCounts, align
from glmasr.text.normalize import PROTOCOL, normalize, units
from glmasr.text.trn import write_trn

VERSIONS = (
    *("torch", "jiwer", "faster-whisper", "ctranslate2", "whisper-normalizer"),
    *("opencc", "transformers", "numpy", "scipy"),
)
"""Packages a rate or a time may depend on."""

UNIT = {"wer": "word", "cer": "character", "mer": "word or Han character", "ser": "syllable"}

SIGNIFICANT = 0.05

STATISTICS = (
    "Of 100 intervals made like these some 95 hold the rate over all utterances of the same talkers (interval) or over "
    "other talkers like them (by speaker), by a bootstrap of 1,000 draws.",
    "p is how often a difference as large would come by chance if both systems were equally good (two-sided paired "
    "permutation test over utterances), beside each sentence corrected by Holm for all comparisons of this report: "
    "below 0.05 it is called a difference; the matched-pairs test (MAPSSWE) stands with it in the last table.",
)
"""Printed in every report, in two sentences."""

Document = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of a ranking: a result, its edits, and how many files the system failed on."""

    result: Result
    counts: ErrorCounts
    failures: int


@dataclass(frozen=True)
class Ranking:
    """The systems on one test set under one metric, best first; `scale` is the rate at the bars' right end.

    `is_headline` where it is the test set's own metric under its first condition.
    """

    test_set: str
    condition: str
    metric: str
    rows: tuple[Row, ...]
    tests: tuple[Comparison, ...]
    sentences: tuple[str, ...]
    scale: float
    is_headline: bool


@dataclass(frozen=True)
class Attempt:
    """What one system made of an utterance, aligned unit by unit."""

    system: str
    counts: ErrorCounts
    steps: list[tuple[str, str, str]]
    failure: str


@dataclass(frozen=True)
class Miss:
    """An utterance that some system got badly wrong, as every system heard it; `audio` is a data: URI, "" without."""

    heard: Heard
    attempts: tuple[Attempt, ...]
    audio: str = ""


@dataclass(frozen=True)
class Misses:
    """The worst of one test set under one condition."""

    test_set: str
    condition: str
    metric: str
    misses: tuple[Miss, ...]


def write_report(
    folder: str | Path,
    outcome: Outcome,
    title: str = "Benchmark",
    worst: int = 10,
    audio_megabytes: float = 8.0,
    config: Mapping[str, Any] | None = None,
    hashes: Mapping[tuple[str, str], str] | None = None,
) -> Path:
    """Write the report's three files, NIST's trn files and utterances/<system>.jsonl; give the HTML's path.

    Of each test set and condition the `worst` utterances are shown, with players as long as the page's audio stays
    below `audio_megabytes`. `config` is printed, as are the `hashes` of the samples of a (test set, condition).
    """
    folder = Path(folder)
    document = as_json(outcome, provenance(outcome, config), hashes)
    content = {
        "title": title,
        "outcome": outcome,
        "report": document,
        "rankings": list(rankings(outcome)),
        "misses": with_audio(worst_misses(outcome.runs, worst), outcome.test_sets, audio_megabytes),
        "matrices": list(matrices(outcome)),
        "charts": [chart(row) for row in document["curves"]],
        "groups": tables_of(document["groups"]),
        "provenance": document["provenance"],
        "settings": yaml.safe_dump(dict(config), allow_unicode=True, sort_keys=False) if config else "",
        "unit": UNIT,
        "claim": breakdown.CLAIM,
        "small_difference": SMALL_DIFFERENCE,
    }
    files = {
        "report.json": json.dumps(document, ensure_ascii=False, indent=2) + "\n",
        "report.md": _templates(escape=False).get_template("report.md.jinja").render(content),
        "report.html": _templates(escape=True).get_template("report.html.jinja").render(content),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_exports(folder, outcome)
        for name, text in files.items():
            _write(folder / name, text)
    except OSError as error:
        raise InputError(f"'{folder}' cannot be written ({error.strerror}): choose a writable folder") from error
    return folder / "report.html"


def as_json(outcome: Outcome, provenance: Document, hashes: Mapping[tuple[str, str], str] | None = None) -> Document:
    """The interface other programs read; rates are fractions, delta = a − b."""
    details = breakdown.conditions(outcome)
    systems = [asdict(card) | {"rtfx": 1 / card.rtf if card.rtf else None} for card in outcome.systems]

    def placed(one: Result | Comparison) -> Document:
        return asdict(one) | {"condition_detail": details.get((one.test_set, one.condition), {})}

    return {
        "systems": systems,
        "results": [placed(result) for result in outcome.results],
        "comparisons": [placed(comparison) for comparison in outcome.comparisons],
        "errors": [
            {"system": run.system, "test_set": run.test_set, "condition": run.condition, "metric": metric}
            | asdict(total(run, metric))
            | {"utterances": len(run.heard), "failures": run.failures}
            for run in outcome.runs
            for metric in run.metrics
        ],
        "accuracy_at_10_db_snr": breakdown.accuracy_at_10_db(outcome),
        "silence": breakdown.silence(outcome.runs),
        "curves": [*breakdown.curves(outcome, "snr_db"), *breakdown.curves(outcome, "level_db")],
        "groups": list(breakdown.groups(outcome)),
        "confusions": list(_confusions(outcome)),
        "test_sets": [_about(one, (hashes or {}).get((one.name, one.condition))) for one in outcome.test_sets],
        "protocol": PROTOCOL,
        "statistics": list(STATISTICS),
        "provenance": provenance,
    }


def write_exports(folder: Path, outcome: Outcome) -> None:
    """<system>.<test set>.trn and ref.<test set>.trn for NIST's sclite; utterances/<system>.jsonl for leaderboards.

    The latter has the fields of the Open ASR Leaderboard's manifests, text and pred_text normalized.
    """
    sources = {(one.name, one.condition): {u.id: u for u in one.utterances} for one in outcome.test_sets}
    lines: dict[str, list[str]] = {}
    for run in outcome.runs:
        condition = "" if run.condition == "clean" else f".{run.condition}"
        place, rows = f"{run.test_set}{condition}", lines.setdefault(run.system, [])
        write_trn(folder / f"{file_name(f'{run.system}.{place}')}.trn", _in_units(run, "hypothesis"))
        write_trn(folder / f"{file_name(f'{REFERENCE}.{run.test_set}')}.trn", _in_units(run, "reference"))
        known = sources.get((run.test_set, run.condition), {})
        rows += [json.dumps(_leaderboard_row(run, h, known.get(h.id)), ensure_ascii=False) for h in run.heard]
    (folder / "utterances").mkdir(exist_ok=True)
    for system, rows in lines.items():
        _write(folder / "utterances" / f"{file_name(system)}.jsonl", "\n".join(rows) + "\n")


def provenance(outcome: Outcome, config: Mapping[str, Any] | None = None) -> Document:
    """What it takes to make the same report again."""
    settings = {"config": dict(config)} if config else {}
    return surroundings() | {"seed": outcome.seed, "data": outcome.data} | settings


def surroundings() -> Document:
    """What a number must name wherever it was measured: command, day, commit, versions, machine."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in VERSIONS},
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "gpu": gpu, "platform": platform.platform()},
    }


def rankings(outcome: Outcome) -> Iterator[Ranking]:
    """One per test set, condition and metric, in the order they were run."""
    seen = set()
    for (test_set, condition), runs in breakdown.places(outcome.runs).items():
        by_system = {run.system: run for run in runs}
        for metric in () if runs[0].is_silent else runs[0].metrics:
            place = (test_set, condition, metric)
            results = [r for r in outcome.results if (r.test_set, r.condition, r.metric) == place]
            results.sort(key=lambda result: result.value)
            ran = [by_system[result.system] for result in results]
            rows = tuple(Row(r, total(run, metric), run.failures) for r, run in zip(results, ran, strict=True))
            rates = {result.system: result.value for result in results}
            tests = tuple(c for c in outcome.comparisons if (c.test_set, c.condition, c.metric) == place)
            sentences = tuple(in_words(comparison, rates) for comparison in tests)
            scale = max([r.high for r in results] + [1e-9])
            yield Ranking(*place, rows, tests, sentences, scale, test_set not in seen)
            seen.add(test_set)


def matrices(outcome: Outcome) -> Iterator[Document]:
    """For each test set with several conditions: every system's headline rate under each of them."""
    for test_set in dict.fromkeys(run.test_set for run in outcome.runs if not run.is_silent):
        runs = [run for run in outcome.runs if run.test_set == test_set]
        metric, conditions = runs[0].metrics[0], list(dict.fromkeys(run.condition for run in runs))
        rates = {(r.system, r.condition): r for r in outcome.results if (r.test_set, r.metric) == (test_set, metric)}
        systems = list(dict.fromkeys(run.system for run in runs))
        rows = [(condition, [rates.get((system, condition)) for system in systems]) for condition in conditions]
        if len(conditions) > 1:
            yield {"test_set": test_set, "metric": metric, "systems": systems, "rows": rows}


def tables_of(groups: Iterable[Document], shown: int = 20) -> list[Document]:
    """The rows of `breakdown.groups` gathered into tables; of more than `shown` groups those with the most errors."""
    found: dict[tuple, Document] = {}
    for row in groups:
        blank = {key: row[key] for key in ("test_set", "condition", "metric", "by")} | {"rows": [], "left_out": 0}
        found.setdefault((row["test_set"], row["by"]), blank)["rows"].append(row)
    for table in found.values():
        table["systems"] = list(table["rows"][0]["rates"])
        if len(table["rows"]) > shown:
            table["left_out"] = len(table["rows"]) - shown
            table["rows"] = sorted(table["rows"], key=lambda row: -sum(row["rates"].values()))[:shown]
    return list(found.values())


def worst_misses(runs: Iterable[Run], number: int) -> list[Misses]:
    """For each place the `number` worst utterances, each system's worst in turn, the shorter first among equals."""
    found = []
    for (test_set, condition), there in breakdown.places(runs).items():
        if there[0].is_silent:
            continue
        metric, queues = there[0].metrics[0], []
        for run in there:
            wrong = [(i, c) for i, c in enumerate(run.counts[metric]) if c.errors]
            wrong.sort(key=lambda pair, run=run: (-pair[1].errors, -pair[1].rate, run.heard[pair[0]].id))
            queues.append([i for i, _ in wrong[:number]])
        turns = [queue[turn] for turn in range(number) for queue in queues if turn < len(queue)]
        chosen = list(dict.fromkeys(turns))[:number]
        misses = tuple(Miss(there[0].heard[i], tuple(_attempt(run, i, metric) for run in there)) for i in chosen)
        if misses:
            found.append(Misses(test_set, condition, metric, misses))
    return found


def with_audio(found: Sequence[Misses], test_sets: Iterable[TestSet], megabytes: float) -> list[Misses]:
    """The same with what the systems heard as FLAC (the samples themselves, at any level), the worst of each first.

    An utterance that would bring the sum above `megabytes`, or whose recording is gone, gets no player.
    """
    sources = {(one.name, one.condition): (one, {u.id: u for u in one.utterances}) for one in test_sets}
    left, players = megabytes * 1e6, {}
    for turn in range(max([len(one.misses) for one in found], default=0)):
        for one in found:
            place = (one.test_set, one.condition)
            if turn < len(one.misses) and place in sources:
                test_set, utterances = sources[place]
                uri = _player(utterances[one.misses[turn].heard.id], test_set)
                if len(uri) <= left:
                    left -= len(uri)
                    players[(*place, turn)] = uri
    return [
        Misses(
            *(one.test_set, one.condition, one.metric),
            tuple(
                Miss(miss.heard, miss.attempts, players.get((one.test_set, one.condition, turn), ""))
                for turn, miss in enumerate(one.misses)
            ),
        )
        for one in found
    ]


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 210, 38, 12, 10, 34
"""A chart in its own units: as wide as a phone, so that its letters are never too small there."""


def chart(row: Document) -> Document:
    """The row of `breakdown.curves` in the units of the page: ticks, and for each system a line and its interval."""
    known = sorted({point[0] for points in row["points"].values() for point in points if point[0] is not None})
    step = min((b - a for a, b in itertools.pairwise(known)), default=5.0)
    is_open = any(point[0] is None for points in row["points"].values() for point in points)
    last = (known[-1] if known else 0.0) + (step if is_open else 0.0)
    first = known[0] if known else last
    top = _above(max(point[3] for points in row["points"].values() for point in points))

    def x_of(value: float | None) -> float:
        share = ((last if value is None else value) - first) / max(last - first, 1e-9)
        return round(LEFT + 8 + share * (WIDTH - LEFT - RIGHT - 16), 1)

    def y_of(rate: float) -> float:
        return round(TOP + (1 - min(rate / top, 1.0)) * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for system, points in row["points"].items():
        places = [(x_of(x), y_of(rate)) for x, rate, _, _ in points]
        band = [(x_of(x), y_of(high)) for x, _, _, high in points] + [(x_of(x), y_of(low)) for x, _, low, _ in points][
            ::-1
        ]
        marks = [
            (*place, f"{system}: {percent(rate)} ({percent(low)} – {percent(high)})")
            for place, (_, rate, low, high) in zip(places, points, strict=True)
        ]
        lines.append({"system": system, "line": _points(places), "band": _points(band), "marks": marks})
    ticks = [(x_of(value), f"{value:g}") for value in known] + ([(x_of(None), "clean")] if is_open else [])
    return {
        **{"test_set": row["test_set"], "metric": row["metric"], "rest": _said(row["rest"]), "lines": lines},
        "x_label": {"snr_db": "SNR (dB)", "level_db": "level (dB)"}[row["axis"]],
        "x_ticks": ticks,
        "y_ticks": [(y_of(share * top), percent(share * top, 0)) for share in (0, 0.25, 0.5, 0.75, 1)],
        "size": (WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM),
    }


def in_words(comparison: Comparison, rates: Mapping[str, float]) -> str:
    """A comparison as a sentence: who makes fewer errors, by how much, and whether chance explains it."""
    better, worse = sorted((comparison.a, comparison.b), key=lambda name: rates[name])
    rate, unit = f"({percent(rates[better])} against {percent(rates[worse])})", UNIT[comparison.metric]
    chance = f"p = {comparison.p_holm:.2g}"
    if comparison.delta == 0:
        return f"{better} and {worse} make equally many {unit} errors ({percent(rates[better])}), {chance}."
    if comparison.p_holm >= SIGNIFICANT:
        return f"No difference in {unit} errors is shown between {better} and {worse} {rate}, {chance}."
    fewer = 1 - rates[better] / rates[worse]
    return f"{better} makes {percent(fewer, 0)} fewer {unit} errors than {worse} {rate}, {chance}."


def percent(fraction: float, digits: int = 1) -> str:
    """0.314 → "31.4 %"."""
    return f"{100 * fraction:.{digits}f} %"


def count(number: float) -> str:
    """37764864 → "37.8 M"; a size or a parameter count at three digits."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def cell(text: object) -> str:
    """Text that cannot break out of a cell of a Markdown table, nor be taken for markup."""
    flat = " ".join(str(text).split())
    return "".join(f"\\{character}" if character in "\\`*_[]<>|~" else character for character in flat)


def seconds(time: float | None) -> str:
    """A time for people: "12 ms", "3.4 s"; "–" where there is none."""
    if time is None:
        return "–"
    return f"{1000 * time:.0f} ms" if time < 1 else f"{time:.1f} s"


def _attempt(run: Run, i: int, metric: str) -> Attempt:
    h = run.heard[i]
    return Attempt(run.system, run.counts[metric][i], align(h.reference, h.hypothesis, h.language, metric), h.failure)


def _player(utterance: Utterance, test_set: TestSet) -> str:
    try:
        audio = encode_audio(turn_down(hear(utterance, test_set.damage)))
    except InputError:
        return ""
    return "data:audio/flac;base64," + base64.b64encode(audio).decode()


def _confusions(outcome: Outcome) -> Iterator[Document]:
    """Every system's on each test set, under its first condition."""
    seen = set()
    for run in outcome.runs:
        if not run.is_silent and (run.system, run.test_set) not in seen:
            seen.add((run.system, run.test_set))
            about = {"system": run.system, "test_set": run.test_set, "condition": run.condition}
            yield about | {
                "metric": run.metrics[0],
                "pairs": breakdown.confusions(run),
                "tones": breakdown.tones(run),
            }


def _about(test_set: TestSet, samples: str | None) -> Document:
    scored = test_set.scored()
    return {
        **{"test_set": test_set.name, "condition": test_set.condition, "condition_detail": test_set.damage.as_json()},
        "utterances": len(scored),
        "minutes": round(sum(u.duration_seconds for u in scored) / 60, 2),
        "speakers": len({u.speaker for u in scored} - {""}),
        "languages": sorted({u.language for u in scored}),
        "noise_clips": test_set.damage.clips,
        "fingerprint": test_set.fingerprint(),
        "samples_sha256": samples,
    }


def _in_units(run: Run, field: str) -> list[tuple[str, str, str]]:
    return [(h.id, h.speaker, " ".join(units(getattr(h, field), h.language, "wer"))) for h in run.heard]


def _leaderboard_row(run: Run, heard: Heard, utterance: Utterance | None) -> Document:
    audio = utterance.audio if utterance and isinstance(utterance.audio, str) else heard.id
    return {
        "audio_filepath": audio,
        "id": heard.id,
        "duration": heard.audio_seconds,
        "time": heard.compute_seconds,
        "text": normalize(heard.reference, heard.language),
        "pred_text": normalize(heard.hypothesis, heard.language),
        **{"test_set": run.test_set, "condition": run.condition},
        **{"speaker": heard.speaker, "language": heard.language, "failure": heard.failure},
    }


def _above(rate: float) -> float:
    """A round rate for the top of an axis."""
    return next(top for top in (0.04, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.6, 2.0, 4.0, 10.0, 1e9) if top >= rate)


def _points(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)


def _said(rest: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.removesuffix('_db')} {value}" for key, value in rest.items())


def _write(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    aside = path.with_name(f".{path.name}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


@functools.cache
def _templates(escape: bool) -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters |= {"percent": percent, "count": count, "cell": cell, "seconds": seconds}
    return templates


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of this code, with a + where files differ from it; None outside a clone."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed.stdout.strip() else "")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
