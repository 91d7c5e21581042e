"""Sweeps: each training after what it starts from, so many at a time, stopped together, noted when done."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glmasr.evaluation import sweep
from glmasr.evaluation.sweep import Stage, is_done, state, train
from glmasr.speech import InputError

TRAINING = """
import pathlib, sys, time, signal
folder, seconds, code = pathlib.Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
folder.mkdir(parents=True, exist_ok=True)
def stop(*_):
    (folder / "saved").write_text("")
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
(folder / "began").write_text(str(time.time()))
time.sleep(seconds)
(folder / "ended").write_text(str(time.time()))
(folder / "finished.json").write_text("{}")
print("glmasr: the last line")
sys.exit(code)
"""


@pytest.fixture
def trainings(monkeypatch):
    """Stages whose overrides are [seconds, exit code], run as processes that do nothing else."""

    def start(stage: Stage, log: Path, threads: int) -> subprocess.Popen:
        with log.open("a") as said:
            command = [sys.executable, "-c", TRAINING, str(stage.folder), *stage.overrides]
            return subprocess.Popen(command, stdout=said, stderr=said)

    monkeypatch.setattr(sweep, "start", start)


def stage(home: Path, name: str, seconds: float = 0.3, code: int = 0, needs: str | None = None) -> Stage:
    return Stage("finetune", name, home / name, (str(seconds), str(code)), needs=needs)


def times(stage: Stage) -> tuple[float, float]:
    return float((stage.folder / "began").read_text()), float((stage.folder / "ended").read_text())


def test_a_stage_waits_for_what_it_needs_and_others_do_not(tmp_path, trainings):
    stages = [stage(tmp_path, "b", needs="a"), stage(tmp_path, "a", 0.6), stage(tmp_path, "c", needs="elsewhere")]
    done = [one.name for one in train(stages, tmp_path / "logs", 2, 1)]
    assert done == ["c", "a", "b"]
    b, a, c = map(times, stages)
    assert b[0] > a[1] and c[0] < a[1]


@pytest.mark.parametrize("jobs", [1, 3])
def test_so_many_train_at_a_time(tmp_path, trainings, jobs):
    stages = [stage(tmp_path, name, 0.5) for name in "abcd"]
    assert len(list(train(stages, tmp_path / "logs", jobs, 1))) == 4
    spans = [times(one) for one in stages]
    together = max(sum(begin <= other[0] < end for begin, end in spans) for other in spans)
    assert together == jobs


def test_where_one_fails_the_others_save_and_end(tmp_path, trainings):
    stages = [stage(tmp_path, "long", 60), stage(tmp_path, "bad", 0.5, 1), stage(tmp_path, "next")]
    with pytest.raises(InputError, match="bad failed: glmasr: the last line"):
        list(train(stages, tmp_path / "logs", 2, 1))
    assert (tmp_path / "long" / "saved").exists() and not (tmp_path / "next").exists()
    assert not is_done(stages[1])


def test_who_watches_can_stop_it(tmp_path, trainings):
    going = train([stage(tmp_path, "short"), stage(tmp_path, "long", 60)], tmp_path / "logs", 2, 1)
    assert next(going).name == "short"
    while not (tmp_path / "long" / "began").exists():
        time.sleep(0.01)
    going.close()
    assert (tmp_path / "long" / "saved").exists()


def test_a_stage_is_done_until_something_it_depends_on_changes(tmp_path, trainings):
    source = tmp_path / "bundle"
    source.mkdir()
    (source / "weights.safetensors").write_bytes(b"1")
    one = Stage("finetune", "a", tmp_path / "a", ("0", "0"), source)
    assert not is_done(one)
    list(train([one], tmp_path / "logs", 1, 1))
    assert is_done(one)
    assert not is_done(Stage("finetune", "a", tmp_path / "a", ("0", "0", "more=1"), source))
    (source / "weights.safetensors").write_bytes(b"22")
    assert not is_done(one)
    assert json.loads((tmp_path / "a" / "stage.json").read_text()) != state(one)
