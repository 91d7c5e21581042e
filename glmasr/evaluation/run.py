"""A resolved benchmark config in, a report folder out."""

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glmasr.build import build, check_names
from glmasr.bundle import read_config
from glmasr.data.catalog import prepare_catalog
from glmasr.data.corpora import Manifest
from glmasr.evaluation import conditions
from glmasr.evaluation.baselines import Whisper
from glmasr.evaluation.benchmark import Outcome, TestSet, benchmark
from glmasr.evaluation.card import write_model_card
from glmasr.evaluation.conditions import Condition, fingerprint_of, read_conditions
from glmasr.evaluation.report import write_report
from glmasr.evaluation.systems import Limited
from glmasr.evaluation.tables import log_tables
from glmasr.frontend.audio import encode_audio, read_audio
from glmasr.speech import RATE_HZ, InputError, System, Utterance
from glmasr.transcriber import Transcriber

Config = dict[str, Any]

NOISE_SECONDS = 10.0


def as_list(value: Any) -> list:
    """One thing or several."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def bundles_of(config: Config) -> dict[str, str]:
    """The bundles by name: as the config names them, else after their run folders; InputError for two of one."""
    given = config["bundle"]
    if isinstance(given, Mapping):
        return {str(name): str(folder) for name, folder in given.items()}
    named = [(Path(folder).resolve().parent.name, str(folder)) for folder in as_list(given)]
    _check_names([name for name, _ in named])
    return dict(named)


def build_systems(config: Config) -> Iterator[System]:
    """Our bundles, then Whisper, then whatever else the config lists, each built when its turn comes.

    An InputError at once where a bundle is none or two share a name that can be known before they are built.
    """
    bundles, options = bundles_of(config), {name: config[name] for name in ("decoding", "device", "gain")}
    for folder in bundles.values():
        read_config(Path(folder))
    whispers, engine = as_list(config["whisper"]), {"threads": config["threads"], "device": config["device"]}
    known = [Whisper(model, **engine).name for model in whispers]  # finds its weights, and loads them at the first call
    _check_names([*bundles, *known, *(system["name"] for system in config["systems"] if system.get("name"))])
    waiting: list[Callable[[], System]] = [
        *(lambda name=name, folder=folder: Transcriber(folder, name, **options) for name, folder in bundles.items()),
        *(lambda model=model: Whisper(model, **engine) for model in whispers),
        *(lambda system=system: build(system) for system in config["systems"]),
    ]
    return (_limited(make(), config["utterance_timeout_seconds"]) for make in waiting)


def build_test_sets(config: Config) -> list[TestSet]:
    """The manifests given, each a test set of its own, or the `split` of the data config, under every condition."""
    readers = [Manifest(path, language="", dev_share=0.0) for path in as_list(config["manifest"])]
    heard_under, most = build_conditions(config), config["max_utterances"]
    sets = []
    for reader in readers or [build(config["data"])]:
        catalog = prepare_catalog(reader, config["catalogs"])
        split = config["split"]
        if readers and split not in catalog.splits:
            split = None  # a manifest made for testing has no splits
        utterances = spread(list(catalog.subset(split=split, labelled=True, positions=config["positions"])), most)
        sets += [TestSet(reader.name, utterances, condition.name, condition) for condition in heard_under]
    recordings = dict.fromkeys(itertools.chain.from_iterable(condition.recordings for condition in heard_under))
    return sets + silent_sets(config["silence"], list(recordings))


def spread(utterances: list[Utterance], most: int | None) -> list[Utterance]:
    """At most so many, evenly over the list: corpora are sorted by speaker or by text."""
    if most is None or len(utterances) <= most:
        return utterances
    return [utterances[i * len(utterances) // most] for i in range(most)]


def build_conditions(config: Config) -> list[Condition]:
    """The rows of `conditions`, then those of `grid` that are not among them."""
    rows = [dict(row) for row in config["conditions"]]
    if config["grid"]:
        check_names(conditions.grid, config["grid"], "grid")
        rows += [row for row in conditions.grid(**config["grid"]) if row not in rows]
    noise = config["noise"]
    return read_conditions(rows, noise["path"], noise["clips"], config["noises"], config["rooms"])


def silent_sets(clips: int, recordings: list[str]) -> list[TestSet]:
    """So many clips of digital silence (1, 2, 3 … s), and so many recordings of noise alone, where there are any."""
    if not clips:
        return []
    silent = [_silent(f"silence_{n:02d}", np.zeros(n * RATE_HZ, np.float32)) for n in range(1, clips + 1)]
    noisy = [_silent(Path(path).stem, read_audio(path, 0.0, NOISE_SECONDS)) for path in sorted(recordings)[:clips]]
    return [TestSet("silence", silent), *([TestSet("noise_alone", noisy)] if noisy else [])]


def run_benchmark(config: Config) -> None:
    """`make benchmark`: every system on every test set, then the report and what goes with it."""
    folder = Path(config["run_dir"]) / "report"
    test_sets = build_test_sets(config)
    systems = build_systems(config)
    outcome = benchmark(systems, test_sets, folder, seed=config["seed"], hears=config["hears"])
    hashes = {
        (one.name, one.condition): fingerprint_of(one.damage, one.scored(), folder / "costs" / "samples.json")
        for one in test_sets
    }
    page = {"worst": config["worst"], "audio_megabytes": config["audio_megabytes"]}
    path = write_report(folder, outcome, config["name"], config=config, hashes=hashes, **page)
    for line in summary(outcome):
        print(line)
    print(f"glmasr: wrote {path}", file=sys.stderr)
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if config["wandb"]:
        print(f"glmasr: wrote {log_tables(document, config['name'], folder)}", file=sys.stderr)
    if config["write_card"]:
        for name, bundle in bundles_of(config).items():
            print(f"glmasr: wrote {write_model_card(Path(bundle), name, document)}", file=sys.stderr)


def summary(outcome: Outcome) -> list[str]:
    """The report in a few lines for the terminal."""
    lines = [
        f"{_place(r)} {r.metric.upper()} {r.system}: {r.value:.1%} ({r.low:.1%}-{r.high:.1%}), RTF {r.rtf:.3f}"
        for r in outcome.results
    ]
    return lines + [
        f"{_place(c)} {c.metric.upper()} {c.a} - {c.b}: {c.delta:+.1%}, p = {c.p_value:.4f} (Holm {c.p_holm:.4f})"
        for c in outcome.comparisons
    ]


def _place(one: Any) -> str:
    return one.test_set if one.condition == "clean" else f"{one.test_set} ({one.condition})"


def _limited(system: System, seconds: float | None) -> System:
    """With a time limit, save what is recalled: that takes no time."""
    return system if seconds is None or hasattr(system, "recall") else Limited(system, seconds)


def _silent(name: str, waveform: np.ndarray) -> Utterance:
    return Utterance(name, encode_audio(waveform), len(waveform) / RATE_HZ, text="", split="test")


def _check_names(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two systems are called '{name}' (a bundle is called after its run folder): "
                f"name bundles yourself, as in bundle={{ours: runs/a/bundle, theirs: runs/b/bundle}}"
            )
