"""A bundle, the graphs made of it and real speech in, how far they are apart out."""

import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it reports to its maker unless it is told not to
import onnxruntime
import torch
from torch import Tensor, nn

from glmasr.decoding.ctc import greedy
from glmasr.exported import ExportedStream, together
from glmasr.exporting.graphs import ForSherpa, Shown, state_tensors
from glmasr.exporting.online import END, FRAMES, FULL_SCALE, PIECE_SAMPLES, TIMES
from glmasr.frontend.logmel import HOP_SAMPLES, WINDOW_SAMPLES, LogMel
from glmasr.frontend.pipeline import Ear
from glmasr.model import streaming
from glmasr.model.recognizer import Recognizer
from glmasr.model.subsampling import STRIDE
from glmasr.text.tokenizer import BOUNDARY

LIMIT = 1e-4
"""How far a float32 graph's log-probabilities may be from the bundle's; what is farther is not published."""
BATCH = 4


@dataclass(frozen=True)
class Parity:
    """The largest difference of a log-probability, and the share of frames whose likeliest token is the same."""

    difference: float
    agreement: float

    def worse(self, other: "Parity") -> "Parity":
        """Of both, what is worse."""
        return Parity(max(self.difference, other.difference), min(self.agreement, other.agreement))

    @classmethod
    def of(cls, expected: Tensor, found: np.ndarray) -> "Parity":
        """(…, V) against (…, V)."""
        expected, given = expected.float(), torch.from_numpy(np.asarray(found))
        same = (expected.argmax(-1) == given.argmax(-1)).float().mean()
        return cls(float((expected - given).abs().max()), float(same))


PERFECT = Parity(0.0, 1.0)


class ExactLogMel(nn.Module):
    """Log-mel in double precision: on speech without high bands torch's own FFT in float32 is off by 1.7e-4 in the end,
    on loud such speech by 3e-3, more than any graph is."""

    def __init__(self, logmel: LogMel):
        super().__init__()
        self.logmel = deepcopy(logmel).double()
        self.logmel.window = torch.hann_window(WINDOW_SAMPLES, dtype=torch.float64, device=logmel.window.device)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """As `LogMel`."""
        features, lengths = self.logmel(waveform.double(), lengths)
        return features.float(), lengths


def exact(ear: Ear) -> Ear:
    """The same ear with `ExactLogMel`."""
    found = deepcopy(ear)
    found.logmel = ExactLogMel(ear.logmel)  # type: ignore[assignment]
    return found


@torch.inference_mode()
def whole_parity(
    ear: Ear, recognizer: Recognizer, graph: onnxruntime.InferenceSession, speech: Sequence[np.ndarray]
) -> Parity:
    """Of the whole encoder with its CTC head, on waveforms (N) in padded batches."""
    ear, worst = exact(ear), PERFECT
    for start in range(0, len(speech), BATCH):
        inputs = together(speech[start : start + BATCH])
        heard = recognizer(*ear(torch.from_numpy(inputs["waveform"]), torch.from_numpy(inputs["lengths"])))
        found = np.asarray(graph.run(["log_probs"], inputs)[0])
        for row, scores, frames in zip(heard.ctc_log_probs, found, heard.lengths.tolist(), strict=True):
            worst = worst.worse(Parity.of(row[:frames], scores[:frames]))
    return worst


@torch.inference_mode()
def chunk_parity(
    ear: Ear,
    recognizer: Recognizer,
    graph: onnxruntime.InferenceSession,
    waveform: np.ndarray,
    chunk_frames: int,
) -> Parity:
    """Of the streaming graph on one waveform (N), against `model.streaming`, which is handed the whole of it."""
    context = streaming.stream(recognizer.encoder, exact(ear), [torch.from_numpy(waveform)], chunk_frames)
    found = ExportedStream(graph, about_stream(ear, recognizer), chunk_frames).hear(waveform, last=True)
    return Parity.of(recognizer.ctc(context).log_softmax(-1)[0], found)


def first_state(ear: Ear, recognizer: Recognizer) -> dict[str, Tensor]:
    """The state before the first sample, as the streaming graph takes it."""
    return state_tensors(streaming.begin(recognizer.encoder, ear))


