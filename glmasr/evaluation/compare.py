"""Two benchmark reports in; what changed between them, and whether chance explains it, out.

Rates and intervals are the reports' own. The test is paired by utterance (`bootstrap.paired`), on those that both
reports' folders hold with the same reference, both scored anew by the protocol of this version, and corrected by Holm
for the number of tests.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from glmasr.evaluation.bootstrap import holm, paired
from glmasr.evaluation.report import SIGNIFICANT, percent
from glmasr.speech import InputError
from glmasr.text.errors import count_errors

Document = dict[str, Any]

METRICS = ("wer", "cer", "mer", "ser")
"""What `count_errors` can score anew; of other metrics only the intervals are compared."""

SAME_RATE = 5e-4
"""Rates nearer than this print alike."""


@dataclass(frozen=True)
class Rate:
    """A corpus error rate as a fraction, and its 95 % interval where the report gives one."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Retest:
    """The paired test on `utterances`; `left_out` are in one report only, or have another reference there.

    `before` and `after` are their rates under this version's protocol; `corrected` is `p_value` after Holm.
    """

    utterances: int
    left_out: int
    before: float
    after: float
    p_value: float
    corrected: float


@dataclass(frozen=True)
class Change:
    """One system on one test set under one condition and metric, in both reports; no `test` without utterances."""

    system: str
    test_set: str
    condition: str
    metric: str
    before: Rate
    after: Rate
    test: Retest | None

    @property
    def delta(self) -> float:
        """Rate after − rate before: negative where there are fewer errors now."""
        return self.after.value - self.before.value

    @property
    def verdict(self) -> str:
        """What the test, or without one the intervals, allow to say."""
        if self.test:
            if self.test.corrected >= SIGNIFICANT:
                return "no change shown"
            return "fewer errors" if self.test.after < self.test.before else "more errors"
        if not (self.before.interval and self.after.interval):
            return "not tested"
        (low, high), (other_low, other_high) = self.before.interval, self.after.interval
        return "intervals lie apart" if other_high < low or high < other_low else "intervals overlap"

    @property
    def tested_on_other_rates(self) -> bool:
        """Whether the tested rates are not those the reports print: other utterances, or other rules."""
        pairs = self.test and ((self.test.before, self.before.value), (self.test.after, self.after.value))
        return any(abs(tested - printed) > SAME_RATE for tested, printed in pairs or ())


@dataclass(frozen=True)
class Differences:
    """Everything that `compare_reports` tells; `only_*` name what the other report has no figure for."""

    before: str
    after: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    def as_json(self) -> Document:
        """The same for programs; rates are fractions, delta = after − before."""
        changes = [asdict(c) | {"delta": c.delta, "verdict": c.verdict} for c in self.changes]
        return asdict(self) | {"changes": changes}


def compare_reports(before: Path, after: Path) -> str:
    """What changed from one report.json (or its folder) to another, as Markdown that reads well as plain text."""
    return in_words(differences(before, after))


def differences(before: Path, after: Path) -> Differences:
    """Read and test; an InputError names the file that is no report."""
    paths = [path / "report.json" if path.is_dir() else path for path in (Path(before), Path(after))]
    a, b = (read_report(path) for path in paths)
    old, new = (_rates(report) for report in (a, b))
    changes = _corrected(list(_changes(old, new, [path.parent for path in paths])))
    return Differences(
        str(paths[0]),
        str(paths[1]),
        tuple(_warnings(a, b)),
        tuple(_notes(a, b)),
        tuple(changes),
        tuple(_places(old, new)),
        tuple(_places(new, old)),
    )


def read_report(path: Path) -> Document:
    """A report.json of any version; an InputError where the file is none."""
    wanted = "give the report.json that make benchmark wrote"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}): {wanted}") from error
    except ValueError as error:
        raise InputError(f"'{path}' is not JSON: {wanted}") from error
    try:
        _rates(report)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"'{path}' is not a benchmark report: {wanted}") from error
    return report


