"""A collapsing run is stopped, its cause and its knob are named, and a healthy one is left alone."""

import csv
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from glmasr.speech import InputError
from glmasr.training import run
from glmasr.training.health import RULES, Collapsed, Health, Judge, by_objective, effective_rank, replay
from glmasr.training.pretrain import Pretraining
from tests.small import REPOSITORY, composed, small

SHORT = {"every_steps": 2, "grace_steps": 4, "patience": 2}
PACE = [f"health.{key}={value}" for key, value in SHORT.items()]
BOUND = SHORT["grace_steps"] + SHORT["every_steps"] * SHORT["patience"]


@pytest.fixture
def trained(corpus, tmp_path):
    """Pretrain a tiny model on real speech with overrides; the run folder."""

    def train(*overrides):
        pace = [
            *PACE,
            "trainer.max_steps=16",
            "name=r",
            "batches.batch_seconds=6.0",
            "trainer.val_check_interval=16",
            "probe.every_steps=null",
        ]
        config = composed("pretrain", *small(corpus, tmp_path, *pace, *overrides))
        run.pretrain(config)
        return tmp_path / "runs" / "r"

    return train


def facts(folder):
    return json.loads((folder / "health.json").read_text())


OBJECTIVES = ("contrastive", "reconstruction", "kmeans", "random_projection", "contrastive_reconstruction")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_healthy_run_is_left_alone_and_its_figures_are_logged(trained, objective):
    folder = trained(f"objective={objective}", "trainer.log_every_n_steps=2")
    found = facts(folder)
    assert found["healthy"] and found["judgements"] == 8 and found["step"] == 16
    assert found["last"]["rank"] > 5 and 0.3 < found["last"]["size"] < 1.2
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    logged = [row for row in rows if row["train/loss"]]
    assert all(float(row[f"health/{name}"]) > 0 for row in logged for name in ("rank", "gradient_norm", "update"))
    assert "probability_perplexity" in "".join(rows[0]) or objective == "reconstruction"


def silence(corpus, folder):
    """The corpus with all its recordings wiped."""
    for number in range(6):
        home = folder / "silent" / ("dev" if number == 0 else "train")
        home.mkdir(parents=True, exist_ok=True)
        soundfile.write(home / f"{number}.flac", np.zeros(30000, np.float32), 16000)
    return folder / "silent"


@pytest.mark.parametrize("objective", OBJECTIVES[:4])
def test_silence_is_stopped_in_every_objective(trained, corpus, tmp_path, objective):
    with pytest.raises(Collapsed) as end:
        trained(f"objective={objective}", f"data.path={silence(corpus, tmp_path)}")
    assert f"stopped at step {SHORT['grace_steps'] + 2}: features of mean size" in str(end.value)
    assert "the audio is silent or constant; turn data.path" in str(end.value)
    folder = tmp_path / "runs" / "r"
    assert not facts(folder)["healthy"] and facts(folder)["verdict"] == str(end.value)
    assert not (folder / "bundle").exists()


@pytest.mark.parametrize("objective", OBJECTIVES[:4])
def test_a_learning_rate_that_is_far_too_high_is_named(trained, objective):
    with pytest.raises(Collapsed, match=r"learning rate is too high; turn a lower optimizer\.learning_rate"):
        trained(f"objective={objective}", "optimizer.learning_rate=0.5")


def test_a_temperature_that_stands_still_is_named_where_it_lies_in_the_config(trained):
    stuck = "temperature_decay=1.0"
    with pytest.raises(Collapsed, match=r"temperature that stays at 2.*turn objective\.temperature_decay below 1"):
        trained("objective=contrastive", f"objective.{stuck}")


def test_in_a_mixture_the_knob_is_that_objectives(trained):
    stuck = "objective.objectives.contrastive.temperature_decay"
    with pytest.raises(Collapsed, match=rf"turn {stuck} below 1"):
        trained("objective=contrastive_reconstruction", f"{stuck}=1.0")


def test_codes_that_fall_together_are_named(trained, monkeypatch):
    """The start is helped along: from the usual one the codes take 200 steps to fall together."""

    def collapsed(self, trainer, module, stage):
        torch.nn.init.normal_(module.objective.quantizer.logits.weight, std=5.0)
        module.objective.quantizer.logits.bias.data[0] = module.objective.quantizer.logits.bias.data[64] = 100.0

    monkeypatch.setattr(Health, "setup", collapsed)
    with pytest.raises(Collapsed, match=r"code.*turn a higher objective\.diversity_weight"):
        trained("objective=contrastive", "objective.diversity_weight=0.0")


