"""A folder that `glmasr export --format onnx` wrote and waveforms in, CTC log-probabilities out, by ONNX Runtime alone.

Nothing here imports torch, so that a program which only transcribes starts in a second.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it reports to its maker unless it is told not to
import onnxruntime
from jaxtyping import Float

from glmasr.speech import InputError
from glmasr.text.tokenizer import Tokenizer, open_tokenizer

FORMAT = 1
FACTS, GRAPH, STREAMING = "export.json", "model.onnx", "streaming.onnx"
TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
NEVER = -1e4
"""A log-probability so low that its token is never chosen, and finite, as sums over paths ask."""


def is_exported(folder: str | Path) -> bool:
    """Whether `glmasr export` wrote the folder, in any format."""
    return (Path(folder) / FACTS).is_file()


def read_facts(folder: str | Path) -> dict[str, Any]:
    """What an export says of itself; InputError where it is damaged, of another version, or for another runtime."""
    path = Path(folder) / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): export the bundle again") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise InputError(f"{path} is not an export of format {FORMAT}: export the bundle again with this glmasr")
    if facts["kind"] != "onnx":
        raise InputError(f"{folder} was exported for {facts['kind']}: glmasr reads bundles and --format onnx")
    return facts


def session(file: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A graph ready to run on the CPU with `threads`, None: as many as OMP_NUM_THREADS says, or there are cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0")) if threads is None else threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no class of its own for what is wrong with a file
        raise InputError(f"{file} is no graph ONNX Runtime can run ({error}): export the bundle again") from error


def together(waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Waveforms (N) as the inputs of a graph: `waveform` (B, N), zero behind `lengths` (B)."""
    lengths = np.array([len(waveform) for waveform in waveforms], np.int64)
    batch = np.zeros((len(waveforms), int(lengths.max())), np.float32)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    return {"waveform": batch, "lengths": lengths}


def without(log_probs: Float[np.ndarray, "T V"], tokens: Sequence[int]) -> Float[np.ndarray, "T V"]:
    """The same where `tokens` cannot be; what they had goes to the others."""
    if not tokens:
        return log_probs
    found = log_probs.copy()
    found[:, tokens] = NEVER
    return found - np.log(np.exp(found).sum(-1, keepdims=True))


class ExportedStream:
    """One recording that comes bit by bit, through the streaming graph; as `model.streaming.Stream`.

    `about` is what the export says of the graph: shapes of its first `state`, samples of a frame, a window and a hop.
    """

    def __init__(
        self,
        graph: onnxruntime.InferenceSession,
        about: Mapping[str, Any],
        chunk_frames: int,
        left_chunks: int | None = None,
    ):
        self.graph, self.chunk_samples = graph, chunk_frames * about["frame_samples"]
        self.window_samples = about["window_samples"]
        self.again_samples = self.window_samples - about["hop_samples"]
        self.kept = None if left_chunks is None else left_chunks * chunk_frames
        types = {one.name: TYPES[one.type] for one in graph.get_inputs()}
        self.state = {name: np.zeros(shape, types[name]) for name, shape in about["state"].items()}
        self.waiting = np.zeros(0, np.float32)
        self.is_begun = False

    def hear(self, samples: np.ndarray, last: bool = False) -> Float[np.ndarray, "T V"]:
        """Log-probabilities of the frames of every chunk that these samples (N) complete; `last` ends the stream."""
        waiting = np.concatenate([self.waiting, samples])
        found = []
        while len(waiting) >= self.chunk_samples + self.again_samples:
            found.append(self._chunk(waiting[: self.chunk_samples + self.again_samples]))
            waiting = waiting[self.chunk_samples :]
        if last and (len(waiting) >= self.window_samples or (len(waiting) and not self.is_begun)):
            found.append(self._chunk(waiting))
        self.waiting = waiting[:0] if last else waiting.copy()
        width = self.graph.get_outputs()[0].shape[-1]
        return np.concatenate(found) if found else np.zeros((0, width), np.float32)

    def _chunk(self, samples: np.ndarray) -> np.ndarray:
        scores, *rest = (np.asarray(part) for part in self.graph.run(None, {"waveform": samples, **self.state}))
        self.state, self.is_begun = dict(zip(self.state, rest, strict=True)), True
        if self.kept is not None:
            first = max(0, self.state["keys"].shape[3] - self.kept)
            self.state |= {name: self.state[name][:, :, :, first:] for name in ("keys", "values")}
        return scores[0]


class Exported:
    """An encoder with its CTC head, and the tokenizer, as `Bundle` is one with weights."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.facts = read_facts(folder)
        self.training: dict[str, Any] = self.facts["training"]
        self.parameters: int = self.facts["parameters"]
        try:
            self.tokenizer: Tokenizer = open_tokenizer(self.folder)
        except (OSError, ValueError, KeyError, RuntimeError) as error:  # Runtime is SentencePiece's
            raise InputError(f"the export {folder} is damaged ({error}): export the bundle again") from error

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """The whole graph: `waveform` (B, N), `lengths` (B) → `log_probs` (B, T, V), `frames` (B), `context`."""
        return session(self.folder / GRAPH)

    @cached_property
    def streaming_session(self) -> onnxruntime.InferenceSession:
        """The graph of `ExportedStream`; InputError where the export has none."""
        if not self.can_stream:
            raise InputError(f"{self.folder} hears whole recordings only: export the bundle again with --streaming")
        return session(self.folder / STREAMING)

    @property
    def can_stream(self) -> bool:
        """Whether it was exported with --streaming, by a version that said all there is to know of it."""
        return (self.folder / STREAMING).is_file() and "frame_samples" in self.facts["parity"]

    def stream(self, chunk_frames: int, left_chunks: int | None = None) -> ExportedStream:
        """A recording about to begin, in chunks of 40 ms frames that see so many chunks before them, None: all."""
        return ExportedStream(self.streaming_session, self.facts["parity"], chunk_frames, left_chunks)

    @property
    def size_bytes(self) -> int:
        """Of what it takes to transcribe."""
        needed = [self.folder / GRAPH, *self.folder.glob("tokenizer.*")]
        return sum(file.stat().st_size for file in needed)

    def digest(self) -> str:
        """Names the graph, as `Bundle.digest` names weights."""
        with (self.folder / GRAPH).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def log_probs(self, waveforms: Sequence[np.ndarray]) -> list[Float[np.ndarray, "T V"]]:
        """Natural logs of the tokens' probabilities in each 40 ms of each waveform."""
        scores, frames = self.session.run(["log_probs", "frames"], together(waveforms))
        return [row[:end] for row, end in zip(np.asarray(scores), np.asarray(frames).tolist(), strict=True)]
