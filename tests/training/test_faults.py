"""What ends a training from outside is told in one sentence; what is ours to mend is not hidden."""

import errno

import pytest
import torch

from glmasr.training.faults import explained


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OSError(errno.ENOSPC, "x", "/r/step.tmp"),
            "no room to write /r/step.tmp (No space left on device): free some",
        ),
        (OSError(errno.ENOSPC, "x"), "no room to write /r (No space left"),
        (NotADirectoryError(errno.ENOTDIR, "x", "/r/c"), "/r/c cannot be used (Not a directory): see to it, or choose"),
        (
            RuntimeError("DataLoader worker (pid 71) is killed by signal: Killed. Details: …"),
            "a process that loads data (71) is killed by signal: Killed; most often memory ran out: take fewer batches",
        ),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "data (7, 8) exited unexpectedly; most"),
        (RuntimeError("[gloo/pair.cc:561] Connection closed by peer [127.0.0.1]:5"), "rank 1 lost another process"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "rank 1 lost another process of this run"),
    ],
)
def test_what_comes_from_outside(error, told, tmp_path):
    sentence = explained(error, "/r", rank=1, world=2)
    assert told in sentence and sentence.endswith("the same command goes on from the last checkpoint")
    assert "\n" not in sentence


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), KeyError("a"), ValueError()])
def test_what_is_ours(error):
    assert explained(error, "/r", rank=0, world=2) is None


def test_alone_nobody_is_lost():
    assert explained(RuntimeError("Connection closed by peer"), "/r", rank=0, world=1) is None


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError()])
def test_a_loader_that_dies_in_the_midst_of_a_batch_is_told_of_too(error):
    assert "take fewer batches.workers" in (explained(error, "/r", rank=0, world=1) or "")
    assert "take fewer batches.workers" not in (explained(error, "/r", rank=0, world=2) or "")


def test_a_loader_that_dies_while_a_checkpoint_is_written_is_told_of_too(tmp_path):
    class Disk:
        def write(self, data):
            raise RuntimeError("DataLoader worker (pid 71) is killed by signal: Killed.")

    with pytest.raises(RuntimeError, match=r"unexpected pos|Killed") as caught:
        torch.save({"a": torch.zeros(9)}, Disk())
    assert "data (71) is killed by signal: Killed; most" in (explained(caught.value, tmp_path, rank=0, world=1) or "")
