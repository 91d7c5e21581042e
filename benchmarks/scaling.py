"""Nothing but a machine in; how cost grows with length, width and depth, as exponents, and a step of nano, out.

python benchmarks/scaling.py --json benchmarks/results/scaling.json
python benchmarks/scaling.py --nano --json benchmarks/results/nano.json              # 1.5 B: 15 GB of memory, minutes
python benchmarks/scaling.py --nano --blocks 2                                       # a dry run of a tenth

Of an encoder as conformer_tiny has it, on noise, which costs what speech does. Length: the ear and a forward pass of
one recording, 10 s to 20 min, with attention over all of it, with attention limited to the frame's chunk of 0.64 s and
eight before it, and streamed with the same limit. Width and depth: a forward and backward pass of a minute. All take
turns, medians are kept. An exponent is the slope of log cost over log size, of seconds and of counted operations, over
the larger half of the sizes; attention alone may be above 1. `mb` is how far the process' memory rises.

--nano takes one full training step of the whole recognizer, decoder too: features, forward, both losses, backward with
activations computed again, clipping, AdamW; weights, gradients and moments in bf16, one utterance of 4 s.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from limits import CLOCKS, about, operations, seconds
from omegaconf import OmegaConf
from torch import nn

from glmasr.build import build
from glmasr.bundle import build_recognizer
from glmasr.evaluation.memory import PeakMemory
from glmasr.frontend.pipeline import Ear
from glmasr.model.encoder import Encoder
from glmasr.model.recognizer import parameter_count
from glmasr.model.streaming import stream
from glmasr.speech import RATE_HZ
from glmasr.training.optimizer import adamw

REPOSITORY = Path(__file__).resolve().parent.parent
LENGTHS = (10, 30, 60, 120, 300, 600, 1200)
WIDTHS, DEPTHS = (96, 144, 192, 288, 384), (2, 4, 8, 12, 16)
CHUNK = {"chunk_frames": 16, "left_chunks": 8}
VOCABULARY, NANO_SECONDS, NANO_TOKENS = 5000, 4, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--longest", type=int, default=1200, help="seconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: on a shared machine, with one thread")
    parser.add_argument("--nano", action="store_true", help="one step of conf/model/nano.yaml instead")
    parser.add_argument("--blocks", type=int, help="of nano's encoder and decoder each, for a dry run")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = about()
    if asked.nano:
        found["rows"] = [nano(asked.blocks)]
    else:
        found["clock"] = asked.clock
        found["rows"] = [
            *by_length([s for s in LENGTHS if s <= asked.longest], asked.rounds, asked.clock),
            *by_shape("width", WIDTHS, lambda width: Encoder(width, 6, 4), asked.rounds, asked.clock),
            *by_shape("depth", DEPTHS, lambda blocks: Encoder(144, blocks, 4), asked.rounds, asked.clock),
        ]
    found["load"].append(round(os.getloadavg()[0], 2))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


def by_length(lengths: Sequence[int], rounds: int, clock: str) -> list[dict[str, Any]]:
    """A row for each way to hear a long recording."""
    torch.manual_seed(0)
    encoder, ear = Encoder(144, 6, 4).eval(), Ear()

    @torch.inference_mode()
    def hear(samples: torch.Tensor, **view: int) -> None:
        features, count = ear(samples[None], torch.tensor([len(samples)]))
        encoder(features, count, **view)

    def streamed(samples: torch.Tensor) -> None:
        stream(encoder, ear, samples.split(RATE_HZ), **CHUNK)

    ways: dict[str, Callable[[torch.Tensor], None]] = {
        "length, whole": hear,
        "length, limited context": lambda samples: hear(samples, **CHUNK),
        "length, streamed": streamed,
    }
    waves = {size: 0.1 * torch.randn(size * RATE_HZ) for size in lengths}
    return compared(ways, waves, rounds, clock)


def by_shape(
    name: str, sizes: Sequence[int], make: Callable[[int], Encoder], rounds: int, clock: str
) -> list[dict[str, Any]]:
    """One row: encoders of so many sizes on the same minute."""
    them = {size: make(size).train() for size in sizes}
    features, count = torch.randn(6, 1000, 80), torch.full((6,), 1000)

    def step(encoder: Encoder) -> None:
        encoder(features, count)[0].square().mean().backward()
        encoder.zero_grad(set_to_none=True)

    return compared({name: step}, them, rounds, clock)


def compared(
    ways: dict[str, Callable[[Any], None]], given: dict[int, Any], rounds: int, clock: str
) -> list[dict[str, Any]]:
    """Seconds, operations and memory of every way at every size, and the exponents."""
    rows = []
    taken: dict[tuple[str, int], list[float]] = {(way, size): [] for way in ways for size in given}
    counted, risen = {}, {}
    for work in ways.values():
        work(given[min(given)])  # libraries load what they load
    for way, size in taken:
        with PeakMemory() as memory:
            counted[way, size] = operations(lambda way=way, size=size: ways[way](given[size])) / 1e9
        risen[way, size] = (memory.peak_bytes or 0) / 1e6
    for at in range(rounds):
        for way, size in taken:
            if at == 0 or taken[way, size][0] < 5:
                taken[way, size].append(seconds(lambda way=way, size=size: ways[way](given[size]), CLOCKS[clock]))
    for way in ways:
        medians = [statistics.median(taken[way, size]) for size in given]
        gflops = [counted[way, size] for size in given]
        row = {
            "name": way,
            "sizes": list(given),
            "seconds": [round(s, 4) for s in medians],
            "gflops": [round(g, 2) for g in gflops],
            "mb": [round(risen[way, size], 1) for size in given],
            "exponent_seconds": exponent(list(given), medians),
            "exponent_gflops": exponent(list(given), gflops),
        }
        rows.append(row)
        print(
            f"{way:26} seconds grow by the power {row['exponent_seconds']:.2f}, operations {row['exponent_gflops']:.2f}"
        )
        for size, took, count, held in zip(given, medians, gflops, row["mb"], strict=True):
            print(f"{size:>10} {took:9.3f} s {count:10.2f} GFLOP {held:8.0f} MB", flush=True)
    return rows


def exponent(sizes: list[int], costs: list[float]) -> float:
    """Of a power law through the larger half."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(costs[half:]), 1)[0])


