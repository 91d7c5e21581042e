"""A checkpoint that is not every bit as it was written is never resumed from; the one before it is."""

import errno
import random

import pytest
import torch

from glmasr.speech import InputError
from glmasr.training.chaos import equal
from glmasr.training.checkpoints import (
    FORMAT,
    MARK,
    Damaged,
    Written,
    check,
    found,
    origin_of,
    readable,
    replace_file,
    step_of,
)

STATE = {"state_dict": {"a": torch.arange(600.0), "b": torch.ones(3)}, "global_step": 7, "loops": {"x": [1, "two"]}}


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of steps 1, 2 and 3, the newest first."""
    for step in (1, 2, 3):
        Written().save_checkpoint(STATE | {"global_step": step}, tmp_path / f"step_{step:09d}.ckpt")
    return found(tmp_path)


def test_what_was_written_is_whole_and_ordered(saved):
    assert [step_of(path) for path in saved] == [3, 2, 1] and all(check(path) is None for path in saved)
    assert readable(saved, pytest.fail) == saved[0]


def test_any_flipped_bit_is_found_or_changes_nothing(saved):
    """1,500 of them, anywhere in the file: headers, names, tensors, the pickle."""
    raw, draw, unseen = saved[0].read_bytes(), random.Random(0), 0
    for _ in range(1500):
        flipped = bytearray(raw)
        flipped[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        saved[0].write_bytes(flipped)
        try:
            check(saved[0])
        except Damaged:
            continue
        unseen += 1
        read = torch.load(saved[0], weights_only=True)
        assert equal({name: read[name] for name in STATE}, STATE | {"global_step": 3})
    assert unseen < 400  # padding and dates, much of so small a file


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "not a zip file"),
        (lambda path: path.write_bytes(b""), "not a zip file"),
        (lambda path: torch.save(STATE | {MARK: FORMAT + 1}, path), f"format {FORMAT + 1}, this glmasr reads {FORMAT}"),
    ],
)
def test_a_damaged_or_future_one_gives_way_to_the_one_before(saved, spoil, told):
    said = []
    spoil(saved[0])
    assert readable(saved, said.append) == saved[1]
    assert len(said) == 1 and told in said[0] and str(saved[0]) in said[0] and "trying the one before" in said[0]


def test_what_was_not_finished_is_no_checkpoint(saved, tmp_path):
    (tmp_path / "step_000000009.tmp").write_bytes(b"half")
    assert found(tmp_path) == saved


def test_a_full_disk_is_an_error_of_the_system_and_leaves_nothing(tmp_path, monkeypatch):
    """torch speaks of positions in the file; the limit on a file's size stands for the disk's."""
    import resource
    import signal

    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError) as error:
            Written().save_checkpoint({"a": torch.zeros(1_000_000)}, tmp_path / "step_000000001.tmp")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert error.value.errno == errno.EFBIG and error.value.filename == str(tmp_path / "step_000000001.tmp")
    assert not list(tmp_path.iterdir())


def test_replacing_leaves_one_file(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "a.tmp").write_text("new")
    replace_file(tmp_path / "a.tmp", tmp_path / "a")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new"}


def test_where_a_run_goes_on(saved, tmp_path):
    empty, said = tmp_path / "other" / "checkpoints", []
    assert origin_of("auto", tmp_path, said.append) == saved[0]
    assert origin_of("auto", empty) is None and origin_of("never", empty) is None
    assert origin_of(str(saved[1]), empty) == saved[1]  # another run's
    assert origin_of(str(empty / "step_000000001.ckpt"), tmp_path) == saved[0]  # its own come first
    with pytest.raises(InputError, match=r"resume=never, but .* was begun already and is at step 3"):
        origin_of("never", tmp_path)
    with pytest.raises(InputError, match=r"resume=yes is neither auto, never nor a checkpoint"):
        origin_of("yes", empty)
    for path in saved:
        path.write_bytes(b"")
    assert origin_of("auto", tmp_path, said.append) is None and "beginning again at step 0" in said[-1]
