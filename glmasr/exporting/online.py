"""A bundle's parts in, the graph that sherpa-onnx feeds a stream bit by bit out, in the form of its T-one CTC models.

It is the one streaming form of that runtime which hands a graph samples instead of features of another ear.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from glmasr.exporting.graphs import Chunk, Shown, state_tensors
from glmasr.frontend.logmel import HOP_SAMPLES, WINDOW_SAMPLES
from glmasr.frontend.pipeline import Ear
from glmasr.model import streaming
from glmasr.model.recognizer import Recognizer
from glmasr.model.subsampling import STRIDE

PIECE_SAMPLES = 2400
"""What the runtime hands on at a time: 300 ms to a model of 8 kHz, 150 ms to ours, which is told nothing of rates."""
FULL_SCALE = 32768
"""Of its samples, which are whole numbers of 16 bits."""
END = 32767
"""The loudest sample; 25 ms of nothing else is no sound."""
FRAMES, TIMES = 3, 4
"""So many frames of ours, of 40 ms, take as long as so many of the runtime's, of 30 ms."""


class OneChunk(nn.Module):
    """`Chunk` with its state as one row of floats: chunks heard, means of the features and of their squares, the rest.

    Keys and values have room for `left_chunks`; those not heard yet are cut away before anything sees them.
    """

    def __init__(self, ear: Ear, recognizer: Recognizer, shown: Shown, chunk_frames: int, left_chunks: int):
        super().__init__()
        self.chunk, self.shown, self.frames = Chunk(ear, recognizer), shown, chunk_frames
        first = state_tensors(streaming.begin(recognizer.encoder, ear))
        self.shapes = [list(first[name].shape) for name in ("total", "squares", "feature", "hidden", "keys", "values")]
        self.kept = left_chunks * chunk_frames
        for shape in self.shapes[-2:]:
            shape[3] = self.kept
        self.shapes.append(list(first["kernel"].shape))
        self.sizes = [1, *(torch.Size(shape).numel() for shape in self.shapes)]

    def forward(self, waveform: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """waveform (N) of one chunk, row (S) → log_probs (1, T, V) at the runtime's pace, and the next row."""
        heard, *parts = row.split(self.sizes)
        mean, power, feature, hidden, keys, values, kernel = (
            part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)
        )
        frames = heard[0].round().long() * self.frames
        count = heard.double() * (self.frames * STRIDE)
        unfilled = (self.kept - frames).clamp(min=0)
        log_probs, count, total, squares, feature, hidden, now_keys, now_values, kernel, _ = self.chunk(
            waveform, count, mean.double() * count, power.double() * count, feature, hidden,
            keys[:, :, :, unfilled:], values[:, :, :, unfilled:], kernel, frames,
        )  # fmt: skip
        keys, values = (
            torch.cat((old, now[:, :, :, -self.frames :]), 3)[:, :, :, self.frames :]
            for old, now in ((keys, now_keys), (values, now_values))
        )
        parts = ((total / count).float(), (squares / count).float(), feature, hidden, keys, values, kernel)
        row = torch.cat((heard + 1, *(part.reshape(-1) for part in parts)))
        return self.shown(log_probs).index_select(1, paced(frames, log_probs.shape[1])), row


def paced(frames: Tensor, count: int) -> Tensor:
    """For each frame of the runtime's that begins in these `count`, `frames` having come before, in which it does."""
    ends = torch.stack((frames, frames + count)) * TIMES
    first, last = torch.div(ends + FRAMES - 1, FRAMES, rounding_mode="floor")
    return torch.div(torch.arange(first, last) * FRAMES, TIMES, rounding_mode="floor") - frames  # type: ignore[call-overload]


class Online(nn.Module):
    """Collects what the runtime hands on until a chunk is whole; scripted, since that is a branch.

    The runtime cannot say that a recording is over, and silence behind it would be heard: END, a window long, says so,
    and what waits is heard as the last chunk, which may be shorter.

    Its state is a row of half precision floats, zeros at first: what `OneChunk` keeps and the samples that wait, each
    number as the sum of two, which is good to 22 bits.
    """

    def __init__(self, chunk: Any, size: int, chunk_samples: int, vocabulary: int):
        super().__init__()
        self.chunk, self.size, self.vocabulary = chunk, size, vocabulary
        self.again, self.window = WINDOW_SAMPLES - HOP_SAMPLES, WINDOW_SAMPLES
        self.whole = chunk_samples + self.again
        self.full_scale, self.end = FULL_SCALE, END

    def forward(self, samples: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """samples (1, PIECE_SAMPLES, 1), state (1, S) → log_probs (1, T, V), often none, and the next state (1, S2)."""
        both = state.reshape(2, -1).float().sum(0)
        row, waiting = both[: self.size], torch.cat((both[self.size :], samples[0, :, 0].float()))
        behind = int(((torch.arange(waiting.shape[0]) + 1) * (waiting != self.end)).max())
        waiting = waiting[: behind + self.window]
        heard, ended = waiting[:behind][: self.whole], waiting.shape[0] - behind == self.window
        count = heard.shape[0]
        if count == self.whole or (ended and count >= self.window):
            found, row = self.chunk(heard / self.full_scale, row)
            waiting = waiting[count - self.again :]
        else:
            found = torch.zeros(1, 0, self.vocabulary)
        both = torch.cat((row, waiting))
        high = both.half()
        low = (both - high.float()).half()
        return found.reshape(1, -1, self.vocabulary), torch.cat((high, low)).reshape(1, -1)


def online(
    ear: Ear, recognizer: Recognizer, shown: Shown, chunk_frames: int, left_chunks: int
) -> torch.jit.ScriptModule:
    """`Online` of a bundle's parts; its `size` is how many numbers the state holds before the first sample."""
    chunk = OneChunk(ear, recognizer, shown, chunk_frames, left_chunks).eval()
    samples, row = chunk_frames * STRIDE * HOP_SAMPLES, torch.zeros(sum(chunk.sizes))
    row[0] = 1  # what is empty at first is not empty behind a chunk, which tracing needs
    heard = torch.randn(samples + WINDOW_SAMPLES - HOP_SAMPLES)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing and scripting, which are deprecated, as in `write_graph`
        traced = torch.jit.trace(chunk, (heard, row), check_trace=False)
        return torch.jit.script(Online(traced, len(row), samples, 3 + len(shown.columns)))


def first_inputs(module: torch.jit.ScriptModule) -> dict[str, Tensor]:
    """A piece of silence, and the state before the first one."""
    samples = torch.zeros(1, PIECE_SAMPLES, 1, dtype=torch.int32)
    return {"samples": samples, "state": torch.zeros(1, 2 * module.size, dtype=torch.half)}
