"""A calibration and predictions by `make plan`'s model in; what real pretrainings then take in time and memory out.

OMP_NUM_THREADS=1 python benchmarks/plan.py                      # conformer_tiny, real speech (the rhyme test), CPU
OMP_NUM_THREADS=1 python benchmarks/plan.py --rounds 3 --json plan.json

Every case is a pretraining with Lightning, our loader and optimizer, in a process of its own: the median of its steps
but the first two, and the peak of resident memory in training less what was resident before it, but for the weights.
glibc's heap holds much more than was asked of it when batches vary in shape, so memory is measured, and compared, in
further processes whose allocator gives back what is freed (RETURNING); what the others held is printed beside it. Cases
and calibrations take turns. Seconds are of the process' CPU time, which on one thread and a quiet machine are the
clock's; on a shared one they leave out the neighbors' turns, though not what they do to caches and clock rates.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

CASES = (
    ("as calibrated, 15 s", ()),
    ("batches of 60 s", ("batches.batch_seconds=60",)),
    ("batches of 5 s", ("batches.batch_seconds=5",)),
    ("width 288", ("model.encoder.width=288", "batches.batch_seconds=30")),
    ("width 96, 10 blocks", ("model.encoder.width=96", "model.encoder.blocks=10", "batches.batch_seconds=30")),
    ("random projection", ("objective=random_projection", "batches.batch_seconds=30")),
)
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Tensors of 64 kB and more get pages of their own, which slows steps down."""

