"""A resolved config in, a plan out: memory, days, storage and money of a pretraining, and what will limit it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from glmasr.build import build
from glmasr.bundle import build_recognizer
from glmasr.model.recognizer import parameter_count
from glmasr.planning.machine import Efficiency, Machine, Trial, calibrate
from glmasr.planning.workload import FRAME_SECONDS, Cost, Workload, workload
from glmasr.speech import InputError

GIGA = 1e9
WEIGHT, GRADIENT, MOMENTS = 4, 4, 8
"""Bytes per parameter: fp32, and AdamW's two moments."""

GATHERED = 3
"""Blocks that a sharded model holds whole at a time: the one at work, the next one, and one's gradient."""

BUFFERS = 20e6
"""Bytes that libraries keep for themselves in a step: 12 to 24 MB for six models and batches (benchmarks/plan.py)."""


@dataclass(frozen=True)
class Strategy:
    """How a model is spread over GPUs (`sharded`: FSDP, else DDP), and whether activations are computed twice."""

    name: str
    sharded: bool
    recomputed: bool


STRATEGIES = (
    Strategy("ddp", False, False),
    Strategy("ddp_checkpointing", False, True),
    Strategy("fsdp", True, False),
    Strategy("fsdp_checkpointing", True, True),
)


@dataclass(frozen=True)
class Memory:
    """GB of one GPU at the end of a forward pass, which is the peak: the last step's gradients are still there.

    `copies` are weights at lower precision, buckets that DDP sums gradients in, blocks that FSDP gathers, and BUFFERS.
    """

    weights: float
    gradients: float
    optimizer: float
    copies: float
    activations: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.copies + self.activations


@dataclass(frozen=True)
class Row:
    """What one strategy comes to.

    Of `update_seconds` (of the clock, per optimizer step) `network_seconds` are waited for other GPUs and
    `loading_seconds` for audio; the rest is computed. `mfu` counts no operation twice.
    """

    strategy: str
    fits: bool
    batch_seconds: float
    largest_batch_seconds: float
    memory: Memory
    accumulate: int
    audio_seconds: float
    updates: int
    update_seconds: float
    network_seconds: float
    loading_seconds: float
    calling_share: float
    mfu: float
    days: float


@dataclass(frozen=True)
class Data:
    """The audio: hours heard, times the corpus is gone through, GB stored, and what is read while training."""

    hours: float
    heard_hours: float
    epochs: float
    frames: float
    hidden_frames: float
    stored_gb: dict[str, float]
    read_gb_s: float
    audio_seconds_per_second: float
    workers_needed_each: float


@dataclass(frozen=True)
class Saved:
    """A checkpoint and a bundle on disk, seconds to write a checkpoint, and the share of the time that takes."""

    checkpoint_gb: float
    bundle_gb: float
    write_seconds: float
    share: float


@dataclass(frozen=True)
class Plan:
    """Everything that is printed; `chosen` names the row that the rest is about."""

    gpu: str
    gpus: int
    parameters: dict[str, int]
    tflops_per_audio_second: float
    total_exaflops: float
    efficiency: Efficiency
    rows: tuple[Row, ...]
    chosen: str
    data: Data
    saved: Saved
    gpu_hours: float
    cost: float | None
    warnings: tuple[str, ...]
    trials: tuple[Trial, ...] = ()


def as_json(made: Plan) -> dict[str, Any]:
    """The plan as plain containers, totals of memory with their parts."""
    plain = asdict(made)
    for row, one in zip(plain["rows"], made.rows, strict=True):
        row["memory"]["total"] = one.memory.total
    return plain


def make_plan(config: dict[str, Any]) -> Plan:
    """The plan; an InputError where a setting cannot be, or where no strategy fits into memory."""
    check(config)
    machine: Machine = build(config["gpu"])
    work = workload(config, machine.kind, machine.half)
    efficiency, trials = Efficiency(**config["efficiency"]), []
    if config["calibrate"]:
        efficiency, trials = calibrate(config, machine, **config["calibration"])
    rows = tuple(row_of(config, machine, efficiency, work, strategy) for strategy in STRATEGIES)
    row = choose(rows, config["strategy"], machine)
    data = data_of(config, row)
    saved = saved_of(config, work, row)
    gpu_hours = row.days * 24 * config["gpus"]
    price = config["price_per_gpu_hour"]
    per_second = flops_per_second(config, work)
    return Plan(
        gpu=machine.name,
        gpus=config["gpus"],
        parameters=parameters_of(config, work),
        tflops_per_audio_second=per_second / 1e12,
        total_exaflops=per_second * data.heard_hours * 3600 / 1e18,
        efficiency=efficiency,
        rows=rows,
        chosen=row.strategy,
        data=data,
        saved=saved,
        gpu_hours=gpu_hours,
        cost=None if price is None else price * gpu_hours,
        warnings=tuple(warnings_of(config, machine, row, data, saved)),
        trials=tuple(trials),
    )


