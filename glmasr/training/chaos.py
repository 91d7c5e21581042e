"""A pretraining whose ranks are killed again and again in, a comparison with one that was left alone out."""

import csv
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from glmasr.bundle import load_weights
from glmasr.speech import InputError
from glmasr.training.checkpoints import found
from glmasr.training.team import Team

TIMED = ("train/audio_seconds_per_second", "probe/time_share")
"""Columns of metrics.csv that measure time, and so differ between any two runs."""

PATIENCE_SECONDS = 300.0


def chaos(config: dict[str, Any]) -> None:
    """`make chaos`: write chaos.json and print whether the killed run ended bit for bit like the whole one.

    Ranks drawn at random are sent SIGKILL at steps drawn at random, somewhere within the step; the others have to end
    by themselves, and the run is started again. InputError where anything differs, or where a rank stays behind.
    """
    settings = dict(config)
    kills, ranks, patience = (settings.pop(name) for name in ("kills", "ranks", "patience_seconds"))
    home, steps = Path(settings["run_dir"]), settings["trainer"]["max_steps"]
    if kills >= steps - 1:
        raise InputError(f"kills={kills} need more steps than trainer.max_steps={steps}: at most one a step")
    if home.exists() and not config["overwrite"]:
        raise InputError(f"{home} is there already: choose another name=…, or overwrite=true")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    whole, struck = (settings | {"run_dir": str(home / name), "overwrite": False} for name in ("whole", "struck"))
    started = time.monotonic()
    finish(Team(whole, ranks, home / "whole.log"))
    draw = random.Random(config["seed"])
    told = []
    for target in sorted(draw.sample(range(1, steps - 1), kills)):
        told.append(strike(struck, ranks, target, draw, patience))
        print(f"glmasr: kill {len(told)} of {kills}: {json.dumps(told[-1])}", file=sys.stderr, flush=True)
    finish(Team(struck, ranks, home / "struck.log"))
    same = compared(home / "whole", home / "struck")
    facts = {
        "identical": same,
        "kills": told,
        "ranks": ranks,
        "steps": steps,
        "seconds": round(time.monotonic() - started, 1),
        "load": os.getloadavg(),
        "seed": config["seed"],
    }
    (home / "chaos.json").write_text(json.dumps(facts, indent=1))
    lines = ", ".join(f"{name} {'identical' if equal else 'DIFFERENT'}" for name, equal in same.items())
    slowest = max((kill["others_ended_after_seconds"] for kill in told), default=0.0)
    print(
        f"glmasr: {len(told)} kills in {steps} steps on {ranks} ranks: {lines}; the ranks that were left ended after "
        f"at most {slowest:.1f} s; {home / 'chaos.json'}",
        file=sys.stderr,
    )
    if not all(same.values()):
        raise InputError(f"the killed run is not the whole one: compare {home / 'whole'} and {home / 'struck'}")


def strike(config: dict[str, Any], ranks: int, target: int, draw: random.Random, patience: float) -> dict[str, Any]:
    """Start a run, kill a rank somewhere after step `target` was logged, and wait for the others to end; what was."""
    folder = Path(config["run_dir"])
    before = written_at(folder)
    team = Team(config, ranks, folder.with_suffix(".log"))
    begun = time.monotonic()
    # Not before this start has logged a step: until the ranks have met, only a launcher knows that one is gone.
    while logged(folder) < target or written_at(folder) == before:
        if not team.is_running() or time.monotonic() - begun > PATIENCE_SECONDS:
            team.wait(0.0 if team.is_running() else 5.0)
            raise InputError(f"the run ended or hung before step {target}; what it said is in {team.log}")
        time.sleep(0.002)
    rank = draw.randrange(ranks)
    time.sleep(draw.random() * 0.1)  # anywhere in the steps, saving and validating included
    team.strike(rank, signal.SIGKILL)
    step, struck = logged(folder), time.monotonic()
    codes = team.wait(patience)
    if codes[rank] != -signal.SIGKILL:
        raise InputError(f"rank {rank} had ended before it was killed after step {step}: take more trainer.max_steps")
    newest = found(folder / "checkpoints")
    return {
        "rank": rank,
        "after_logged_step": step,
        "newest_checkpoint": newest[0].name if newest else None,
        "others_ended_after_seconds": round(time.monotonic() - struck, 2),
    }


def finish(team: Team) -> None:
    """Wait for a run that nobody disturbs; InputError with its log where it fails."""
    if any(team.wait(PATIENCE_SECONDS * 10)):
        raise InputError(f"the run failed undisturbed; what it said is in {team.log}")


def logged(folder: Path) -> int:
    """The last step in metrics.csv, -1 without one."""
    try:
        last = (folder / "metrics.csv").read_text().rpartition("\n")[0].rpartition("\n")[2]
        return int(last.partition(",")[0])
    except (OSError, ValueError):
        return -1


def written_at(folder: Path) -> int:
    """When metrics.csv was last written to, 0 without one."""
    path = folder / "metrics.csv"
    return path.stat().st_mtime_ns if path.exists() else 0


def compared(one: Path, other: Path) -> dict[str, bool]:
    """Whether two finished runs have the same weights, optimizer with its schedule, and metrics, bit for bit."""
    states = [torch.load(found(run / "checkpoints")[0], weights_only=True) for run in (one, other)]
    bundles = [load_weights(run / "bundle" / "weights.safetensors") for run in (one, other)]
    parts = [[state[name] for name in ("optimizer_states", "lr_schedulers")] for state in states]
    return {
        "weights": equal(*bundles) and equal(*(state["state_dict"] for state in states)),
        "optimizer": equal(*parts) and states[0]["global_step"] == states[1]["global_step"],
        "metrics": metrics(one) == metrics(other),
    }


def equal(one: Any, other: Any) -> bool:
    """Whether two nests of dicts, lists and tensors are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def metrics(folder: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv without the columns that measure time."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMED} for row in csv.DictReader(file)]
