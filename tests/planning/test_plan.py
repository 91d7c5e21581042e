"""Configs in, plans out whose sums are right, whose choices fit, and which warn of what will be the bottleneck."""

import functools
import json

import pytest

from glmasr.build import build
from glmasr.planning import plan
from glmasr.planning.plan import STRATEGIES, check, make_plan, memory_of, traffic
from glmasr.planning.workload import workload
from glmasr.speech import InputError
from tests.small import CONF, composed

DDP, _, FSDP, LEAN = STRATEGIES
BASE = ("data_hours=1000", "gpus=8", "loader.workers_each=16")


TRACED = {}


@pytest.fixture(autouse=True)
def traced_once(monkeypatch):
    """Each model once, for all tests."""

    def once(config, *device):
        key = json.dumps([config["model"], config["objective"], config["masking"], *device])
        if key not in TRACED:
            TRACED[key] = workload(config, *device)
        return TRACED[key]

    monkeypatch.setattr(plan, "workload", once)


@functools.cache
def planned(*overrides: str):
    return make_plan(composed("plan", *BASE, *overrides))


def nano():
    return plan.workload(composed("plan", "model=nano"), "cuda", True)


def chosen(made):
    return next(row for row in made.rows if row.strategy == made.chosen)


@pytest.mark.parametrize("gpu", sorted(path.stem for path in (CONF / "gpu").glob("*.yaml")))
def test_every_kind_of_gpu_is_a_machine_of_that_name(gpu):
    assert build(composed("plan", f"gpu={gpu}")["gpu"]).name == gpu


def test_the_plan_that_the_interface_names():
    made = planned("model=nano", "data_hours=1000000", "gpus=1024", "gpu=h100")
    assert made.parameters["recognizer"] == pytest.approx(1.5e9, rel=0.02)
    row = chosen(made)
    assert row.fits and row.memory.total <= 80 * 0.9 * 1.0001
    assert made.data.heard_hours == pytest.approx(1e6, rel=0.001)
    assert made.data.stored_gb["wav"] == pytest.approx(115_200)
    assert made.gpu_hours == pytest.approx(row.days * 24 * 1024)
    # By hand: what must be computed, at the share of the peak that is reached.
    days = made.total_exaflops * 1e18 / (1024 * 989.4e12 * row.mfu) / 86400
    assert row.days == pytest.approx(days, rel=0.01)
    assert any(one.startswith("batch: one update hears") for one in made.warnings)


def test_memory_per_strategy_is_what_its_parts_are_by_hand():
    work, gpus = nano(), 64
    ddp, fsdp, lean = (memory_of(work, one, gpus, 10, 300) for one in (DDP, FSDP, LEAN))
    assert ddp.weights == ddp.gradients == pytest.approx(4 * work.parameters / 1e9)
    assert ddp.optimizer == pytest.approx(8 * work.parameters / 1e9)
    assert fsdp.optimizer == pytest.approx(ddp.optimizer / gpus)
    assert ddp.copies - fsdp.copies == pytest.approx((4 * work.parameters - 12 * work.block_parameters) / 1e9)
    assert lean.activations < fsdp.activations / 3 and fsdp.activations == ddp.activations
    assert ddp.total == pytest.approx(sum(vars(ddp).values()))
    alone = memory_of(work, DDP, 1, 10, 300)
    assert ddp.copies - alone.copies == pytest.approx(ddp.gradients)


def test_the_largest_batch_just_fits():
    config = composed("plan", *BASE, "model=nano")
    for row in make_plan(config).rows:
        assert row.memory.total == pytest.approx(80 * 0.9) and row.fits
    tight = make_plan({**config, "batch_seconds": 0.99 * row.largest_batch_seconds})
    loose = make_plan({**config, "batch_seconds": 1.01 * row.largest_batch_seconds, "strategy": LEAN.name})
    assert tight.rows[-1].fits and not loose.rows[-1].fits
    assert loose.warnings[0].startswith("memory:")


