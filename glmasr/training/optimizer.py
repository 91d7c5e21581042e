"""Parameters in, an optimizer and its schedule out."""

import math
import re
from collections.abc import Callable, Iterable

import torch
from torch import nn

Schedule = Callable[[int], float]
"""Optimizer step → factor of the peak learning rate."""


def tri_stage(total_steps: int, warmup_share: float, hold_share: float, final_factor: float) -> Schedule:
    """Linear warm-up, hold, exponential decay to `final_factor` (fairseq's fine-tuning schedule)."""
    warmup, hold = warmup_share * total_steps, hold_share * total_steps
    decay = max(1.0, total_steps - warmup - hold)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if step < warmup + hold:
            return 1.0
        return final_factor ** min(1.0, (step - warmup - hold) / decay)

    return factor


def warmup_cosine(total_steps: int, warmup_share: float, final_factor: float) -> Schedule:
    """Linear warm-up, then half a cosine down to `final_factor`."""
    warmup = warmup_share * total_steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1.0, total_steps - warmup))
        return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def adamw(
    groups: Iterable[dict],
    learning_rate: float,
    weight_decay: float,
    update_seconds: float | None = None,
    reference_seconds: float = 15.0,
    betas: tuple[float, float] = (0.9, 0.98),
) -> torch.optim.AdamW:
    """AdamW over groups of `params`, each with a `rate` that multiplies the learning rate.

    Matrices decay, vectors (norms, biases, embeddings of one) do not. `learning_rate` is meant for updates of
    `reference_seconds` of audio; for `update_seconds` it is scaled by the square root of their ratio, which keeps the
    noise of Adam's steps (Malladi et al. 2022).
    """
    if update_seconds is not None:
        learning_rate *= math.sqrt(update_seconds / reference_seconds)
    split = []
    for group in groups:
        rate, parameters = group.get("rate", 1.0), list(group["params"])
        for decay, chosen in (
            (weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            if chosen:
                extra = {"params": chosen, "lr": learning_rate * rate, "weight_decay": decay}
                split.append(extra | {"frozen_steps": group.get("frozen_steps", 0)})
    return torch.optim.AdamW(split, lr=learning_rate, betas=(betas[0], betas[1]), fused=True)


def scheduled(optimizer: torch.optim.Optimizer, schedule: Schedule) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule on every group; a group with `frozen_steps` stands still until then."""

    def factor(frozen_steps: int) -> Schedule:
        return lambda step: 0.0 if step < frozen_steps else schedule(step)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, [factor(g["frozen_steps"]) for g in optimizer.param_groups])


def layer_groups(
    recognizer: nn.Module, blocks: int, encoder_rate: float, layer_decay: float, frozen_steps: int
) -> list[dict]:
    """Heads at full rate; the encoder at `encoder_rate`, each layer below the top slower by `layer_decay`.

    The stem counts as layer 0, block i as layer i + 1. The encoder stands still for `frozen_steps`.
    """
    heads: list[nn.Parameter] = []
    layers: list[list[nn.Parameter]] = [[] for _ in range(blocks + 1)]
    for name, parameter in recognizer.named_parameters():
        block = re.match(r"encoder\.blocks\.(\d+)\.", name)
        if block:
            layers[int(block[1]) + 1].append(parameter)
        elif name.startswith("encoder."):
            layers[0].append(parameter)
        else:
            heads.append(parameter)
    encoder = [
        {"params": layer, "rate": encoder_rate * layer_decay ** (blocks - depth), "frozen_steps": frozen_steps}
        for depth, layer in enumerate(layers)
    ]
    return [{"params": heads, "rate": 1.0}, *encoder]
