"""A signal or a time limit in; the step in flight saved and the job in SLURM's queue again, or a sentence, out."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as lightning
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.utilities import rank_zero_only

from glmasr.speech import Interrupted
from glmasr.training.callbacks import Checkpoints

NOTICES = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
"""What schedulers send before they take a machine away; which one, and whether at a time limit, is theirs to choose."""

END_SECONDS = 60.0
"""That SLURM has to end the processes of a job it was asked to begin again."""


class Preemption(lightning.Callback):
    """Any of `NOTICES`, or Ctrl-C, only sets a flag; the ranks agree on it when an optimizer step ends.

    That step is saved by `checkpoints`, which must come after this callback. Then rank 0 has SLURM requeue the job,
    unless it was canceled; elsewhere, and after Ctrl-C, `Interrupted` says that the same command goes on.
    """

    def __init__(self, checkpoints: Checkpoints):
        self.checkpoints = checkpoints
        self.heard: signal.Signals | None = None
        self.heard_at = 0.0
        self.process = 0

    def on_train_start(self, trainer, module) -> None:
        # Later than Lightning's own handlers, which would end the run without saving, and than submitit's, which
        # requeue without saving; Lightning restores the earlier ones when the fit is over.
        self.process = os.getpid()
        for number in (*NOTICES, signal.SIGINT):
            signal.signal(number, self.note)

    def note(self, number: int, frame) -> None:
        """Remember the first signal; a second Ctrl-C does not wait for the step."""
        if os.getpid() != self.process:
            end_as_others_do(number)
        if self.heard is None:
            self.heard, self.heard_at = signal.Signals(number), time.monotonic()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        if (trainer.fit_loop.total_batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            # Saving takes every rank, so one that was told to stop tells the others.
            told = self.heard is not None
            self.checkpoints.stopping = trainer.strategy.reduce_boolean_decision(told, all=False)

    def on_train_batch_start(self, trainer, module, batch, batch_index) -> None:
        # Not at the end of the step: its metrics are logged, and it is validated, only after the callbacks.
        if self.checkpoints.stopping and self.checkpoints.saved == trainer.global_step:
            self.leave(trainer)

    def leave(self, trainer) -> None:
        """Interrupted, or nothing at all where SLURM ends the process."""
        self.checkpoints.publish(trainer)
        trainer.strategy.barrier("the checkpoint is in its place")  # a rank that ends may take the others with it
        step = self.checkpoints.saved
        if self.heard is not None and trainer.is_global_zero:
            say(f"{self.heard.name}: step {step} saved {time.monotonic() - self.heard_at:.1f} s after it")
        if trainer.strategy.broadcast(trainer.is_global_zero and is_wanted_again(self.heard)):
            for logger in trainer.loggers:
                logger.finalize("interrupted")
            await_end(requeue=trainer.is_global_zero)
            raise Interrupted(f"stopped after step {step}, which is saved; {refused()}")
        raise Interrupted(f"stopped after step {step}, which is saved; the same command goes on from there")


def say(message: str) -> None:
    """One line for the person who watches."""
    print(f"glmasr: {message}", file=sys.stderr, flush=True)


@contextmanager
def attentive() -> Iterator[None]:
    """A decorator: before the first step and after the last, a notice ends the process at once; nothing is lost."""
    process = os.getpid()

    def leave(number: int, frame) -> None:
        if os.getpid() != process:
            end_as_others_do(number)
        name, first = signal.Signals(number).name, not getattr(rank_zero_only, "rank", 0)
        if job() is not None and (not first or is_wanted_again(number)):
            await_end(requeue=first)
            raise SystemExit(f"glmasr: {name} while no step was under way; {refused()}")
        raise SystemExit(f"glmasr: {name} while no step was under way; the same command goes on" if first else 0)

    before = {number: signal.signal(number, leave) for number in NOTICES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_as_others_do(number: int) -> None:
    """In a process forked from the one that was meant: what the signal does where nobody handles it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@contextmanager
def shielded() -> Iterator[None]:
    """Signals wait while loaders are begun: a child that is not yet `deaf` would end by one, and the run with it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*NOTICES, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def deaf(worker: int = 0) -> None:
    """Make a loader's process ignore what SLURM sends to all of a job, and a terminal to all of its group.

    Were it to end first, its parent could not finish the step. It ends with its parent, or when that one ends it.
    """
    ignored = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT}
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ignored)
    if hasattr(signal, "sigwaitinfo"):  # macOS has none, and no SLURM either
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        parent = os.getppid()
        while heard := signal.sigtimedwait({signal.SIGTERM}, 0):
            # One that waits already would swallow the parent's: of each kind only one is kept.
            if heard.si_pid == parent:
                os._exit(0)
        threading.Thread(target=obey, args=(parent,), daemon=True).start()


def obey(parent: int) -> None:
    """Wait for a SIGTERM that comes from `parent`, and end."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def job() -> str | None:
    """The name by which SLURM knows this job, None outside of one."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID")


def is_wanted_again(number: int | None) -> bool:
    """Whether a scheduler stopped this process, not Ctrl-C or scancel, and it can be begun again."""
    if job() is None or number == signal.SIGINT or shutil.which("scontrol") is None:
        return False
    shown = record()
    ended = shown.get("JobState") in ("COMPLETING", "CANCELLED")  # what scancel leaves, but others do too
    return not ended or shown.get("Reason") == "TimeLimit" or is_taken_back(shown)


def record() -> dict[str, str]:
    """What SLURM says of this job, {} where it does not answer."""
    command = ["scontrol", "--oneliner", "show", "job", str(job())]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return dict(field.split("=", 1) for field in shown.split() if "=" in field)


def is_taken_back(shown: dict[str, str]) -> bool:
    """Whether SLURM, which has just stopped it, means to begin this job again without being asked."""
    return int(shown.get("Restarts", 0)) > int(os.environ.get("SLURM_RESTART_COUNT", 0))


def await_end(requeue: bool) -> None:
    """Have SLURM put this job in its queue again if `requeue`; then wait for it to end the processes of all ranks.

    Returns only where it does not.
    """
    for number in (*NOTICES, signal.SIGCHLD):  # SIGCHLD: loaders that end first are no error now
        signal.signal(number, signal.SIG_DFL)
    if requeue:
        this = str(job())
        say(f"job {this} goes back into the queue")
        asked = subprocess.run(["scontrol", "requeue", this], capture_output=True, text=True, check=False)
        if asked.returncode and not is_taken_back(record()):
            say(f"scontrol requeue {this}: {asked.stderr.strip()}")
            return
    time.sleep(END_SECONDS)


def refused() -> str:
    """What to do about a job that SLURM did not take back."""
    return f"job {job()} was not taken back into the queue: submit it again, the same command goes on from there"


def cluster() -> list[SLURMEnvironment]:
    """Lightning's plugin for a process that srun started, without its own requeue, which resumes with other data."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
