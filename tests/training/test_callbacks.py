"""What surrounds the steps survives a stop at any moment."""

import csv
import json
import os
import signal
from types import SimpleNamespace

import pytest
import pytorch_lightning as lightning
import torch
from torch.utils.data import DataLoader

from glmasr.speech import InputError, Interrupted
from glmasr.training.callbacks import Checkpoints, Lines, MetricsFile, Snapshots, Throughput
from glmasr.training.checkpoints import step_of
from glmasr.training.preemption import Preemption
from glmasr.training.run import mean_weights


def rows(path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Line(lightning.LightningModule):
    """Fits a line to endless points that are a function of the batch's number; `at` is called at each stage."""

    def __init__(self, at=lambda stage, step: None):
        super().__init__()
        torch.manual_seed(0)
        self.recognizer, self.at = torch.nn.Linear(3, 1), at

    def step(self, seed):
        points = torch.randn(4, 3, generator=torch.Generator().manual_seed(int(seed)))
        return (self.recognizer(points) - points.sum(1, keepdim=True)).square().mean()

    def training_step(self, seed, batch_index):
        self.at("train", self.global_step)
        loss = self.step(seed)
        self.log("train/loss", loss.detach())
        return loss

    def validation_step(self, seed, batch_index):
        self.at("dev", self.global_step)
        self.log("dev/loss", self.step(seed), batch_size=1)

    def train_dataloader(self):
        class Endless(torch.utils.data.IterableDataset):
            def __iter__(this):
                number = self.trainer.global_step * self.trainer.accumulate_grad_batches
                while True:
                    yield number
                    number += 1

        return DataLoader(Endless(), batch_size=None)

    def val_dataloader(self):
        return DataLoader([1_000_001, 1_000_002], batch_size=None)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.05)


