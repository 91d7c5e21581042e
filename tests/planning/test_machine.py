"""Trials of known efficiency in, that efficiency out; a calibration on this machine gives one that explains itself."""

import pytest
import torch

from glmasr.build import build
from glmasr.planning.machine import Efficiency, Machine, Trial, calibrate, explained, narrowed, step_of
from glmasr.planning.workload import Cost, Growth, batch_of
from glmasr.speech import InputError
from tests.small import SMALL, composed

CPU = Machine("cpu", "cpu", "32-true", 0.1, 16.0, 20.0, 10.0, 1.0, 1, 1)
GPU = Machine("gpu", "cuda", "bf16-mixed", 100.0, 80.0, 1000.0, 100.0, 10.0, 8, 16)
WORK = [(1e8, 4e7, 500), (8e9, 2e8, 600), (3e9, 9e8, 900), (1e10, 1e8, 500), (5e8, 6e8, 2000)]


def test_a_machine_of_another_kind_or_precision_is_refused():
    with pytest.raises(InputError, match="kind=tpu"):
        Machine("tpu", "tpu", "32-true", 1, 1, 1, 1, 1, 1, 1)
    with pytest.raises(InputError, match="precision=16"):
        Machine("x", "cuda", "16", 1, 1, 1, 1, 1, 1, 1)


def test_a_gpu_starts_kernels_while_it_computes_and_a_cpu_does_not():
    efficiency = Efficiency(0.5, 0.5, 10.0)
    assert efficiency.seconds(GPU, 50e12, 500e9, 0) == pytest.approx(2.0)
    assert efficiency.seconds(GPU, 50e12, 500e9, 1000) == pytest.approx(2.0)
    assert efficiency.seconds(GPU, 50e9, 0, 1000) == pytest.approx(0.01)
    assert efficiency.seconds(CPU, 50e9, 0, 1000) == pytest.approx(1.01)
    assert efficiency.update_seconds(GPU, 1e9) == pytest.approx(0.088)
    cost = Cost(flops=Growth(0.0, 50e9))
    assert efficiency.batch_seconds(GPU, cost, 10, 100) == pytest.approx(1.0)


@pytest.mark.parametrize("true", [Efficiency(0.6, 0.3, 12.0), Efficiency(0.9, 0.2, 0.0)])
def test_efficiencies_are_found_again_from_what_they_explain(true):
    trials = [Trial(*work, true.seconds(CPU, *work)) for work in WORK]
    found = explained(CPU, trials)
    assert found.compute == pytest.approx(true.compute, rel=1e-6)
    assert found.bandwidth == pytest.approx(true.bandwidth, rel=1e-6)
    assert found.call_us == pytest.approx(true.call_us, abs=1e-6)


def test_no_efficiency_is_negative():
    trials = [Trial(flops, moved, calls, 1e-11 * flops - 1e-13 * moved) for flops, moved, calls in WORK]
    found = explained(CPU, trials)
    assert found.compute > 0 and found.bandwidth > 0 and found.call_us >= 0


def test_a_narrowed_model_is_narrowed_throughout_and_can_be_built():
    config = composed("plan", "model.encoder.width=96")
    smaller = narrowed(config, 0.5, 1)
    assert smaller["model"]["encoder"]["width"] == 48 and smaller["model"]["encoder"]["blocks"] == 1
    before = build(smaller["objective"]).state_dict()
    assert all(96 not in one.shape for one in before.values())
    step_of(smaller, CPU)(*batch_of(20, 2, config["masking"]))
    assert config["model"]["encoder"]["width"] == 96


def test_a_calibration_explains_its_own_trials():
    config = composed("plan", *SMALL)
    efficiency, trials = calibrate(config, CPU, [1.0, 2.0], [[1, 25], [4, 50]], blocks=1, rounds=2)
    assert len(trials) == 4
    for trial in trials:
        told = efficiency.seconds(CPU, trial.flops, trial.moved, trial.calls)
        assert 0.2 < told / trial.seconds < 5  # the machine may be busy


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to calibrate")
def test_a_gpu_that_is_not_there_cannot_be_calibrated():
    with pytest.raises(InputError, match="no GPU for gpu=gpu"):
        calibrate(composed("plan", *SMALL), GPU, [1.0], [[1, 25]], 1, 1)
