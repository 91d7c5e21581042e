"""A model's config in, what one training step computes, moves and keeps out, for a batch of any shape.

The encoder is traced with fake tensors (shapes without numbers), once with one block and once with two: blocks are
alike, so a cluster's model costs no more than a laptop's. Ear and objective, whose shapes depend on what is masked,
run on a few seconds of noise.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from glmasr.build import build
from glmasr.frontend.logmel import HOP_SAMPLES, WINDOW_SAMPLES
from glmasr.lengths import padding_mask
from glmasr.model.encoder import Encoder
from glmasr.model.packing import packing_of
from glmasr.model.predictor import Predictor, build_predictor
from glmasr.model.recognizer import parameter_count
from glmasr.model.subsampling import STRIDE, stack_features
from glmasr.objective.contract import View
from glmasr.objective.masking import draw_mask
from glmasr.speech import RATE_HZ

FRAME_SECONDS = STRIDE * HOP_SAMPLES / RATE_HZ
TRACED_FRAMES, TRACED_UTTERANCES = (35, 65, 105), 2
"""Lengths from which costs at any other follow exactly, since all are quadratic; no width of a layer is one."""

PRODUCTS = ("aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm")
"""Bound by arithmetic; everything else is bound by memory."""


@dataclass(frozen=True)
class Growth:
    """A quantity of a batch of `utterances` with `frames` encoder frames each."""

    fixed: float = 0.0
    per_frame: float = 0.0
    per_pair: float = 0.0

    def __call__(self, utterances: float, frames: float) -> float:
        return self.fixed + utterances * frames * (self.per_frame + frames * self.per_pair)

    def __add__(self, other: "Growth") -> "Growth":
        return Growth(self.fixed + other.fixed, self.per_frame + other.per_frame, self.per_pair + other.per_pair)

    def times(self, factor: float) -> "Growth":
        """The quantity of `factor` such parts."""
        return Growth(self.fixed * factor, self.per_frame * factor, self.per_pair * factor)

    def of_share(self, share: float) -> "Growth":
        """The quantity where only this share of the frames is there."""
        return Growth(self.fixed, self.per_frame * share, self.per_pair * share**2)


@dataclass(frozen=True)
class Cost:
    """Of a part of a step: floating-point operations of its matrix products, bytes that everything else reads and
    writes, calls of kernels, and bytes kept from the forward pass for the backward pass."""

    forward_flops: Growth = Growth()
    flops: Growth = Growth()
    forward_moved: Growth = Growth()
    moved: Growth = Growth()
    forward_calls: Growth = Growth()
    calls: Growth = Growth()
    kept: Growth = Growth()

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(Cost)})

    def times(self, factor: float) -> "Cost":
        """The cost of `factor` such parts."""
        return Cost(**{one.name: getattr(self, one.name).times(factor) for one in fields(Cost)})

    def of_share(self, share: float) -> "Cost":
        """The cost where only this share of the frames is there."""
        return Cost(**{one.name: getattr(self, one.name).of_share(share) for one in fields(Cost)})


@dataclass(frozen=True)
class Workload:
    """A step of pretraining: one `block` of the encoder, of which it has `blocks`, and the `rest`.

    `parameters` are those that are trained, `block_parameters` one block's; `width` is that of the frames.
    """

    block: Cost
    rest: Cost
    blocks: int
    parameters: int
    block_parameters: int
    width: int

    def step(self, recomputed: bool = False) -> Cost:
        """Forward and backward; with `recomputed` every block's forward pass a second time (activation checkpointing).

        Then only the frames between blocks are kept, and what one block at a time needs. Copies of weights at a lower
        precision stay: autocast holds them to the end of the forward pass.
        """
        whole = self.rest + self.block.times(self.blocks)
        if not recomputed:
            return whole
        block = self.block
        again = Cost(flops=block.forward_flops, moved=block.forward_moved, calls=block.forward_calls)
        copies = Growth(fixed=block.kept.fixed)
        between = copies + Growth(per_frame=4.0 * self.width)
        one = block.kept + copies.times(-1)
        again = again.times(self.blocks)
        kept = self.rest.kept + between.times(self.blocks) + one
        return replace(whole + again, kept=kept)


@dataclass(frozen=True)
class Parts:
    """What is trained, and the ear in front of it."""

    ear: nn.Module
    encoder: Encoder
    objective: nn.Module
    predictor: Predictor | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Parts":
        """With fresh weights."""
        encoder, objective = build(config["model"]["encoder"]), build(config["objective"])
        return cls(build(config["frontend"]), encoder, objective, build_predictor(config["predictor"]))

    def trained(self) -> nn.ModuleList:
        """All but the ear."""
        return nn.ModuleList([self.encoder, self.objective, *([self.predictor] if self.predictor else [])])

    def look(self, waveform: Float[Tensor, "B N"], lengths: Int[Tensor, " B"], mask: Bool[Tensor, "B T"]) -> View:
        """A pretraining step up to the objective (glmasr/training/pretrain.py), with a mask that is given."""
        features, feature_lengths = self.ear(waveform, lengths)
        clean, _ = self.ear(waveform, lengths)
        heard, frame_lengths = self.encoder.subsample(features, feature_lengths)
        if self.predictor is None:
            context = self.encoder.contextualize(heard, frame_lengths, mask)
        else:
            real, visible = (packing_of(frame_lengths.tolist(), mask.shape[1], hidden) for hidden in (None, mask.cpu()))
            context = self.encoder.contextualize(heard, frame_lengths, packing=visible.to(mask.device))
            context = self.predictor(context, mask, real.to(mask.device))
        padding, stacked = padding_mask(frame_lengths, mask.shape[1]), stack_features(clean, mask.shape[1])

        def stem() -> Tensor:
            return self.encoder.subsample(clean, feature_lengths)[0]

        return View(context, stem, stacked, mask, padding, frame_lengths, 0, clean, feature_lengths)


def samples_of(frames: int) -> int:
    """The shortest waveform that has so many encoder frames, four whole feature frames in each."""
    return WINDOW_SAMPLES + HOP_SAMPLES * (frames * STRIDE - 1)


def batch_of(frames: int, utterances: int, masking: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Noise as a waveform (B, N), its lengths, and a mask (B, T)."""
    rng = np.random.default_rng(0)
    waveform = torch.randn(utterances, samples_of(frames)) * 0.1
    mask = draw_mask([frames] * utterances, frames, masking["mask_share"], masking["mask_span_frames"], rng)
    return waveform, torch.full((utterances,), waveform.shape[1]), mask


