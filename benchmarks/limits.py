"""This machine in, what it can do at most out: sgemm and copying, measured in the run they are compared with."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from glmasr.evaluation.report import surroundings
from glmasr.planning.workload import COUNTED

SIDE, FLOATS, TRIES = 2048, 2**26, 5
"""Of a square matrix, and of an array larger than any cache."""

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
"""The process' own time leaves out what neighbors on a shared machine take, and adds up threads: give it one thread."""


@dataclass(frozen=True)
class Limits:
    """The best of a few tries: 10⁹ operations a second in single precision, 10⁹ bytes read and written a second."""

    gflops: float
    gb_s: float


def measure(clock: Clock = time.perf_counter) -> Limits:
    """Of torch's threads, in about two seconds."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    product = torch.empty_like(a)
    source, target = torch.ones(FLOATS), torch.empty(FLOATS)
    multiplying = best(lambda: torch.mm(a, b, out=product), clock)
    copying = best(lambda: target.copy_(source), clock)
    return Limits(2 * SIDE**3 / multiplying / 1e9, 2 * 4 * FLOATS / copying / 1e9)


def best(work: Callable[[], object], clock: Clock) -> float:
    """The least seconds of `TRIES` after one more."""
    work()
    return min(seconds(work, clock) for _ in range(TRIES))


def seconds(work: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """What the work takes."""
    started = clock()
    work()
    return clock() - started


def operations(work: Callable[[], object]) -> float:
    """Of its matrix products, convolutions and attention, as executed."""
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
        work()
    return float(counter.get_total_flops())


SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""Of OpenMP, and of glibc: what it gives back to the system, and so pages in anew."""


def about(*packages: str) -> dict[str, Any]:
    """Command, day, commit, versions (of `packages` too), machine, threads and load: what a figure must name."""
    found = surroundings()
    found["versions"] |= {name: version_of(name) for name in packages}
    set_here = {name: os.environ.get(name) for name in SETTINGS}
    return found | {"threads": torch.get_num_threads(), "openmp": set_here, "load": [round(os.getloadavg()[0], 2)]}


def version_of(package: str) -> str | None:
    """None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
