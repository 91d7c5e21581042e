"""A run's folder: begun, locked, gone on with, finished, and never with two meanings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from pytorch_lightning.utilities import rank_zero_only

from glmasr.speech import InputError
from glmasr.training.checkpoints import Written
from glmasr.training.folder import Run, differences


def test_differences_name_every_leaf():
    old = {"a": {"b": 1, "c": [1, 2]}, "gone": 1, "same": {"x": None}}
    new = {"a": {"b": 2, "c": [1, 3]}, "came": True, "same": {"x": None}}
    assert differences(old, new) == ["a.b: 1 → 2", "a.c: [1, 2] → [1, 3]", "came: None → True", "gone: 1 → None"]
    assert differences(old, old) == []
    assert differences({"m": None}, {"m": {"x": 1}}) == ["m: None → {'x': 1}"]


@pytest.fixture
def config(tmp_path) -> dict:
    return {"run_dir": str(tmp_path / "run"), "overwrite": False, "seed": 0, "trainer": {"max_steps": 5}}


def test_a_run_goes_on_only_with_the_settings_it_was_begun_with(config):
    run = Run(config)
    assert run.begin() and yaml.safe_load((run.folder / "config.yaml").read_text()) == config
    assert Run(config | {"seed": 1}).begin()  # nothing was done yet
    (run.folder / "checkpoints").mkdir()
    (run.folder / "checkpoints" / "step_000000001.ckpt").touch()
    with pytest.raises(InputError, match=r"was begun with other settings \(seed: 1 → 2\): choose another name"):
        Run(config | {"seed": 2}).begin()
    assert Run(config | {"seed": 1, "trainer": {"max_steps": 9}}).begin()  # longer is fine
    assert Run(config | {"seed": 2, "overwrite": True}).begin()
    assert not (run.folder / "checkpoints").exists()


def test_a_finished_run_is_not_done_again(config, capsys):
    run = Run(config | {"overwrite": True})
    assert run.begin()
    run.finish(step=5)
    facts = json.loads(run.finished_file.read_text())
    assert facts["step"] == 5 and facts["commit"] and facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert not Run(config).begin() and "nothing to do (overwrite=true" in capsys.readouterr().err
    assert not Run(config | {"overwrite": False}).begin()
    with pytest.raises(InputError, match=r"was finished with other settings \(trainer.max_steps: 5 → 9\)"):
        Run(config | {"trainer": {"max_steps": 9}}).begin()


def write_step(run: Run) -> Path:
    """A checkpoint of its first step."""
    path = run.folder / "checkpoints" / "step_000000001.ckpt"
    path.parent.mkdir()
    Written().save_checkpoint({"state_dict": {"a": torch.ones(3)}, "global_step": 1}, path)
    return path


@pytest.mark.parametrize("name", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
def test_a_job_that_is_put_back_does_not_discard_its_own_work(config, monkeypatch, name):
    asked = config | {"overwrite": True, "resume": "auto"}
    run = Run(asked)
    assert run.begin() and run.origin is None
    run.unlock()
    begun = write_step(run)
    monkeypatch.setenv(name, "1")
    again = Run(asked)
    assert again.begin() and again.origin == begun
    again.unlock()
    monkeypatch.setenv(name, "0")
    assert Run(asked).begin() and not (run.folder / "checkpoints").exists()


def test_other_ranks_take_part_in_a_run_that_is_being_discarded(config, monkeypatch):
    """Where they came before the first rank had discarded what was finished, they ended, and it waited for them."""
    run = Run(config)
    assert run.begin()
    write_step(run)
    run.finish(step=5)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert not Run(config).begin()
    second = Run(config | {"overwrite": True, "resume": "auto"})
    assert second.begin() and second.origin is None and run.finished_file.exists()


HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_folder_another_process_trains_in_is_left_alone(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("theirs")
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=r"another process is training in .*run: wait for it"):
            Run(config | {"overwrite": True}).begin()
        holder.kill()
    assert (tmp_path / "run" / "metrics.csv").read_text() == "theirs"
    assert Run(config).begin()
