"""Schedules have the shape they say; every parameter is in one group at its rate."""

import math
from itertools import pairwise

import pytest
import torch

from glmasr.model.decoder import Decoder
from glmasr.model.encoder import Encoder
from glmasr.model.recognizer import Recognizer
from glmasr.training.optimizer import adamw, layer_groups, scheduled, tri_stage, warmup_cosine


@pytest.fixture
def recognizer() -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(Encoder(width=16, blocks=3, heads=2, stem_channels=2), Decoder(5, 16, 16, 1, 2), 5)


def test_tri_stage_rises_holds_and_decays():
    factor = tri_stage(1000, 0.1, 0.4, 0.02)
    rates = [factor(step) for step in range(1001)]
    assert rates[0] == pytest.approx(1 / 101) and rates[49] == pytest.approx(50 / 101)
    assert all(earlier < later for earlier, later in pairwise(rates[:101]))
    assert set(rates[100:501]) == {1.0}
    assert rates[750] == pytest.approx(math.sqrt(0.02)) and rates[1000] == pytest.approx(0.02)
    assert factor(5000) == pytest.approx(0.02)


def test_warmup_cosine_rises_and_falls_by_half_a_cosine():
    factor = warmup_cosine(1000, 0.1, 0.1)
    assert factor(0) == pytest.approx(1 / 101) and factor(100) == 1.0
    assert factor(550) == pytest.approx(0.55) and factor(325) == pytest.approx(0.1 + 0.45 * (1 + math.sqrt(0.5)))
    assert factor(1000) == pytest.approx(0.1) == factor(9999)


@pytest.mark.parametrize(
    "schedule", [tri_stage(1, 0.0, 0.0, 0.5), tri_stage(3, 0.5, 0.5, 0.5), warmup_cosine(1, 0.0, 0.5)]
)
def test_tiny_runs_have_a_rate_too(schedule):
    assert all(0 < schedule(step) <= 1 for step in range(5))


def test_matrices_decay_and_vectors_do_not(recognizer):
    optimizer = adamw([{"params": recognizer.parameters(), "rate": 0.5}], 0.01, 0.1)
    decaying, resting = optimizer.param_groups
    assert decaying["weight_decay"] == 0.1 and all(p.ndim > 1 for p in decaying["params"])
    assert resting["weight_decay"] == 0.0 and all(p.ndim <= 1 for p in resting["params"])
    assert len(decaying["params"]) + len(resting["params"]) == len(list(recognizer.parameters()))
    assert decaying["lr"] == resting["lr"] == 0.005 and decaying["betas"] == (0.9, 0.98)


def test_a_group_without_vectors_is_one_group():
    assert len(adamw([{"params": [torch.nn.Parameter(torch.zeros(2, 2))]}], 0.1, 0.1).param_groups) == 1


def test_layers_below_are_slower_and_every_parameter_is_somewhere_once(recognizer):
    groups = layer_groups(recognizer, 3, encoder_rate=0.5, layer_decay=0.1, frozen_steps=7)
    assert [group["rate"] for group in groups] == pytest.approx([1.0, 0.0005, 0.005, 0.05, 0.5])
    assert [group.get("frozen_steps", 0) for group in groups] == [0, 7, 7, 7, 7]
    found = [id(p) for group in groups for p in group["params"]]
    assert sorted(found) == sorted(map(id, recognizer.parameters()))
    ids = [{id(p) for p in group["params"]} for group in groups]
    assert ids[0] == {id(p) for m in (recognizer.ctc, recognizer.decoder) for p in m.parameters()}
    for block, group in zip(recognizer.encoder.blocks, ids[2:], strict=True):
        assert group == {id(p) for p in block.parameters()}


def test_frozen_groups_stand_still_then_follow_the_schedule(recognizer):
    schedule = tri_stage(10, 0.2, 0.3, 0.1)
    optimizer = adamw(layer_groups(recognizer, 3, 0.5, 1.0, frozen_steps=3), 0.01, 0.1)
    scheduler = scheduled(optimizer, schedule)
    before = {name: p.detach().clone() for name, p in recognizer.named_parameters()}
    for step in range(6):
        for group in optimizer.param_groups:
            rate = 0.01 if group["frozen_steps"] == 0 else 0.005 * (step >= 3)
            assert group["lr"] == pytest.approx(rate * schedule(step))
        for parameter in recognizer.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        scheduler.step()
        for name, parameter in recognizer.named_parameters():
            moved = not torch.equal(parameter, before[name])
            assert moved == (step >= 3 or not name.startswith("encoder."))


def test_the_rate_follows_the_square_root_of_the_audio_per_update():
    weights = [torch.nn.Parameter(torch.zeros(2, 2))]
    rates = [
        adamw([{"params": weights}], 1e-3, 0.01, update_seconds=seconds).param_groups[0]["lr"]
        for seconds in (None, 15.0, 60.0)
    ]
    assert rates == pytest.approx([1e-3, 1e-3, 2e-3])