def about_stream(ear: Ear, recognizer: Recognizer) -> dict[str, Any]:
    """What `ExportedStream` has to know of the streaming graph: shapes of the first state, samples by which it goes."""
    shapes = {name: list(value.shape) for name, value in first_state(ear, recognizer).items()}
    samples = {"frame_samples": STRIDE * HOP_SAMPLES, "window_samples": WINDOW_SAMPLES, "hop_samples": HOP_SAMPLES}
    return {"state": shapes, **samples}


@torch.inference_mode()
def second_state(ear: Ear, recognizer: Recognizer, waveform: Tensor) -> dict[str, Tensor]:
    """The state behind a waveform (N): what is empty at first is not empty there, which tracing needs."""
    begun = streaming.begin(recognizer.encoder, ear)
    return state_tensors(streaming.chunk(recognizer.encoder, ear, waveform, begun, 1, None)[1])


@torch.inference_mode()
def decoder_parity(
    ear: Ear, recognizer: Recognizer, graph: onnxruntime.InferenceSession, waveform: np.ndarray
) -> Parity:
    """Of the attention decoder behind every prefix of what the greedy search finds in a waveform (N)."""
    assert recognizer.decoder is not None
    heard = recognizer(*ear(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)])))
    tokens = torch.tensor([[BOUNDARY, *greedy(heard.ctc_log_probs[0]).tokens]])
    expected = recognizer.decoder(tokens, heard.context, heard.padding)[0].log_softmax(-1)
    inputs = {"context": heard.context.numpy(), "frames": heard.lengths.numpy()}
    found = [
        np.asarray(graph.run(None, {"tokens": tokens[:, : end + 1].numpy(), **inputs})[0])[0]
        for end in range(tokens.shape[1])
    ]
    return Parity.of(expected, np.stack(found))


@torch.inference_mode()
def sherpa_parity(
    ear: Ear,
    recognizer: Recognizer,
    module: ForSherpa,
    graph: onnxruntime.InferenceSession,
    speech: Sequence[np.ndarray],
) -> Parity:
    """Of the form sherpa-onnx asks for, on waveforms (N) at the level its runtime gives them, one by one."""
    ear, worst = exact(ear), PERFECT
    for waveform in speech:
        level = waveform / max(float(waveform.std()), 1e-5)
        given = torch.from_numpy(level * module.LEVEL)[None].float()
        heard = recognizer(*ear(given, torch.tensor([len(waveform)])))
        found = np.asarray(graph.run(None, {"waveform": level[None].astype(np.float32)})[0])
        expected = module.shown(heard.ctc_log_probs)
        worst = worst.worse(Parity.of(expected[0], found[0, ::2])).worse(Parity.of(expected[0], found[0, 1::2]))
    return worst


@torch.inference_mode()
def online_parity(
    ear: Ear,
    recognizer: Recognizer,
    shown: Shown,
    graph: onnxruntime.InferenceSession,
    waveform: np.ndarray,
    chunk_frames: int,
    left_chunks: int,
) -> Parity:
    """Of the streaming form sherpa-onnx asks for, on all of a waveform (N) in 16 bits, against `model.streaming`."""
    samples = (waveform * FULL_SCALE).round().astype(np.int32)
    context = streaming.stream(
        recognizer.encoder, exact(ear), [torch.from_numpy(samples).float() / FULL_SCALE], chunk_frames, left_chunks
    )
    found = np.concatenate(heard_by(graph, ended(samples)), axis=1)
    expected = shown(recognizer.ctc(context).log_softmax(-1))
    paced = torch.arange(-(-expected.shape[1] * TIMES // FRAMES)) * FRAMES // TIMES
    return Parity.of(expected[:, paced], found)


def heard_by(graph: onnxruntime.InferenceSession, samples: np.ndarray) -> list[np.ndarray]:
    """What the graph of `Online` makes of whole numbers of 16 bits (N), a piece (1, T, V) at a time."""
    meta = graph.get_modelmeta().custom_metadata_map
    state, found = np.zeros((1, int(meta["state_dim"])), np.float16), []
    for start in range(0, len(samples) - PIECE_SAMPLES + 1, PIECE_SAMPLES):
        piece = samples[None, start : start + PIECE_SAMPLES, None]
        scores, state = (np.asarray(part) for part in graph.run(None, {"samples": piece, "state": state}))
        found.append(scores)
    return found


def ended(samples: np.ndarray) -> np.ndarray:
    """The same (N), and what says that it is over: enough for all that waits."""
    return np.append(samples, np.full(6 * PIECE_SAMPLES, END, samples.dtype))
