"""A bundle in, a folder for another runtime out: ONNX Runtime, sherpa-onnx or transformers, checked before it is there.

It is written beside its place and put there whole, or not at all.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glmasr.bundle import Bundle, open_bundle
from glmasr.data.rhyme_test import NotFetched, RhymeTest
from glmasr.exported import FACTS, FORMAT, GRAPH, STREAMING, is_exported, session
from glmasr.exporting import cards, parity
from glmasr.exporting.files import quantize, write_graph
from glmasr.exporting.graphs import STATE, Chunk, ForSherpa, NextToken, Shown, Whole
from glmasr.exporting.online import first_inputs, online
from glmasr.exporting.parity import LIMIT, Parity
from glmasr.exporting.symbols import listed, table
from glmasr.frontend.audio import AUDIO_SUFFIXES, read_blocks
from glmasr.frontend.logmel import HOP_SAMPLES, WINDOW_SAMPLES
from glmasr.model.recognizer import parameter_count
from glmasr.model.subsampling import STRIDE
from glmasr.speech import RATE_HZ, InputError

FORMATS = ("onnx", "sherpa", "transformers")
CHUNK_FRAMES = 16
"""640 ms, what live captions hear at a time."""
LEFT_CHUNKS = 8
"""How far back sherpa-onnx's streams look, 5 s: their state, which has room for it all, is copied every 150 ms."""
FILES, SECONDS = 8, 20.0
"""So many recordings are compared, of each so much at most."""
TALKERS = 4
"""Of the rhyme test, which is what is compared where nobody names recordings."""

Say = Callable[[str], None]


