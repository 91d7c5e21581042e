"""A plan in, a page to read and the same as JSON out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glmasr.planning.plan import Plan, Row, as_json, make_plan
from glmasr.speech import InputError


def plan(config: dict[str, Any]) -> None:
    """`make plan`: print the plan; where `json` is a path, write it there too."""
    made = make_plan(config)
    print("\n".join(lines(made)))
    if config["json"]:
        try:
            Path(config["json"]).write_text(json.dumps(as_json(made), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {config['json']} ({error.strerror}): choose another json=FILE") from error


def lines(made: Plan) -> Iterator[str]:
    """The page, line by line."""
    sizes = ", ".join(f"{name} {count / 1e6:,.1f} M" for name, count in made.parameters.items())
    yield f"parameters    {sizes}"
    yield (
        f"computing     {made.tflops_per_audio_second * 1000:,.2f} GFLOP per second of audio, forward and backward; "
        f"{made.total_exaflops:,.3g} EFLOP in all"
    )
    how = "measured here" if made.trials else "as stated"
    efficiency = made.efficiency
    yield (
        f"efficiency    {efficiency.compute:.0%} of {made.gpu}'s FLOP/s, {efficiency.bandwidth:.0%} of its memory "
        f"bandwidth, {efficiency.call_us:.1f} µs per kernel ({how})"
    )
    for trial in made.trials:
        work = f"{trial.flops / 1e9:10.2f} GFLOP {trial.moved / 1e9:8.3f} GB moved"
        yield f"              {work} {trial.seconds * 1e3:9.1f} ms"
    yield ""
    yield f"memory of one {made.gpu} of {made.gpus:,}, GB, at the batch below"
    yield header("strategy", "weights", "gradients", "optimizer", "copies", "activations", "total", "largest batch")
    yield from (memory_line(row) for row in made.rows)
    yield ""
    yield "time"
    yield header("strategy", "batch", "update", "updates", "step", "waiting", "MFU", "days")
    yield from (time_line(row) for row in made.rows)
    yield ""
    yield from summary(made)
    yield ""
    yield from (f"! {warning}" for warning in made.warnings or ("no bottleneck found",))


def header(*names: str) -> str:
    """The names of columns, as wide as their numbers."""
    return f"  {names[0]:20}" + "".join(f"{name:>14}" for name in names[1:])


def memory_line(row: Row) -> str:
    """One strategy's memory on a GPU in GB, and the longest batch that fits."""
    memory = row.memory
    parts = (memory.weights, memory.gradients, memory.optimizer, memory.copies, memory.activations, memory.total)
    largest = f"{row.largest_batch_seconds:,.0f} s" if row.largest_batch_seconds else "none"
    return f"  {row.strategy:20}" + "".join(f"{part:14,.2f}" for part in parts) + f"{largest:>14}"


def time_line(row: Row) -> str:
    """One strategy's batch, update, time and price; or that it does not fit."""
    if not row.fits:
        return f"  {row.strategy:20}" + f"{row.batch_seconds:12,.0f} s" + f"{'does not fit':>14}"
    update = f"{row.audio_seconds / 3600:,.2f} h"
    waiting = (row.network_seconds + row.loading_seconds) / row.update_seconds
    return (
        f"  {row.strategy:20}{row.batch_seconds:12,.0f} s{update:>14}{row.updates:14,}{row.update_seconds:12,.3f} s"
        f"{waiting:14.0%}{row.mfu:14.1%}{row.days:14,.2f}"
    )


def summary(made: Plan) -> Iterator[str]:
    """What the chosen strategy comes to."""
    data, saved = made.data, made.saved
    row = next(row for row in made.rows if row.strategy == made.chosen)
    yield f"with {made.chosen}, {row.accumulate} batch(es) of {row.batch_seconds:,.0f} s per GPU and update:"
    yield (
        f"  heard        {data.heard_hours:,.0f} h of audio, {data.epochs:.2f} times the {data.hours:,.0f} h there "
        f"are; {data.frames:.3g} frames, {data.hidden_frames:.3g} of them hidden"
    )
    stored = ", ".join(f"{name} {size / 1e3:,.2f} TB" for name, size in data.stored_gb.items())
    yield f"  stored       {stored}"
    yield (
        f"  read         {data.read_gb_s:,.3f} GB/s for {data.audio_seconds_per_second:,.0f} s of audio a second; "
        f"{data.workers_needed_each:.1f} loader workers per GPU"
    )
    yield (
        f"  checkpoint   {saved.checkpoint_gb:,.2f} GB in {saved.write_seconds:,.1f} s ({saved.share:.1%} of the "
        f"time); bundle {saved.bundle_gb:,.2f} GB"
    )
    price = "price_per_gpu_hour=… gives the cost" if made.cost is None else f"cost {made.cost:,.0f}"
    yield f"  needs        {row.days:,.2f} days, {made.gpu_hours:,.0f} GPU hours; {price}"
