"""The processes of one machine are as many as the trainer wants, hear what their parent hears, and end together."""

import os
import signal
import subprocess
import sys
import time

import pytest

from glmasr.speech import InputError
from glmasr.training import ranks
from glmasr.training.ranks import ranks_to_start, spread
from tests.small import REPOSITORY


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Nobody has started processes."""
    for name in ("LOCAL_RANK", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("devices", "wanted"), [(1, 1), (4, 4), ([0, 2], 2), ("0,1,3", 3), ("0,", 1), ("auto", 1), (-1, 1)]
)
def test_how_many(devices, wanted, monkeypatch):
    trainer = {"devices": devices, "num_nodes": 1, "accelerator": "cpu"}
    assert ranks_to_start(trainer) == wanted
    monkeypatch.setenv("LOCAL_RANK", "0")  # torchrun, or this door
    assert ranks_to_start(trainer | {"num_nodes": 2}) == 1
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert ranks_to_start(trainer | {"num_nodes": 2}) == 1


def test_several_machines_need_somebody_who_starts_them():
    with pytest.raises(InputError, match=r"trainer.num_nodes=2, but nobody starts a process on each: add hydra/launch"):
        ranks_to_start({"devices": 1, "num_nodes": 2, "accelerator": "cpu"})


def test_every_rank_knows_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "1")
    names = "$LOCAL_RANK $NODE_RANK $WORLD_SIZE $MASTER_ADDR [$SLURM_NTASKS]"
    assert spread(["sh", "-c", f"echo {names} > {tmp_path}/$LOCAL_RANK"], 3) == 0
    assert (tmp_path / "2").read_text() == "2 0 3 127.0.0.1 []\n" and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("end", "code"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_the_first_failure_is_the_code_and_the_others_are_not_left(end, code, monkeypatch):
    monkeypatch.setattr(ranks, "GRACE_SECONDS", 0.3)
    began = time.monotonic()
    assert spread(["sh", "-c", f'if [ $LOCAL_RANK = 1 ]; then {end}; fi; trap "" TERM; sleep 30'], 2) == code
    assert time.monotonic() - began < 5


PARENT = "import sys; from glmasr.training.ranks import spread; sys.exit(spread(sys.argv[1:], 2))"
TRAP = 'trap "echo told >> $HOME/told; exit 0" {name}; echo up >> $HOME/up; while :; do sleep 0.05; done'


def lines(path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize(("number", "arrives"), [("USR1", "USR1"), ("INT", "INT"), ("TERM", "TERM"), ("KILL", "TERM")])
def test_what_the_parent_is_told_they_are_told_once(number, arrives, tmp_path):
    command = [sys.executable, "-c", PARENT, "sh", "-c", TRAP.format(name=arrives)]
    parent = subprocess.Popen(command, env=os.environ | {"HOME": str(tmp_path)}, cwd=REPOSITORY)
    deadline = time.monotonic() + 30
    while lines(tmp_path / "up") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.send_signal(getattr(signal, f"SIG{number}"))
    code = parent.wait(10)
    while lines(tmp_path / "told") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert code == (-9 if number == "KILL" else 0) and lines(tmp_path / "told") == 2
