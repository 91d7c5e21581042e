"""A hundred thousand steps of next to nothing in; memory, open files and kept checkpoints along the way out.

python benchmarks/steps.py [--steps 100000] [--json FILE]

What a training of weeks keeps around its steps, metrics, guards, watchdog and rotating checkpoints, and no model to
speak of: whatever grows here grows with every step. The slope is fitted to the second half.
"""

import argparse
import json
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytorch_lightning as lightning
import torch
from torch.utils.data import DataLoader, IterableDataset

from glmasr.evaluation.report import surroundings
from glmasr.speech import Batch
from glmasr.training.callbacks import Checkpoints, MetricsFile
from glmasr.training.checkpoints import Written, found
from glmasr.training.guards import Guards
from glmasr.training.run import quiet_lightning
from glmasr.training.watchdog import Watchdog

LOOKS, KEPT = 20, 3
BATCH = Batch(torch.ones(2, 4), torch.tensor([4, 3]), None, None, None, ("a", "b"), (None, None), 1)


class Endless(IterableDataset):
    """The same batch for ever."""

    def __iter__(self):
        while True:
            yield BATCH


class Weight(lightning.LightningModule):
    """Four numbers that are trained."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))

    def training_step(self, batch, index):
        loss = (self.weight * batch.waveform).square().mean()
        self.log("train/loss", loss.detach())
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=True)


class Look(lightning.Callback):
    """Notes (step, megabytes, open files, checkpoints) now and then."""

    def __init__(self, every: int, checkpoints: Path):
        self.every, self.checkpoints = every, checkpoints
        self.seen: list[tuple[int, float, int, int]] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
        if trainer.global_step % self.every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            megabytes = pages * os.sysconf("SC_PAGESIZE") / 2**20
            files = len(os.listdir("/proc/self/fd"))
            self.seen.append((trainer.global_step, round(megabytes, 1), files, len(found(self.checkpoints))))
            print("step {:7}   {:7.1f} MB   {} open files   {} checkpoints".format(*self.seen[-1]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    quiet_lightning()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        look = Look(max(1, asked.steps // LOOKS), home / "checkpoints")
        keeping = [
            Guards(home, 5, None, 3),
            Watchdog(home, 600),
            look,
            Checkpoints(home / "checkpoints", 100, KEPT, None),
        ]
        lightning.Trainer(
            max_steps=asked.steps,
            max_epochs=-1,
            accelerator="cpu",
            logger=MetricsFile(home / "metrics.csv"),
            log_every_n_steps=10,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[Written()],
            callbacks=keeping,
        ).fit(Weight(), DataLoader(Endless(), batch_size=None))
    late = np.array(look.seen[len(look.seen) // 2 :])
    slope = float(np.polyfit(late[:, 0], late[:, 1], 1)[0]) * 1e6
    print(f"{slope:+.2f} MB in a million steps, {time.monotonic() - began:.0f} s")
    if asked.json:
        facts = {"megabytes_per_million_steps": slope, "looks": look.seen}
        asked.json.write_text(json.dumps(surroundings() | facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