def test_an_encoder_with_one_answer_is_named(trained, monkeypatch):
    plain = Pretraining.look

    def alike(self, batch, step):
        view = plain(self, batch, step)
        return view.__class__(**(vars(view) | {"context": view.context * 0.0 + torch.ones(view.context.shape[-1])}))

    monkeypatch.setattr(Pretraining, "look", alike)
    with pytest.raises(Collapsed, match=r"effective rank 1\.0, where healthy is 3\.0 or more"):
        trained("objective=reconstruction")


def test_a_loss_that_is_no_number_does_not_wait_and_is_not_saved(trained, tmp_path, monkeypatch):
    plain = Pretraining.judge

    def broken(self, view):
        loss = plain(self, view)
        return loss if self.global_step < 2 else loss.__class__(loss.total * math.nan, loss.parts)

    monkeypatch.setattr(Pretraining, "judge", broken)
    with pytest.raises(Collapsed, match=r"stopped at step 4: loss nan.*both finite"):
        trained("objective=reconstruction", "checkpoints.every_steps=2", "health.grace_steps=1000")
    kept = [path.name for path in (tmp_path / "runs" / "r" / "checkpoints").glob("*.ckpt")]
    assert kept == ["step_000000002.ckpt"]


def test_without_the_guard_the_run_ends_and_says_what_was_seen(trained):
    folder = trained("objective=contrastive", "objective.temperature_decay=1.0", "health.guard=false")
    found = facts(folder)
    assert not found["healthy"] and "temperature" in found["verdict"] and found["step"] == 16
    assert (folder / "bundle").is_dir()


class Killed(BaseException):
    """Stands for SIGKILL."""


def test_a_resumed_run_is_judged_like_a_whole_one(trained, monkeypatch):
    stuck = ["objective=contrastive", "objective.temperature_decay=1.0", "checkpoints.every_steps=2"]
    plain, seen = Judge.__call__, []

    def interrupted(self, step, figures):
        seen.append((step, dict(self.strikes)))
        if step == 6 and len(seen) == 3:
            raise Killed
        return plain(self, step, figures)

    monkeypatch.setattr(Judge, "__call__", interrupted)
    with pytest.raises(Killed):
        trained(*stuck)
    with pytest.raises(Collapsed, match="stopped at step 6"):
        trained(*stuck)
    assert [step for step, _ in seen] == [2, 4, 6, 6] and seen[2] == seen[3]


