"""A run is begun once, resumed from what can be read, finished once, and never mixed with another's settings."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml

from glmasr.bundle import build_recognizer, open_bundle
from glmasr.data.catalog import write_catalog
from glmasr.speech import InputError, Utterance
from glmasr.text.tokenizer import learn_characters
from glmasr.training import run as stages
from glmasr.training.run import (
    Run,
    accumulate,
    begin_probing,
    build_trainer,
    differences,
    feasible,
    fresh_blocks,
    pretrain,
    readable,
    start_from,
)
from tests.small import SMALL, composed, random_bundle, small


def test_differences_name_every_leaf():
    old = {"a": {"b": 1, "c": [1, 2]}, "gone": 1, "same": {"x": None}}
    new = {"a": {"b": 2, "c": [1, 3]}, "came": True, "same": {"x": None}}
    assert differences(old, new) == ["a.b: 1 → 2", "a.c: [1, 2] → [1, 3]", "came: None → True", "gone: 1 → None"]
    assert differences(old, old) == []
    assert differences({"m": None}, {"m": {"x": 1}}) == ["m: None → {'x': 1}"]


def test_an_utterance_that_cannot_hold_its_text_is_left_out(tmp_path, capsys):
    # 0.4 s are ten encoder frames: "abcdefghi" fits, ten characters do not, and a double one needs a blank between.
    texts = ["abcdefghi", "abcdefghij", "aabbccdd"]
    rows = [Utterance(text, f"{text}.wav", 0.4, text=text) for text in texts]
    catalog, tokenizer = write_catalog(rows, tmp_path / "c"), learn_characters(texts)
    assert feasible(catalog, tokenizer).texts() == ["abcdefghi"]
    assert "left out 2 of 3 utterances" in capsys.readouterr().err
    with pytest.raises(InputError, match="longer than its audio"):
        feasible(write_catalog(rows[1:], tmp_path / "d"), tokenizer)


@pytest.fixture
def config(tmp_path) -> dict:
    return {"run_dir": str(tmp_path / "run"), "overwrite": False, "seed": 0, "trainer": {"max_steps": 5}}


def test_a_run_goes_on_only_with_the_settings_it_was_begun_with(config):
    run = Run(config)
    assert run.begin() and yaml.safe_load((run.folder / "config.yaml").read_text()) == config
    assert Run(config | {"seed": 1}).begin()  # nothing was done yet
    (run.folder / "checkpoints").mkdir()
    (run.folder / "checkpoints" / "step_000000001.ckpt").touch()
    with pytest.raises(InputError, match=r"was begun with other settings \(seed: 1 → 2\): choose another name"):
        Run(config | {"seed": 2}).begin()
    assert Run(config | {"seed": 1, "trainer": {"max_steps": 9}}).begin()  # longer is fine
    assert Run(config | {"seed": 2, "overwrite": True}).begin()
    assert not (run.folder / "checkpoints").exists()


def test_a_finished_run_is_not_done_again(config, capsys):
    run = Run(config | {"overwrite": True})
    assert run.begin()
    run.finish(step=5)
    facts = json.loads(run.finished_file.read_text())
    assert facts["step"] == 5 and facts["commit"] and facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert not Run(config).begin() and "nothing to do (overwrite=true" in capsys.readouterr().err
    assert not Run(config | {"overwrite": False}).begin()
    with pytest.raises(InputError, match=r"was finished with other settings \(trainer.max_steps: 5 → 9\)"):
        Run(config | {"trainer": {"max_steps": 9}}).begin()


HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_folder_another_process_trains_in_is_left_alone(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("theirs")
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=r"another process is training in .*run: wait for it"):
            Run(config | {"overwrite": True}).begin()
        holder.kill()
    assert (tmp_path / "run" / "metrics.csv").read_text() == "theirs"
    assert Run(config).begin()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, capsys):
    paths = [tmp_path / f"step_{step:09d}.ckpt" for step in (3, 2, 1)]
    for path in paths:
        torch.save({"weights": torch.arange(1000)}, path)
    assert readable(paths) == paths[0] and not capsys.readouterr().err
    paths[0].write_bytes(paths[0].read_bytes()[:-200])
    paths[1].write_bytes(b"")
    assert readable(paths) == paths[2]
    said = capsys.readouterr().err
    assert said.count("cannot be read") == 2 and str(paths[0]) in said and str(paths[1]) in said
    assert readable(paths[:2]) is None and readable([]) is None


def test_a_trainer_setting_that_does_not_exist_is_named(tmp_path):
    config = composed("pretrain", "+trainer.max_stepz=3") | {"run_dir": str(tmp_path)}
    with pytest.raises(InputError, match=r"no parameter 'max_stepz'; did you mean 'max_steps'\?"):
        build_trainer(config, tmp_path, [])


def test_pretraining_leaves_a_run_folder_and_is_done_once(corpus, tmp_path, monkeypatch):
    steps = ["trainer.max_steps=2", "trainer.val_check_interval=1", "checkpoints.every_steps=1", "name=p"]
    config = composed("pretrain", *small(corpus, tmp_path, *steps))
    pretrain(config)
    folder = tmp_path / "runs" / "p"
    left = {path.name for path in folder.iterdir()}
    written = {"bundle", "bundle_last", "config.yaml", "finished.json", "metrics.csv", "probe.json"}
    written |= {"health.json", "report.html"}
    assert left == written | {"checkpoints", "tensorboard"}
    kept = {path.name for path in (folder / "checkpoints").iterdir()}
    assert kept == {"step_000000002.ckpt", "probed_000000002.safetensors"}
    bundle = open_bundle(folder / "bundle")
    assert bundle.tokenizer is None and bundle.config["training"]["step"] == 2
    weights = folder / "bundle" / "weights.safetensors"
    written = weights.stat().st_mtime_ns
    monkeypatch.setattr(stages, "fit", lambda *_: pytest.fail("trained again"))
    pretrain(config)
    assert weights.stat().st_mtime_ns == written
    with pytest.raises(InputError, match=r"there is no bundle at .*nowhere: run `make pretrain` first"):
        stages.finetune(composed("finetune", *small(corpus, tmp_path, f"bundle={tmp_path}/nowhere")))


def test_without_labels_there_is_no_probe_but_a_line(tmp_path, capsys):
    config = {"run_dir": str(tmp_path), "probe": composed("pretrain")["probe"], "utterances": {}}
    silent = write_catalog([Utterance("a", "a.wav", 1.0), Utterance("b", "b.wav", 1.0, split="dev")], tmp_path / "c")
    assert begin_probing(Run(config), silent) is None
    assert "goes on without a probe: no utterance is left" in capsys.readouterr().err
    config["probe"]["every_steps"] = None
    assert begin_probing(Run(config), silent) is None and not capsys.readouterr().err


def test_how_many_blocks_begin_afresh_is_a_number_or_what_the_probe_says():
    probed = {"training": {"probe": {"reinitialized_blocks": 2}}}
    assert [fresh_blocks(asked, probed) for asked in (0, 1, "auto")] == [0, 1, 2]
    assert fresh_blocks("auto", {"training": {"probe": None}}) == fresh_blocks("auto", {"training": {}}) == 0
    assert fresh_blocks("auto", {"model": {}}) == 0  # from scratch
    with pytest.raises(InputError, match="reinitialized_blocks=top is neither"):
        fresh_blocks("top", probed)


def test_fine_tuning_starts_from_all_of_a_bundle_but_its_fresh_top(tmp_path):
    weights = random_bundle(tmp_path / "b")
    recognizer = build_recognizer(composed("finetune", *SMALL)["model"], 9)
    start_from(recognizer, tmp_path / "b", reinitialized_blocks=1)
    fresh = {name for name, value in recognizer.encoder.state_dict().items() if not torch.equal(value, weights[name])}
    assert fresh and all(name.startswith("blocks.1.") for name in fresh)
    start_from(recognizer, tmp_path / "b", reinitialized_blocks=0)
    assert all(torch.equal(value, weights[name]) for name, value in recognizer.encoder.state_dict().items())


@pytest.mark.parametrize(
    ("world", "update_seconds", "expected"), [(1, 30.0, 4), (2, 30.0, 2), (4, 30.0, 1), (3, None, 1)]
)
def test_an_update_sees_the_same_audio_on_any_number_of_devices(world, update_seconds, expected):
    trainer = SimpleNamespace(world_size=world, accumulate_grad_batches=1, val_check_interval=100)
    accumulate(trainer, 7.5, update_seconds)
    assert trainer.accumulate_grad_batches == expected and trainer.val_check_interval == 100 * expected


@pytest.mark.parametrize(("world", "update_seconds"), [(8, 30.0), (1, 20.0)])
def test_an_update_that_cannot_be_made_of_batches_is_refused(world, update_seconds):
    trainer = SimpleNamespace(world_size=world, accumulate_grad_batches=1, val_check_interval=100)
    with pytest.raises(InputError, match=r"no multiple of batches\.batch_seconds=7\.5 × "):
        accumulate(trainer, 7.5, update_seconds)
