"""benchmarks/results/*.json in, docs/benchmarks.md out: every figure with its machine, load, versions and goal.

python benchmarks/tables.py
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS, PAGE = REPOSITORY / "benchmarks" / "results", REPOSITORY / "docs" / "benchmarks.md"
COMMANDS = {
    "training": "python benchmarks/training.py --json benchmarks/results/training.json",
    "loading": "python benchmarks/training.py --loading --json benchmarks/results/loading.json",
    "inference": "python benchmarks/inference.py --json benchmarks/results/inference.json",
    "scaling": "python benchmarks/scaling.py --json benchmarks/results/scaling.json",
    "nano": "python benchmarks/scaling.py --nano --json benchmarks/results/nano.json",
    "frontend": "python benchmarks/frontend.py --json benchmarks/results/frontend.json",
    "export": "python benchmarks/export.py --bundle DIR --manifest FILE --json benchmarks/results/export.json",
    "serving": "python benchmarks/serving.py --json benchmarks/results/serving.json",
}
TITLES = {
    "training": "Training: a pretraining step against peers",
    "loading": "Training: `make pretrain` against its own steps",
    "inference": "Inference",
    "scaling": "Scaling: cost against length, width and depth",
    "nano": "nano takes a step",
    "frontend": "Files, resampling, features",
    "export": "Export: ONNX Runtime and sherpa-onnx against torch",
    "serving": "Serving: malformed, huge, slow and many requests",
}
RAW_WAVE, OURS = "Wav2Vec2", "glmasr"

Row = Mapping[str, Any]


def main() -> None:
    parts = [HEAD]
    for name, command in COMMANDS.items():
        path = RESULTS / f"{name}.json"
        parts.append(f"## {TITLES[name]}\n")
        if not path.is_file():
            parts.append(f"Not measured yet: `{command}`.\n")
            continue
        found = json.loads(path.read_text())
        parts += [about(found), *DRAWN[name](found)]
    parts.append(TAIL)
    PAGE.write_text("\n".join(parts))


def about(found: Row) -> str:
    """What a figure must name, in a line."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version)
    loads = found["load"] if isinstance(found["load"], list) else [found["load"]]
    load = " to ".join(f"{one:.1f}" for one in loads)
    spinning = " ".join(f"{name}={value}" for name, value in found.get("openmp", {}).items() if value)
    commit = (found["git_commit"] or "no commit")[:12] + ("+" if (found["git_commit"] or "").endswith("+") else "")
    return (
        f"`{found['command']}`, {found['date'][:10]}, commit {commit}, {found['machine']['cpu']}, "
        f"{found['machine']['cores']} cores, {found.get('threads', 1)} threads ({spinning or 'OpenMP as it comes'}), "
        f"load {load}, clock {found.get('clock', 'wall')}; {versions}.\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def training(found: Row) -> Iterator[str]:
    """A table, then the goals at each size."""
    before, after = found["limits"]["before"], found["limits"]["after"]
    yield (
        f"sgemm {before['gflops']:.0f} GFLOP/s before and {after['gflops']:.0f} after, copies {before['gb_s']:.0f} and "
        f"{after['gb_s']:.0f} GB/s; the batch is {found['audio_seconds']:.0f} s of speech, padded by as much as is "
        f"{found['padding']:.0%} of the whole.\n"
    )
    head = (
        "size",
        "side",
        "parameters",
        "audio-s/s",
        "step, to the first",
        "GFLOP per audio-s",
        "MFU",
        "MB per audio-s",
    )
    yield table(
        head,
        [
            (
                row["size"],
                row["name"],
                f"{row['parameters'] / 1e6:.1f} M",
                f"{row['audio_seconds_per_second']:.1f}",
                f"{row['ratio']:.2f}",
                f"{row['gflops_per_audio_second']:.2f}",
                f"{row['mfu']:.0%}",
                f"{row['mb_per_audio_second']:.1f}",
            )
            for row in found["rows"]
        ],
    )
    for size in dict.fromkeys(row["size"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["size"] == size]
        speed = {row["name"]: row["audio_seconds_per_second"] for row in rows}
        log_mel = {n: s for n, s in speed.items() if OURS not in n and ("Bert" in n or RAW_WAVE not in n)}
        conformer = [s for n, s in speed.items() if "Wav2Vec2Conformer" in n]
        for row in rows:
            if OURS not in row["name"] or "noise" in row["name"]:
                continue
            dropout = row["name"].partition(", dropout=")[2]
            alike = [name for name in log_mel if name.partition(", dropout=")[2] == dropout]
            own, peer = speed[row["name"]], max(alike, key=log_mel.__getitem__, default=None)
            label = f"{size}, {row['name']}"
            if peer is not None:
                yield goal(f"{label}: times {peer}, the fastest log-mel peer", own / log_mel[peer], 2)
            if conformer and not dropout:
                yield goal(f"{label}: times Wav2Vec2Conformer", own / conformer[0], 10)
            yield goal(f"{label}: share of the sgemm peak", row["mfu"], 0.55)
    yield ""


def goal(what: str, value: float, wanted: float) -> str:
    """One line."""
    return f"- {what}: {value:.2f}, {'reached' if value >= wanted else '**short of**'} {wanted:g}"


def loading(found: Row) -> Iterator[str]:
    """What loading costs."""
    rows = found["rows"]
    yield table(
        ("size", "what", "audio-s/s", "its steps alone", "lost", "of blocks of ten steps"),
        [
            (
                row["size"],
                row["name"].removeprefix("make pretrain, "),
                f"{row['audio_seconds_per_second']:.1f}",
                f"{row['bare_seconds_per_second']:.1f}",
                f"{row['share_lost']:+.1%}",
                f"{min(row['blocks']):+.1%} to {max(row['blocks']):+.1%}",
            )
            for row in rows
        ],
    )
    for size in dict.fromkeys(row["size"] for row in rows):
        lost_by_kind: dict[str, list[float]] = {}
        for row in rows:
            if row["size"] == size:
                kind = row["name"].removeprefix("make pretrain, ").split(", batches.")[0]
                lost_by_kind.setdefault(kind, []).append(row["share_lost"])
        for kind, shares in lost_by_kind.items():
            lost = min(shares)
            word = "reached" if lost < 0.03 else "**short of**"
            yield f"- {size}, {kind}, lost to loading and all else that is no step: {lost:.1%}, {word} 3 %"
    yield ""


def inference(found: Row) -> Iterator[str]:
    """A table, then the goal."""
    yield f"{found['utterances']} utterances, {found['audio_seconds']:.0f} s.\n"
    yield table(
        ("side", "parameters", "times real time", "times tiny.en int8"),
        [
            (
                row["name"],
                f"{row['parameters'] / 1e6:.1f} M",
                f"{row['rtfx']:.0f}",
                f"{row['by_whisper']:.2f}" if row["by_whisper"] else "",
            )
            for row in found["rows"]
        ],
    )
    for row in found["rows"]:
        if OURS in row["name"] and row["by_whisper"]:
            yield goal(f"{row['name']}: times tiny.en int8", row["by_whisper"], 5)
    yield ""


def scaling(found: Row) -> Iterator[str]:
    """Exponents, then what they were fitted to."""
    yield table(
        ("cost against", "power of seconds", "power of operations", "sizes", "seconds", "MB"),
        [
            (
                row["name"],
                f"{row['exponent_seconds']:.2f}",
                f"{row['exponent_gflops']:.2f}",
                *(" ".join(f"{one:.3g}" for one in row[key]) for key in ("sizes", "seconds", "mb")),
            )
            for row in found["rows"]
        ],
    )


def nano(found: Row) -> Iterator[str]:
    """One row, as facts."""
    for row in found["rows"]:
        yield table(list(row), [[f"{one:,}" if isinstance(one, int) else str(one) for one in row.values()]])


def frontend(found: Row) -> Iterator[str]:
    """One table."""
    yield table(
        ("task", "side", "audio-s/s", "ours to it"),
        [(r["task"], r["name"], f"{r['audio_seconds_per_second']:.0f}", f"{r['ratio']:.2f}") for r in found["rows"]],
    )


def facts(found: Row) -> Iterator[str]:
    """What was found, as it was written."""
    yield table(
        ("what", "found"),
        [(str(name), flat(row)) for name, row in rows_of(found)],
    )


def exported(found: Row) -> Iterator[str]:
    """Sections as they were written."""
    yield f"{found['utterances']} utterances, {found['parameters'] / 1e6:.1f} M parameters.\n"
    named = ("parity", "error_rate", "agreement", "bytes", "speed", "speed at 28 M", "startup")
    yield table(("what", "found"), [(name, flat(found[name])) for name in named if name in found])


def flat(value: Any) -> str:
    """Nested mappings on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} ({flat(v)})" if isinstance(v, Mapping) else f"{k} {flat(v)}" for k, v in value.items())
    return shown(value)


def rows_of(found: Row) -> list[tuple[Any, Row]]:
    """Rows with their names, whether they are a list or a mapping."""
    rows = found["rows"]
    return list(rows.items()) if isinstance(rows, Mapping) else [(row.get("name", ""), row) for row in rows]


def shown(value: Any) -> str:
    """A number to four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


DRAWN = {
    "training": training,
    "loading": loading,
    "inference": inference,
    "scaling": scaling,
    "nano": nano,
    "frontend": frontend,
    "export": exported,
    "serving": facts,
}
HEAD = """# Speed, beside peers

Drawn by `python benchmarks/tables.py` from `benchmarks/results/`; `make bench` measures and draws anew. What each side
does, and what is left out, stands at the head of its benchmark. Figures that fall short stay, with reasons at the end.
"""
TAIL = """## What was made cheap, and what it cost in accuracy

- The stem is depthwise-separable with few channels (`benchmarks/stem.py`): held-out loss of naming k-means codes under
  masks after 400 steps 2.607 and 2.595 (two seeds), with a plain second convolution 2.528 (one): it costs a little.
  Kernels are 15; with 31 it is 2.651 (`benchmarks/learning.py`, docs/LOG.md).
- Codebooks are 4 × 256 instead of one of 8192: after 2,000 steps of random projection the frozen probe is 1.976 and
  2.030 nats (two seeds) with the four, 2.272 (one) with the one (docs/LOG.md): the cheap ones cost nothing.
- Dropout: after 2,000 steps of reconstruction without it, the frozen probe is 1.708 and 1.707 nats (two seeds), with
  0.1 it is 1.773 and 1.776 (docs/LOG.md): at this length it costs both time and accuracy. Pretraining goes without
  (`dropout=0.1` brings it back), fine-tuning with it, whatever a bundle was pretrained with.
- Visible frames only (`predictor.layers=2`, an option): frozen probe of the top block 1.539 nats after 4,000 steps,
  1.527 after 6,000, of masked input 1.581 and 1.457; digits after fine-tuning WER 29.6 and 31.5, of masked input 34.1
  and 34.4 (one pretraining each, docs/LOG.md). Nothing shows that it costs accuracy at equal steps, nor the contrary;
  a step has two thirds of the operations.

## Why figures fall short, where they do

- Against torchaudio's Conformer at equal parameters: 22 % of its 7 M lie in its stem, so it has a block less, and those
  convolutions run close to the sgemm peak. It computes 2.2 times as much as ours for each second of audio, and where it
  does so at a higher share of the peak than ours, the ratio is below 2.
- Against tiny.en: its matrix products are int8, those of our 28 M are float32. At 3 M ours passes it by far.
- w2v-BERT and raw-wave peers work at frames of 20 ms, ours at 40; they are as their authors made them.
- At 28 M SpeechBrain's Conformer has a stem as cheap as ours; what ours computes less of is padding, 30 % of this batch
  of four to ten seconds. The batches of `make pretrain` are of like lengths and have little of it: there only what
  visible frames save remains. Rows with dropout and of other peers, of a quicker hour: this page at commit 4cd6803.
- Raw-wave peers grow less with their width than ours, since at 7 M most of their work is the convolutions over the
  waveform; so the ratio to them falls at 28 M.
- WeNet and NeMo are left out: they were not tried.
- Loading: what is left where audio is kept decoded is noise and speed, 20 ms of CPU for 15 s on this machine, and what
  Lightning, health and logs do. A worker takes it from the same two cores, whose threads wait for each other. That WAV
  with a worker is below 3 % is the mean of -6 and +13 and not shown; why WAV decoded anew should cost less than what is
  kept decoded is not known, and may be the machine. 28 M was not measured anew.
- int8: this processor has no VNNI. On one that has (this page at commit 4cd6803) it was 1.52 and 1.57 times float32 at
  3.4 M and 2.0 at 28 M, with weights of eight bits, which other processors compute wrongly; now they have seven.
- Features: ours are computed in doubles, so that all runtimes agree; SpeechBrain and transformers take float32.
- Scaling is measured with glibc told to keep what is freed (`MALLOC_…` above). As it comes, a layer's frames of more
  than 32 MB are mapped and paged in anew each time, and limited context grows by the power 1.28 (docs/LOG.md).
"""

if __name__ == "__main__":
    main()