def export(
    bundle: str | Path,
    format: str,
    out: str | Path,
    int8: bool = False,
    streaming: bool = False,
    audio: Sequence[str | Path] = (),
    say: Say = print,
) -> dict[str, Any]:
    """Write `out` and return what its export.json says.

    `int8` keeps matrix products in eight bits, `streaming` adds the graph that hears chunk by chunk. `audio` are
    recordings or folders of them that the graphs are compared with the bundle on; `say` is told how that went.
    InputError where that went wrong, or `out` is a folder of somebody else's.
    """
    if format not in FORMATS:
        raise InputError(f"--format {format} is unknown: choose one of {', '.join(FORMATS)}")
    opened, out = open_bundle(bundle), Path(out)
    opened.recognizer()
    if format == "transformers" and (int8 or streaming):
        raise InputError("--int8 and --streaming are for graphs: transformers reads the weights themselves")
    if out.exists() and not is_exported(out) and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"'{out}' is there and was not exported: name a new folder")
    staged = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    staged.mkdir(parents=True)
    try:
        facts = described(opened, format) | {"int8": int8}
        if format == "transformers":
            from glmasr.exporting import huggingface

            huggingface.write(opened, staged)
        else:
            writer = _onnx if format == "onnx" else _sherpa
            facts |= {"parity": writer(opened, staged, int8, streaming, speech(audio, say), say)}
        (staged / FACTS).write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        _publish(staged, out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return facts


def described(bundle: Bundle, format: str) -> dict[str, Any]:
    """Where an export comes from; what the transcriber asks of it."""
    return {
        "format": FORMAT,
        "kind": format,
        "from": bundle.digest(),
        "glmasr": version("glmasr"),
        "training": bundle.config["training"],
        "parameters": parameter_count(bundle.recognizer()),
        "vocabulary_size": bundle.config["vocabulary_size"],
        "rate_hz": RATE_HZ,
    }


def speech(audio: Sequence[str | Path], say: Say) -> list[np.ndarray]:
    """What graphs are compared on: the beginnings of these recordings; without any, real speech that is at hand.

    Where there is no network to fetch the rhyme test, it is noise that comes and goes, which says less.
    """
    files = [found for given in audio for found in _recordings(Path(given))]
    if audio and not files:
        raise InputError(f"there is no audio file in {', '.join(map(str, audio))}: name recordings of speech")
    if not files:
        try:
            clips = sorted(RhymeTest(os.path.join("data", "corpora")).fetch().glob("*.flac"))
            files = clips[:: max(1, len(clips) // FILES)]
        except (NotFetched, OSError):
            say("no speech is at hand (--audio FILE names some): compared on noise")
            rng = np.random.default_rng(0)
            swell = np.sin(np.arange(6 * RATE_HZ) / RATE_HZ * 6) ** 2
            return [(rng.normal(0, 0.1, len(swell)) * swell).astype(np.float32)[: (i + 3) * RATE_HZ] for i in range(4)]
    return [next(iter(read_blocks(str(file), SECONDS))) for file in islice(files, FILES)]


def _recordings(given: Path) -> list[Path]:
    if not given.is_dir():
        return [given]
    return sorted(path for path in given.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)


def _publish(staged: Path, out: Path) -> None:
    old = out.with_name(f"{out.name}.{os.getpid()}.old")
    if out.exists():
        out.rename(old)
    staged.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _checked(
    name: str, file: Path, compare: Callable[[Any], Parity], int8: bool, say: Say
) -> dict[str, dict[str, float]]:
    """Compare a graph with the bundle, and again with its weights in eight bits if they shall be."""
    exact = compare(session(file))
    say(f"{name}: log-probabilities within {exact.difference:.1e} of the bundle's")
    if not exact.difference <= LIMIT:
        raise InputError(
            f"{name} is {exact.difference:.1e} off, more than {LIMIT:.0e}, so nothing was written: "
            "is it this torch? Try the version in pyproject.toml"
        )
    told = {name: vars(exact)}
    if int8:
        quantize(file)
        rough = compare(session(file))
        say(f"{name} in int8: within {rough.difference:.2f}, {rough.agreement:.1%} of frames say the same")
        told[f"{name} int8"] = vars(rough)
    return told


def _onnx(
    bundle: Bundle, folder: Path, int8: bool, streaming: bool, heard: list[np.ndarray], say: Say
) -> dict[str, Any]:
    ear, recognizer, tokenizer = bundle.ear, bundle.recognizer(), bundle.tokenizer
    assert tokenizer is not None
    tokenizer.save(folder)
    facts = {key: value for key, value in described(bundle, "onnx").items() if key != "training"}
    facts["comment"] = "16 kHz mono in -1 … 1 in, natural logs of CTC tokens per 40 ms out; token 0 is the blank"
    several, lengths = torch.randn(2, 2 * RATE_HZ) / 10, torch.tensor([2 * RATE_HZ, RATE_HZ])
    file = folder / GRAPH
    write_graph(
        file,
        Whole(ear, recognizer),
        {"waveform": several, "lengths": lengths},
        ("log_probs", "frames", "context"),
        {"waveform": {0: "B", 1: "N"}, "lengths": {0: "B"}, "frames": {0: "B"}}
        | {name: {0: "B", 1: "T"} for name in ("log_probs", "context")},
        facts,
    )
    told = _checked("model", file, lambda graph: parity.whole_parity(ear, recognizer, graph, heard), int8, say)
    if recognizer.decoder is not None:
        file, context = folder / "decoder.onnx", torch.randn(2, 9, recognizer.encoder.width)
        inputs = {"tokens": torch.full((2, 5), 2), "context": context, "frames": torch.tensor([9, 7])}
        axes = {"tokens": {0: "B", 1: "U"}, "context": {0: "B", 1: "T"}, "frames": {0: "B"}, "log_probs": {0: "B"}}
        write_graph(file, NextToken(recognizer.decoder), inputs, ("log_probs",), axes, facts)
        told |= _checked(
            "decoder", file, lambda graph: parity.decoder_parity(ear, recognizer, graph, heard[0]), int8, say
        )
    if streaming:
        file = folder / STREAMING
        inputs = {"waveform": several[0], **parity.second_state(ear, recognizer, several[0])}
        axes = {"waveform": {0: "N"}, "log_probs": {1: "T"}}
        axes |= {name: {3: "P"} for name in ("keys", "values", "next_keys", "next_values")}
        outputs = ("log_probs", *(f"next_{name}" for name in STATE))
        write_graph(file, Chunk(ear, recognizer), inputs, outputs, axes, facts)
        told |= {"chunk_frames": CHUNK_FRAMES, **parity.about_stream(ear, recognizer)}
        told |= _checked(
            "streaming",
            file,
            lambda graph: parity.chunk_parity(ear, recognizer, graph, heard[0], CHUNK_FRAMES),
            int8,
            say,
        )
    (folder / "tokens.txt").write_text(listed(tokenizer), encoding="utf-8")
    again = WINDOW_SAMPLES - HOP_SAMPLES
    chunk = CHUNK_FRAMES * STRIDE * HOP_SAMPLES + again
    card = cards.ONNX.replace("{chunk}", str(chunk)).replace("{again}", str(again))
    (folder / "README.md").write_text(card, encoding="utf-8")
    return told


def _sherpa(
    bundle: Bundle, folder: Path, int8: bool, streaming: bool, heard: list[np.ndarray], say: Say
) -> dict[str, Any]:
    assert bundle.tokenizer is not None
    ear, recognizer, symbols, file = bundle.ear, bundle.recognizer(), table(bundle.tokenizer), folder / GRAPH
    shown, facts = Shown(symbols.columns, symbols.silent), described(bundle, "sherpa")
    module = ForSherpa(Whole(ear, recognizer), shown)
    axes = {"waveform": {0: "B", 1: "N"}, "log_probs": {0: "B", 1: "T"}}
    write_graph(file, module, {"waveform": torch.randn(1, RATE_HZ)}, ("log_probs",), axes, facts)
    told: dict[str, Any] = _checked(
        "model", file, lambda graph: parity.sherpa_parity(ear, recognizer, module, graph, heard), int8, say
    )
    if streaming:
        file, view = folder / STREAMING, (CHUNK_FRAMES, LEFT_CHUNKS)
        scripted = online(ear, recognizer, shown, *view)
        # As its T-one models say of themselves; the runtime takes 300 ms for granted, and 8 kHz.
        facts |= {"frame_length_ms": 300, "sample_rate": 8000, "state_dim": 2 * scripted.size}
        axes = {"state": {1: "S"}, "log_probs": {1: "T"}, "next_state": {1: "S2"}}
        write_graph(file, scripted, first_inputs(scripted), ("log_probs", "next_state"), axes, facts)
        told |= {"chunk_frames": CHUNK_FRAMES, "left_chunks": LEFT_CHUNKS}
        told |= _checked(
            "streaming",
            file,
            lambda graph: parity.online_parity(ear, recognizer, shown, graph, heard[0], *view),
            int8,
            say,
        )
    (folder / "tokens.txt").write_text(symbols.text(), encoding="utf-8")
    card = cards.SHERPA + cards.SHERPA_STREAMING if streaming else cards.SHERPA
    (folder / "README.md").write_text(card, encoding="utf-8")
    return told
