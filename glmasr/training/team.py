"""A pretraining's config and a number of ranks in, its processes on this machine out, to be watched and struck."""

import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from glmasr.speech import InputError, Interrupted
from glmasr.training.ranks import free_port

PRELOADED = ["torch", "datasets", "pytorch_lightning", "glmasr.training.run", "glmasr.model.encoder", "tensorboard"]
"""Imported once by a server that forks the ranks: to start again after a kill takes a second, not ten."""


class Team:
    """The ranks of one gloo run, started as torchrun would; what they say goes to `log`."""

    def __init__(self, config: dict[str, Any], ranks: int, log: Path):
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        settings = config | {"trainer": config["trainer"] | {"devices": ranks}}
        if ranks > 1 and settings["trainer"]["strategy"] == "auto":
            settings["trainer"]["strategy"] = "ddp"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        port = free_port()
        self.processes: list[BaseProcess] = []
        for rank in range(ranks):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1"}
            variables = {name: str(value) for name, value in (place | {"MASTER_PORT": port}).items()}
            process = context.Process(target=work, args=(settings, variables if ranks > 1 else {}, str(log)))
            process.start()
            self.processes.append(process)

    def strike(self, rank: int, number: signal.Signals) -> None:
        """Send a signal to one rank."""
        pid = self.processes[rank].pid
        assert pid is not None
        os.kill(pid, number)

    def wait(self, seconds: float) -> list[int]:
        """Exit codes by rank, negative for signals; an InputError, and SIGKILL, where one has not ended in time."""
        end = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        left = [rank for rank, process in enumerate(self.processes) if process.exitcode is None]
        for rank in left:
            self.processes[rank].kill()
            self.processes[rank].join()
        if left:
            raise InputError(f"rank {left[0]} had not ended after {seconds:g} s; what it said is in {self.log}")
        return [process.exitcode or 0 for process in self.processes]

    def is_running(self) -> bool:
        """Whether any rank is."""
        return any(process.exitcode is None for process in self.processes)


def work(config: dict[str, Any], variables: dict[str, str], log: str) -> None:
    """One rank, from the server's fork to its end; exit code 1 and a sentence in the log where it fails."""
    os.environ.update(variables)
    multiprocessing.set_start_method("fork", force=True)  # of loader processes, as in a run that a shell started
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    from pytorch_lightning.utilities import rank_zero_only

    from glmasr.training import run

    vars(rank_zero_only)["rank"] = int(variables.get("RANK", 0))  # Lightning read the server's
    run.torch.set_num_threads(1)
    try:
        run.pretrain(config)
    except (InputError, Interrupted) as error:
        print(f"glmasr: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