def nano(blocks: int | None) -> dict[str, Any]:
    """Seconds and memory of one step."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("finetune", ["model=nano"]), resolve=True)
    for part in ("encoder", "decoder"):
        config["model"][part]["blocks"] = blocks or config["model"][part]["blocks"]
    waveform = 0.1 * torch.randn(1, NANO_SECONDS * RATE_HZ)
    tokens = torch.randint(5, VOCABULARY, (1, NANO_TOKENS))
    with PeakMemory() as memory:
        torch.set_default_dtype(torch.bfloat16)
        recognizer = build_recognizer(config["model"], VOCABULARY).train()
        torch.set_default_dtype(torch.float32)
        objective = build(
            {"_target_": "glmasr.objective.recognition.Recognition", "ctc_weight": 0.3, "middle_weight": 0.0}
        )
        optimizer = adamw([{"params": list(recognizer.parameters())}], 1e-4, 0.01)
        before = recognizer.ctc.weight.detach().clone()
        started = time.perf_counter()
        features, count = Ear()(waveform, torch.tensor([waveform.shape[1]]))
        heard = recognizer(features.to(before.dtype), count)
        loss = objective(recognizer, heard, tokens, torch.tensor([NANO_TOKENS])).total
        loss.backward()
        norm = nn.utils.clip_grad_norm_(recognizer.parameters(), 5.0)
        optimizer.step()
        took = time.perf_counter() - started
    reached = sum(p.grad is not None for p in recognizer.parameters())
    row = {
        "name": "nano, one step in bf16",
        "parameters": parameter_count(recognizer),
        "parameters_with_gradient": reached,
        "parameter_tensors": len(list(recognizer.parameters())),
        "loss": float(loss.detach()),
        "gradient_norm": float(norm),
        "has_moved": not torch.equal(before, recognizer.ctc.weight),
        "seconds": round(took, 2),
        "audio_seconds": NANO_SECONDS,
        "peak_gb": round((memory.peak_bytes or 0) / 1e9, 2),
    }
    print(", ".join(f"{key} {value}" for key, value in row.items()))
    return row


if __name__ == "__main__":
    main()