def in_words(found: Differences) -> str:
    """The differences as Markdown."""
    parts = [
        [f"# From {found.before} to {found.after}"],
        *([f"**Warning:** {warning}"] for warning in found.warnings),
        _table(found.changes),
        *([sentence] for sentence in _sentences(found.changes)),
        _list("Tested on other rates than the reports print, because of other utterances or rules:", _moved(found)),
        _list(f"Only in {found.before}:", found.only_before),
        _list(f"Only in {found.after}:", found.only_after),
        _list("Also different:", found.notes),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


Place = tuple[str, str, str, str]
"""System, test set, condition, metric."""


def _rates(report: Document) -> dict[Place, Rate]:
    found = {}
    for row in report["results"]:
        place = (row["system"], row["test_set"], _condition(row.get("condition")), row["metric"])
        if not all(isinstance(name, str) for name in place):
            raise TypeError("a name is a string")
        ends = [float("nan" if row.get(end) is None else row[end]) for end in ("low", "high")]
        found[place] = Rate(float(row["value"]), (ends[0], ends[1]) if np.isfinite(ends).all() else None)
    return found


def _condition(condition: str | Document | None) -> str:
    """Its name, whether the report gives a name, an object with one, an object without, or none."""
    if isinstance(condition, dict):
        facts = " ".join(f"{key}={value}" for key, value in condition.items() if value is not None)
        return condition.get("name") or facts or "clean"
    return condition or "clean"


def _changes(old: dict[Place, Rate], new: dict[Place, Rate], folders: list[Path]) -> Iterator[Change]:
    common = [place for place in old if place in new]
    for run, places in itertools.groupby(common, key=lambda place: place[:3]):
        was, now = (read_heard(utterance_file(folder, *run)) for folder in folders)
        for place in places:
            yield Change(*place, old[place], new[place], _retest(was, now, place[3]))


def utterance_file(folder: Path, system: str, test_set: str, condition: str) -> Path:
    """Where a benchmark that wrote to `folder` keeps what a system heard (benchmark.py: `_journal_path`)."""
    end = "" if condition == "clean" else f".{condition}"
    return folder / "utterances" / (re.sub(r"[^\w.=+-]", "_", f"{system}.{test_set}{end}") + ".jsonl")


def read_heard(path: Path) -> dict[str, Document]:
    """Rows of `benchmark.Heard` by id, up to the first that an interruption cut short; none without the file."""
    rows = {}
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if {"id", "language", "reference", "hypothesis"} <= set(row):
            rows[row["id"]] = row
    return rows


def _retest(old: dict[str, Document], new: dict[str, Document], metric: str) -> Retest | None:
    common = [id for id, row in old.items() if id in new and new[id]["reference"] == row["reference"]]
    if metric not in METRICS or not common:
        return None
    was, now = (
        [count_errors(new[id]["reference"], rows[id]["hypothesis"], new[id]["language"], metric) for id in common]
        for rows in (old, new)
    )
    words = np.array([counts.words for counts in now])
    was, now = (np.array([counts.errors for counts in side]) for side in (was, now))
    spoken, left_out = max(int(words.sum()), 1), len(old.keys() | new.keys()) - len(common)
    p_value = paired(now, was, words)[1]
    return Retest(len(common), left_out, float(was.sum() / spoken), float(now.sum() / spoken), p_value, p_value)


def _corrected(changes: list[Change]) -> Iterator[Change]:
    """The same with each test's p corrected for all of them."""
    p_values = iter(holm([change.test.p_value for change in changes if change.test]))
    for change in changes:
        yield replace(change, test=replace(change.test, corrected=next(p_values))) if change.test else change


def _places(one: dict[Place, Rate], other: dict[Place, Rate]) -> Iterator[str]:
    """What only `one` has: whole systems by name, else the system's runs and metrics."""
    systems = {place[0] for place in other}
    alone = [place for place in one if place not in other]
    yield from dict.fromkeys(f"system {place[0]}" for place in alone if place[0] not in systems)
    yield from (" · ".join(place) for place in alone if place[0] in systems)


def _warnings(a: Document, b: Document) -> Iterator[str]:
    """Why the rates may not be comparable."""
    old, new = (str(report.get("protocol") or "not said") for report in (a, b))
    if old != new:
        versions = [text.partition(":")[0] for text in (old, new)]
        was, now = versions if versions[0] != versions[1] else (old, new)
        yield f"scored by other rules: not comparable (before: {was}; after: {now})."
    for key, consequence in (
        ("data", "other test data: the rates are not of the same utterances"),
        ("seed", "other seeds: noise and intervals were drawn differently"),
    ):
        old, new = ((report.get("provenance") or {}).get(key) for report in (a, b))
        if old != new:
            yield f"{consequence} (before: {_said(old)}; after: {_said(new)})."


def _notes(a: Document, b: Document) -> Iterator[str]:
    """What else may have moved a rate: the models, the code, the libraries, the machine."""
    old, new = ({s["name"]: s.get("parameters") for s in report.get("systems") or ()} for report in (a, b))
    for name in old:
        if name in new and old[name] != new[name]:
            yield f"{name}: {_said(old[name])} parameters, then {_said(new[name])}"
    old, new = (_facts(report.get("provenance") or {}) for report in (a, b))
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            yield f"{key}: {_said(old.get(key))}, then {_said(new.get(key))}"


def _facts(provenance: Document) -> Document:
    versions, machine = (provenance.get(key) or {} for key in ("versions", "machine"))
    return {"git commit": provenance.get("git_commit")} | versions | {"cpu": machine.get("cpu")}


def _said(value: Any) -> str:
    return "not said" if value is None else str(value)


def _table(changes: Sequence[Change]) -> list[str]:
    if not changes:
        return ["The reports share no system on a test set."]
    rows = [["system", "test set", "condition", "metric", "before", "after", "points", "p", ""]]
    for c in changes:
        names = [_cell(name) for name in (c.system, c.test_set, c.condition, c.metric.upper())]
        chance = f"{c.test.corrected:.2g}" if c.test else "-"
        rows.append([*names, _interval(c.before), _interval(c.after), f"{100 * c.delta:+.1f}", chance, c.verdict])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    padded = ([text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in rows)
    return [f"| {' | '.join(row)} |" for row in padded]


def _interval(rate: Rate) -> str:
    if not rate.interval:
        return percent(rate.value)
    low, high = rate.interval
    return f"{percent(rate.value)} ({100 * low:.1f}-{100 * high:.1f})"


def _sentences(changes: Sequence[Change]) -> Iterator[str]:
    """How to read the table."""
    tests = [c.test for c in changes if c.test]
    if tests:
        sure = sum(test.corrected < SIGNIFICANT for test in tests)
        yield (
            f"{sure} of {len(tests)} tested rates changed by more than chance explains: paired test by "
            f"utterance, both scored by the rules of this version, p < {SIGNIFICANT} after Holm's correction for "
            f"{len(tests)} tests."
        )
    if len(tests) < len(changes):
        yield (
            "Without the per-utterance files of both reports (utterances/ beside report.json) only intervals can be "
            "compared, and that two overlap does not show that nothing changed."
        )


def _moved(found: Differences) -> Iterator[str]:
    for change in found.changes:
        if change.test and change.tested_on_other_rates:
            yield (
                f"{_place(change)}: {percent(change.test.before)} -> {percent(change.test.after)} on "
                f"{change.test.utterances} utterances in both ({change.test.left_out} left out)"
            )


def _place(change: Change) -> str:
    return " · ".join((change.system, change.test_set, change.condition, change.metric))


def _list(title: str, entries: Iterable[str]) -> list[str]:
    """A Markdown list under its title, nothing where it is empty."""
    lines = [f"- {entry}" for entry in entries]
    return [title, "", *lines] if lines else []


def _cell(text: str) -> str:
    """A name that cannot end its cell; no more is escaped, for a table is read in a terminal."""
    return " ".join(text.split()).replace("|", "\\|")