def check(config: Mapping[str, Any]) -> None:
    """InputErrors for settings that mean nothing."""
    for name in ("data_hours", "gpus", "utterance_seconds", "epochs"):
        if config[name] is None or config[name] <= 0:
            raise InputError(f"{name}={config[name]} must be more than 0")
    names = ["auto", *(one.name for one in STRATEGIES)]
    if config["strategy"] not in names:
        raise InputError(f"strategy={config['strategy']} is none of {', '.join(names)}")
    formats = config["storage"]["bytes_per_second"]
    if config["storage"]["format"] not in formats:
        raise InputError(f"storage.format={config['storage']['format']} is none of {', '.join(formats)}")


def parameters_of(config: Mapping[str, Any], work: Workload) -> dict[str, int]:
    """Of the recognizer that fine-tuning makes of the model, of its encoder, and of all that pretraining trains."""
    with torch.device("meta"):
        recognizer = build_recognizer(config["model"], config["vocabulary_size"])
    encoder = parameter_count(recognizer.encoder)
    return {"recognizer": parameter_count(recognizer), "encoder": encoder, "pretrained": work.parameters}


def frames_of(config: Mapping[str, Any]) -> float:
    """Encoder frames of an average utterance."""
    return config["utterance_seconds"] / FRAME_SECONDS


def flops_per_second(config: Mapping[str, Any], work: Workload) -> float:
    """Operations per second of audio that the model needs, none of them counted twice."""
    return work.step().flops(1, frames_of(config)) / config["utterance_seconds"]


def memory_of(work: Workload, strategy: Strategy, gpus: int, utterances: float, frames: float) -> Memory:
    """GB of one GPU with a batch of so many utterances."""
    share = work.parameters / (gpus if strategy.sharded else 1)
    kept = work.step(strategy.recomputed).kept
    copies = BUFFERS + kept.fixed
    if strategy.sharded:
        copies += GATHERED * WEIGHT * work.block_parameters
    elif gpus > 1:
        copies += GRADIENT * work.parameters
    activations = kept(utterances, frames) - kept.fixed
    sizes = (WEIGHT * share, GRADIENT * share, MOMENTS * share, copies, activations)
    return Memory(*(size / GIGA for size in sizes))


def largest_batch(config: Mapping[str, Any], machine: Machine, work: Workload, strategy: Strategy) -> float:
    """Seconds of audio that fit beside the model, 0 where it does not fit itself."""
    frames, gpus = frames_of(config), config["gpus"]
    empty = memory_of(work, strategy, gpus, 0, frames).total
    each = memory_of(work, strategy, gpus, 1, frames).total - empty
    room = machine.memory_gb * (1 - config["memory_reserve"]) - empty
    return max(0.0, room / each * config["utterance_seconds"])


