"""A stream of samples in, context chunk by chunk out: the encoder with its past handed in and out.

What comes out is what the encoder makes of the whole under the same chunks (`chunk_frames`, `left_chunks`), as
U2 streams (Zhang et al. 2020) with the chunk convolutions of Li et al. 2023. Nothing is kept in a module, so that any
number of streams may share one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, glu, pad, scaled_dot_product_attention

from glmasr.frontend.logmel import HOP_SAMPLES, WINDOW_SAMPLES
from glmasr.frontend.pipeline import Ear
from glmasr.model.attention import RotaryAttention, rotary_angles, rotate
from glmasr.model.conformer import ConformerBlock, Convolution
from glmasr.model.encoder import Encoder
from glmasr.model.recognizer import Recognizer
from glmasr.model.subsampling import STRIDE, Subsampling


@dataclass(frozen=True)
class BlockState:
    """What a Conformer block remembers: keys and values of the frames it may look back to, inputs of its kernel."""

    keys: Float[Tensor, "1 H T E"]
    values: Float[Tensor, "1 H T E"]
    kernel: Float[Tensor, "1 K D"]


@dataclass(frozen=True)
class State:
    """The past of one stream: samples not heard yet, the ear's sums, the stem's last inputs, and every block's memory.

    `frames` counts the encoder frames given out. Every tensor is a copy, never a view, which would keep its whole chunk
    in memory: two to three times as much for each stream.
    """

    samples: Float[Tensor, " N"]
    count: Tensor
    total: Float[Tensor, " M"]
    squares: Float[Tensor, " M"]
    feature: Float[Tensor, "1 1 1 M"]
    hidden: Float[Tensor, "1 C 1 M2"]
    blocks: tuple[BlockState, ...]
    frames: int

    @property
    def size_bytes(self) -> int:
        """What the stream holds in memory."""
        tensors = [self.samples, self.count, self.total, self.squares, self.feature, self.hidden]
        tensors += [part for block in self.blocks for part in (block.keys, block.values, block.kernel)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def begin(encoder: Encoder, ear: Ear) -> State:
    """The state before the first sample."""
    one = encoder.project.weight
    heads, width, channels = encoder.width // encoder.head_width, encoder.width, encoder.subsampling.first.out_channels
    blocks = tuple(
        BlockState(
            one.new_zeros(1, heads, 0, encoder.head_width),
            one.new_zeros(1, heads, 0, encoder.head_width),
            one.new_zeros(1, block.convolution.before, width),
        )
        for block in encoder.blocks
        if isinstance(block, ConformerBlock)
    )
    sums = one.new_zeros(2, ear.bins, dtype=torch.float64)
    feature, hidden = one.new_zeros(1, 1, 1, ear.bins), one.new_zeros(1, channels, 1, (ear.bins + 1) // 2)
    return State(one.new_zeros(0), sums.new_zeros(1), sums[0], sums[1], feature, hidden, blocks, 0)


@torch.inference_mode()
def step(
    encoder: Encoder,
    ear: Ear,
    samples: Float[Tensor, " N"],
    state: State,
    chunk_frames: int,
    left_chunks: int | None = None,
    last: bool = False,
) -> tuple[Float[Tensor, "1 T D"], State]:
    """The context of every chunk that `samples` complete, and the state behind them; `last` ends the stream.

    A chunk needs `HOP_SAMPLES` × `STRIDE` samples for each of its frames, and 15 ms more.
    """
    waiting = torch.cat((state.samples, samples.to(state.samples)))
    fresh, chunk_samples = [], chunk_frames * STRIDE * HOP_SAMPLES
    while len(waiting) >= chunk_samples + WINDOW_SAMPLES - HOP_SAMPLES:
        heard, waiting = waiting[: chunk_samples + WINDOW_SAMPLES - HOP_SAMPLES], waiting[chunk_samples:]
        context, state = chunk(encoder, ear, heard, state, chunk_frames, left_chunks)
        fresh.append(context)
    if last and (len(waiting) >= WINDOW_SAMPLES or (len(waiting) and state.frames == 0)):
        context, state = chunk(encoder, ear, waiting, state, chunk_frames, left_chunks)
        fresh.append(context)
    none = waiting.new_zeros(1, 0, encoder.width)
    return torch.cat((none, *fresh), dim=1), replaced(state, samples=(waiting[:0] if last else waiting).clone())


def chunk(
    encoder: Encoder, ear: Ear, samples: Float[Tensor, " N"], state: State, chunk_frames: int, left_chunks: int | None
) -> tuple[Float[Tensor, "1 T D"], State]:
    """One chunk's context, or the last one's, which may be shorter."""
    raw, _ = ear.logmel(samples[None], torch.tensor([len(samples)], device=samples.device))
    heard = raw[0].double()
    count, total, squares = state.count + len(heard), state.total + heard.sum(0), state.squares + heard.square().sum(0)
    features = ear.normalized(raw, count[None, :, None], total[None, None], squares[None, None])
    frames, feature, hidden = stem(encoder.subsampling, features, state.feature, state.hidden)
    x = encoder.project(frames)
    end = state.frames + x.shape[1]
    angles = rotary_angles(end, encoder.head_width, x.device)[state.frames :]
    kept = None if left_chunks is None else left_chunks * chunk_frames
    blocks = []
    for block, past in zip(encoder.blocks, state.blocks, strict=True):
        assert isinstance(block, ConformerBlock)
        x, now = through_block(block, x, angles, past, kept)
        blocks.append(now)
    return x, State(state.samples, count, total, squares, feature, hidden, tuple(blocks), end)


def stem(
    module: Subsampling, features: Float[Tensor, "1 F M"], feature: Tensor, hidden: Tensor
) -> tuple[Float[Tensor, "1 T D"], Tensor, Tensor]:
    """Frames of a chunk's features, and the last input of either convolution, which the next chunk's kernels see."""
    x = torch.cat((feature, features[:, None]), dim=2)
    y = module.activation(strided(module.first, x))
    z = torch.cat((hidden, y), dim=2)
    frames = module.activation(module.pointwise(strided(module.depthwise, z)))
    frames = module.norm(module.project(frames.permute(0, 2, 1, 3).flatten(2)))
    return frames, x[:, :, -1:].clone(), z[:, :, -1:].clone()


def strided(module: torch.nn.Conv2d, x: Float[Tensor, "1 C T M"]) -> Float[Tensor, "1 C2 T2 M2"]:
    """A 3×3 convolution of stride 2 whose first row is the past; zeros where the recording ends on half a step."""
    behind = 1 - x.shape[2] % 2
    return conv2d(pad(x, (1, 1, 0, behind)), module.weight, module.bias, stride=2, groups=module.groups)


def through_block(
    block: ConformerBlock, x: Float[Tensor, "1 T D"], angles: Tensor, past: BlockState, kept: int | None
) -> tuple[Float[Tensor, "1 T D"], BlockState]:
    """As ConformerBlock.forward, with the past in front."""
    x = x + 0.5 * block.feed_in(x)
    attended, keys, values = attend(block.attention, block.norm_attention(x), angles, past)
    x = x + attended
    convolved, kernel = convolve(block.convolution, x, past.kernel)
    x = x + convolved
    x = block.norm_out(x + 0.5 * block.feed_out(x))
    if kept is not None:
        first = max(0, keys.shape[2] - kept)
        keys, values = keys[:, :, first:].clone(), values[:, :, first:].clone()
    return x, BlockState(keys, values, kernel)


def attend(
    module: RotaryAttention, x: Float[Tensor, "1 T D"], angles: Tensor, past: BlockState
) -> tuple[Float[Tensor, "1 T D"], Tensor, Tensor]:
    """Every new frame looks at all that is kept and at its whole chunk; with the keys and values of both."""
    split = (1, x.shape[1], 3, module.heads, x.shape[2] // module.heads)
    query, key, value = module.project_in(x).view(split).permute(2, 0, 3, 1, 4)
    keys = torch.cat((past.keys, rotate(key, angles)), dim=2)
    values = torch.cat((past.values, value), dim=2)
    mixed = scaled_dot_product_attention(rotate(query, angles), keys, values)
    return module.project_out(mixed.transpose(1, 2).reshape(x.shape)), keys, values


def convolve(
    module: Convolution, x: Float[Tensor, "1 T D"], past: Float[Tensor, "1 K D"]
) -> tuple[Float[Tensor, "1 T D"], Float[Tensor, "1 K D"]]:
    """As Convolution.forward within a chunk; with the inputs that the next chunk's kernels see."""
    window = torch.cat((past, glu(module.gate(module.norm_in(x)))), dim=1)
    y = module.over_time(pad(window, (0, 0, 0, module.after)))
    y = module.project(module.activation(module.norm(y)))
    return y, window[:, window.shape[1] - past.shape[1] :].clone()


