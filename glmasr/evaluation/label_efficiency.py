"""A sweep's config in; trained runs, and error rates by label budget, arm and seed with intervals out.

Protocol: snapshots are chosen on the even rows of each dev split, the odd rows are reported, once a run. Arms of a
corpus share labels, steps and batches seed by seed; what differs is where the encoder comes from and what an arm says.
"""

import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from glmasr.build import build
from glmasr.data.catalog import prepare_catalog
from glmasr.evaluation.benchmark import TestSet, evaluate
from glmasr.evaluation.bootstrap import interval, paired
from glmasr.evaluation.conditions import Condition, read_conditions
from glmasr.evaluation.report import surroundings
from glmasr.evaluation.results import cell, publish, write_json
from glmasr.evaluation.sweep import Stage, is_done, train
from glmasr.speech import InputError
from glmasr.transcriber import Transcriber

Config = dict[str, Any]
Row = dict[str, Any]

SHARED = ("trainer", "batches", "labels", "data", "splits", "utterances", "schedule", "tokenizer")
"""What an arm may not say for itself: arms that saw other labels or more steps are not to be compared."""

UNLABELLED = ("++probe.every_steps=null", "++probe.judge.positions=even")
"""A probe that chose the weights by labels would spend labels no budget counts; an arm may ask for it all the same."""


@dataclass(frozen=True)
class Trial:
    """One fine-tuning that is scored."""

    stage: Stage
    corpus: str
    budget: str
    arm: str
    seed: int
    metric: str


@dataclass(frozen=True)
class Score:
    """A trial under one condition: its row of the results, and errors and words by utterance."""

    row: Row
    errors: np.ndarray
    words: np.ndarray


def run_label_efficiency(config: Config) -> None:
    """`make label-efficiency`: train what `only` names and is not trained yet, then score all that is."""
    torch.set_num_threads(config["threads"])
    folder = Path(config["run_dir"])
    stages, trials = plan(config)
    conditions = read_conditions(config["conditions"], config["noise"]["path"], config["noise"]["clips"])
    scores = {trial.stage.name: score(trial, conditions, config) for trial in trials if is_done(trial.stage)}
    todo = [stage for stage in selected(stages, trials, config["only"]) if not is_done(stage)]
    for stage in todo:  # before hours of what comes before it
        if stage.source and not stage.needs and not stage.source.is_dir():
            raise InputError(
                f"{stage.name} starts from {stage.source}, and no bundle is there: make it, or name another"
            )
    say(f"{len(trials)} runs planned, {len(scores)} of them done; {len(todo)} trainings to do now; {folder}")
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the runs are told, too
    try:
        for number, stage in enumerate(train(todo, folder / "logs", config["jobs"], config["threads"]), 1):
            for trial in (trial for trial in trials if trial.stage is stage):
                scores[stage.name] = score(trial, conditions, config)
                write_json(folder / "results.json", document(config, conditions, list(scores.values())))
            say(f"{number}/{len(todo)} {stage.name}: {in_words(scores.get(stage.name, []))}")
    except KeyboardInterrupt:
        sys.exit("glmasr label_efficiency: stopped, the runs in flight are saved; the same command goes on from there")
    finally:
        signal.signal(signal.SIGTERM, handler)
    ordered = [scores[trial.stage.name] for trial in trials if trial.stage.name in scores]
    found = document(config, conditions, ordered, summarized=True)
    write_json(folder / "results.json", found)
    for row in found["summary"]:
        print(f"{row['corpus']}, {row['budget']}, {row['condition']} {row['metric'].upper()} {row['arm']}: {cell(row)}")
    if config["commit_results"] and len(ordered) == len(trials):
        publish(found, config["name"], Path(config["results"]), config["readmes"])
    elif config["commit_results"]:
        say(f"{len(ordered)} of {len(trials)} runs are done: {config['results']} waits for the rest")