def test_the_door_prints_one_sentence(corpus, tmp_path):
    overrides = small(
        corpus,
        tmp_path,
        *PACE,
        "name=r",
        "probe.every_steps=null",
        "objective=contrastive",
        "objective.temperature_decay=1.0",
    )
    done = subprocess.run(
        [sys.executable, "scripts/pretrain.py", *overrides], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("glmasr pretrain: stopped at step 6: a Gumbel temperature")


HEALTHY = {
    "loss": 4.0, "size": 0.8, "contrast": 3.9, "trivial": 4.615, "diversity": 0.1, "accuracy": 0.06, "rank": 20.0,
    "code_perplexity": 11.0, "probability_perplexity": 57.0, "temperature": 0.5, "gradient_norm": 1.0, "update": 0.003,
}  # fmt: skip
HALTED = HEALTHY | {"contrast": 4.616}
BROKEN = {
    "not a number": {"loss": math.inf},
    "silence": {"size": 0.05},
    "overshot": {"contrast": 4.5, "update": 0.03},
    "overshot codes": {"code_perplexity": 2.5, "update": 0.03},
    "worse than trivial": {"contrast": 7.0},
    "false success": {"accuracy": 0.99, "code_perplexity": 7.0},
    "unused codes": {"diversity": 0.85},
    "few codes": {"code_perplexity": 2.5},
    "few targets": {
        "cluster": 3.0,
        "code_perplexity": 2.5,
    },
    "temperature": {"temperature": 2.0},
    "rank": {"rank": 2.0},
    "gradient": {"gradient_norm": 1e-5},
    "nothing learned": {"contrast": 4.6, "progress": 0.5},
}
WITHOUT = {"few targets": ("diversity", "contrast")}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_speaks_for_its_own_failure_only_and_only_when_it_lasts(rule):
    broken = HEALTHY | BROKEN[rule.name]
    broken = {name: value for name, value in broken.items() if name not in WITHOUT.get(rule.name, ())}
    late = rule.name == "nothing learned"
    judge, steps = Judge(100, 3), range(1000 if late else 20, 1400, 20)
    said = next((verdict for step in steps if (verdict := judge(step, broken))), "")
    assert said.startswith(f"stopped at step {20 if rule.urgent else 1040 if late else 140}: ") and rule.cause in said
    assert "health.guard=false" in said and "\n" not in said and "nan" not in said.replace("inf", "")
    judge = Judge(100, 3)
    mixed = [judge(step, broken if step % 60 else HEALTHY | {"temperature": 0.4}) for step in steps]
    assert rule.urgent or rule.name == "overshot" or not any(mixed)


@pytest.mark.parametrize(
    "fine",
    [
        {},
        {"contrast": 4.618, "progress": 0.4, "diversity": 0.001},
        {"contrast": 4.56, "progress": 1.0},
        {"accuracy": 0.99, "code_perplexity": 40.0},
        {"temperature": 0.9},
        {"contrast": 3.0, "update": 0.5},
        {"contrast": 4.6, "update": 0.01},
    ],
    ids=str,
)
def test_what_is_slow_or_good_is_not_stopped(fine):
    judge = Judge(100, 3)
    assert not any(judge(step, HEALTHY | fine) for step in range(20, 2000, 20))


def test_a_short_run_has_its_time_to_leave_the_trivial_predictor():
    """Seen on digits: contrast stands at it for 160 of 240 steps, then learns."""
    judge = Judge(100, 3)
    assert not any(judge(step, HALTED | {"progress": step / 240}) for step in range(20, 241, 20))
    assert judge(1000, HALTED | {"progress": 0.5}) == judge(1020, HALTED | {"progress": 0.51}) == ""
    assert "optimizer.learning_rate" in judge(1040, HALTED | {"progress": 0.52})


def test_a_falling_temperature_is_no_stuck_one_however_slowly_it_falls():
    judge = Judge(100, 3)
    assert not any(judge(step, HEALTHY | {"temperature": 2 * 0.999995**step}) for step in range(20, 2000, 20))


def test_figures_are_dealt_out_to_their_objectives():
    figures = {"loss": 1.0, "size": 0.8, "a/contrast": 4.0, "a/trivial": 5.0, "b/masked": 0.6, "b/visible": 0.3}
    split = by_objective(figures | {"b/trivial": 0.6, "a/diversity": 0.25})
    assert set(split) == {"a", "b"} and split["a"]["loss"] == split["b"]["loss"] == 1.0
    assert split["a"]["over_trivial"] == 0.8 and split["b"]["over_trivial"] == 0.5 and split["a"]["spread"] == 0.75
    assert math.isnan(split["b"]["spread"]) and math.isnan(split["b"]["accuracy"])
    assert set(by_objective({"loss": 1.0})) == {""}


def test_replayed_rows_are_judged_on_their_means(tmp_path):
    """Single batches of a healthy run fall below the floors; their means do not."""
    rows = [
        {
            "step": str(step),
            "train/cluster": "1",
            "train/code_perplexity": str(1.0 if step % 20 == 9 else 20.0),
            "dev/loss": "",
        }
        for step in range(9, 600, 10)
    ]
    assert replay(rows, 600, 20, Judge(100, 3)) == ""
    assert replay(rows, 600, 10, Judge(100, 1)).startswith("stopped at step 110: target codes of perplexity 1.0")
    collapsed = [row | {"train/code_perplexity": "1.5"} if int(row["step"]) > 300 else row for row in rows]
    assert replay(collapsed, 600, 20, Judge(100, 3)).startswith("stopped at step 360: target codes of perplexity 1.5")


def test_effective_rank():
    assert effective_rank(torch.ones(50, 8)) == pytest.approx(1.0, abs=1e-4)
    assert effective_rank(torch.eye(8)) == pytest.approx(8.0)
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(math.exp(0.5623), abs=1e-3)
    assert effective_rank(torch.full((4, 4), math.nan)).isnan()


def test_collapse_is_something_the_user_can_mend():
    assert issubclass(Collapsed, InputError)
