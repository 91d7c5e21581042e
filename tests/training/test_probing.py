"""The probe watches a pretraining without touching it, survives a kill, and chooses which weights are kept."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch
import yaml

from glmasr.bundle import open_bundle
from glmasr.training import probing
from glmasr.training.probe import ProbeResult, Score
from glmasr.training.probing import Probing
from glmasr.training.run import pretrain
from glmasr.training.start import fresh_blocks
from tests.small import composed, small

STEPS = ["trainer.max_steps=6", "trainer.val_check_interval=6", "checkpoints.every_steps=1"]


def train(corpus, home, name, *overrides):
    """The run folder of six pretraining steps, probed every other step."""
    pace = ["probe.every_steps=2", "probe.max_share=1000.0"]
    pretrain(composed("pretrain", *small(corpus, home, *STEPS, *pace, f"name={name}", *overrides)))
    return home / "runs" / name


def rows(folder) -> dict[str, list[str]]:
    """What metrics.csv has in the probe's columns."""
    with (folder / "metrics.csv").open(newline="") as file:
        read = [row for row in csv.DictReader(file) if row["probe/ctc"]]
    return {name: [row[name] for row in read] for name in ("step", "probe/ctc", "probe/untrained_ctc")}


def test_a_probe_changes_nothing_of_the_training(corpus, tmp_path):
    with_probe, without = train(corpus, tmp_path, "with"), train(corpus, tmp_path, "without", "probe.every_steps=null")
    last = open_bundle(with_probe / "bundle_last")
    assert last.digest() == open_bundle(without / "bundle").digest()
    assert not (without / "probe.json").exists() and not (without / "bundle_last").exists()
    kept = json.loads((with_probe / "probe.json").read_text())
    assert list(kept["results"]) == ["0", "2", "4", "6"] and list(kept["final"]) == ["1", "2"]
    best = open_bundle(with_probe / "bundle").config["training"]
    losses = {int(step): min(block["ctc"] for block in blocks.values()) for step, blocks in kept["results"].items()}
    assert best["step"] == best["probe"]["step"] == min((2, 4, 6), key=losses.__getitem__)
    assert best["probe"]["untrained"]["ctc"] == pytest.approx(losses[0]) and 0 < best["probe"]["time_share"] < 1
    logged = rows(with_probe)
    assert logged["step"] == ["0", "1", "3", "5"]
    assert [float(value) for value in logged["probe/ctc"]] == pytest.approx(list(losses.values()), rel=1e-4)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it."""


@pytest.fixture
def planned(monkeypatch):
    """Scores by the number of the call, each (block 1, block 2), and the encoders that were probed."""
    plan = SimpleNamespace(losses=[], seen=[], kill_at=None)

    def probe(encoder, ear, train, dev, tokenizer, blocks):
        if len(plan.seen) == plan.kill_at:
            plan.kill_at = None
            raise Killed
        plan.seen.append({name: value.clone() for name, value in encoder.state_dict().items()})
        losses = plan.losses[len(plan.seen) - 1]
        return ProbeResult({block: Score(losses[block - 1], 0.5) for block in blocks})

    monkeypatch.setattr(probing, "probe", probe)
    return plan


def test_the_probe_chooses_the_bundle_and_how_much_of_it_to_keep(corpus, tmp_path, planned, capsys):
    # Untrained 3.0; after 2 steps better; after 4 clearly worse; after 6 a little worse; then the best, every block.
    planned.losses = [(3.0, 3.0), (9.0, 2.5), (3.2, 3.1), (3.1, 3.02), (2.2, 2.5)]
    folder = train(corpus, tmp_path, "run")
    best = open_bundle(folder / "bundle")
    chosen, asked_again = planned.seen[1], planned.seen[4]
    for name, value in best.model.state_dict().items():
        assert torch.equal(value, chosen[name]) and torch.equal(value, asked_again[name])
    assert open_bundle(folder / "bundle_last").digest() != best.digest()
    assert [path.name for path in (folder / "checkpoints").glob("probed*")] == ["probed_000000002.safetensors"]
    said = [line for line in capsys.readouterr().err.splitlines() if "negative transfer" in line]
    assert len(said) == 1 and "at step 4: speech is read less well" in said[0] and "lower the learning rate" in said[0]
    config = yaml.safe_load((folder / "bundle" / "config.yaml").read_text())
    assert config["training"]["probe"]["best_block"] == 1 and fresh_blocks("auto", config) == 1
    assert fresh_blocks("auto", yaml.safe_load((folder / "bundle_last" / "config.yaml").read_text())) == 0


@pytest.mark.parametrize("kill_at", [0, 2, 3, 4])
def test_a_killed_run_neither_repeats_nor_loses_a_probe(corpus, tmp_path, planned, kill_at):
    planned.losses, planned.kill_at = [(3.0, 3.0), (2.0, 2.5), (2.1, 2.2), (2.3, 2.4), (2.0, 2.5)], kill_at
    with pytest.raises(Killed):
        train(corpus, tmp_path, "struck")
    struck = train(corpus, tmp_path, "struck")
    assert len(planned.seen) == 5
    assert [float(loss) for loss in rows(struck)["probe/ctc"]] == [3.0, 2.0, 2.1, 2.3]
    planned.seen.clear()
    whole = train(corpus, tmp_path, "whole")
    assert open_bundle(struck / "bundle").digest() == open_bundle(whole / "bundle").digest()
    assert rows(struck) == rows(whole)


@pytest.fixture
def clocked(tmp_path, monkeypatch):
    """A probe of 3 of 6 blocks whose clock is set by hand."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(probing.time, "perf_counter", lambda: clock.now)
    watch = Probing(tmp_path, [], [], None, lambda line: None, every_steps=10, max_share=0.03, blocks=3)
    return clock, watch, SimpleNamespace(encoder=SimpleNamespace(blocks=[None] * 6))


@pytest.mark.parametrize(("seconds_per_step", "probes"), [(0.1, 0), (1.0, 6), (10.0, 97)])
def test_probing_keeps_to_its_share_of_time(clocked, seconds_per_step, probes):
    clock, watch, module = clocked
    watch.spent[0] = clock.now = 3.0
    for step in range(10, 1000, 10):
        clock.now += 10 * seconds_per_step
        if watch.is_affordable(step, 1000, module):
            watch.spent[step] = 3.0
            clock.now += 3.0
    between = sorted(watch.spent)[1:]
    assert len(between) == probes
    if probes == 6:  # spread, not spent early
        assert (
            max(b - a for a, b in zip([0, *between], [*between, 1000], strict=True)) <= 250
        )  # spread, not spent early
    if probes:
        # With the last step's and then all six blocks' probe, twice as long.
        assert sum(watch.spent.values()) + 3.0 + 6.0 <= 0.03 * (clock.now + 10 * seconds_per_step + 9.0)


def test_the_blocks_on_the_way_go_down_from_the_top(clocked):
    _, watch, module = clocked
    assert watch.on_the_way(module) == [2, 4, 6]
    watch.blocks = 1
    assert watch.on_the_way(module) == [6]
    watch.blocks = 50
    assert watch.on_the_way(module) == [1, 2, 3, 4, 5, 6]
