"""Several objectives in, one out: the sum of their losses by weight."""

import torch
from torch import nn

from glmasr.objective.contract import Loss, View


class Weighted(nn.Module):
    """`objectives` by name, `weights` by the same names; a weight of 0 leaves its objective out."""

    def __init__(self, objectives: dict[str, nn.Module], weights: dict[str, float]):
        super().__init__()
        if set(objectives) != set(weights):
            raise ValueError(f"objectives {sorted(objectives)} and weights {sorted(weights)} must name the same things")
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.objectives = nn.ModuleDict({name: objectives[name] for name in self.weights})

    def forward(self, view: View) -> Loss:
        losses = {name: objective(view) for name, objective in self.objectives.items()}
        total = torch.stack([self.weights[name] * loss.total for name, loss in losses.items()]).sum()
        parts = {f"{name}/{part}": value for name, loss in losses.items() for part, value in loss.parts.items()}
        return Loss(total, parts)
