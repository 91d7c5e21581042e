"""A kind of accelerator in, seconds for a step's work out: by its data sheet and stated efficiencies, or calibrated."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from glmasr.planning.workload import Cost, Parts, Workload, batch_of, workload
from glmasr.speech import InputError

GIGA = 1e9
OPTIMIZER_BYTES = 44.0
"""Read and written per parameter and update: AdamW's parameter, gradient and two moments, and the gradient's norm,
clipping and zeroing, all at fp32."""


@dataclass(frozen=True)
class Machine:
    """One accelerator and its place in a cluster, by data sheet (conf/gpu).

    Bandwidths are per accelerator and direction. `kind` is cuda or cpu. `peak_tflops` is of dense matrix products at
    `precision`.
    """

    name: str
    kind: str
    precision: str
    peak_tflops: float
    memory_gb: float
    bandwidth_gb_s: float
    link_gb_s: float
    network_gb_s: float
    per_node: int
    cores_each: float

    def __post_init__(self) -> None:
        if self.kind not in ("cuda", "cpu"):
            raise InputError(f"gpu.kind={self.kind} is neither cuda nor cpu")
        if self.precision not in ("bf16-mixed", "32-true"):
            raise InputError(f"gpu.precision={self.precision}: plans are for bf16-mixed and 32-true")

    @property
    def half(self) -> bool:
        """Whether it computes in bf16 by autocast."""
        return self.precision == "bf16-mixed"


@dataclass(frozen=True)
class Efficiency:
    """Shares of the data sheet's `compute` and memory `bandwidth` that are reached, and microseconds per kernel call.

    Calls of a GPU are queued while it computes, so they cost time only where they are more than it has to do.
    """

    compute: float
    bandwidth: float
    call_us: float

    def seconds(self, machine: Machine, flops: float, moved: float, calls: float) -> float:
        """Of so many operations, bytes and calls on one accelerator."""
        computing = flops / (machine.peak_tflops * 1e12 * self.compute)
        moving = moved / (machine.bandwidth_gb_s * GIGA * self.bandwidth)
        calling = calls * self.call_us * 1e-6
        return max(computing + moving, calling) if machine.kind == "cuda" else computing + moving + calling

    def batch_seconds(self, machine: Machine, cost: Cost, utterances: float, frames: float) -> float:
        """Of the forward and backward pass of one batch."""
        return self.seconds(machine, *(one(utterances, frames) for one in (cost.flops, cost.moved, cost.calls)))

    def update_seconds(self, machine: Machine, parameters: float) -> float:
        """Of one optimizer step over so many parameters."""
        return self.seconds(machine, 0.0, OPTIMIZER_BYTES * parameters, 0.0)


@dataclass(frozen=True)
class Trial:
    """A step that was taken: what it cost by the workload, and its median seconds."""

    flops: float
    moved: float
    calls: float
    seconds: float


def calibrate(
    config: Mapping[str, Any],
    machine: Machine,
    widths: Sequence[float],
    shapes: Sequence[Sequence[int]],
    blocks: int,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Efficiency, list[Trial]]:
    """Take real steps here and find the efficiencies that explain their seconds best.

    The model has so many `blocks`, at every width of `widths` (shares of its own), and hears batches of `shapes`
    (utterances, frames). Every shape is timed in each of `rounds`, in turns. InputError where there is no such device.
    """
    if machine.kind == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"calibrate=true measures here, but there is no GPU for gpu={machine.name}: take gpu=cpu, or leave it out"
        )
    steps: list[Callable[[], None]] = []
    costs: list[tuple[float, float, float]] = []
    for share in widths:
        smaller = narrowed(config, share, blocks)
        work = workload(smaller, machine.kind, machine.half)
        step = step_of(smaller, machine)
        for utterances, frames in shapes:
            batch = [one.to(machine.kind) for one in batch_of(frames, utterances, config["masking"])]
            steps.append(partial(step, *batch))
            costs.append(counted(work, utterances, frames))
    for step in steps:
        step()  # what happens once
    taken = [[timed(step, machine, clock) for step in steps] for _ in range(rounds)]
    medians = np.median(np.array(taken), axis=0)
    trials = [Trial(*cost, seconds) for cost, seconds in zip(costs, medians.tolist(), strict=True)]
    return explained(machine, trials), trials


def counted(work: Workload, utterances: int, frames: int) -> tuple[float, float, float]:
    """Operations, bytes and calls of a step with its optimizer."""
    cost = work.step()
    moved = cost.moved(utterances, frames) + OPTIMIZER_BYTES * work.parameters
    return cost.flops(utterances, frames), moved, cost.calls(utterances, frames)


def narrowed(config: Mapping[str, Any], share: float, blocks: int) -> dict[str, Any]:
    """The same model at a share of its width, and with so many blocks."""
    encoder = config["model"]["encoder"]
    step = 2 * encoder["heads"]
    width = max(step, round(encoder["width"] * share / step) * step)
    model = {**config["model"], "encoder": {**encoder, "width": width, "blocks": blocks, "checkpointing": False}}
    apart = {name: with_width(config[name], encoder["width"], width) for name in ("objective", "predictor")}
    return {**config, "model": model, **apart}


def with_width(config: Any, old: int, new: int) -> Any:
    """An objective's or a predictor's config for an encoder of another width."""
    if isinstance(config, Mapping):
        return {k: new if k == "width" and v == old else with_width(v, old, new) for k, v in config.items()}
    return config


def step_of(config: Mapping[str, Any], machine: Machine) -> Callable[..., None]:
    """A training step of the model that `config` describes, on this machine."""
    parts = Parts.of(config)
    trained = parts.trained().to(machine.kind).train()
    parts.ear.to(machine.kind)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-5, fused=True)

    def step(waveform, lengths, mask) -> None:
        with torch.autocast(machine.kind, torch.bfloat16, enabled=machine.half):
            loss = parts.objective(parts.look(waveform, lengths, mask)).total
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 5.0)
        optimizer.step()

    return step


def timed(step: Callable[[], None], machine: Machine, clock: Callable[[], float]) -> float:
    """Seconds of one step, to the end of what it queued."""
    began = clock()
    step()
    if machine.kind == "cuda":
        torch.cuda.synchronize()
    return clock() - began


def explained(machine: Machine, trials: Sequence[Trial]) -> Efficiency:
    """The efficiencies by which the trials' seconds are nearest, relative to their size; none is negative."""
    rows = np.array([[one.flops, one.moved, one.calls] for one in trials])
    wanted = np.array([one.seconds for one in trials])
    scale = rows.max(0)
    rows = rows / wanted[:, None] / scale
    best, least = np.zeros(3), np.inf
    for chosen in (list(some) for size in (1, 2, 3) for some in itertools.combinations(range(3), size)):
        found = np.linalg.lstsq(rows[:, chosen], np.ones(len(trials)), rcond=None)[0]
        error = float(np.square(rows[:, chosen] @ found - 1).sum())
        if (found > 0).all() and error < least:
            least, best = error, np.zeros(3)
            best[chosen] = found
    per_flop, per_byte, per_call = best / scale
    return Efficiency(
        compute=float(1 / (per_flop * machine.peak_tflops * 1e12)) if per_flop else float("inf"),
        bandwidth=float(1 / (per_byte * machine.bandwidth_gb_s * GIGA)) if per_byte else float("inf"),
        call_us=float(per_call * 1e6),
    )