def workload(config: Mapping[str, Any], device: str, half: bool) -> Workload:
    """What a step of `frontend`, `model`, `objective` and `masking` costs on a "cuda" or "cpu" device.

    `half` is bf16 by autocast (trainer.precision=bf16-mixed). On cuda attention is a fused kernel, which keeps and
    moves no scores of pairs; on cpu, with dropout, it does both.
    """
    encoder_config = config["model"]["encoder"]
    objective = build(config["objective"])
    with torch.device("meta"):
        encoder: Encoder = build(encoder_config)
    predictor = build_predictor(config["predictor"])
    looks_at_frames, apart = with_objective(config, encoder, objective, predictor)
    one, two = (encoder_cost(encoder_config, blocks, device, half, looks_at_frames) for blocks in (1, 2))
    block = two + one.times(-1)
    rest = one + block.times(-1) + apart
    trained = parameter_count(encoder) + parameter_count(objective)
    if predictor is not None:
        block = block.of_share(1 - config["masking"]["mask_share"])
        trained += parameter_count(predictor)
    return Workload(
        block=block,
        rest=rest,
        blocks=len(encoder.blocks),
        parameters=trained,
        block_parameters=parameter_count(encoder.blocks[0]),
        width=encoder.width,
    )


def fitted(trace: Callable[[int], dict[str, float]]) -> Cost:
    """The cost that `trace` finds at TRACED_FRAMES, at any length."""
    lengths = np.array(TRACED_FRAMES, float)
    powers = np.stack([np.ones(3), TRACED_UTTERANCES * lengths, TRACED_UTTERANCES * lengths**2], axis=1)
    found = [trace(frames) for frames in TRACED_FRAMES]
    return Cost(**{name: Growth(*np.linalg.solve(powers, [one[name] for one in found]).tolist()) for name in found[0]})


