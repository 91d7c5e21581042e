"""A resolved benchmark config in, a report folder out."""

import sys
from pathlib import Path
from typing import Any

from glmasr.build import build
from glmasr.data.catalog import prepare_catalog
from glmasr.data.corpora import Manifest
from glmasr.evaluation.baselines import Whisper
from glmasr.evaluation.benchmark import Outcome, TestSet, benchmark
from glmasr.evaluation.report import write_report
from glmasr.speech import InputError, System
from glmasr.transcriber import Transcriber

Config = dict[str, Any]


def as_list(value: Any) -> list:
    """One thing or several."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def build_systems(config: Config) -> list[System]:
    """Our bundles, then Whisper, then whatever else the config lists; an InputError where two share a name."""
    systems: list[System] = []
    for bundle in as_list(config["bundle"]):
        systems.append(Transcriber(bundle, decoding=config["decoding"], device=config["device"]))
    for model in as_list(config["whisper"]):
        systems.append(Whisper(model, threads=config["threads"], device=config["device"]))
    systems += [build(system) for system in config["systems"]]
    names = [system.name for system in systems]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two systems are called '{name}' (a bundle is called after its run folder): rename one")
    return systems


def build_test_sets(config: Config) -> list[TestSet]:
    """The manifests given, each a test set of its own, or the `split` of the data config."""
    readers = [Manifest(path, language="", dev_share=0.0) for path in as_list(config["manifest"])]
    sets = []
    for reader in readers or [build(config["data"])]:
        catalog = prepare_catalog(reader, config["catalogs"])
        split = config["split"]
        if readers and split not in catalog.splits:
            split = None  # a manifest made for testing has no splits
        utterances = list(catalog.subset(split=split, labelled=True))[: config["max_utterances"]]
        sets.append(TestSet(reader.name, utterances))
    return sets


def run_benchmark(config: Config) -> None:
    """`make benchmark`: every system on every test set, then report.html, report.md and report.json."""
    folder = Path(config["run_dir"]) / "report"
    test_sets = build_test_sets(config)
    systems = build_systems(config)
    outcome = benchmark(systems, test_sets, folder, seed=config["seed"])
    path = write_report(folder, outcome, title=config["name"])
    for line in summary(outcome):
        print(line)
    print(f"glmasr: wrote {path}", file=sys.stderr)


def summary(outcome: Outcome) -> list[str]:
    """The report in a few lines for the terminal."""
    lines = [
        f"{r.test_set} {r.metric.upper()} {r.system}: {r.value:.1%} ({r.low:.1%}-{r.high:.1%}), RTF {r.rtf:.3f}"
        for r in outcome.results
    ]
    return lines + [
        f"{c.test_set} {c.metric.upper()} {c.a} - {c.b}: {c.delta:+.1%}, p = {c.p_value:.4f}"
        for c in outcome.comparisons
    ]
