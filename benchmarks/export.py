"""A bundle and labelled recordings in; what its exports cost in accuracy, how fast and how large they are, out.

python benchmarks/export.py --bundle runs/mine/bundle --manifest /my/corpus/manifest.jsonl --split dev --json FILE

Parity is what `glmasr export` checks itself. Error rates and tokens are those of whole utterances, greedy, without
voice detection; `agreement` counts tokens against torch's, of sherpa-onnx symbols, its stream's against ours of the
same chunks, where both hear the same 16 bits and where ours hears what resampling left between them. Speeds are
audio-seconds per CPU second of one thread, on pieces of --seconds made of utterances in a row; torch, ONNX Runtime and
int8 take turns, and medians and the median of the ratios are kept; the same for a random encoder of 28 M parameters, in
whose time matrix products weigh more.
Start-up is the wall time of `glmasr transcribe` on one utterance, a bundle's and an export's in turns, import to exit.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from glmasr.bundle import Bundle, build_recognizer, open_bundle, save_bundle
from glmasr.data.catalog import prepare_catalog
from glmasr.data.corpora import Manifest
from glmasr.decoding.ctc import greedy
from glmasr.evaluation.report import surroundings
from glmasr.exported import Exported, together
from glmasr.exporting.export import CHUNK_FRAMES, LEFT_CHUNKS, export
from glmasr.exporting.online import END
from glmasr.frontend.audio import read_audio
from glmasr.model import streaming
from glmasr.model.recognizer import parameter_count
from glmasr.speech import RATE_HZ, Utterance
from glmasr.text.errors import count_errors
from glmasr.text.normalize import metrics_for
from glmasr.text.tokenizer import learn_characters

BATCHES = (1, 8)
LARGE = {"width": 384, "blocks": 12, "heads": 6, "stem_channels": 64}
"""28 M parameters."""

Tokens = list[tuple[int, ...]]
Hear = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Waveforms to log-probabilities (T, V) of each."""


def by_torch(folder: Path) -> Hear:
    """A bundle as the transcriber runs it."""
    bundle = open_bundle(folder)

    @torch.inference_mode()
    def hear(waveforms: list[np.ndarray]) -> list[np.ndarray]:
        given = {name: torch.from_numpy(value) for name, value in together(waveforms).items()}
        heard = bundle.recognizer()(*bundle.ear(given["waveform"], given["lengths"]))
        rows = heard.ctc_log_probs.numpy()
        return [row[:end] for row, end in zip(rows, heard.lengths.tolist(), strict=True)]

    return hear


def by_sherpa(folder: Path) -> Callable[[np.ndarray], list[str]] | None:
    """The symbols that sherpa-onnx finds in a waveform, None where it is not installed."""
    try:
        import sherpa_onnx
    except ImportError:
        return None
    files = {"model": str(folder / "model.onnx"), "tokens": str(folder / "tokens.txt")}
    runtime = sherpa_onnx.OfflineRecognizer.from_omnilingual_asr_ctc(**files)

    def hear(waveform: np.ndarray) -> list[str]:
        stream = runtime.create_stream()
        stream.accept_waveform(RATE_HZ, waveform)
        runtime.decode_stream(stream)
        return list(stream.result.text.strip())

    return hear


