"""Two real gloo ranks on real speech, struck from outside: one sentence, no process left, the last checkpoint whole."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from glmasr.training.chaos import compared, finish, logged, metrics, strike
from glmasr.training.checkpoints import check, found
from glmasr.training.team import Team
from tests.small import composed, small

STEPS = ["batches.batch_seconds=4.0", "update_seconds=8.0", "checkpoints.every_steps=2", "probe.every_steps=null"]
SHARDED = {"_target_": "glmasr.training.sharding.Sharded"}


@pytest.fixture
def settings(corpus, tmp_path):
    """The config of a run under `tmp_path`: six steps, or endless ones to be struck."""

    def compose(name: str, *overrides: str, steps: int = 6, sharded: bool = False) -> dict:
        pace = [*STEPS, f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}", f"name={name}"]
        config = composed("pretrain", *small(corpus, tmp_path, *pace, *overrides))
        return config | ({"trainer": config["trainer"] | {"strategy": SHARDED}} if sharded else {})

    return compose


def begun(config: dict, ranks: int, after: int = 2) -> Team:
    """A run that has logged a step and saved a checkpoint."""
    folder = Path(config["run_dir"])
    team, patience = Team(config, ranks, folder.with_suffix(".log")), time.monotonic() + 120
    while logged(folder) < after or not found(folder / "checkpoints"):
        assert team.is_running() and time.monotonic() < patience, team.log.read_text()
        time.sleep(0.02)
    return team


def sentences(team: Team) -> list[str]:
    """What the run said to its user at the end, without what it said on its way."""
    lines = [line for line in team.log.read_text().splitlines() if line.startswith("glmasr:")]
    return [line for line in lines if not re.match(r"glmasr: (pretraining|resuming|wrote)", line)]


def losses(folder: Path) -> list[float]:
    return [float(row["train/update_loss"]) for row in metrics(folder) if row["train/update_loss"]]


def test_any_number_of_ranks_takes_the_same_steps(settings, tmp_path):
    """Two, one, and two, then one, then two of them."""
    whole = {ranks: settings(f"whole{ranks}") for ranks in (1, 2)}
    for ranks, config in whole.items():
        finish(Team(config, ranks, tmp_path / f"{ranks}.log"))
    elastic = settings("elastic")
    for ranks, step in ((2, 1), (1, 3)):
        strike(elastic, ranks, step, random.Random(0), 60)
    finish(Team(elastic, 2, tmp_path / "elastic.log"))
    curves = [losses(Path(config["run_dir"])) for config in (whole[2], whole[1], elastic)]
    assert [len(curve) for curve in curves] == [6, 6, 6]
    for other in curves[1:]:
        assert max(abs(a - b) for a, b in zip(curves[0], other, strict=True)) < 1e-5


def test_a_sharded_run_is_resumed_and_its_bundle_is_like_any_other(settings, tmp_path):
    plain, whole, struck = settings("plain"), settings("whole", sharded=True), settings("struck", sharded=True)
    for name, config in (("plain", plain), ("whole", whole)):
        finish(Team(config, 2, tmp_path / f"{name}.log"))
    strike(struck, 2, 3, random.Random(1), 60)
    finish(Team(struck, 2, tmp_path / "struck.log"))
    folders = [Path(config["run_dir"]) for config in (plain, whole, struck)]
    assert all(compared(*folders[1:]).values())
    from glmasr.bundle import load_weights

    weights = [load_weights(folder / "bundle" / "weights.safetensors") for folder in folders[:2]]
    assert list(weights[0]) == list(weights[1])
    assert all((weights[0][name] - weights[1][name]).abs().max() < 1e-5 for name in weights[0])


def test_a_stopped_rank_ends_the_run_in_the_stated_time(settings):
    team = begun(settings("hung", "watchdog.hang_seconds=15", steps=100_000), 2)
    team.strike(1, signal.SIGSTOP)
    began = time.monotonic()
    assert team.wait(90) == [1, -signal.SIGKILL]
    assert time.monotonic() - began < 15 + 7 + 5
    [told] = sentences(team)
    assert (
        "no step for" in told and "is stopped; its stack is in" in told and "goes on from the last checkpoint" in told
    )
    folder = team.log.with_suffix("")
    assert "Thread" in (folder / "stacks" / "rank_0.txt").read_text()
    assert check(found(folder / "checkpoints")[0]) is None


def test_a_killed_loader_is_told_in_one_sentence(settings):
    team = begun(settings("loader", "batches.workers=1", "update_seconds=4.0", steps=100_000), 1)
    pid = team.processes[0].pid
    children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    os.kill(children[0], signal.SIGKILL)
    assert team.wait(60) == [1]
    assert len(sentences(team)) == 1, team.log.read_text()
    [told] = sentences(team)
    assert re.search(rf"a process that loads data (\({children[0]}\)|ended in the midst of a batch)", told), told
    assert "take fewer batches.workers" in told
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert check(found(team.log.with_suffix("") / "checkpoints")[0]) is None


def test_a_full_disk_leaves_the_last_checkpoint(settings, tmp_path):
    home = tmp_path / "disk"
    home.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", home], capture_output=True, check=False
    ).returncode:
        pytest.skip("only root may mount a small disk; tests/training/test_checkpoints.py limits a file's size")
    try:
        config = settings("full", "checkpoints.keep=100000", steps=100_000) | {"run_dir": str(home / "run")}
        with (home / "ballast").open("wb") as ballast:
            ballast.write(bytes(48 << 20))
        team = begun(config, 2)
        codes = team.wait(120)
        assert 1 in codes and 0 not in codes
        assert any(
            "no room to write" in told and "(No space left on device): free some" in told for told in sentences(team)
        )
        kept = found(home / "run" / "checkpoints")
        assert kept and check(kept[0]) is None
    finally:
        subprocess.run(["umount", home], check=True)
    shutil.rmtree(home)