STEPS, WARM = 12, 2
WITHIN = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", nargs="*", help=argparse.SUPPRESS)  # a process of its own
    asked = parser.parse_args()
    if asked.case is not None:
        print(json.dumps(measure(asked.case)))
        return
    load, lines = os.getloadavg()[0], []
    machine, trials, measured, returning = cpu(), [], [], []
    for _ in range(asked.rounds):
        for _, overrides in CASES:
            trials.append(calibrated(machine))
            measured.append(in_a_process(overrides))
            returning.append(in_a_process(overrides, RETURNING))
    efficiency = agreed(machine, trials)
    print(f"calibrated: {efficiency}")
    for index, (name, overrides) in enumerate(CASES):
        runs, lean = (them[index :: len(CASES)] for them in (measured, returning))
        lines.append({"case": name, **compare(overrides, runs, lean, efficiency, machine)})
        print(shown(lines[-1]), flush=True)
    kept = all(abs(line[what]["ratio"] - 1) <= WITHIN for line in lines for what in ("seconds", "megabytes"))
    print(f"{'all' if kept else 'NOT all'} within {WITHIN:.0%}; load {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    if asked.json:
        asked.json.write_text(json.dumps({"efficiency": vars(efficiency), "lines": lines}, indent=1) + "\n")
    sys.exit(not kept)


def shown(line: dict[str, Any]) -> str:
    """One case, predicted against measured."""
    step, memory = line["seconds"], line["megabytes"]
    return (
        f"{line['case']:22} {line['shape']:>12}"
        f"  step {step['predicted'] * 1e3:7.1f} ms, {step['measured'] * 1e3:7.1f} measured ({step['ratio'] - 1:+.0%})"
        f"  memory {memory['predicted']:5.0f} MB, {memory['measured']:5.0f} measured ({memory['ratio'] - 1:+.0%}; "
        f"{memory['held_by_glibc']:.0f} held by glibc)"
    )


def configured(overrides: tuple[str, ...] | list[str]) -> dict[str, Any]:
    """conf/pretrain.yaml, one thread, one process that loads."""
    from tests.small import composed

    return composed("pretrain", "batches.workers=1", "logger=files", *overrides)


def cpu() -> Any:
    """conf/gpu/cpu.yaml, one thread."""
    import torch

    from glmasr.build import build
    from tests.small import composed

    torch.set_num_threads(1)
    return build(composed("plan", "gpu=cpu")["gpu"])


def calibrated(machine: Any) -> list[Any]:
    """The trials of `make plan ARGS="gpu=cpu calibrate=true"`, in CPU time, once each: called between cases."""
    from glmasr.planning.machine import calibrate
    from tests.small import composed

    config = composed("plan", "gpu=cpu")
    calibration = config["calibration"] | {"rounds": 1}
    return calibrate(config, machine, **calibration, clock=time.process_time)[1]


def agreed(machine: Any, trials: list[list[Any]]) -> Any:
    """The efficiency by the medians of every trial."""
    from glmasr.planning.machine import explained

    medians = [float(np.median([one.seconds for one in same])) for same in zip(*trials, strict=True)]
    return explained(machine, [replace(one, seconds=s) for one, s in zip(trials[0], medians, strict=True)])


def in_a_process(overrides: tuple[str, ...], variables: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """What `measure` says in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--case", *overrides],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | dict(variables),
    )
    if done.returncode:
        sys.exit(f"{' '.join(overrides)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(overrides: list[str]) -> dict[str, Any]:
    """A real pretraining of a few steps: CPU seconds and shape of each, and how far memory rose above the beginning."""
    import pytorch_lightning as lightning
    import torch

    from glmasr.build import build
    from glmasr.evaluation.memory import PeakMemory
    from glmasr.model.recognizer import parameter_count
    from glmasr.planning.machine import Machine, narrowed, step_of
    from glmasr.planning.workload import FRAME_SECONDS, batch_of
    from glmasr.speech import RATE_HZ
    from glmasr.training.datamodule import SpeechBatches
    from glmasr.training.pretrain import Pretraining
    from glmasr.training.run import open_catalog, quiet_lightning, seed_everything

    torch.set_num_threads(1)
    quiet_lightning()
    config = configured(overrides)
    catalog = open_catalog(config)
    seed_everything(0)
    batches = SpeechBatches(
        catalog.subset(split="train", **config["utterances"]),
        catalog.subset(split="dev", **config["utterances"]),
        seed=0,
        **config["batches"],
        **build(config["augment"]),
    )
    taken: list[tuple[int, int, float]] = []

    class Steps(lightning.Callback):
        def on_train_start(self, trainer, module):
            self.weights, self.memory = 4 * parameter_count(module), PeakMemory()
            self.memory.__enter__()

        def on_train_end(self, trainer, module):
            self.memory.__exit__()

        def on_train_batch_start(self, trainer, module, batch, index):
            self.began = time.process_time()

        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            utterances, samples = batch.waveform.shape
            taken.append((utterances, round(samples / RATE_HZ / FRAME_SECONDS), time.process_time() - self.began))

    steps = Steps()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        max_epochs=-1,
        logger=False,
        callbacks=[steps],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
        gradient_clip_val=config["trainer"]["gradient_clip_val"],
    )
    step_of(narrowed(config, 0.2, 1), Machine("cpu", "cpu", "32-true", 1, 1, 1, 1, 1, 1, 1))(
        *batch_of(25, 2, config["masking"])  # libraries load what they load on first use, which is no model's memory
    )
    module = Pretraining(
        ear=build(config["frontend"]),
        encoder=build(config["model"]["encoder"]),
        objective=build(config["objective"]),
        optimizer=build(config["optimizer"]),
        schedule=build(config["schedule"]),
        seed=0,
        **config["masking"],
    )
    trainer.fit(module, batches)
    return {"megabytes": (steps.memory.peak_bytes + steps.weights) / 1e6, "steps": taken}


def compare(
    overrides: tuple[str, ...], runs: list[dict[str, Any]], lean: list[dict[str, Any]], efficiency: Any, machine: Any
) -> dict[str, Any]:
    """Predicted for the median step's shape, and for the largest batch's memory, against the medians of all runs."""
    from glmasr.planning.plan import STRATEGIES, memory_of
    from glmasr.planning.workload import workload

    config = configured(overrides)
    work = workload(config, machine.kind, machine.half)
    cost = work.step()
    predicted = [
        efficiency.batch_seconds(machine, cost, utterances, frames)
        + efficiency.update_seconds(machine, work.parameters)
        for utterances, frames, _ in runs[0]["steps"][WARM:]
    ]
    measured = [float(np.median([run["steps"][at][2] for run in runs])) for at in range(WARM, STEPS)]
    largest = max(memory_of(work, STRATEGIES[0], 1, u, f).total for u, f, _ in runs[0]["steps"]) * 1e3
    found, held = (float(np.median([run["megabytes"] for run in them])) for them in (lean, runs))
    utterances, frames = (float(np.median([one[at] for one in runs[0]["steps"]])) for at in (0, 1))
    seconds = {"predicted": float(np.median(predicted)), "measured": float(np.median(measured))}
    megabytes = {"predicted": largest, "measured": found}
    return {
        "shape": f"{utterances:.0f} x {frames * 0.04:.1f} s",
        "seconds": seconds | {"ratio": seconds["predicted"] / seconds["measured"]},
        "megabytes": megabytes | {"ratio": largest / found, "held_by_glibc": held},
    }


if __name__ == "__main__":
    main()