def replaced(state: State, samples: Tensor) -> State:
    """The same state with other samples waiting."""
    return State(**{**vars(state), "samples": samples})


class Stream:
    """One recording that comes bit by bit, heard by a recognizer: where its state is kept."""

    def __init__(self, recognizer: Recognizer, ear: Ear, chunk_frames: int, left_chunks: int | None = None):
        self.recognizer, self.ear, self.view = recognizer, ear, (chunk_frames, left_chunks)
        self.state = begin(recognizer.encoder, ear)

    @torch.inference_mode()
    def hear(self, samples: Float[np.ndarray, " N"], last: bool = False) -> Float[np.ndarray, "T V"]:
        """Log-probabilities of the frames of every chunk that these samples complete; `last` ends the stream."""
        heard = torch.from_numpy(samples).to(self.state.samples)
        context, self.state = step(self.recognizer.encoder, self.ear, heard, self.state, *self.view, last)
        return self.recognizer.ctc(context)[0].float().log_softmax(-1).cpu().numpy()


def stream(
    encoder: Encoder,
    ear: Ear,
    blocks: Sequence[Tensor],
    chunk_frames: int,
    left_chunks: int | None = None,
) -> Float[Tensor, "1 T D"]:
    """The context of a whole recording that comes in blocks, for comparing and measuring."""
    state, found = begin(encoder, ear), []
    for i, block in enumerate(blocks):
        context, state = step(encoder, ear, block, state, chunk_frames, left_chunks, last=i == len(blocks) - 1)
        found.append(context)
    return torch.cat(found, dim=1)
