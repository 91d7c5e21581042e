"""Trainings in, finished run folders out: processes side by side, each after what it starts from, stopped together."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from glmasr.evaluation.results import write_json
from glmasr.speech import InputError

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Stage:
    """One training: scripts/<verb>.py with overrides. `source` is the bundle it starts or learns from, `needs` the
    stage that makes that bundle, None where another sweep did."""

    verb: str
    name: str
    folder: Path
    overrides: tuple[str, ...]
    source: Path | None = None
    needs: str | None = None


def train(stages: Sequence[Stage], logs: Path, jobs: int, threads: int) -> Iterator[Stage]:
    """Each stage when it is done, `jobs` at a time; where one fails, or the sweep is stopped, the others save and end.

    A run that was begun is resumed, and one that is finished with the same settings ends at once: that is their own
    business. InputError with the last line printed where one fails.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting, ahead = list(stages), {stage.name for stage in stages}
    running: dict[str, tuple[Stage, subprocess.Popen]] = {}
    try:
        while waiting or running:
            for stage in [stage for stage in waiting if stage.needs not in ahead][: jobs - len(running)]:
                waiting.remove(stage)
                running[stage.name] = stage, start(stage, log_of(stage, logs), threads)
            time.sleep(0.1)
            for stage, process in [entry for entry in running.values() if entry[1].poll() is not None]:
                del running[stage.name]
                check_end(stage, process, log_of(stage, logs))
                ahead.remove(stage.name)
                yield stage
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()


def start(stage: Stage, log: Path, threads: int) -> subprocess.Popen:
    """The stage as a process out of reach of Ctrl-C: told twice to stop it would not save, so only we tell it."""
    command = [sys.executable, str(REPOSITORY / "scripts" / f"{stage.verb}.py"), *stage.overrides]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with log.open("a", encoding="utf-8") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, env=environment, start_new_session=True)


def check_end(stage: Stage, process: subprocess.Popen, log: Path) -> None:
    """Note what a finished run was made from; an InputError where it failed."""
    if process.returncode:
        last = (log.read_text(encoding="utf-8").strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"{stage.name} failed: {last} (all it said: {log})")
    write_json(stage.folder / "stage.json", state(stage))


def is_done(stage: Stage) -> bool:
    """Whether the run is finished, and its overrides, conf/ and its source are as they were then."""
    noted, finished = stage.folder / "stage.json", stage.folder / "finished.json"
    return noted.exists() and finished.exists() and json.loads(noted.read_text(encoding="utf-8")) == state(stage)


def state(stage: Stage) -> dict:
    """What a run depends on, cheap to tell; whether a change of it matters is for the run itself to say."""
    files = sorted(path for path in (REPOSITORY / "conf").rglob("*.yaml") if "experiment" not in path.parts)
    weights = stage.source / "weights.safetensors" if stage.source else None
    return {
        "overrides": list(stage.overrides),
        "conf": hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16],
        "source": [weights.stat().st_size, weights.stat().st_mtime_ns] if weights and weights.exists() else None,
    }


def log_of(stage: Stage, logs: Path) -> Path:
    """Where everything goes that a stage says."""
    return logs / f"{stage.name.replace('/', '.')}.log"