def by_sherpa_live(folder: Path) -> Callable[[np.ndarray], list[str]] | None:
    """The symbols that its OnlineRecognizer finds in 16-bit samples to their end, 100 ms at a time."""
    try:
        import sherpa_onnx
    except ImportError:
        return None
    files = {"model": str(folder / "streaming.onnx"), "tokens": str(folder / "tokens.txt")}
    runtime = sherpa_onnx.OnlineRecognizer.from_t_one_ctc(**files)

    def hear(samples: np.ndarray) -> list[str]:
        stream, samples = runtime.create_stream(), np.append(samples, np.full(RATE_HZ, END))
        for start in range(0, len(samples), RATE_HZ // 10):
            stream.accept_waveform(8000, samples[start : start + RATE_HZ // 10] / END)
            while runtime.is_ready(stream):
                runtime.decode_stream(stream)
        return list(runtime.get_result(stream).strip())

    return hear


def live_agreement(folder: Path, bundle: Bundle, waveforms: Sequence[np.ndarray]) -> dict[str, float]:
    """What sherpa-onnx streams against our stream under the same chunks: of the same 16 bits, and of exact floats."""
    runtime, tokenizer = by_sherpa_live(folder), bundle.tokenizer
    if runtime is None or tokenizer is None:
        return {}
    samples = [(one * 32768).round() for one in waveforms]

    def ours(one: np.ndarray) -> list[str]:
        stream = streaming.Stream(bundle.recognizer(), bundle.ear, CHUNK_FRAMES, LEFT_CHUNKS)
        return list(tokenizer.decode(greedy(stream.hear(one, last=True)).tokens).strip())

    texts = [runtime(one) for one in samples]
    return {
        "sherpa-onnx live": agreement([ours(one / np.float32(32768)) for one in samples], texts),
        "sherpa-onnx live, floats": agreement([ours(one) for one in waveforms], texts),
    }


def agreement(expected: Sequence[Sequence], found: Sequence[Sequence]) -> float:
    """The share of tokens that stand in both."""
    pairs = list(zip(expected, found, strict=True))
    blocks = [SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks() for a, b in pairs]
    return sum(block.size for one in blocks for block in one) / max(sum(max(len(a), len(b)) for a, b in pairs), 1)


def accuracy(heard: Tokens, tokenizer, utterances: Sequence[Utterance], metric: str) -> float:
    """The error rate of greedy texts."""
    counts = [
        count_errors(tokenizer.reference(one.text or ""), tokenizer.decode(tokens), one.language, metric)
        for one, tokens in zip(utterances, heard, strict=True)
    ]
    return sum(count.errors for count in counts) / max(sum(count.words for count in counts), 1)


def pieces_of(waveforms: Sequence[np.ndarray], seconds: float) -> list[np.ndarray]:
    """Utterances in a row, cut every `seconds`; all of one length, at least the largest batch of them."""
    size = round(seconds * RATE_HZ)
    speech = np.concatenate(waveforms)
    whole = np.resize(speech, max(len(speech) // size, max(BATCHES)) * size)
    return list(whole.reshape(-1, size)[: 2 * max(BATCHES)])


def speeds(rows: dict[str, Hear], pieces: list[np.ndarray], batch: int, rounds: int) -> dict[str, Any]:
    """Audio-seconds per CPU second of each, and each one's speed over the first's, round by round."""
    seconds = sum(map(len, pieces)) / RATE_HZ
    times: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(rounds + 1):
        for name, hear in rows.items():
            begun = time.process_time()
            for start in range(0, len(pieces), batch):
                hear(pieces[start : start + batch])
            if turn:  # the first is for warming up
                times[name].append(time.process_time() - begun)
    found: dict[str, Any] = {name: seconds / statistics.median(taken) for name, taken in times.items()}

    def ratio(slow: str, fast: str) -> float:
        return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))

    return found | {"onnx over torch": ratio("torch", "onnx"), "int8 over onnx": ratio("onnx", "int8")}


def startup(folders: dict[str, Path], file: str, rounds: int) -> dict[str, dict[str, float]]:
    """Wall and CPU seconds of a whole `glmasr transcribe` of one file, medians."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in folders}
    for _ in range(rounds):
        for name, folder in folders.items():
            command = [sys.executable, "-m", "glmasr.cli", "transcribe", "--bundle", str(folder), file]
            begun, before = time.perf_counter(), os.times()
            subprocess.run(command, check=True, capture_output=True)
            after = os.times()
            used = after.children_user + after.children_system - before.children_user - before.children_system
            taken[name].append((time.perf_counter() - begun, used))
    return {
        name: {
            "wall_seconds": statistics.median(w for w, _ in all),
            "cpu_seconds": statistics.median(c for _, c in all),
        }
        for name, all in taken.items()
    }


def exports(bundle: Path, home: Path, audio: list[str]) -> dict[str, Any]:
    """Both precisions for ONNX Runtime and one for sherpa-onnx; what was said of parity."""
    told: dict[str, Any] = {}
    for name, format, options in (
        ("onnx", "onnx", {"streaming": True}),
        ("int8", "onnx", {"int8": True}),
        ("sherpa", "sherpa", {"streaming": True}),
    ):
        facts = export(bundle, format, home / name, audio=audio, **options)
        told[name] = {part: value for part, value in facts["parity"].items() if isinstance(value, dict)}
        told[name].pop("state", None)
    return told


def large(home: Path) -> Path:
    """A random recognizer of 28 M parameters."""
    torch.manual_seed(0)
    tokenizer = learn_characters(["abcdefghijklmnopqrstuvwxyz '"])
    ear = {"_target_": "glmasr.frontend.pipeline.Ear", "bins": 80}
    model = {"encoder": {"_target_": "glmasr.model.encoder.Encoder", **LARGE}, "decoder": None}
    weights = build_recognizer(model, tokenizer.size).state_dict()
    save_bundle(home, ear=ear, model=model, weights=weights, tokenizer=tokenizer, training={})
    return home


def measured(given: argparse.Namespace, home: Path) -> dict[str, Any]:
    """All that is measured, as JSON has it."""
    torch.set_num_threads(1)
    catalog = prepare_catalog(Manifest(given.manifest), str(home / "catalogs"))
    utterances = list(islice(catalog.subset(split=given.split), given.utterances))
    waveforms = [read_audio(str(one.audio), one.offset_seconds, one.duration_seconds) for one in utterances]
    long = sorted(range(len(waveforms)), key=lambda i: -len(waveforms[i]))[:8]
    parity = exports(given.bundle, home, [str(utterances[i].audio) for i in long])
    rows: dict[str, Hear] = {"torch": by_torch(given.bundle)}
    rows |= {name: Exported(home / name).log_probs for name in ("onnx", "int8")}  # type: ignore[dict-item]
    heard = {name: [greedy(hear([one])[0]).tokens for one in waveforms] for name, hear in rows.items()}
    bundle = open_bundle(given.bundle)
    references = [bundle.tokenizer.reference(one.text or "") for one in utterances]  # type: ignore[union-attr]
    metric = metrics_for(utterances[0].language, references)[0]
    found: dict[str, Any] = {
        "utterances": len(utterances),
        "metric": metric,
        "parameters": parameter_count(bundle.recognizer()),
        "parity": parity,
        "error_rate": {name: accuracy(tokens, bundle.tokenizer, utterances, metric) for name, tokens in heard.items()},
        "agreement": {name: agreement(heard["torch"], tokens) for name, tokens in heard.items()},
        "bytes": {"torch": bundle.size_bytes} | {name: Exported(home / name).size_bytes for name in ("onnx", "int8")},
    }
    runtime = by_sherpa(home / "sherpa")
    if runtime and bundle.tokenizer:
        texts = [list(bundle.tokenizer.decode(tokens).strip()) for tokens in heard["torch"]]
        found["agreement"]["sherpa-onnx"] = agreement(texts, [runtime(one) for one in waveforms])
    found["agreement"] |= live_agreement(home / "sherpa", bundle, waveforms)
    pieces = pieces_of(waveforms, given.seconds)
    found["speed"] = {f"batch {batch}": speeds(rows, pieces, batch, given.rounds) for batch in BATCHES}
    folder = large(home / "large")
    for name, int8 in (("onnx", False), ("int8", True)):
        export(folder, "onnx", home / f"large_{name}", int8=int8, audio=[str(utterances[long[0]].audio)])
    more: dict[str, Hear] = {"torch": by_torch(folder)}
    more |= {name: Exported(home / f"large_{name}").log_probs for name in ("onnx", "int8")}  # type: ignore[dict-item]
    found["speed at 28 M"] = {f"batch {batch}": speeds(more, pieces[:8], batch, given.rounds // 2) for batch in BATCHES}
    found["startup"] = startup({"torch": given.bundle, "onnx": home / "onnx"}, str(utterances[long[0]].audio), 5)
    return found


def table(found: dict[str, Any]) -> str:
    """What is worth reading, in lines."""
    lines = [f"{found['parameters'] / 1e6:.1f} M parameters, {found['utterances']} utterances"]
    for folder, parts in found["parity"].items():
        lines += [f"parity {folder:7} {name:15} {value['difference']:.1e}" for name, value in parts.items()]
    rates = found["error_rate"]
    for name, rate in rates.items():
        change = (rate - rates["torch"]) / max(rates["torch"], 1e-9)
        lines.append(
            f"{found['metric']} {name:12} {rate:.4f}  {change:+.2%}  same tokens {found['agreement'][name]:.2%}"
        )
    runtimes = {name: share for name, share in found["agreement"].items() if name.startswith("sherpa-onnx")}
    lines += [f"{name} writes {share:.2%} of our text" for name, share in runtimes.items()]
    lines += [f"{name:12} {size / 1e6:.1f} MB" for name, size in found["bytes"].items()]
    for size in ("speed", "speed at 28 M"):
        for batch, row in found[size].items():
            lines.append(f"{size:13} {batch}: " + "  ".join(f"{name} {value:.3g}" for name, value in row.items()))
    for name, taken in found["startup"].items():
        lines.append(f"start to exit {name:6} {taken['wall_seconds']:.2f} s ({taken['cpu_seconds']:.2f} s CPU)")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found = measured(given, Path(folder))
    print(table(found))
    if given.json:
        given.json.write_text(json.dumps(surroundings() | {"load": load} | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
