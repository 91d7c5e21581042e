"""A rank that hangs, or whose neighbor died, ends with its stack and a sentence; one that works is left alone."""

import os
import signal
import subprocess
import sys
import time

import pytest

from glmasr.training.watchdog import Peer, Watchdog

HANGING = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from glmasr.training import watchdog

def stuck():
    time.sleep(60)

dog = watchdog.Watchdog(Path(sys.argv[1]), float(sys.argv[2]))
watchdog.GRACE_SECONDS = 1.0
dog.on_train_start(SimpleNamespace(global_rank=0, global_step=41), None)
if sys.argv[3] != "0":
    dog.peers = [watchdog.Peer(1, dog.own.host, int(sys.argv[3]))]
for _ in range(4):
    time.sleep(0.2)
    dog.on_train_batch_start(SimpleNamespace(global_step=42), None, None, 0)
    dog.on_train_batch_end(None, None, None, None, 0)
print("stuck", flush=True)
stuck()
"""


def hang(tmp_path, seconds: float, peer: int = 0) -> tuple[subprocess.CompletedProcess, float]:
    """A process that works and then hangs, and how long it took to end after that."""
    command = [sys.executable, "-c", HANGING, str(tmp_path), str(seconds), str(peer)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "stuck\n"
        began = time.monotonic()
        _, said = process.communicate(timeout=50)
    return subprocess.CompletedProcess(command, process.returncode, "", said), time.monotonic() - began


def test_a_hang_ends_with_its_stack_and_a_stopped_neighbor_is_named_and_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(90)"]) as neighbor:
        neighbor.send_signal(signal.SIGSTOP)
        ended, seconds = hang(tmp_path, 1.0, neighbor.pid)
        assert neighbor.wait(timeout=10) == -signal.SIGKILL
    assert ended.returncode == 1 and seconds < 20
    [told] = [line for line in ended.stderr.splitlines() if line.startswith("glmasr:")]
    assert "stopped after step 42: no step for" in told and f"rank 1 (process {neighbor.pid}) is stopped" in told
    assert "the same command goes on" in told and str(tmp_path / "stacks" / "rank_0.txt") in told
    assert "in stuck" in (tmp_path / "stacks" / "rank_0.txt").read_text()


def test_a_dead_neighbor_is_noticed_long_before_a_hang_would_be(tmp_path):
    neighbor = subprocess.Popen([sys.executable, "-c", ""])
    neighbor.wait()
    ended, seconds = hang(tmp_path, 600.0, neighbor.pid)
    assert ended.returncode == 1 and seconds < 20 and f"rank 1 (process {neighbor.pid}) is dead" in ended.stderr


def test_states_of_processes():
    assert Peer(0, "", os.getpid()).state() == ""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert Peer(1, "", gone.pid).state() == "is dead"


@pytest.mark.parametrize("end", ["on_train_end", "on_exception"])
def test_it_stops_watching_when_training_ends(tmp_path, end):
    from types import SimpleNamespace

    dog = Watchdog(tmp_path, 0.3)
    dog.on_train_start(SimpleNamespace(global_rank=0, global_step=0), None)
    getattr(dog, end)(*[None] * (2 if end == "on_train_end" else 3))
    time.sleep(0.8)  # this process is still here
    assert not (tmp_path / "stacks").exists()