def plan(config: Config) -> tuple[list[Stage], list[Trial]]:
    """Every training there is to do, pretraining first, and which of them are scored; nothing is touched."""
    folder = Path(config["run_dir"])
    arms = {name: check_arm(name, arm or {}) for name, arm in config["arms"].items()}
    if config["baseline"] not in arms:
        raise InputError(f"baseline '{config['baseline']}' is none of the arms: {', '.join(arms)}")
    pretrained = {}
    for number, (name, arm) in enumerate(arms.items()):
        if "teacher" in arm and arm["teacher"] not in list(arms)[:number]:
            raise InputError(f"the teacher '{arm['teacher']}' of arm '{name}' is no arm listed before it")
        if "pretrain" in arm and "teacher" not in arm:
            place = folder / "pretrain" / name
            overrides = (*UNLABELLED, *config["pool"], *config["common"], *arm["pretrain"], *placed(config, place))
            pretrained[name] = Stage("pretrain", f"pretrain/{name}", place, overrides)
    stages, trials = list(pretrained.values()), []
    for corpus, entry in config["corpora"].items():
        for budget, name in product(entry["budgets"], arms):
            for seed in entry.get("seeds", config["seeds"]):
                known = pretrained
                if "teacher" in arms[name]:
                    known = pretrained | {name: taught(config, corpus, budget, name, seed)}
                    stages.append(known[name])
                trials.append(fine_tuning(config, corpus, budget, name, seed, known))
                stages.append(trials[-1].stage)
    return stages, trials


def taught(config: Config, corpus: str, budget: Config, name: str, seed: int) -> Stage:
    """The pretraining of one trial, on its corpus' unlabelled audio: its overrides may name as {teacher} the bundle
    that another arm made of the same labels, so that whatever it knows of them is within the budget."""
    arm = config["arms"][name]
    folder, needs = Path(config["run_dir"]), called(corpus, budget, arm["teacher"], seed)
    teacher = folder / "finetune" / needs
    where = f"pretrain/{called(corpus, budget, name, seed)}"
    asked = (override.replace("{teacher}", quoted(teacher / "bundle")) for override in arm["pretrain"])
    overrides = (*UNLABELLED, *config["pool"], *config["corpora"][corpus]["data"], *config["common"], *asked)
    overrides += (f"seed={seed}", *placed(config, folder / where))
    return Stage("pretrain", where, folder / where, overrides, teacher / "bundle", needs)


def called(corpus: str, budget: Config, arm: str, seed: int) -> str:
    """A trial's name, and its place under finetune/: fsdd/10_per_text/scratch/seed0."""
    return f"{corpus}/{label_of(budget).replace(' ', '_')}/{arm}/seed{seed}"


def fine_tuning(
    config: Config, corpus: str, budget: Config, name: str, seed: int, pretrained: dict[str, Stage]
) -> Trial:
    """One trial of the plan; the label draw goes by the seed too, so that seeds differ in all that is chance."""
    entry, arm = config["corpora"][corpus], config["arms"][name] or {}
    before = pretrained.get(arm.get("pretrain_as", name))
    if "pretrain_as" in arm and before is None:
        raise InputError(f"arm '{name}' is pretrained as '{arm['pretrain_as']}', and no arm of that name pretrains")
    source = before.folder / "bundle" if before else Path(arm["bundle"]) if "bundle" in arm else None
    where = called(corpus, budget, name, seed)
    place = Path(config["run_dir"]) / "finetune" / where
    overrides = [*entry["data"], *config["common"], *config["finetune"], *entry.get("finetune", [])]
    overrides += [*budget.get("finetune", []), *arm.get("finetune", []), *placed(config, place)]
    overrides += [f"bundle={quoted(source)}", f"seed={seed}", f"labels.seed={seed}"]
    overrides += [f"labels.max_total_minutes={budget.get('minutes') or 'null'}"]
    overrides += [f"labels.max_per_text={budget.get('per_text') or 'null'}"]
    chosen_by = "cer" if entry["metric"] == "ser" else entry["metric"]  # dev of syllables is scored in syllables
    overrides += ["splits.dev_positions=even", f"snapshots.metric=dev/{chosen_by}"]
    overrides += ["ctc_weights=[]"]  # what is scored is greedy
    stage = Stage("finetune", where, place, tuple(overrides), source, before.name if before else None)
    return Trial(stage, corpus, label_of(budget), name, seed, entry["metric"])


