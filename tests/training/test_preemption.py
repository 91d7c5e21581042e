"""A signal asks for one more step, which is saved; SLURM is asked to begin the job again, but not after scancel."""

import os
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest

from glmasr.speech import Interrupted
from glmasr.training import preemption
from glmasr.training.preemption import (
    NOTICES,
    Preemption,
    attentive,
    await_end,
    cluster,
    deaf,
    is_wanted_again,
    job,
    shielded,
)


@pytest.fixture(autouse=True)
def undone(monkeypatch):
    """Nobody's job, and every signal as it was."""
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    numbers = (*NOTICES, signal.SIGINT, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Slurm:
    """A `scontrol` that shows a job as it is told, and writes down what it is asked."""

    def __init__(self, folder):
        self.folder = folder
        program = folder / "scontrol"
        program.write_text(
            f'#!/bin/sh\ncase "$*" in *show*) cat {folder}/job;; *) echo "$*" >> {folder}/asked; '
            f'test ! -e {folder}/refuses || {{ echo "not enabled" >&2; exit 1; }};; esac\n'
        )
        program.chmod(0o755)
        self.shows("RUNNING")

    def shows(self, state: str, reason: str = "None", restarts: int = 0) -> None:
        text = f"JobId=7 JobName=a b=c JobState={state} Reason={reason} Requeue=1 Restarts={restarts} ExitCode=0:0\n"
        (self.folder / "job").write_text(text)

    def asked(self) -> list[str]:
        path = self.folder / "asked"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Slurm:
    """This process is job 7, and nobody ends it."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(preemption, "END_SECONDS", 0.0)
    return Slurm(tmp_path)


class Ranks:
    """A strategy of one rank, or one of several of which others were told to stop."""

    def __init__(self, others_told=False):
        self.others_told, self.done = others_told, []

    def reduce_boolean_decision(self, told, all):
        assert not all
        return told or self.others_told

    def barrier(self, name):
        self.done.append("barrier")

    def broadcast(self, value):
        self.done.append("broadcast")
        return value


@pytest.fixture
def trainer():
    """A trainer whose step 5 ends with each batch."""
    loop = SimpleNamespace(total_batch_idx=4)
    loggers = [SimpleNamespace(finalize=lambda status: None)]
    parts = {"fit_loop": loop, "loggers": loggers, "is_global_zero": True, "strategy": Ranks()}
    return SimpleNamespace(global_step=5, accumulate_grad_batches=1, **parts)


@pytest.fixture
def saving():
    """Checkpoints of which step 5 is saved as soon as one is wanted, and in its place when it is published."""
    done = []
    return SimpleNamespace(stopping=False, saved=5, published=done, publish=lambda trainer: done.append("published"))


def notified(trainer, saving, number=None) -> Preemption:
    """The callback after it heard `number` in the midst of step 5."""
    callback = Preemption(saving)
    callback.on_train_start(trainer, None)
    if number is not None:
        os.kill(os.getpid(), number)
    callback.on_train_batch_end(trainer, None, None, None, 4)
    return callback


@pytest.mark.parametrize("number", [*NOTICES, signal.SIGINT])
def test_each_signal_waits_for_the_step_and_says_how_to_go_on(trainer, saving, capsys, number):
    callback = notified(trainer, saving, number)
    assert saving.stopping and not saving.published
    with pytest.raises(Interrupted, match="stopped after step 5, which is saved; the same command goes on from there"):
        callback.on_train_batch_start(trainer, None, None, 5)
    assert saving.published and trainer.strategy.done[0] == "barrier"
    assert f"glmasr: {number.name}: step 5 saved 0.0 s after it" in capsys.readouterr().err


def test_nothing_stops_a_run_that_nobody_signals(trainer, saving):
    callback = notified(trainer, saving)
    callback.on_train_batch_start(trainer, None, None, 5)
    assert not saving.stopping


def test_one_rank_tells_the_others_and_only_when_a_step_is_whole(trainer, saving):
    trainer.strategy = Ranks(others_told=True)
    trainer.accumulate_grad_batches = 2
    callback = notified(trainer, saving)  # batch 5 of 6: half a step
    assert not saving.stopping
    trainer.fit_loop.total_batch_idx = 5
    callback.on_train_batch_end(trainer, None, None, None, 5)
    assert saving.stopping
    saving.saved = 4  # a step that is validated first is saved later
    callback.on_train_batch_start(trainer, None, None, 6)


def test_only_a_second_ctrl_c_does_not_wait(trainer, saving):
    callback = notified(trainer, saving, signal.SIGTERM)
    callback.note(signal.SIGTERM, None)
    with pytest.raises(KeyboardInterrupt):
        callback.note(signal.SIGINT, None)


def test_a_job_goes_back_into_the_queue(trainer, saving, slurm, capsys):
    callback = notified(trainer, saving, signal.SIGUSR2)
    with pytest.raises(Interrupted, match="job 7 was not taken back into the queue: submit it again"):
        callback.on_train_batch_start(trainer, None, None, 5)  # had SLURM ended it, it would not come here
    assert slurm.asked() == ["requeue 7"] and "job 7 goes back into the queue" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL


def test_only_the_first_rank_asks(trainer, saving, slurm):
    trainer.is_global_zero = False
    trainer.strategy.broadcast = lambda value: True
    callback = notified(trainer, saving, signal.SIGUSR1)
    with pytest.raises(Interrupted):
        callback.on_train_batch_start(trainer, None, None, 5)
    assert slurm.asked() == []


def test_whether_a_job_is_wanted_again(slurm, monkeypatch):
    assert is_wanted_again(signal.SIGTERM) and is_wanted_again(None) and not is_wanted_again(signal.SIGINT)
    slurm.shows("COMPLETING")  # scancel
    assert not is_wanted_again(signal.SIGTERM)
    slurm.shows("COMPLETING", "TimeLimit")
    assert is_wanted_again(signal.SIGTERM)
    slurm.shows("COMPLETING", restarts=1)  # preempted: SLURM means to begin it again
    assert is_wanted_again(signal.SIGTERM)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # the time before
    assert not is_wanted_again(signal.SIGTERM)
    monkeypatch.delenv("SLURM_JOB_ID")
    assert not is_wanted_again(signal.SIGTERM)


def test_a_refusal_is_passed_on(slurm, capsys):
    (slurm.folder / "refuses").touch()
    await_end(requeue=True)
    assert "scontrol requeue 7: not enabled" in capsys.readouterr().err


def test_a_job_of_an_array_is_not_the_array(monkeypatch):
    assert job() is None
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    assert job() == "9"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "9")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert job() == "9_1"


def test_while_no_step_is_under_way_a_notice_ends_the_process(slurm, monkeypatch, capsys):
    before = [signal.getsignal(number) for number in NOTICES]

    @attentive()
    def preparing():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(5)

    with pytest.raises(SystemExit, match="was not taken back"):
        preparing()
    assert slurm.asked() == ["requeue 7"]
    monkeypatch.delenv("SLURM_JOB_ID")
    with pytest.raises(SystemExit, match="SIGUSR1 while no step was under way; the same command goes on"):
        preparing()
    assert [signal.getsignal(number) for number in NOTICES] == before


def test_a_forked_process_ends_as_others_do():
    @attentive()
    def fork() -> int:
        child = os.fork()
        if not child:
            time.sleep(10)
            os._exit(0)
        time.sleep(0.1)
        os.kill(child, signal.SIGTERM)  # what a pool of processes does when it is closed
        return os.waitpid(child, 0)[1]

    assert os.WTERMSIG(fork()) == signal.SIGTERM


def test_a_loader_hears_its_parent_only():
    ready, told = os.pipe()
    with shielded():  # as loaders begin: threads that a library starts in a forked process are deaf only so
        loader = os.fork()
        if not loader:
            deaf()
            os.write(told, b"!")
            time.sleep(20)
            os._exit(1)
    assert os.read(ready, 1)
    for number in (*NOTICES, signal.SIGINT):
        subprocess.run(["/bin/kill", f"-{int(number)}", str(loader)], check=True)
    time.sleep(0.2)
    assert os.waitpid(loader, os.WNOHANG) == (0, 0)
    os.kill(loader, signal.SIGTERM)
    assert os.waitpid(loader, 0)[1] == 0


def test_no_signal_ends_a_loader_before_it_is_deaf():
    ready, told = os.pipe()
    with shielded():
        loader = os.fork()
        if not loader:
            for number in (*NOTICES, signal.SIGINT):
                subprocess.run(["/bin/kill", f"-{int(number)}", str(os.getpid())], check=True)
            deaf()
            os.write(told, b"!")
            time.sleep(20)
            os._exit(1)
        os.close(told)
    assert os.read(ready, 1) and os.waitpid(loader, os.WNOHANG) == (0, 0)
    os.kill(loader, signal.SIGTERM)
    assert os.waitpid(loader, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:The `srun` command")
def test_lightning_does_not_requeue_by_itself(monkeypatch):
    assert cluster() == []
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "pretrain")
    assert [environment.auto_requeue for environment in cluster()] == [False]
