"""Schedules have the shape their papers give them; every parameter is in one group, at its rate."""

import pytest
import torch

from glmasr.bundle import build_recognizer
from glmasr.training.optimizer import adamw, layer_groups, scheduled, tri_stage, warmup_cosine
from tests.small import OPTIONS, composed


def test_tri_stage_rises_holds_and_decays_exponentially():
    factor = tri_stage(1000, 0.1, 0.4, 0.01)
    assert 0 < factor(0) < 0.02 and factor(99) == pytest.approx(1.0, abs=0.02)
    assert {factor(step) for step in range(100, 500)} == {1.0}
    assert factor(750) == pytest.approx(0.1) and factor(1000) == factor(5000) == pytest.approx(0.01)


def test_cosine_rises_and_ends_at_its_final_factor():
    factor = warmup_cosine(1000, 0.1, 0.02)
    assert 0 < factor(0) < 0.02 and factor(100) == pytest.approx(1.0)
    assert factor(550) == pytest.approx(0.51) and factor(1000) == factor(2000) == pytest.approx(0.02)
    assert all(factor(step) >= factor(step + 1) for step in range(100, 1000))


@pytest.mark.parametrize("shape", [(0, 0.0, 0.0, 1.0), (1, 1.0, 0.0, 0.5), (10, 0.0, 1.0, 0.5)])
def test_a_degenerate_schedule_is_still_a_number(shape):
    total, warmup, hold, final = shape
    for factor in (tri_stage(total, warmup, hold, final), warmup_cosine(total, warmup, final)):
        assert all(0 < factor(step) <= 1 for step in range(12))


def test_every_parameter_is_in_one_group_and_lower_layers_learn_slower():
    recognizer = build_recognizer(composed("finetune", *OPTIONS["finetune"])["model"], 20)
    groups = layer_groups(recognizer, blocks=2, encoder_rate=0.5, layer_decay=0.8, frozen_steps=7)
    names = {id(parameter): name for name, parameter in recognizer.named_parameters()}
    grouped = [[names[id(parameter)] for parameter in group["params"]] for group in groups]
    assert sorted(name for group in grouped for name in group) == sorted(names.values())
    assert [group["rate"] for group in groups] == pytest.approx([1.0, 0.5 * 0.64, 0.5 * 0.8, 0.5])
    assert all(not name.startswith("encoder.") for name in grouped[0])
    assert all(name.startswith("encoder.blocks.1.") for name in grouped[3])
    optimizer = adamw(groups, learning_rate=0.01, weight_decay=0.1)
    for group in optimizer.param_groups:
        decays = {parameter.ndim > 1 for parameter in group["params"]}
        assert decays == {group["weight_decay"] > 0}
    scheduler = scheduled(optimizer, lambda step: 1.0)
    assert {group["lr"] for group in optimizer.param_groups if group["frozen_steps"]} == {0.0}
    for _ in range(7):
        optimizer.step()
        scheduler.step()
    assert sorted({round(group["lr"], 6) for group in optimizer.param_groups}) == [0.0032, 0.004, 0.005, 0.01]
    assert isinstance(optimizer, torch.optim.AdamW)
