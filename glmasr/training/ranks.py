"""A command in; a process of it for each device of this machine, that are told, fail and end together, out."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

FORWARDED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)

GRACE_SECONDS = 15.0
"""That the others have to say why they cannot go on, after one failed; then they are killed."""


def ranks_to_start(trainer: dict[str, Any]) -> int:
    """How many processes a trainer wants on this machine; 1 as well where srun, torchrun or `spread` started them.

    InputError where several machines shall train and nobody has started a process on each.
    """
    if "LOCAL_RANK" in os.environ or "SLURM_STEP_ID" in os.environ:
        return 1
    if trainer["num_nodes"] > 1:
        from glmasr.speech import InputError  # torch comes with it, and this process may only wait

        raise InputError(
            f"trainer.num_nodes={trainer['num_nodes']}, but nobody starts a process on each: add hydra/launcher=slurm, "
            "or use srun or torchrun"
        )
    devices = trainer["devices"]
    if str(devices) in ("-1", "auto"):
        if trainer["accelerator"] == "cpu":
            return 1
        import torch

        return max(1, torch.cuda.device_count())
    if isinstance(devices, int):
        return devices
    return len(str(devices).strip("[], ").split(","))  # GPUs by their numbers


def spread(command: Sequence[str], ranks: int) -> int:
    """Run `command` as ranks 0 to `ranks` - 1 of a group; the exit code of the first to fail, 0 where none does.

    What this process is signaled, they are; where it is killed, they get SIGTERM.
    """
    group = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
    for name in ("SLURM_NTASKS", "SUBMITIT_EXECUTOR"):  # by which they would be taken for a launcher's own processes
        group.pop(name, None)
    started: list[subprocess.Popen] = []

    def forward(number: int, frame) -> None:
        for process in started:
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # until there are all whom it concerns
        for rank in range(ranks):
            place = {"NODE_RANK": "0", "LOCAL_RANK": str(rank)}
            # A session of their own: a terminal's Ctrl-C comes once, from here.
            options = {"start_new_session": True, "preexec_fn": begin}
            started.append(subprocess.Popen(command, env=group | place, **options))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        return wait(started)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        for process in started:
            process.kill()
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def wait(started: Sequence[subprocess.Popen]) -> int:
    """Wait for all of them, after a failure only for so long; the first failure's exit code."""
    failed, deadline = 0, float("inf")
    while time.monotonic() < deadline:
        codes = [process.poll() for process in started]
        if not failed:
            failed = next((code for code in codes if code), 0)
            deadline = time.monotonic() + GRACE_SECONDS if failed else deadline
        if None not in codes:
            break
        time.sleep(0.1)
    return failed if failed >= 0 else 128 - failed


def begin() -> None:
    """In a new process: hear signals, and ask Linux for a SIGTERM when the process that started this one is gone."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