def train(folder, accumulate=1, at=lambda stage, step: None) -> dict:
    """12 optimizer steps from the newest checkpoint; everything a resumed run must have in common with a whole one."""
    checkpoints, snapshots = (
        Checkpoints(folder / "checkpoints", 3, 2, None),
        Snapshots(folder / "checkpoints", "dev/loss", 2),
    )
    trainer = lightning.Trainer(
        max_steps=12,
        max_epochs=-1,
        check_val_every_n_epoch=None,
        val_check_interval=2 * accumulate,
        accumulate_grad_batches=accumulate,
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=MetricsFile(folder / "metrics.csv"),
        log_every_n_steps=1,
        callbacks=[snapshots, Preemption(checkpoints), checkpoints],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    module, found = Line(at), checkpoints.found()
    trainer.fit(module, ckpt_path=str(found[0]) if found else None, weights_only=True)
    weights = {name: value.tolist() for name, value in module.state_dict().items()}
    return {"weights": weights, "rows": rows(folder / "metrics.csv"), "ranking": snapshots.ranking()}


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it."""


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("how", ["kill", "SIGTERM"])
@pytest.mark.parametrize(("stage", "step"), [("train", 4), ("train", 5), ("train", 6), ("dev", 6), ("dev", 12)])
def test_a_run_stopped_anywhere_ends_like_one_that_was_not(tmp_path, how, stage, step, accumulate):
    whole = train(tmp_path / "whole", accumulate)
    struck = []

    def strike(*now):
        if now == (stage, step) and not struck:
            struck.append(now)
            if how == "kill":
                raise Killed
            os.kill(os.getpid(), signal.SIGTERM)

    last = how == "SIGTERM" and step == 12  # nothing is left to stop
    if last:
        assert train(tmp_path / "stopped", accumulate, strike) == whole
    else:
        with pytest.raises(Killed if how == "kill" else Interrupted, match=None if how == "kill" else "is saved"):
            train(tmp_path / "stopped", accumulate, strike)
    assert struck
    assert train(tmp_path / "stopped", accumulate) == whole
    assert len(whole["rows"]) == 12 + 6 and len(whole["ranking"]) == 2


@pytest.fixture
def trainer():
    """As much of a Trainer as callbacks ask for; a checkpoint is the step's number."""
    return SimpleNamespace(
        global_step=0,
        max_steps=100,
        is_global_zero=True,
        sanity_checking=False,
        callback_metrics={},
        world_size=1,
        loggers=[],
        strategy=SimpleNamespace(broadcast=lambda step: step),
        save_checkpoint=lambda path: path.write_text("whole"),
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("step", [5, 6, 11])
def test_a_kill_between_a_checkpoint_and_its_row_loses_no_row(tmp_path, monkeypatch, step):
    """Rows are written after the callbacks: at 5 and 11 a checkpoint is saved already, and must not be found."""
    whole, write, struck = train(tmp_path / "whole"), MetricsFile.log_metrics, []

    def strike(self, metrics, **more):
        if more["step"] == step and not struck:
            struck.append(step)
            raise Killed
        write(self, metrics, **more)

    monkeypatch.setattr(MetricsFile, "log_metrics", strike)
    with pytest.raises(Killed):
        train(tmp_path / "struck")
    assert train(tmp_path / "struck") == whole


def test_checkpoints_rotate_and_appear_whole(tmp_path, trainer, monkeypatch):
    checkpoints = Checkpoints(tmp_path, every_steps=10, keep=2, milestone_steps=20)

    def saved(step):
        checkpoints.save(trainer, step)
        assert f"step_{step:09d}.ckpt" not in {path.name for path in checkpoints.found()}
        checkpoints.publish(trainer)

    for step in (10, 20, 30, 40, 50):
        saved(step)
    steps = [step_of(path) for path in checkpoints.found()]
    assert steps == [50, 40, 30, 20]  # the last two, and the milestones

    def torn(path):
        path.write_text("ha")
        raise OSError(28, "No space left on device")

    trainer.save_checkpoint = torn
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(trainer, 60)
    assert [path.read_text() for path in checkpoints.found()] == ["whole"] * 4
    trainer.global_step = 40  # 50 could not be read
    Checkpoints(tmp_path, 10, 2, None).on_train_start(trainer, None)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"step_{step:09d}.ckpt" for step in (20, 30, 40)} | {"step_000000050.unread"}


def test_rotation_keeps_exactly_so_many(tmp_path, trainer):
    for keep in (1, 3):
        checkpoints = Checkpoints(tmp_path / str(keep), every_steps=1, keep=keep, milestone_steps=None)
        checkpoints.on_train_start(trainer, None)
        for step in range(1, 200):
            checkpoints.save(trainer, step)
            checkpoints.publish(trainer)
            assert [step_of(path) for path in checkpoints.found()] == list(range(step, max(step - keep, 0), -1))
            assert len(list(checkpoints.folder.iterdir())) == min(step, keep)


def test_ranks_that_see_other_files_are_told(tmp_path, trainer):
    trainer.strategy.broadcast, trainer.global_rank, trainer.is_global_zero = lambda step: step + 10, 3, False
    with pytest.raises(InputError, match="rank 3 resumed from step 0, rank 0 from step 10: the machines do not see"):
        Checkpoints(tmp_path, 1, 1, None).on_train_start(trainer, None)


def test_a_row_that_was_not_finished_is_dropped(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n1,0.5\n2,0.25\n1")  # 1 of 13
    again = MetricsFile(tmp_path / "metrics.csv")
    again.log_metrics({"loss": 3}, 3)
    assert [row["step"] for row in rows(tmp_path / "metrics.csv")] == ["1", "2", "3"]


def test_snapshots_keep_the_best_and_average_them(tmp_path, trainer):
    snapshots, module = Snapshots(tmp_path, "dev/cer", keep=2), SimpleNamespace(recognizer=torch.nn.Linear(1, 1))
    for step, error in ((10, 0.5), (20, 0.2), (30, 0.9), (40, 0.2), (40, 0.2)):
        torch.nn.init.constant_(module.recognizer.weight, step)
        trainer.global_step, trainer.callback_metrics = step, {"dev/cer": torch.tensor(error, dtype=torch.float64)}
        snapshots.on_validation_end(trainer, module)
    assert snapshots.ranking() == [(0.2, 40), (0.2, 20)]  # among equals the later
    found = snapshots.kept()
    assert found[0]["weight"].item() == 40 and mean_weights(found)["weight"].item() == 30
    kept = {"snapshot_000000020.safetensors", "snapshot_000000040.safetensors", "snapshots.json"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    trainer.sanity_checking, trainer.global_step = True, 50
    snapshots.on_validation_end(trainer, module)
    assert json.loads((tmp_path / "snapshots.json").read_text()) == [[0.2, 40], [0.2, 20]]


def test_metrics_of_a_resumed_run_are_written_once(tmp_path):
    first = MetricsFile(tmp_path / "metrics.csv")
    for step in (1, 2, 3):
        first.log_metrics({"loss": step, "epoch": 0}, step)
    first.log_metrics({"error": 0.5}, 3)  # a new column: the rows before it have none
    assert rows(tmp_path / "metrics.csv")[-1] == {"step": "3", "loss": "", "error": "0.5"}
    assert rows(tmp_path / "metrics.csv")[0] == {"step": "1", "loss": "1", "error": ""}
    again = MetricsFile(tmp_path / "metrics.csv")
    again.log_metrics({"loss": 20, "rate": 1}, 2)
    again.log_metrics({"error": 0.25}, 2)
    assert [row["step"] for row in rows(tmp_path / "metrics.csv")] == ["1", "2", "2"]
    assert rows(tmp_path / "metrics.csv")[2] == {"step": "2", "loss": "", "error": "0.25", "rate": ""}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_progress_is_a_line_now_and_then(trainer, capsys):
    lines = Lines(every_steps=5)
    trainer.callback_metrics = {"train/loss": torch.tensor(1.5), "dev/wer": torch.tensor(0.25)}
    for trainer.global_step in range(1, 11):
        lines.on_train_batch_end(trainer, None, None, None, 0)
    lines.on_validation_end(trainer, None)
    assert capsys.readouterr().err.splitlines() == [
        "train step 5/100  loss 1.5",
        "train step 10/100  loss 1.5",
        "dev step 10/100  wer 0.25",
    ]


def test_throughput_counts_real_audio(trainer, monkeypatch):
    clock, logged = iter([100.0, 104.0]), []
    monkeypatch.setattr("glmasr.training.callbacks.time.perf_counter", lambda: next(clock))
    module = SimpleNamespace(log=lambda name, value, prog_bar: logged.append((name, value)))
    throughput, trainer.world_size, trainer.log_every_n_steps = Throughput(), 2, 2
    for trainer.global_step in (1, 2):
        throughput.on_train_batch_start(trainer, module, None, 0)
        throughput.on_train_batch_end(trainer, module, None, SimpleNamespace(seconds=10.0), 0)
    assert logged == [("train/audio_seconds_per_second", 10.0)]  # at the second step, of both
