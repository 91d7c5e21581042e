"""Objectives by weight: their sum, their parts by name, nothing for a weight of zero."""

import pytest
import torch
from torch import nn

from glmasr.objective.contract import Loss, View
from glmasr.objective.weighted import Weighted


class Constant(nn.Module):
    """An objective that costs the same parameter everywhere."""

    def __init__(self, value: float):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, view: View) -> Loss:
        return Loss(self.value * 1.0, {"value": self.value.detach()})


@pytest.fixture
def view() -> View:
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    frames, lengths = torch.zeros(1, 2, 3), torch.tensor([2])
    clean, features = torch.zeros(1, 2, 4), torch.zeros(1, 8, 1)
    return View(frames, lambda: frames, clean, nothing, nothing, lengths, 0, features, 4 * lengths)


def test_it_is_the_weighted_sum_with_named_parts(view):
    weighted = Weighted({"a": Constant(2.0), "b": Constant(5.0)}, {"a": 0.5, "b": 2.0})
    loss = weighted(view)
    assert loss.total.item() == 11.0 and {k: v.item() for k, v in loss.parts.items()} == {
        "a/value": 2.0,
        "b/value": 5.0,
    }
    loss.total.backward()
    assert [p.grad.item() for p in weighted.parameters()] == [0.5, 2.0]


def test_a_weight_of_zero_leaves_its_objective_and_parameters_out(view):
    weighted = Weighted({"a": Constant(2.0), "b": Constant(5.0)}, {"a": 1.0, "b": 0.0})
    assert weighted(view).total.item() == 2.0 and list(weighted(view).parts) == ["a/value"]
    assert [name for name, _ in weighted.named_parameters()] == ["objectives.a.value"]


@pytest.mark.parametrize("weights", [{"a": 1.0}, {"a": 1.0, "c": 1.0}])
def test_names_must_agree(weights):
    with pytest.raises(ValueError, match="must name the same"):
        Weighted({"a": Constant(1.0), "b": Constant(1.0)}, weights)
