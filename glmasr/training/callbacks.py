"""What happens around the steps: checkpoints, snapshots of the best weights, a metrics file, lines of progress."""

import csv
import json
import math
import os
import sys
import time
from pathlib import Path

import pytorch_lightning as lightning
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only
from safetensors.torch import load_file, save_file
from torch import Tensor

from glmasr.speech import Batch, InputError
from glmasr.training.checkpoints import found, replace_file, step_of
from glmasr.training.loggers import is_logged


class Checkpoints(lightning.Callback):
    """A resumable checkpoint every `every_steps`, the last `keep` of them kept, and one when told to stop.

    Those at a multiple of `milestone_steps` are kept for ever, beside the `keep`. `stopping` asks for one when the step
    ends. A checkpoint gets its name only when its step's row is in metrics.csv: whatever a kill leaves, the rows
    before the newest checkpoint are whole.
    """

    def __init__(self, folder: Path, every_steps: int, keep: int, milestone_steps: int | None):
        self.folder, self.every_steps, self.keep, self.milestone_steps = folder, every_steps, keep, milestone_steps
        self.stopping = False
        self.saved = -1
        self.staged: Path | None = None

    def found(self) -> list[Path]:
        """Checkpoints there are, the newest first."""
        return found(self.folder)

    def on_train_start(self, trainer, module) -> None:
        if trainer.is_global_zero:
            self.clear_away(trainer.global_step)
        agreed = trainer.strategy.broadcast(trainer.global_step)
        if agreed != trainer.global_step:
            raise InputError(
                f"rank {trainer.global_rank} resumed from step {trainer.global_step}, rank 0 from step {agreed}: the "
                f"machines do not see the same files in {self.folder}; choose a shared folder with run_dir=…"
            )

    def on_load_checkpoint(self, trainer, module, checkpoint) -> None:
        """Count batches as this run does: with fewer devices a step takes more of them on each."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            more = checkpoint["global_step"] * trainer.accumulate_grad_batches - counts["ready"]
            counts.update({name: count + more for name, count in counts.items()})

    def clear_away(self, step: int) -> None:
        """Remove what a kill left unfinished, and set aside what is newer than `step` and could not be read."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for staged in self.folder.glob("step_*.tmp"):
            staged.unlink()
        for passed_over in self.found():
            if step_of(passed_over) > step:
                passed_over.replace(passed_over.with_suffix(".unread"))

    def on_train_batch_start(self, trainer, module, batch, batch_index) -> None:
        # Not at the end of the step: its metrics are logged, and it is validated, only after the callbacks.
        self.publish(trainer)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        done = trainer.fit_loop.total_batch_idx + 1
        if done % trainer.accumulate_grad_batches:
            return  # half an optimizer step cannot be resumed
        if not (trainer.enable_validation and done % (trainer.val_check_batch or math.inf) == 0):
            self.save_if_due(trainer)

    def on_validation_end(self, trainer, module) -> None:
        """A step that is validated is saved afterwards, or a resumed run would miss the validation."""
        if (trainer.fit_loop.total_batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.save_if_due(trainer)

    def save_if_due(self, trainer) -> None:
        step = trainer.global_step
        due = step % self.every_steps == 0 or step == trainer.max_steps or self.stopping
        if due and step != self.saved:
            self.save(trainer, step)

    def save(self, trainer, step: int) -> None:
        """Write the step's checkpoint beside its place; every rank takes part."""
        self.staged = self.folder / f"step_{step:09d}.tmp"
        trainer.save_checkpoint(self.staged)
        self.saved = step

    def publish(self, trainer) -> None:
        """Put what was saved in its place, now that the step is logged, and rotate."""
        staged, self.staged = self.staged, None
        if staged is None or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.flush()
        replace_file(staged, staged.with_suffix(".ckpt"))
        self.rotate(self.keep)

    def rotate(self, keep: int) -> None:
        """Delete all but the newest `keep` and the milestones."""
        for old in [path for path in self.found() if not self.is_milestone(step_of(path))][keep:]:
            old.unlink()

    def is_milestone(self, step: int) -> bool:
        return self.milestone_steps is not None and step % self.milestone_steps == 0

    def on_train_end(self, trainer, module) -> None:
        """Nothing is resumed from here on but the last step; Interrupted and errors do not come here."""
        self.publish(trainer)
        if trainer.is_global_zero:
            self.rotate(keep=1)


class Snapshots(lightning.Callback):
    """Weights of the `keep` validations with the lowest `metric`, as safetensors, for the best and averaged bundle."""

    def __init__(self, folder: Path, metric: str, keep: int):
        self.folder, self.metric, self.keep = folder, metric, keep

    def ranking(self) -> list[tuple[float, int]]:
        """(metric, step), the best first; among equals the later."""
        path = self.folder / "snapshots.json"
        return [tuple(entry) for entry in json.loads(path.read_text())] if path.exists() else []

    def path(self, step: int) -> Path:
        return self.folder / f"snapshot_{step:09d}.safetensors"

    def on_validation_end(self, trainer, module) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        step, value = trainer.global_step, float(trainer.callback_metrics[self.metric])
        others = [entry for entry in self.ranking() if entry[1] != step]
        ranking = sorted([*others, (value, step)], key=lambda entry: (entry[0], -entry[1]))
        if (value, step) in ranking[: self.keep]:
            self.folder.mkdir(parents=True, exist_ok=True)
            staged = self.path(step).with_suffix(".tmp")
            save_file({k: v.detach().cpu().contiguous() for k, v in module.recognizer.state_dict().items()}, staged)
            replace_file(staged, self.path(step))
        staged = self.folder / "snapshots.tmp"
        staged.write_text(json.dumps(ranking[: self.keep]))
        replace_file(staged, self.folder / "snapshots.json")
        for _, old in ranking[self.keep :]:
            self.path(old).unlink(missing_ok=True)

    def kept(self) -> list[dict[str, Tensor]]:
        """The kept weights, the best validation's first."""
        return [load_file(self.path(step)) for _, step in self.ranking()]


class Throughput(lightning.Callback):
    """Logs seconds of real audio trained on per second, since this process started training."""

    def __init__(self):
        self.audio_seconds, self.started = 0.0, 0.0

    def on_train_batch_start(self, trainer, module, batch: Batch, batch_index) -> None:
        self.started = self.started or time.perf_counter()

    def on_train_batch_end(self, trainer, module, outputs, batch: Batch, batch_index) -> None:
        self.audio_seconds += batch.seconds
        if is_logged(trainer, trainer.global_step):
            speed = self.audio_seconds * trainer.world_size / (time.perf_counter() - self.started)
            module.log("train/audio_seconds_per_second", speed, prog_bar=True)


class Lines(lightning.Callback):
    """One line of progress now and then, where there is no terminal for a bar."""

    def __init__(self, every_steps: int):
        self.every_steps = every_steps

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        if trainer.global_step % self.every_steps == 0 and trainer.is_global_zero:
            self.say(trainer, "train/")

    def on_validation_end(self, trainer, module) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            self.say(trainer, "dev/")

    def say(self, trainer, prefix: str) -> None:
        metrics = trainer.callback_metrics.items()
        shown = "  ".join(f"{k.removeprefix(prefix)} {float(v):.4g}" for k, v in metrics if k.startswith(prefix))
        print(f"{prefix[:-1]} step {trainer.global_step}/{trainer.max_steps}  {shown}", file=sys.stderr, flush=True)


class MetricsFile(Logger):
    """One row per logged step in metrics.csv. A resumed run drops the rows it is about to write again."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.columns: list[str] = []
        self.opened = False

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args, **kwargs) -> None:
        """config.yaml in the run folder says it all."""

    @rank_zero_only
    def log_metrics(self, metrics, step=None) -> None:
        step = step or 0
        row = {"step": step} | {k: f"{float(v):.6g}" for k, v in metrics.items() if k != "epoch"}
        kept = [] if self.opened else self.read(before=step)
        new = [column for column in row if column not in self.columns]
        if new or not self.opened:
            kept = kept if not self.opened else self.read()
            self.columns += new
            staged = self.path.with_suffix(".tmp")
            with staged.open("w", newline="") as file:
                writer = csv.DictWriter(file, self.columns)
                writer.writeheader()
                writer.writerows(kept)
            replace_file(staged, self.path)
            self.opened = True
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def flush(self) -> None:
        """Bring the rows so far to the disk itself, so that a power cut leaves them too."""
        if self.path.exists():
            with self.path.open("rb") as written:
                os.fsync(written.fileno())

    def read(self, before: int | None = None) -> list[dict[str, str]]:
        """Rows so far, without a last one that was not finished; the header's columns are learned on the way."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            lines = file.readlines()
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
        reader = csv.DictReader(lines)
        rows = list(reader)
        self.columns = list(reader.fieldnames or [])
        return [row for row in rows if before is None or int(row["step"]) < before]