def check_arm(name: str, arm: Config) -> Config:
    """The arm, or an InputError where it says what it cannot, or trains otherwise than those it is compared with."""
    if unknown := set(arm) - {"teacher", "pretrain", "pretrain_as", "bundle", "finetune"}:
        raise InputError(
            f"arm '{name}' has {', '.join(sorted(unknown))}: an arm has pretrain (with a teacher), pretrain_as or "
            "bundle, finetune"
        )
    if "teacher" in arm and "pretrain" not in arm:
        raise InputError(f"arm '{name}' has a teacher and no pretrain, whose overrides would say what it teaches")
    if len({"pretrain", "pretrain_as", "bundle"} & set(arm)) > 1:
        raise InputError(f"arm '{name}' starts from two places: give pretrain, pretrain_as or bundle, not several")
    for override in arm.get("finetune", []):
        if override.lstrip("+~").split("=")[0].split(".")[0].split("@")[0] in SHARED:
            raise InputError(f"arm '{name}' fine-tunes with '{override}': all arms share it, set it for the corpus")
    return arm


def label_of(budget: Config) -> str:
    """ "10 min", "10 per text", or "all"."""
    if unknown := set(budget) - {"minutes", "per_text", "finetune"}:
        raise InputError(f"a budget has {', '.join(sorted(unknown))}: it has minutes or per_text, and finetune")
    named = {"minutes": "min", "per_text": "per text"}
    return ", ".join(f"{budget[key]:g} {unit}" for key, unit in named.items() if budget.get(key)) or "all"


def placed(config: Config, folder: Path) -> list[str]:
    """The overrides that say where a stage's run lies."""
    name = f"{config['name']}/{folder.relative_to(config['run_dir']).as_posix()}"
    return [f"name={quoted(name)}", f"run_dir={quoted(folder)}", f"catalogs={quoted(config['catalogs'])}"]


def quoted(value: Path | str | None) -> str:
    """A text as Hydra's overrides take it, whatever is in it; null for None."""
    return "null" if value is None else "'" + str(value).replace("'", "\\'") + "'"


def selected(stages: Sequence[Stage], trials: Sequence[Trial], only: Sequence[str] | None) -> list[Stage]:
    """The trials whose names (corpus/budget/arm/seed0) are like one of `only`, and the pretraining they need."""
    chosen = [t.stage for t in trials if not only or any(fnmatch(t.stage.name, pattern) for pattern in only)]
    if not chosen:
        raise InputError(f"only={only} names no run: they are called like {trials[0].stage.name if trials else '…'}")
    needs = {stage.name: stage.needs for stage in stages if stage.needs}
    wanted = {stage.name for stage in chosen}
    while behind := {needs[name] for name in wanted if name in needs} - wanted:
        wanted |= behind
    return [stage for stage in stages if stage.name in wanted]


def score(trial: Trial, conditions: Sequence[Condition], config: Config) -> list[Score]:
    """The bundle on the odd rows of its corpus' dev split, under each condition; what was heard before is kept."""
    folder = trial.stage.folder
    kept = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    facts = json.loads((folder / "finished.json").read_text(encoding="utf-8"))
    catalog = prepare_catalog(build(kept["data"]), kept["catalogs"])
    reported = list(catalog.subset(kept["splits"]["dev"], labelled=True, positions="odd"))  # of any length
    system = Transcriber(str(folder / "bundle"), f"{trial.arm}-seed{trial.seed}", device=config["device"])
    scores = []
    for condition in conditions:
        run = evaluate(system, TestSet(trial.corpus, reported, condition.name, condition), folder)
        errors, words = run.columns(trial.metric)
        value, low, high = interval(errors, words, seed=config["seed"])
        row = {
            "corpus": trial.corpus,
            **origin(trial),
            "budget": trial.budget,
            "seed": trial.seed,
            "condition": condition.name,
            "metric": trial.metric,
            **{"value": round(value, 5), "low": round(low, 5), "high": round(high, 5)},
            "dev_even": round(facts["dev"]["value"], 5),
            "utterances": len(reported),
            "words": int(words.sum()),
            "labelled_minutes": facts["labelled_minutes"],
            "steps": facts["step"],
            "seconds": facts["seconds"],
            "parameters": system.parameters,
            "commit": facts["commit"],
        }
        scores.append(Score(row, errors, words))
    return scores


def origin(trial: Trial) -> Row:
    """The arm, what its encoder was pretrained with, and how many hours of audio (padding included) that took."""
    facts: Row = {"arm": trial.arm, "objective": None, "hours_pretraining_audio_seen": 0.0}
    if (source := trial.stage.source) is None:
        return facts
    files = [source.parent / name for name in ("config.yaml", "finished.json")]
    if not all(file.exists() for file in files):
        return facts | {"objective": "unknown", "hours_pretraining_audio_seen": None}
    kept, finished = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in files)
    devices = kept["trainer"]["devices"] if isinstance(kept["trainer"]["devices"], int) else 1
    batch = kept["batches"]["batch_seconds"] * kept["trainer"]["accumulate_grad_batches"] * devices
    return facts | {
        "objective": objective_name(kept.get("objective", {})),
        "hours_pretraining_audio_seen": round(finished["step"] * batch / 3600, 2),
    }