def test_what_fits_nowhere_is_refused_with_what_it_needs():
    with pytest.raises(InputError, match=r"no strategy fits into the 16 GB of one h100: the leanest \(\w+\) needs"):
        planned("model=nano", "gpu.memory_gb=16", "gpus=1")


def test_sharding_is_chosen_where_one_gpu_does_not_hold_the_model():
    assert planned("model=nano", "gpu.memory_gb=18", "gpus=32").chosen.startswith("fsdp")
    assert planned("model=conformer_tiny").chosen == "ddp"


def test_an_update_of_stated_seconds_is_accumulated_and_its_number_makes_the_hours():
    made = planned("update_seconds=5760", "updates=1000", "batch_seconds=90", "price_per_gpu_hour=2.5")
    row = chosen(made)
    assert row.accumulate == 8 and row.batch_seconds == 90 and row.audio_seconds == 5760
    assert made.data.heard_hours == pytest.approx(1600) and made.data.epochs == pytest.approx(1.6)
    assert made.data.frames == pytest.approx(1600 * 3600 * 25)
    assert made.cost == pytest.approx(2.5 * made.gpu_hours)


def test_a_stated_mfu_is_reached():
    made = planned("model=nano", "mfu=0.4", "batch_seconds=5000", "strategy=ddp", "gpus=1")
    row = chosen(made)
    assert row.mfu == pytest.approx(0.4, rel=0.02)  # but for the optimizer


def test_bytes_on_the_network():
    work = nano()
    assert traffic(work, DDP, 1, 1) == (0.0, 0)
    assert traffic(work, DDP, 2, 4)[0] == pytest.approx(4 * work.parameters)  # a ring of two sends all once
    assert traffic(work, FSDP, 1024, 1)[0] == pytest.approx(12 * work.parameters, rel=0.01)
    assert traffic(work, FSDP, 1024, 4)[0] == 4 * traffic(work, FSDP, 1024, 1)[0]


@pytest.mark.parametrize(
    ("overrides", "warning"),
    [
        (("model=conformer_tiny",), "loader: a GPU could hear"),
        (
            ("model=conformer_base", "batch_seconds=120", "loader.workers_each=1"),
            "loader: with batches.workers=1 a GPU",
        ),
        (("model=conformer_base", "storage.read_gb_s=0.1"), "storage:"),
        (("model=nano", "gpus=1024", "batch_seconds=12"), "network:"),
        (("model=conformer_tiny", "batch_seconds=12", "gpus=1"), "batch: 12 s per GPU are too little"),
        (("model=conformer_base",), "batch: one update hears"),
        (("model=conformer_base", "updates=1000"), "batch: 1,000 updates are few"),
        (("model=nano", "checkpoints.every_steps=10"), "checkpoints: writing takes"),
    ],
)
def test_it_warns_of_the_bottleneck(overrides, warning):
    assert any(one.startswith(warning) for one in planned(*overrides).warnings), planned(*overrides).warnings


def test_a_plan_without_a_bottleneck_has_no_warning():
    quiet = ("model=conformer_base", "update_seconds=7680", "updates=400000", "batch_seconds=240")
    assert planned(*quiet, "gpus=32", "checkpoints.every_steps=5000").warnings == ()


def test_a_loader_that_is_too_slow_sets_the_pace():
    slow = ("model=conformer_tiny", "storage.format=opus", "loader.workers_each=2")
    row = chosen(planned(*slow))
    assert row.audio_seconds / row.update_seconds / 8 == pytest.approx(2 * 412.0)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("gpus", 0, "gpus=0 must be more"),
        ("data_hours", -1.0, "data_hours=-1.0 must"),
        ("strategy", "zero", "strategy=zero is none of auto, ddp"),
        ("storage", {"format": "mp3", "bytes_per_second": {"wav": 1}}, "storage.format=mp3 is none of wav"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(setting, value, message):
    with pytest.raises(InputError, match=message):
        check({**composed("plan"), setting: value})
