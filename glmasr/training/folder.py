"""A resolved config in, a run's folder out: one process' own, never two meanings in one, and done only once."""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import yaml
from pytorch_lightning.utilities import rank_zero_only

from glmasr.speech import InputError
from glmasr.training.checkpoints import origin_of
from glmasr.training.record import provenance, record

Config = dict[str, Any]

FREE_TO_CHANGE = (
    *("trainer", "logger", "overwrite", "checkpoints", "batches.workers", "batches.decoded_mb"),
    *("health", "guards", "watchdog", "resume", "ctc_weights"),
)
"""Settings an interrupted run may be resumed with a new value of; the rest decides what the numbers mean."""

RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
"""How often a job was put back into the queue, or a group of ranks started again: it goes on with what it did."""


def say(message: str) -> None:
    """One line for the person who watches."""
    print(f"glmasr: {message}", file=sys.stderr, flush=True)


class Run:
    """A folder `runs/<name>`: config.yaml, metrics.csv, checkpoints/, bundle/, and finished.json when it is done."""

    def __init__(self, config: Config):
        self.config = config
        self.folder = Path(config["run_dir"])
        self.finished_file = self.folder / "finished.json"
        self.kept = self.folder / "config.yaml"
        self.lock_file: TextIO | None = None

    def begin(self) -> bool:
        """Make the folder and keep the config in it; False where the run was finished before.

        Only one process may train in a folder; of a distributed run the first rank answers for all.
        """
        if getattr(rank_zero_only, "rank", 0):  # set from the launcher's environment
            return self.discards or not self.finished_file.exists()  # what the first rank may be discarding just now
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock()
            if self.discards:
                self.clear()
            if not self.is_open():
                self.unlock()
                return False
            staged = self.kept.with_suffix(".tmp")
            staged.write_text(yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True), encoding="utf-8")
            staged.replace(self.kept)
            record(self.folder)
        except OSError as error:
            raise InputError(
                f"cannot write to {self.folder} ({error.strerror}): choose a folder with run_dir=…"
            ) from error
        return True

    @property
    def discards(self) -> bool:
        """Whether it begins anew whatever is there: asked to, and not by a scheduler that repeats its own command."""
        return bool(self.config["overwrite"]) and not any(int(os.environ.get(name, 0)) for name in RESTARTS)

    def is_open(self) -> bool:
        """False where the run is finished; an InputError where it was begun with settings that change its meaning."""
        finished = self.finished_file.exists()
        begun = any((self.folder / "checkpoints").glob("step_*.ckpt"))
        if not self.kept.exists() or not (begun or finished):
            return True
        free = ("overwrite",) if finished else FREE_TO_CHANGE
        changes = differences(yaml.safe_load(self.kept.read_text(encoding="utf-8")), self.config)
        changes = [change for change in changes if not change.startswith(free)]
        if changes:
            what = "was finished" if finished else "was begun"
            raise InputError(
                f"{self.folder} {what} with other settings ({'; '.join(changes[:3])}): choose another name=…, "
                "or overwrite=true to discard it"
            )
        if finished:
            say(f"{self.folder} is finished, nothing to do (overwrite=true does it again)")
        return not finished

    def remembered(self, name: str) -> Any:
        """A setting's value when the run was begun, None where it was not."""
        return yaml.safe_load(self.kept.read_text(encoding="utf-8")).get(name) if self.kept.exists() else None

    def lock(self) -> None:
        """Hold the folder while this process lives; an InputError where another one does."""
        self.lock_file = (self.folder / ".lock").open("w")
        try:
            fcntl.lockf(self.lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another process is training in {self.folder}: wait for it, or choose another name=…"
            ) from error

    @cached_property
    def origin(self) -> Path | None:
        """The checkpoint it goes on from, None where it begins."""
        own = None if self.discards else self.folder / "checkpoints"
        return origin_of(self.config["resume"], own, say)

    def unlock(self) -> None:
        """Leave the folder to others."""
        if self.lock_file is not None:
            self.lock_file.close()
            (self.folder / ".lock").unlink(missing_ok=True)

    def clear(self) -> None:
        """Discard what the folder holds."""
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != ".lock":
                entry.unlink()

    def finish(self, **facts) -> None:
        """Say that nothing is left to do, and how it went."""
        staged = self.finished_file.with_suffix(".tmp")
        staged.write_text(json.dumps(facts | provenance(), indent=1))
        staged.replace(self.finished_file)
        self.unlock()


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Every leaf that differs, as `a.b: old → new`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*new, *(k for k in old if k not in new)]
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{path}.{k}".lstrip("."))]
    return [] if old == new else [f"{path}: {old} → {new}"]