def objective_name(objective: Config) -> str:
    """reconstruction, kmeans, or contrastive × 0.01 + reconstruction × 1."""
    if "weights" in objective:
        return " + ".join(f"{name} × {weight:g}" for name, weight in objective["weights"].items() if weight)
    method = objective.get("codebook", {}).get("method")
    return method or objective.get("_target_", "unknown").rsplit(".", 1)[-1].lower()


def document(
    config: Config, conditions: Sequence[Condition], scores: list[list[Score]], summarized: bool = False
) -> Config:
    """What is committed: provenance, a row for each run and condition, and the arms over their seeds."""
    flat = [one for trial in scores for one in trial]
    about = surroundings()
    noise = sorted({clip for condition in conditions for clip in condition.clips})
    return {
        "experiment": config["name"],
        "question": config["question"],
        "command": f'make label-efficiency ARGS="{" ".join(sys.argv[1:])}"',
        "machine": about["machine"],
        "commit": about["git_commit"],
        "torch": about["versions"]["torch"],
        "date": about["date"],
        "baseline": config["baseline"],
        "noise": {"clips": config["noise"]["clips"], "names": noise} if noise else None,
        "summary": summarize(flat, config["baseline"], config["seed"]) if summarized else [],
        "rows": [one.row for one in flat],
    }


def summarize(scores: Sequence[Score], baseline: str, seed: int = 0) -> list[Row]:
    """For each corpus, budget, condition and arm the mean over seeds, and a paired test against the baseline.

    Seeds are pooled by utterance: its errors are summed over the seeds before the bootstrap draws it or the test flips
    it, since the same sentence misheard by three seeds is one piece of evidence, not three. `value` is thus over all
    seeds, interval and test speak of other sentences of the same talkers; `seeds_better` is what to hold against chance
    between seeds.
    """
    places: dict[tuple, dict[str, dict[int, Score]]] = {}
    for one in scores:
        cell = places.setdefault(tuple(one.row[key] for key in ("corpus", "budget", "condition", "metric")), {})
        cell.setdefault(one.row["arm"], {})[one.row["seed"]] = one
    return [
        dict(zip(("corpus", "budget", "condition", "metric"), where, strict=True)) | versus(name, arms, baseline, seed)
        for where, arms in places.items()
        for name in arms
    ]


def versus(name: str, arms: dict[str, dict[int, Score]], baseline: str, seed: int) -> Row:
    """One arm over its seeds, and beside the baseline over the seeds both have."""
    mine, theirs = arms[name], arms.get(baseline, {})
    rates = [float(one.errors.sum() / max(one.words.sum(), 1)) for one in mine.values()]
    pooled = sum(one.errors for one in mine.values()), sum(one.words for one in mine.values())
    value, low, high = interval(*pooled, seed=seed)
    row: Row = {"arm": name, "value": round(value, 5), "low": round(low, 5), "high": round(high, 5)}
    row |= {"seeds": sorted(mine), "seed_min": round(min(rates), 5), "seed_max": round(max(rates), 5)}
    row["steps"] = sorted({one.row["steps"] for one in mine.values()})
    both = sorted(set(mine) & set(theirs))
    if name != baseline and both:
        own, other = (sum(arm[k].errors for k in both) for arm in (mine, theirs))
        delta, p_value = paired(own, other, sum(mine[k].words for k in both), seed=seed)
        better = sum(bool(mine[k].errors.sum() < theirs[k].errors.sum()) for k in both)
        row |= {"delta": round(delta, 5), "p_value": round(p_value, 5), "seeds_better": f"{better}/{len(both)}"}
    return row


def in_words(scores: Sequence[Score]) -> str:
    """Error rates by condition, for the person who watches."""
    rates = [f"{s.row['condition']} {s.row['metric'].upper()} {s.row['value']:.1%}" for s in scores]
    return ", ".join(rates) or "done"


def say(message: str) -> None:
    """One line for the person who watches."""
    print(f"glmasr: {message}", file=sys.stderr, flush=True)