def row_of(
    config: Mapping[str, Any], machine: Machine, efficiency: Efficiency, work: Workload, strategy: Strategy
) -> Row:
    """What a strategy comes to with the batch that is asked for, or else with the largest."""
    frames, gpus = frames_of(config), config["gpus"]
    largest = largest_batch(config, machine, work, strategy)
    wanted, update = config["batch_seconds"], config["update_seconds"]
    batch = wanted or max(config["utterance_seconds"], min(largest, update / gpus if update else math.inf))
    accumulate = max(1, math.ceil(update / (batch * gpus) - 1e-9)) if update else 1
    if update:
        batch = update / (gpus * accumulate)
    utterances = batch / config["utterance_seconds"]
    cost = work.step(strategy.recomputed)
    computing = batch_time(config, machine, efficiency, work, cost, utterances)
    share = work.parameters / (gpus if strategy.sharded else 1)
    compute = accumulate * computing + efficiency.update_seconds(machine, share)
    network = waited(config, machine, work, strategy, computing, accumulate)
    audio = batch * gpus * accumulate
    loading = audio / gpus / loader_rate(config, max(1, config["loader"]["workers_each"]))
    # Workers load while the GPU computes; without workers nothing is done at the same time.
    behind = loading if not config["loader"]["workers_each"] else max(0.0, loading - compute - network)
    seconds = compute + network + behind
    updates = math.ceil(config["updates"] or config["epochs"] * config["data_hours"] * 3600 / audio)
    calling = cost.calls(utterances, frames) * efficiency.call_us * 1e-6 * accumulate
    needed = work.step().flops(utterances, frames) * accumulate
    return Row(
        strategy=strategy.name,
        fits=batch <= largest * (1 + 1e-9),
        batch_seconds=batch,
        largest_batch_seconds=largest,
        memory=memory_of(work, strategy, gpus, utterances, frames),
        accumulate=accumulate,
        audio_seconds=audio,
        updates=updates,
        update_seconds=seconds,
        network_seconds=network,
        loading_seconds=behind,
        calling_share=min(1.0, calling / compute),
        mfu=needed / (seconds * machine.peak_tflops * 1e12),
        days=seconds * updates / 86400,
    )


def batch_time(
    config: Mapping[str, Any], machine: Machine, efficiency: Efficiency, work: Workload, cost: Cost, utterances: float
) -> float:
    """Seconds of computing of one batch: by the efficiencies, or by `mfu` where that is stated."""
    frames = frames_of(config)
    if config["mfu"] is None or config["calibrate"]:
        return efficiency.batch_seconds(machine, cost, utterances, frames)
    return cost.flops(utterances, frames) / (config["mfu"] * machine.peak_tflops * 1e12)


def traffic(work: Workload, strategy: Strategy, gpus: int, accumulate: int) -> tuple[float, int]:
    """Bytes that one GPU sends per update, and how many collectives: DDP's ring all-reduce, or FSDP's gathering of
    every block before it is used, forward and backward, and its scattering of gradients, for each batch anew."""
    if gpus == 1:
        return 0.0, 0
    whole = GRADIENT * work.parameters * (gpus - 1) / gpus
    if strategy.sharded:
        return 3 * whole * accumulate, 3 * (work.blocks + 2) * accumulate
    return 2 * whole, math.ceil(GRADIENT * work.parameters / 25e6)  # DDP's buckets are of 25 MB


def waited(
    config: Mapping[str, Any], machine: Machine, work: Workload, strategy: Strategy, computing: float, accumulate: int
) -> float:
    """Seconds per update that the network takes beyond what it does behind the computing's back.

    DDP sums gradients during the backward pass of an update's last batch, FSDP gathers and scatters in every pass.
    """
    gpus, network = config["gpus"], config["network"]
    sent, collectives = traffic(work, strategy, gpus, accumulate)
    speed = (machine.link_gb_s if gpus <= machine.per_node else machine.network_gb_s) * GIGA * network["efficiency"]
    nodes = math.ceil(gpus / machine.per_node)
    hops = nodes if strategy.sharded else 2 * math.ceil(math.log2(max(2, nodes)))
    busy = sent / speed + collectives * hops * network["hop_us"] * 1e-6
    hidden = computing * accumulate if strategy.sharded else computing * 2 / 3
    return max(0.0, busy - network["overlap"] * hidden)


def loader_rate(config: Mapping[str, Any], workers: float) -> float:
    """Seconds of audio that so many loader processes give in a second."""
    return workers * config["loader"]["audio_seconds_per_worker"][config["storage"]["format"]]


def choose(rows: tuple[Row, ...], wanted: str, machine: Machine) -> Row:
    """The row that is asked for, or the fastest of those that fit; of about equally fast ones the simplest."""
    if wanted != "auto":
        return next(row for row in rows if row.strategy == wanted)
    fitting = [row for row in rows if row.fits]
    if not fitting:
        least = min(rows, key=lambda row: row.memory.total)
        raise InputError(
            f"no strategy fits into the {machine.memory_gb:g} GB of one {machine.name}: the leanest "
            f"({least.strategy}) needs {least.memory.total:.0f} GB with {least.batch_seconds:g} s of audio; take more "
            "gpus=…, a smaller model=… or batch_seconds=…"
        )
    fastest = min(row.days for row in fitting)
    return next(row for row in fitting if row.days <= 1.02 * fastest)