def with_objective(
    config: Mapping[str, Any], encoder: Encoder, objective: nn.Module, predictor: Predictor | None
) -> tuple[bool, Cost]:
    """Whether gradients reach the stem through the clean frames; what ear, predictor and objective cost."""
    ear, reached = build(config["frontend"]), []
    behind = nn.ModuleList([objective, *([predictor] if predictor else [])])

    def trace(frames: int) -> dict[str, float]:
        waveform, lengths, mask = batch_of(frames, TRACED_UTTERANCES, config["masking"])
        behind.zero_grad()  # adding to gradients would be another operation
        whole = torch.full((len(mask),), frames)
        real = packing_of(whole.tolist(), frames)
        with Tracing(behind, frames=None) as seen:
            features, feature_lengths = ear(waveform, lengths)
            ear(waveform, lengths)
            context, clean = (torch.randn(*mask.shape, encoder.width, requires_grad=True) for _ in range(2))
            context = context if predictor is None else predictor(context, mask, real)
            stacked = stack_features(features, frames)
            view = View(
                context, lambda: clean, stacked, mask, torch.zeros_like(mask), whole, 0, features, feature_lengths
            )
            loss = objective(view).total
            seen.turn()
            loss.backward()
        reached.append(clean.grad is not None)
        return seen.found()

    cost = fitted(trace)
    return any(reached), cost


def encoder_cost(config: Mapping[str, Any], blocks: int, device: str, half: bool, looks_at_frames: bool) -> Cost:
    """What an encoder with so many blocks costs, without recomputation."""
    config, fused = {**config, "blocks": blocks, "checkpointing": False}, device != "cpu"
    plain = fitted(lambda frames: run_encoder(config, frames, "cpu", False, looks_at_frames, fused))
    if device == "cpu" and not half:
        return plain
    # The backward pass of a device that is not there cannot run, not even without numbers. Its forward pass can: the
    # backward pass moves more or less than at fp32 on a CPU in proportion, and casts as many weights again.
    real = fitted(lambda frames: run_encoder(config, frames, device, half, looks_at_frames, fused, backward=False))
    before, after = plain.forward_moved, real.forward_moved
    moved = Growth(
        plain.moved.fixed + 2 * (after.fixed - before.fixed),
        plain.moved.per_frame * after.per_frame / before.per_frame,
        plain.moved.per_pair * (after.per_pair / before.per_pair if before.per_pair else 0.0),
    )
    return replace(plain, forward_moved=real.forward_moved, moved=moved, kept=real.kept)


def run_encoder(
    config: Mapping[str, Any],
    frames: int,
    device: str,
    half: bool,
    looks_at_frames: bool,
    fused: bool,
    backward: bool = True,
) -> dict[str, float]:
    """One pass on fake tensors."""
    with FakeTensorMode(), torch.device(device), ExitStack() as context:
        encoder: Encoder = build(config).train()
        features = torch.empty(TRACED_UTTERANCES, frames * STRIDE, encoder.bins)
        lengths = torch.full((TRACED_UTTERANCES,), frames * STRIDE)
        mask = torch.zeros(TRACED_UTTERANCES, frames, dtype=torch.bool)
        if fused:
            context.enter_context(sdpa_kernel(SDPBackend.MATH))  # its pairs are left out below
        if half:
            context.enter_context(autocast(device))
        seen = context.enter_context(Tracing(encoder, frames if fused else None))
        heard, frame_lengths = encoder.subsample(features, lengths)
        loss = encoder.contextualize(heard, frame_lengths, mask).sum()
        if looks_at_frames:
            loss = loss + encoder.subsample(features, lengths)[0].sum()
        seen.turn()
        if backward:
            loss.backward()
    return seen.found()


