"""A benchmark's outcome in; report.json, report.md and a report.html that needs nothing but itself out."""

import datetime
import functools
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2

from glmasr.evaluation.benchmark import METRICS, Comparison, Outcome, Result, Run
from glmasr.speech import InputError
from glmasr.text.errors import ErrorCounts, align
from glmasr.text.normalize import PROTOCOL

VERSIONS = ("torch", "jiwer", "faster-whisper", "ctranslate2", "whisper-normalizer", "numpy")
"""Packages a rate or a time may depend on."""

UNIT = {"wer": "word", "cer": "character"}

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Row:
    """One line of a ranking: a result, its edits, and how many files the system failed on."""

    result: Result
    counts: ErrorCounts
    failures: int


@dataclass(frozen=True)
class Ranking:
    """The systems on one test set under one metric, best first; `scale` is the rate at the bars' right end."""

    test_set: str
    condition: str
    metric: str
    rows: tuple[Row, ...]
    sentences: tuple[str, ...]
    scale: float


@dataclass(frozen=True)
class Miss:
    """One utterance a system got badly wrong, aligned word by word."""

    id: str
    counts: ErrorCounts
    steps: list[tuple[str, str, str]]
    failure: str


def write_report(folder: str | Path, outcome: Outcome, title: str = "Benchmark", worst: int = 10) -> Path:
    """Write the three files, give the HTML's path; the `worst` utterances of a system on a test set are shown."""
    folder = Path(folder)
    content = {
        "title": title,
        "outcome": outcome,
        "rankings": list(rankings(outcome)),
        "misses": [(run, worst_misses(run, worst)) for run in outcome.runs],
        "provenance": provenance(outcome),
        "protocol": PROTOCOL,
        "unit": UNIT,
    }
    files = {
        "report.json": json.dumps(as_json(outcome, content["provenance"]), ensure_ascii=False, indent=2) + "\n",
        "report.md": _templates(escape=False).get_template("report.md.jinja").render(content),
        "report.html": _templates(escape=True).get_template("report.html.jinja").render(content),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / f".{name}").write_text(text, encoding="utf-8")
            os.replace(folder / f".{name}", folder / name)
    except OSError as error:
        raise InputError(f"'{folder}' cannot be written ({error.strerror}): choose a writable folder") from error
    return folder / "report.html"


def as_json(outcome: Outcome, provenance: dict) -> dict:
    """The interface other programs read; rates are fractions, delta = a − b."""
    return {
        "systems": [asdict(card) for card in outcome.systems],
        "results": [asdict(result) for result in outcome.results],
        "comparisons": [asdict(comparison) for comparison in outcome.comparisons],
        "errors": [
            {"system": run.system, "test_set": run.test_set, "condition": run.condition, "metric": metric}
            | asdict(total(run, metric))
            | {"utterances": len(run.heard), "failures": run.failures}
            for run in outcome.runs
            for metric in METRICS
        ],
        "protocol": PROTOCOL,
        "provenance": provenance,
    }


def provenance(outcome: Outcome) -> dict:
    """What it takes to make the same report again."""
    return surroundings() | {"seed": outcome.seed, "data": outcome.data}


def surroundings() -> dict:
    """What a number must name wherever it was measured: command, day, commit, versions, machine."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in VERSIONS},
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "platform": platform.platform()},
    }


def total(run: Run, metric: str) -> ErrorCounts:
    """All edits of one system on one test set."""
    return sum(run.counts[metric], ErrorCounts())


def rankings(outcome: Outcome) -> Iterator[Ranking]:
    """One per test set, condition and metric, in the order they were run."""
    runs = {(run.system, run.test_set, run.condition): run for run in outcome.runs}
    for test_set, condition in dict.fromkeys((run.test_set, run.condition) for run in outcome.runs):
        for metric in METRICS:
            place = (test_set, condition, metric)
            results = [r for r in outcome.results if (r.test_set, r.condition, r.metric) == place]
            results.sort(key=lambda result: result.value)
            ran = [runs[result.system, test_set, condition] for result in results]
            rows = tuple(Row(r, total(run, metric), run.failures) for r, run in zip(results, ran, strict=True))
            rates = {result.system: result.value for result in results}
            tests = [c for c in outcome.comparisons if (c.test_set, c.condition, c.metric) == place]
            sentences = tuple(in_words(comparison, rates) for comparison in tests)
            yield Ranking(*place, rows, sentences, max([r.high for r in results] + [1e-9]))


def in_words(comparison: Comparison, rates: dict[str, float]) -> str:
    """A comparison as a sentence: who makes fewer errors, by how much, and whether chance explains it."""
    better, worse = sorted((comparison.a, comparison.b), key=lambda name: rates[name])
    rate, unit = f"({percent(rates[better])} against {percent(rates[worse])})", UNIT[comparison.metric]
    chance = f"p = {comparison.p_value:.2g}"
    if comparison.delta == 0:
        return f"{better} and {worse} make equally many {unit} errors ({percent(rates[better])}), {chance}."
    if comparison.p_value >= SIGNIFICANT:
        return f"No difference in {unit} errors is shown between {better} and {worse} {rate}, {chance}."
    fewer = 1 - rates[better] / rates[worse]
    return f"{better} makes {percent(fewer, 0)} fewer {unit} errors than {worse} {rate}, {chance}."


def worst_misses(run: Run, number: int) -> list[Miss]:
    """The utterances with most word errors, the shorter first among equals."""
    pairs = [(h, c) for h, c in zip(run.heard, run.counts["wer"], strict=True) if c.errors]
    pairs.sort(key=lambda pair: (-pair[1].errors, -pair[1].rate, pair[0].id))
    return [Miss(h.id, c, align(h.reference, h.hypothesis, h.language), h.failure) for h, c in pairs[:number]]


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


@functools.cache
def _templates(escape: bool) -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters |= {"percent": percent, "count": count, "cell": cell}
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
