"""The sweep: a fair plan that the verbs understand, seeds pooled by utterance, and the whole way killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from glmasr.evaluation import label_efficiency, sweep
from glmasr.evaluation.bootstrap import paired
from glmasr.evaluation.label_efficiency import (
    Score,
    objective_name,
    plan,
    quoted,
    run_label_efficiency,
    selected,
    summarize,
)
from glmasr.speech import InputError
from tests.small import CONF, REPOSITORY, composed, corpus

__all__ = ["corpus"]

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment" / "label_efficiency").glob("*.yaml"))
OWN_RATES = {"warmup"}
"""Whose arms learn at rates of their own."""


def config(experiment: str = "objectives", **changes) -> dict:
    return composed("label_efficiency", f"experiment=label_efficiency/{experiment}") | changes


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_verbs_understand_every_stage_and_arms_differ_only_where_they_may(experiment):
    given = config(experiment)
    stages, trials = plan(given | {"seeds": [0]})
    resolved = {stage.name: composed(stage.verb, *stage.overrides) for stage in stages}
    assert len({stage.name for stage in stages}) == len(stages)
    for trial in trials:
        mine = resolved[trial.stage.name]
        theirs = resolved[trial.stage.name.replace(f"/{trial.arm}/", f"/{given['baseline']}/")]
        own = {"optimizer"} if experiment in OWN_RATES else set()
        changed = {key for key in mine if mine[key] != theirs[key]}
        assert changed <= {"name", "run_dir", "bundle", "augment", "rates"} | own
        assert mine["splits"]["dev_positions"] == "even" and mine["labels"]["seed"] == trial.seed
        chosen_by = "cer" if trial.metric == "ser" else trial.metric  # syllables are scored as what they are written in
        assert mine["snapshots"]["metric"] == f"dev/{chosen_by}"
        if trial.stage.needs:
            assert resolved[trial.stage.needs].get("probe", {}).get("every_steps") is None
            made = Path(resolved[trial.stage.needs]["run_dir"]) / "bundle"
            assert Path(mine["bundle"]) == made == trial.stage.source


def test_a_bundle_that_is_missing_is_missed_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(label_efficiency, "train", lambda *_: pytest.fail("trained"))
    tiny = {"c": {"data": [], "metric": "wer", "budgets": [{}]}}
    given = config(corpora=tiny, arms={"scratch": None, "brought": {"bundle": f"{tmp_path}/gone"}}, seeds=[0])
    with pytest.raises(InputError, match=r"c/all/brought/seed0 starts from .*/gone, and no bundle is there"):
        run_label_efficiency(given | {"run_dir": str(tmp_path / "run")})


def test_budgets_and_seeds_are_what_the_runs_are_told():
    tiny = {"data": [], "metric": "wer", "budgets": [{}, {"minutes": 5}, {"per_text": 10, "finetune": ["seed=9"]}]}
    _, trials = plan(config(corpora={"c": tiny}, arms={"scratch": None}, seeds=[3]))
    assert [trial.budget for trial in trials] == ["all", "5 min", "10 per text"]
    labels = [composed("finetune", *trial.stage.overrides)["labels"] for trial in trials]
    assert [(one["max_total_minutes"], one["max_per_text"], one["seed"]) for one in labels] == [
        (None, None, 3), (5, None, 3), (None, 10, 3),
    ]  # fmt: skip
    assert {composed("finetune", *trial.stage.overrides)["seed"] for trial in trials} == {3}
    assert trials[2].stage.name == "c/10_per_text/scratch/seed3" and trials[0].stage.source is None


def test_arms_may_share_a_pretraining_or_bring_a_bundle():
    arms = {
        "scratch": None,
        "first": {"pretrain": ["objective=reconstruction"]},
        "frozen": {"pretrain_as": "first", "finetune": ["rates.frozen_steps=100"]},
        "brought": {"bundle": "runs/a/bundle"},
    }
    stages, trials = plan(config(arms=arms, seeds=[0]))
    assert sum(stage.verb == "pretrain" for stage in stages) == 1
    origins = {trial.arm: (trial.stage.needs, trial.stage.source) for trial in trials}
    assert origins["frozen"] == origins["first"] == ("pretrain/first", stages[0].folder / "bundle")
    assert origins["brought"] == (None, Path("runs/a/bundle")) and origins["scratch"] == (None, None)


def test_a_taught_arm_pretrains_for_each_run_on_what_its_teacher_made_of_the_same_labels():
    taught = ["objective.codebook.source.bundle={teacher}", "trainer.max_steps=7"]
    arms = {
        "scratch": None,
        "first": {"teacher": "scratch", "pretrain": taught},
        "second": {"teacher": "first", "pretrain": taught},
    }
    given = config(arms=arms, seeds=[0, 4])
    given["pool"] = ["objective=kmeans", "codebook@objective.codebook=kmeans_block", "data=rhyme_test"]
    stages, trials = plan(given)
    by_name, folder = {stage.name: stage for stage in stages}, Path(given["run_dir"])
    assert len(by_name) == len(stages) == 6 + 4 and len(trials) == 6
    for arm, teacher in (("first", "scratch"), ("second", "first")):
        for seed in (0, 4):
            before = by_name[f"pretrain/fsdd/10_per_text/{arm}/seed{seed}"]
            assert before.needs == f"fsdd/10_per_text/{teacher}/seed{seed}"
            assert before.source == by_name[before.needs].folder / "bundle"
            asked = composed("pretrain", *before.overrides)
            assert Path(asked["objective"]["codebook"]["source"]["bundle"]) == before.source
            assert asked["seed"] == seed and asked["trainer"]["max_steps"] == 7
            assert asked["data"] == composed("finetune", *by_name[before.needs].overrides)["data"]  # its corpus' own
            after = by_name[f"fsdd/10_per_text/{arm}/seed{seed}"]
            assert after.needs == before.name and after.source == before.folder / "bundle"
            assert before.folder == folder / "pretrain" / "fsdd" / "10_per_text" / arm / f"seed{seed}"
    names = [stage.name for stage in selected(stages, trials, ["*/second/seed4"])]
    assert names == [f"{way}fsdd/10_per_text/{arm}/seed4" for way, arm in (
        ("", "scratch"), ("pretrain/", "first"), ("", "first"), ("pretrain/", "second"), ("", "second"))]  # fmt: skip


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"a": {"teacher": "scratch"}}, "has a teacher and no pretrain"),
        ({"a": {"teacher": "b", "pretrain": []}, "b": None}, "teacher 'b' of arm 'a' is no arm listed before it"),
        ({"a": {"teacher": "a", "pretrain": []}}, "is no arm listed before it"),
        ({"a": {"finetune": ["trainer.max_steps=9"]}}, r"trainer\.max_steps=9.*all arms share"),
        ({"a": {"finetune": ["+batches.batch_seconds=9"]}}, "all arms share"),
        ({"a": {"finetune": ["data=folder"]}}, "all arms share"),
        ({"a": {"finetune": ["tokenizer@tokenizer=pieces"]}}, "all arms share"),
        ({"a": {"pretrained": []}}, "has pretrained"),
        ({"a": {"pretrain": [], "bundle": "b"}}, "two places"),
        ({"a": {"pretrain_as": "b"}}, "'b', and no arm"),
    ],
)
def test_an_arm_that_cannot_be_compared_is_an_input_error(arms, message):
    with pytest.raises(InputError, match=message):
        plan(config(arms={"scratch": None, **arms}))


def test_a_plan_that_names_what_is_not_there_is_an_input_error():
    with pytest.raises(InputError, match="none of the arms: scratch"):
        plan(config(arms={"scratch": None}, baseline="nothing"))
    fsdd = config()["corpora"]["fsdd"]
    with pytest.raises(InputError, match="a budget has hours"):
        plan(config(corpora={"fsdd": fsdd | {"budgets": [{"hours": 1}]}}))
    with pytest.raises(InputError, match="called like fsdd/10_per_text/scratch/seed0"):
        selected(*plan(config()), ["nothing/*"])


def test_only_names_runs_and_brings_what_they_need():
    stages, trials = plan(config())
    names = [stage.name for stage in selected(stages, trials, ["fsdd/*/kmeans/*", "fsdd/*/scratch/seed1"])]
    assert names == ["pretrain/kmeans", "fsdd/10_per_text/scratch/seed1"] + [
        f"fsdd/10_per_text/kmeans/seed{seed}" for seed in (0, 1, 2)
    ]
    assert selected(stages, trials, None) == stages


def test_any_path_can_be_an_override():
    for path in ("runs/a b", "it's, here", "a=b/[c]{d}", "back\\slash", "\u00fc"):
        assert composed("finetune", f"run_dir={quoted(path)}")["run_dir"] == path
    assert composed("finetune", f"bundle={quoted(None)}")["bundle"] is None


def test_objectives_are_named_after_what_counts():
    assert objective_name(composed("pretrain", "objective=reconstruction")["objective"]) == "reconstruction"
    assert objective_name(composed("pretrain", "objective=kmeans")["objective"]) == "kmeans"
    weighted = composed("pretrain", "objective.weights.contrastive=0")["objective"]
    assert objective_name(weighted) == "reconstruction × 1"


def scored(arm: str, seed: int, errors: list[int], words: int = 4, **where) -> Score:
    row = {"corpus": "c", "budget": "all", "condition": "clean", "metric": "wer", "arm": arm, "seed": seed, "steps": 9}
    return Score(row | where, np.array(errors), np.full(len(errors), words))


def test_seeds_are_pooled_by_utterance():
    rng = np.random.default_rng(0)
    base, ours = rng.integers(0, 5, 40), rng.integers(0, 4, 40)
    once = summarize([scored("scratch", 0, base), scored("a", 0, ours)], "scratch")
    thrice = summarize([scored(arm, k, e) for arm, e in (("scratch", base), ("a", ours)) for k in range(3)], "scratch")
    delta, p_value = paired(ours, base, np.full(40, 4))
    assert once[1]["p_value"] == round(p_value, 5) and once[1]["delta"] == round(delta, 5)
    for key in ("value", "low", "high", "delta", "p_value"):  # the same seed three times is no new evidence
        assert thrice[1][key] == once[1][key], key
    assert (once[1]["seeds_better"], thrice[1]["seeds_better"]) == ("1/1", "3/3")
    assert "p_value" not in once[0] and once[0]["arm"] == "scratch"


def test_a_summary_has_the_spread_of_seeds_and_compares_those_both_have():
    scores = [scored("scratch", 0, [4, 0]), scored("a", 0, [0, 0]), scored("a", 1, [2, 2])]
    scores += [scored("a", 0, [1, 1], condition="snr=5")]
    scratch, ours, noisy = summarize(scores, "scratch")
    assert (ours["value"], ours["seed_min"], ours["seed_max"], ours["seeds"]) == (0.25, 0.0, 0.5, [0, 1])
    assert ours["delta"] == -0.5 and ours["seeds_better"] == "1/1" and scratch["value"] == 0.5
    assert noisy["condition"] == "snr=5" and "delta" not in noisy


@pytest.fixture(scope="module")
def corpora(corpus, tmp_path_factory) -> Path:
    """The small corpus as `fsdd` for smoke.yaml: a manifest with four rows in dev."""
    root = tmp_path_factory.mktemp("corpora")
    (root / "fsdd").mkdir()
    rows = []
    for audio in sorted(corpus.rglob("*.flac")):
        split, talker = audio.parts[-3:-1]
        row = {"id": audio.stem, "audio_filepath": str(audio), "text": audio.with_suffix(".txt").read_text().strip()}
        rows.append(row | {"speaker": talker, "lang": "en", "split": "train" if split == "train" else "dev"})
    (root / "fsdd" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.mark.timeout(600)
def test_a_sweep_is_killed_resumed_and_then_left_alone(corpora, tmp_path, monkeypatch, capsys):
    overrides = ["experiment=label_efficiency/smoke", f"corpora_root={corpora}", f"run_dir={tmp_path}/run"]
    overrides += [f"catalogs={tmp_path}/catalogs", f"results={tmp_path}/results", "commit_results=true", "readmes=[]"]
    overrides += [
        'arms.reconstruction.pretrain=["objective=reconstruction","trainer.max_steps=40","checkpoints.every_steps=2"]',
        "jobs=2",
    ]
    script = [sys.executable, str(REPOSITORY / "scripts" / "label_efficiency.py"), *overrides]
    process = subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    patience = time.monotonic() + 120
    while not list(tmp_path.glob("run/pretrain/reconstruction/checkpoints/step_*.ckpt")):
        assert process.poll() is None and time.monotonic() < patience, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode and "stopped, the runs in flight are saved" in said and "Traceback" not in said

    threads = torch.get_num_threads()
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    run_label_efficiency(composed("label_efficiency", *overrides))
    assert "resuming" in (tmp_path / "run" / "logs" / "pretrain.reconstruction.log").read_text()
    found = json.loads((tmp_path / "results" / "smoke.json").read_text())
    assert found["experiment"] == "smoke" and {"machine", "commit", "torch", "date", "command"} <= set(found)
    assert [(row["arm"], row["condition"], row["steps"]) for row in found["rows"]] == [
        (arm, condition, 6) for arm in ("scratch", "reconstruction") for condition in ("clean", "level=-30")
    ]
    for row in found["rows"]:
        assert row["utterances"] == 2 and 0 <= row["low"] <= row["value"] <= row["high"]
        assert (row["hours_pretraining_audio_seen"] > 0) == (row["arm"] == "reconstruction") == bool(row["objective"])
    assert (tmp_path / "results" / "smoke_fsdd_conditions.svg").exists()

    heard = {path: path.read_text() for path in (tmp_path / "run").rglob("utterances/*.jsonl")}
    dev = [json.loads(line)["id"] for line in (corpora / "fsdd" / "manifest.jsonl").read_text().splitlines()
           if json.loads(line)["split"] == "dev"]  # fmt: skip
    assert len(heard) == 4
    for rows in heard.values():
        assert sorted(json.loads(row)["id"] for row in rows.splitlines()[1:]) == sorted(dev[1::2])
    monkeypatch.setattr(sweep, "start", lambda *_: pytest.fail("a finished run was begun again"))
    monkeypatch.setattr(label_efficiency.Transcriber, "__call__", lambda *_: pytest.fail("a row was heard again"))
    capsys.readouterr()
    run_label_efficiency(composed("label_efficiency", *overrides))
    assert "0 trainings to do now" in capsys.readouterr().err
    assert json.loads((tmp_path / "results" / "smoke.json").read_text())["rows"] == found["rows"]
    kept = yaml.safe_load(
        (tmp_path / "run" / "finetune" / "fsdd" / "1_per_text" / "scratch" / "seed0" / "config.yaml").read_text()
    )
    assert kept["splits"]["dev_positions"] == "even" and kept["labels"]["max_per_text"] == 1
    torch.set_num_threads(threads)


def environment() -> dict[str, str]:
    return dict(os.environ) | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
