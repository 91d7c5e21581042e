"""Reconstruction: the mean absolute error of what was hidden and of what was only noisy."""

import pytest
import torch

from glmasr.lengths import padding_mask
from glmasr.objective.contract import View
from glmasr.objective.reconstruction import Reconstruction, mean_where

LENGTHS = torch.tensor([9, 5])


def view_of(mask: torch.Tensor) -> View:
    torch.manual_seed(1)
    context, clean = torch.randn(2, 9, 8, requires_grad=True), torch.randn(2, 9, 12)
    features = torch.randn(2, 36, 3), 4 * LENGTHS
    return View(context, lambda: torch.randn(2, 9, 8), clean, mask, padding_mask(LENGTHS, 9), LENGTHS, 0, *features)


@pytest.fixture
def mask() -> torch.Tensor:
    return (torch.arange(9) % 3 == 0) & ~padding_mask(LENGTHS, 9)


def test_it_is_the_explicit_mean(mask):
    view, objective = view_of(mask), Reconstruction(8, 12, masked_weight=0.7, visible_weight=0.2)
    predicted = objective.head(view.context)
    errors = {True: [], False: []}
    for row, length in enumerate(LENGTHS.tolist()):
        for frame in range(length):
            errors[bool(mask[row, frame])].append((predicted[row, frame] - view.clean[row, frame]).abs().mean())
    masked, visible = torch.stack(errors[True]).mean(), torch.stack(errors[False]).mean()
    loss = objective(view)
    torch.testing.assert_close(loss.parts["masked"], masked.detach())
    torch.testing.assert_close(loss.parts["visible"], visible.detach())
    torch.testing.assert_close(loss.total, 0.7 * masked + 0.2 * visible)
    real = torch.cat([view.clean[0], view.clean[1, :5]])
    torch.testing.assert_close(loss.parts["trivial"], real.abs().mean())


def test_predicting_silence_costs_the_trivial_error(mask):
    objective = Reconstruction(8, 12, masked_weight=1.0, visible_weight=1.0)
    torch.nn.init.zeros_(objective.head[2].weight)
    torch.nn.init.zeros_(objective.head[2].bias)
    parts, real = objective(view_of(mask)).parts, (~padding_mask(LENGTHS, 9)).sum()
    torch.testing.assert_close(
        parts["masked"] * mask.sum() + parts["visible"] * (real - mask.sum()), parts["trivial"] * real
    )


def test_padding_has_no_say_and_every_real_frame_has(mask):
    view, objective = view_of(mask), Reconstruction(8, 12)
    objective(view).total.backward()
    assert torch.equal(view.context.grad.abs().sum(-1) > 0, ~view.padding)
    assert all(p.grad.any() for p in objective.parameters())


@pytest.mark.parametrize("everything", [True, False])
def test_nothing_hidden_or_nothing_visible_is_finite(everything):
    view = view_of(torch.full((2, 9), everything) & ~padding_mask(LENGTHS, 9))
    loss = Reconstruction(8, 12)(view)
    assert loss.total > 0 and loss.total.isfinite()
    assert loss.parts["visible" if everything else "masked"] == 0


def test_it_falls(mask):
    view, objective = view_of(mask), Reconstruction(8, 12)
    optimizer = torch.optim.Adam([*objective.parameters(), view.context], lr=0.03)
    first = objective(view).total.item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = objective(view).total
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3 * first


def test_the_mean_of_nowhere_is_zero():
    values = torch.tensor([[1.0, 2.0, 6.0]])
    assert mean_where(values, torch.tensor([[True, False, True]])) == 3.5
    assert mean_where(values, torch.zeros(1, 3, dtype=torch.bool)) == 0