def data_of(config: Mapping[str, Any], row: Row) -> Data:
    """What is heard, stored and read."""
    storage = config["storage"]
    heard = row.audio_seconds * row.updates / 3600
    rate = row.audio_seconds / row.update_seconds
    unfed = row.audio_seconds / (row.update_seconds - row.loading_seconds)  # how fast it would be with audio at hand
    sizes = {name: size * config["data_hours"] * 3600 / GIGA for name, size in storage["bytes_per_second"].items()}
    frames = heard * 3600 / FRAME_SECONDS
    return Data(
        hours=config["data_hours"],
        heard_hours=heard,
        epochs=heard / config["data_hours"],
        frames=frames,
        hidden_frames=frames * config["masking"]["mask_share"],
        stored_gb=sizes,
        read_gb_s=rate * storage["bytes_per_second"][storage["format"]] / GIGA,
        audio_seconds_per_second=rate,
        workers_needed_each=unfed / config["gpus"] / loader_rate(config, 1),
    )


def saved_of(config: Mapping[str, Any], work: Workload, row: Row) -> Saved:
    """What is written, by the first rank while the others wait."""
    size = (WEIGHT + MOMENTS) * work.parameters / GIGA
    seconds = size / config["checkpoints"]["write_gb_s"]
    between = row.update_seconds * config["checkpoints"]["every_steps"]
    return Saved(size, WEIGHT * work.parameters / GIGA, seconds, seconds / (seconds + between))


def warnings_of(config: Mapping[str, Any], machine: Machine, row: Row, data: Data, saved: Saved) -> list[str]:
    """What will be the bottleneck, one sentence each with what to do."""
    limits, found = config["limits"], []
    longest = config["longest_seconds"]
    if not row.fits:
        found.append(
            f"memory: {row.batch_seconds:.0f} s of audio do not fit with {row.strategy}, "
            f"{row.largest_batch_seconds:.0f} s would; another strategy=…, or a smaller batch_seconds=…"
        )
    elif row.largest_batch_seconds < longest:
        found.append(
            f"memory: an utterance of {longest:g} s does not fit ({row.largest_batch_seconds:.0f} s do); "
            "utterances.max_seconds must be less, or the strategy another"
        )
    workers = data.workers_needed_each
    if workers > machine.cores_each:
        found.append(
            f"loader: a GPU could hear {workers * loader_rate(config, 1):,.0f} s of audio a second, which takes "
            f"{workers:.1f} workers, but it has {machine.cores_each:g} cores; store FLAC or WAV, or mix less noise"
        )
    elif workers > max(1, config["loader"]["workers_each"]):
        found.append(
            f"loader: with batches.workers={config['loader']['workers_each']} a GPU waits for audio; set it to "
            f"{math.ceil(workers)} or more"
        )
    if data.read_gb_s > config["storage"]["read_gb_s"]:
        found.append(
            f"storage: {data.read_gb_s:.2f} GB/s are read, more than storage.read_gb_s="
            f"{config['storage']['read_gb_s']:g}; a smaller format, or copies nearer to the GPUs"
        )
    waiting = row.network_seconds / row.update_seconds
    if waiting > limits["waiting_share"]:
        found.append(
            f"network: {waiting:.0%} of a step is waited for other GPUs; a larger update_seconds (accumulation), fewer "
            "GPUs, or a faster interconnect"
        )
    if row.calling_share > limits["calling_share"]:
        found.append(
            f"batch: {row.batch_seconds:.0f} s per GPU are too little to keep it busy (starting kernels takes "
            f"{row.calling_share:.0%} of a step); fewer GPUs, or a larger batch"
        )
    if row.audio_seconds > limits["update_hours"] * 3600:
        found.append(
            f"batch: one update hears {row.audio_seconds / 3600:.1f} h, more than the {limits['update_hours']:g} h of "
            "wav2vec 2.0 LARGE; beyond some size a larger batch saves no updates: fewer GPUs, or update_seconds=…"
        )
    if row.updates < limits["updates"]:
        found.append(
            f"batch: {row.updates:,} updates are few (wav2vec 2.0 took {limits['updates']:,} and more); smaller "
            "batches or more epochs=…"
        )
    if saved.share > limits["writing_share"]:
        found.append(
            f"checkpoints: writing takes {saved.share:.0%} of the time; checkpoints.every_steps="
            f"{math.ceil(saved.write_seconds / limits['writing_share'] / row.update_seconds / 100) * 100} or more"
        )
    return found
