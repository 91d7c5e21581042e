"""The traced cost of a step in, the same as a real step's out: parameters, operations and bytes kept, at any length."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from glmasr.build import build
from glmasr.model.subsampling import STRIDE
from glmasr.planning.workload import (
    COUNTED,
    FRAME_SECONDS,
    Growth,
    Parts,
    Tracing,
    batch_of,
    samples_of,
    workload,
)
from tests.small import SMALL, composed

CONFIG = composed("plan", *SMALL, "model.encoder.blocks=3", "model.encoder.dropout=0.1")
VISIBLE = {**CONFIG, "predictor": {**CONFIG["predictor"], "layers": 2}}


@pytest.fixture(scope="module")
def work():
    return workload(CONFIG, "cpu", False)


@pytest.fixture(scope="module", params=[CONFIG, VISIBLE], ids=["masked", "visible"])
def planned(request):
    """A config, and what its steps cost on a CPU."""
    return request.param, workload(request.param, "cpu", False)


@pytest.fixture(scope="module")
def lean():
    """Without dropout."""
    config = composed("plan", *SMALL, "model.encoder.blocks=3")
    return config, workload(config, "cpu", False)


@pytest.fixture(scope="module")
def fused():
    return workload(CONFIG, "cuda", True)


def built(checkpointing: bool = False, config=CONFIG) -> Parts:
    encoder = {**config["model"]["encoder"], "checkpointing": checkpointing}
    return Parts.of({**config, "model": {**config["model"], "encoder": encoder}})


def test_a_batch_has_the_frames_it_is_asked_for():
    waveform, lengths, mask = batch_of(50, 3, CONFIG["masking"])
    view = built().look(waveform, lengths, mask)
    assert view.context.shape[:2] == mask.shape == (3, 50)
    assert samples_of(50) / 16_000 == pytest.approx(50 * FRAME_SECONDS, abs=0.02)
    assert mask.float().mean() == pytest.approx(CONFIG["masking"]["mask_share"], abs=0.01)


@pytest.mark.parametrize(("utterances", "frames"), [(1, 200), (5, 80)])
def test_operations_and_kept_bytes_are_those_of_a_real_step_of_another_shape(planned, utterances, frames):
    config, work = planned
    parts = built(config=config)
    trained = parts.trained()
    batch = batch_of(frames, utterances, CONFIG["masking"])
    with Tracing(trained, None) as seen:
        loss = parts.objective(parts.look(*batch)).total
        seen.turn()
        loss.backward()
    found, cost = seen.found(), work.step()
    assert work.parameters == sum(one.numel() for one in trained.parameters())
    assert cost.flops(utterances, frames) == pytest.approx(found["flops"], rel=0.01)
    assert cost.forward_flops(utterances, frames) == pytest.approx(found["forward_flops"], rel=0.01)
    assert cost.kept(utterances, frames) == pytest.approx(found["kept"], rel=0.05)
    assert cost.moved(utterances, frames) == pytest.approx(found["moved"], rel=0.1)
    assert cost.calls(utterances, frames) == pytest.approx(found["calls"], rel=0.1)


def test_checkpointing_computes_blocks_again_and_keeps_little(work):
    parts = built(checkpointing=True)
    batch = batch_of(100, 2, CONFIG["masking"])
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
        parts.objective(parts.look(*batch)).total.backward()
    plain, again = work.step(), work.step(recomputed=True)
    assert again.flops(2, 100) == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert plain.flops(2, 100) < again.flops(2, 100) < 1.5 * plain.flops(2, 100)
    assert again.kept(2, 100) < 0.8 * plain.kept(2, 100)


def test_attention_grows_with_the_square_of_the_length_and_a_fused_one_keeps_no_pairs(work, fused):
    flops = work.step().flops
    assert flops(1, 800) > 2 * flops(1, 400) > 4 * flops(1, 200)
    assert flops(4, 200) == 4 * flops(1, 200)
    assert work.block.kept.per_pair > 0 == fused.block.kept.per_pair
    assert fused.block.flops == work.block.flops
    assert fused.block.kept.per_frame < work.block.kept.per_frame


@pytest.mark.parametrize(("utterances", "frames"), [(1, 200), (5, 80)])
def test_without_dropout_a_cpu_has_a_fused_kernel_too(work, lean, utterances, frames):
    config, lean = lean
    encoder = build(config["model"]["encoder"])
    assert lean.block.kept.per_pair == 0
    assert lean.block.forward_flops == work.block.forward_flops
    features = torch.randn(utterances, frames * STRIDE, encoder.bins)
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter, sdpa_kernel(SDPBackend.MATH):
        encoder(features, torch.full((utterances,), frames * STRIDE))
    step = lean.block.forward_flops(utterances, frames) * 3
    stem = counter.get_total_flops() - step
    assert 0 < stem < step / 3


def test_bf16_keeps_a_copy_of_every_matrix(work, fused):
    matrices = sum(p.numel() for p in built().encoder.blocks[0].parameters() if p.ndim == 2)
    assert fused.block.kept.fixed >= 2 * matrices > work.block.kept.fixed


def test_gradients_through_the_clean_frames_cost_only_where_an_objective_looks_at_them():
    config = {**CONFIG, "objective": composed("plan", *SMALL, "objective=reconstruction")["objective"]}
    contrastive = {**CONFIG, "objective": composed("plan", *SMALL, "objective=contrastive")["objective"]}
    one, other = (workload(which, "cpu", False).rest for which in (config, contrastive))
    stem = other.flops(1, 100) - other.forward_flops(1, 100) - (one.flops(1, 100) - one.forward_flops(1, 100))
    assert stem > 0


def test_growth_adds_and_multiplies():
    one = Growth(1.0, 2.0, 3.0)
    assert one(2, 10) == 1 + 2 * 10 * 2 + 2 * 100 * 3
    assert (one + one.times(2))(2, 10) == 3 * one(2, 10)


def test_a_clusters_model_is_traced_without_its_weights():
    config = composed("plan", "model=nano", "objective=random_projection")
    work = workload(config, "cuda", True)
    assert work.blocks == config["model"]["encoder"]["blocks"]
    # Six operations per parameter and frame, and attention on top.
    assert 1.0 < work.step().flops(1, 300) / (6 * work.parameters * 300) < 1.3


def test_a_depthwise_convolution_goes_back_by_twice_the_operations():
    convolution = nn.Conv1d(24, 24, 15, padding=7, groups=24)
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
        loss = convolution(torch.randn(2, 24, 50, requires_grad=True)).sum()
        forward = counter.get_total_flops()
        loss.backward()
    assert forward == 2 * 2 * 50 * 24 * 15 and counter.get_total_flops() == 3 * forward