@contextmanager
def autocast(device: str):
    """bf16 by autocast, also for a device that is not there, which torch.autocast refuses."""
    before = torch.is_autocast_enabled(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(device, before)


class Tracing(TorchDispatchMode):
    """A context that counts what is computed in it; tensors of `frames` × `frames` are left out where it is given."""

    def __init__(self, module: nn.Module, frames: int | None):
        super().__init__()
        self.frames = frames
        self.flop_counter = FlopCounterMode(display=False, custom_mapping=COUNTED)
        self.own = {tensor.untyped_storage()._cdata for tensor in module.parameters()}
        self.kept: dict[int, Tensor] = {}
        self.calls = self.moved = 0
        self.forward = {"forward_flops": 0.0, "forward_moved": 0.0, "forward_calls": 0.0}

    def __enter__(self):
        self.entered = ExitStack()
        self.entered.enter_context(saved_tensors_hooks(self.keep, lambda tensor: tensor))
        self.entered.enter_context(self.flop_counter)
        return super().__enter__()

    def __exit__(self, *raised):
        super().__exit__(*raised)
        self.entered.close()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if is_computed(function, result):
            self.calls += 1
            if not str(function).startswith(PRODUCTS):
                self.moved += sum(self.size(leaf) for leaf in tree_leaves((args, kwargs, result)))
        return result

    def size(self, value: object) -> int:
        """Bytes of a tensor that is not one of pairs."""
        if not isinstance(value, Tensor) or self.is_of_pairs(value):
            return 0
        return value.numel() * value.element_size()

    def is_of_pairs(self, tensor: Tensor) -> bool:
        return tensor.ndim > 2 and tuple(tensor.shape[-2:]) == (self.frames, self.frames)

    def keep(self, tensor: Tensor) -> Tensor:
        """Autograd saves a tensor, and so all of its storage."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.own and not self.is_of_pairs(tensor):
            self.kept[storage._cdata] = tensor
        return tensor

    def turn(self) -> None:
        """The forward pass ends here."""
        flops = float(self.flop_counter.get_total_flops())
        self.forward = {"forward_flops": flops, "forward_moved": self.moved, "forward_calls": self.calls}

    def found(self) -> dict[str, float]:
        """By the names of `Cost`."""
        kept = sum(tensor.untyped_storage().nbytes() for tensor in self.kept.values())
        flops = float(self.flop_counter.get_total_flops())
        return self.forward | {"flops": flops, "moved": self.moved, "calls": self.calls, "kept": kept}


def is_computed(function: Any, result: object) -> bool:
    """Whether an operation runs a kernel: it gives tensors, neither uninitialized nor views of its arguments."""
    if str(function).startswith("aten.empty") or not any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
        return False
    return not all(one.alias_info is not None and not one.alias_info.is_write for one in function._schema.returns)


def of_convolution(outward, x, weight, *more, output_mask=None, out_shape=None, **options) -> int:
    """Of a convolution's backward pass, given shapes; torch's own count takes a grouped one for a dense one."""
    mask = output_mask if output_mask is not None else more[-1]
    places = math.prod(outward) // outward[1]
    return 2 * places * math.prod(weight) * (bool(mask[0]) + bool(mask[1]))


def of_attention(query, key, *more, **options) -> int:
    """Of the fused kernel of CPUs, which torch does not count: scores, and what they mix."""
    return 4 * math.prod(query) * key[-2]


def of_attention_backward(outward, query, key, *more, **options) -> int:
    """Scores once more, and four products like them."""
    return 10 * math.prod(query) * key[-2]


COUNTED = {
    torch.ops.aten.convolution_backward: of_convolution,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: of_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: of_attention_backward,
}
"""Operations that torch's FlopCounterMode counts wrongly or not at all, as its `custom_mapping`."""
