"""A module in, the same with its weights frozen and low-rank updates beside them out; and merged again (LoRA)."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

ORIGINAL = ".parametrizations.weight.original"


class LowRank(nn.Module):
    """A frozen weight plus `scale` × up × down, which is zero at first (Hu et al. 2021, section 4.1).

    `scale` is a buffer, so a state dict says all that `merged` needs.
    """

    scale: Tensor

    def __init__(self, outputs: int, inputs: int, rank: int, scale: float):
        super().__init__()
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        self.down = nn.Parameter(torch.empty(rank, inputs))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, weight: Float[Tensor, "O I"]) -> Float[Tensor, "O I"]:
        return updated(weight, self.up, self.down, self.scale)


def updated(
    weight: Float[Tensor, "O I"], up: Float[Tensor, "O R"], down: Float[Tensor, "R I"], scale: Float[Tensor, ""]
) -> Float[Tensor, "O I"]:
    """The weight a layer computes with."""
    return weight + scale * (up @ down)


def adapt(part: nn.Module, rank: int, alpha: float) -> None:
    """Freeze a module, and give each linear layer in it an update of `rank`, scaled by `alpha` / `rank`.

    The scale keeps one learning rate good for every rank.
    """
    for parameter in part.parameters():
        parameter.requires_grad_(False)
    for layer in [found for found in part.modules() if isinstance(found, nn.Linear)]:
        update = LowRank(layer.out_features, layer.in_features, rank, alpha / rank).to(layer.weight.device)
        parametrize.register_parametrization(layer, "weight", update)


def merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the module as it was before `adapt`, with what the updates learned; one without is copied."""
    plain = {}
    for name, value in weights.items():
        if name.endswith(ORIGINAL):
            layer = name.removesuffix(ORIGINAL)
            up, down, scale = (weights[f"{layer}.parametrizations.weight.0.{part}"] for part in ("up", "down", "scale"))
            plain[f"{layer}.weight"] = updated(value, up, down, scale)
        elif ".parametrizations." not in name:
            plain[name] = value
    return plain
