"""A run is begun once, resumed from what can be read, finished once, and never mixed with another's settings."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from pytorch_lightning.utilities import rank_zero_only
from torch import nn
from torch.nn.functional import ctc_loss

from glmasr.bundle import build_recognizer, encoder_weights, open_bundle
from glmasr.data.catalog import write_catalog
from glmasr.frontend.logmel import feature_lengths
from glmasr.model.recognizer import VOCABULARY
from glmasr.model.subsampling import frame_lengths
from glmasr.speech import RATE_HZ, InputError, Utterance
from glmasr.text.tokenizer import learn_characters
from glmasr.training import run as stages
from glmasr.training.checkpoints import Written
from glmasr.training.run import (
    Run,
    accumulate,
    adapted,
    begin_probing,
    build_trainer,
    differences,
    feasible,
    fresh_blocks,
    kept_tokenizer,
    mean_weights,
    pretrain,
    start_from,
    with_dropout,
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
    said = capsys.readouterr().err
    assert "left out 2 of 3 utterances" in said and ": abcdefghij, aabbccdd\n" in said
    with pytest.raises(InputError, match="longer than its audio"):
        feasible(write_catalog(rows[1:], tmp_path / "d"), tokenizer)


def test_whatever_is_left_out_is_listed(tmp_path, capsys):
    texts = ["good", *(f"{n} is far too long" for n in range(8))]
    rows = [Utterance(f"u{n}", f"{n}.wav", 0.4, text=text) for n, text in enumerate(texts)]
    feasible(write_catalog(rows, tmp_path / "c"), learn_characters(texts), tmp_path / "left_out.jsonl")
    said = capsys.readouterr().err
    assert "left out 8 of 9" in said and ": u1, u2, u3, u4, u5 and 3 more; " in said and "left_out.jsonl" in said
    listed = [json.loads(line) for line in (tmp_path / "left_out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in listed] == [f"u{n}" for n in range(1, 9)]
    assert listed[0] == {"id": "u1", "text": texts[1], "frames": 10, "frames_needed": 18}


def test_what_is_kept_has_a_path_through_its_frames_and_little_else_has(tmp_path):
    """Held against torch's CTC loss, infinite where no path exists, at every length of 10 to 60 frames."""
    texts = ["abcabcabcab", "aabbccaabb", "aaaaaaaaaa", "abbcabbcabbcabc"]
    tokenizer = learn_characters(texts)
    seconds = [round(0.4 + 0.013 * n, 3) for n in range(60)]
    for text in texts:
        tokens = torch.tensor([tokenizer.encode(text)])
        rows = [Utterance(str(n), "a.wav", length, text=text) for n, length in enumerate(seconds)]
        kept = {row.id for row in feasible(write_catalog(rows, tmp_path / text), tokenizer)}
        for n, length in enumerate(seconds):
            frames = frame_lengths(feature_lengths(torch.tensor([int(length * RATE_HZ)])))
            scores = torch.zeros(int(frames), 1, tokenizer.size).log_softmax(-1)
            possible = ctc_loss(scores, tokens, frames, torch.tensor([len(text)])).isfinite().item()
            one_more = ctc_loss(scores[:-1], tokens, frames - 1, torch.tensor([len(text)])).isfinite().item()
            assert possible if str(n) in kept else not one_more


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


def write_step(run: Run) -> Path:
    """A checkpoint of its first step."""
    path = run.folder / "checkpoints" / "step_000000001.ckpt"
    path.parent.mkdir()
    Written().save_checkpoint({"state_dict": {"a": torch.ones(3)}, "global_step": 1}, path)
    return path


@pytest.mark.parametrize("name", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
def test_a_job_that_is_put_back_does_not_discard_its_own_work(config, monkeypatch, name):
    asked = config | {"overwrite": True, "resume": "auto"}
    run = Run(asked)
    assert run.begin() and run.origin is None
    run.unlock()
    begun = write_step(run)
    monkeypatch.setenv(name, "1")
    again = Run(asked)
    assert again.begin() and again.origin == begun
    again.unlock()
    monkeypatch.setenv(name, "0")
    assert Run(asked).begin() and not (run.folder / "checkpoints").exists()


def test_other_ranks_take_part_in_a_run_that_is_being_discarded(config, monkeypatch):
    """Where they came before the first rank had discarded what was finished, they ended, and it waited for them."""
    run = Run(config)
    assert run.begin()
    write_step(run)
    run.finish(step=5)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert not Run(config).begin()
    second = Run(config | {"overwrite": True, "resume": "auto"})
    assert second.begin() and second.origin is None and run.finished_file.exists()


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
    written |= {"environment.json", "changes.diff", "data.json"}
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


def test_a_predictor_is_trained_kept_in_checkpoints_and_not_in_the_bundle(corpus, tmp_path):
    steps = ["trainer.val_check_interval=2", "checkpoints.every_steps=2", "predictor.layers=1", "name=p"]
    config = composed("pretrain", *small(corpus, tmp_path, *steps, "trainer.max_steps=2"))
    pretrain(config)
    [kept] = (tmp_path / "runs" / "p" / "checkpoints").glob("*.ckpt")
    named = set(torch.load(kept, weights_only=True)["state_dict"])
    assert any(name.startswith("predictor.layers.0.") for name in named)
    bundle = open_bundle(tmp_path / "runs" / "p" / "bundle")
    assert set(encoder_weights(bundle)) == {name.removeprefix("encoder.") for name in named if "encoder." in name}
    begun = stages.build_pretraining(config)
    assert begun.predictor is not None and not begun.encoder.mask_embedding.requires_grad
    trained(corpus, tmp_path, f"bundle={tmp_path}/runs/p/bundle")
    for wrong, why in (("layers=-1", "-1 layers"), ("kernel=4", "must be odd")):
        with pytest.raises(InputError, match=why):
            stages.build_pretraining(composed("pretrain", *SMALL, "predictor.layers=1", f"predictor.{wrong}"))


def test_pretraining_goes_on_from_a_bundle_with_fresh_heads(corpus, tmp_path, monkeypatch, capsys):
    steps = [
        "trainer.val_check_interval=2",
        "checkpoints.every_steps=2",
        "trainer.max_steps=2",
        "probe.every_steps=null",
    ]
    pretrain(composed("pretrain", *small(corpus, tmp_path, *steps, "name=first")))
    first = tmp_path / "runs" / "first" / "bundle"
    still = [*steps, "objective=reconstruction", "dropout=0.1", "optimizer.learning_rate=0.0", f"bundle={first}"]
    pretrain(composed("pretrain", *small(corpus, tmp_path, *still, "name=second")))
    assert f"from {first} on" in capsys.readouterr().err
    second = open_bundle(tmp_path / "runs" / "second" / "bundle")
    brought = encoder_weights(open_bundle(first))
    assert all(torch.equal(value, brought[name]) for name, value in encoder_weights(second).items())
    assert second.config["training"]["from"] == str(first)

    pretrain(composed("pretrain", *small(corpus, tmp_path, *still, "probe.every_steps=2", "name=probed")))
    assert ", bundle " in capsys.readouterr().err  # what the probe made of it at the start

    finished = tmp_path / "runs" / "second" / "finished.json"
    finished.unlink()
    first.rename(first.with_name("moved"))  # what goes on from a checkpoint does not need it
    pretrain(composed("pretrain", *small(corpus, tmp_path, *still, "name=second")))
    assert finished.exists() and open_bundle(tmp_path / "runs" / "second" / "bundle").digest() == second.digest()
    first.with_name("moved").rename(first)

    monkeypatch.setattr(stages, "fit", lambda *_: pytest.fail("trained"))
    for wrong, why in (
        (f"bundle={tmp_path}/nowhere", r"there is no bundle at .*nowhere: pass bundle=DIR, or bundle=null"),
        ("model.encoder.heads=1", r"is another one \(model.encoder.heads: \d → 1\)"),
        ("frontend.bins=40", r"is another one \(.*frontend.bins: 80 → 40"),
    ):
        with pytest.raises(InputError, match=why):
            pretrain(composed("pretrain", *small(corpus, tmp_path, *still, "name=third", wrong)))


def test_without_labels_there_is_no_probe_but_a_line(tmp_path, capsys):
    composed_config = composed("pretrain")
    config = {name: composed_config[name] for name in ("probe", "trainer")} | {
        "run_dir": str(tmp_path),
        "utterances": {},
    }
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
    bundle = open_bundle(tmp_path / "b")
    start_from(recognizer, bundle, reinitialized_blocks=1)
    fresh = {name for name, value in recognizer.encoder.state_dict().items() if not torch.equal(value, weights[name])}
    assert fresh and all(name.startswith("blocks.1.") for name in fresh)
    start_from(recognizer, bundle, reinitialized_blocks=0)
    assert all(torch.equal(value, weights[name]) for name, value in recognizer.encoder.state_dict().items())


def test_the_heads_of_a_recognizer_are_kept_if_asked_or_there(tmp_path):
    random_bundle(tmp_path / "encoder")
    random_bundle(tmp_path / "recognizer", learn_characters(["ab"]))
    encoder, recognizer = open_bundle(tmp_path / "encoder"), open_bundle(tmp_path / "recognizer")
    for heads in ("auto", "keep"):
        assert kept_tokenizer(heads, recognizer) is recognizer.tokenizer
    assert all(kept_tokenizer(*one) is None for one in (("fresh", recognizer), ("auto", encoder), ("auto", None)))
    with pytest.raises(InputError, match="heads=keep needs the bundle of a recognizer"):
        kept_tokenizer("keep", encoder)
    with pytest.raises(InputError, match="heads=old is not one of auto, keep, fresh"):
        kept_tokenizer("old", recognizer)


def test_fine_tuning_goes_on_from_a_recognizer_with_what_is_new(tmp_path):
    weights = random_bundle(tmp_path / "b", learn_characters(["ab"]))
    recognizer = build_recognizer(composed("finetune", *SMALL)["model"], 6)
    start_from(recognizer, open_bundle(tmp_path / "b"), 1, [0, 1, 2, 3, -1, 4])
    rows = {name: [0, 1, 2, 3, 5] if name in VOCABULARY else slice(None) for name in weights}
    now = recognizer.state_dict()
    fresh = {name for name, value in now.items() if not torch.equal(value[rows[name]], weights[name])}
    assert fresh and all(name.startswith("encoder.blocks.1.") for name in fresh)


def trained(corpus, home, *overrides: str) -> dict:
    """Weights of the bundle two steps of fine-tuning write, before and after."""
    steps = ["trainer.max_steps=2", "trainer.val_check_interval=1", "checkpoints.every_steps=1", "name=f"]
    stages.finetune(composed("finetune", *small(corpus, home, *steps, *overrides)))
    return open_bundle(home / "runs" / "f" / "bundle").model.state_dict()


def test_a_weight_that_cannot_be_is_refused_before_anything_is_trained(corpus, tmp_path):
    with pytest.raises(InputError, match=r"ctc_weight 1\.5 is not a share"):
        stages.finetune(composed("finetune", *small(corpus, tmp_path, "bundle=null", "name=run", "ctc_weights=[1.5]")))
    assert not (tmp_path / "runs").exists()


def test_a_fine_tuning_shorter_than_its_validations_are_apart_is_heard_at_its_end(corpus, tmp_path):
    short = ["bundle=null", "trainer.max_steps=2", "trainer.val_check_interval=100", "name=short"]
    stages.finetune(composed("finetune", *small(corpus, tmp_path, *short)))
    assert open_bundle(tmp_path / "runs" / "short" / "bundle").config["training"]["dev"]["step"] == 2


def test_adapters_leave_plain_bundles_and_the_old_vocabulary_lives_on(corpus, tmp_path, capsys):
    old = learn_characters(["please select the"])
    before = random_bundle(tmp_path / "b", old)
    after = trained(corpus, tmp_path, f"bundle={tmp_path}/b", "adapters.rank=2")
    assert set(after) == set(before)
    changed = {name for name in before if name not in VOCABULARY and not torch.equal(after[name], before[name])}
    assert changed and all(before[name].ndim == 2 for name in changed)  # the linear layers
    bundle = open_bundle(tmp_path / "runs" / "f" / "bundle")
    facts, tokenizer = bundle.config["training"], bundle.tokenizer
    added = len(tokenizer.characters) - len(old.characters)
    assert tokenizer.characters[: len(old.characters)] == old.characters and added > 0
    assert facts["tokens_added"] == added and facts["adapters"] == {"rank": 2, "alpha": 16.0} and facts["left_out"] == 0
    assert after["ctc.weight"].shape[0] == tokenizer.size
    said = capsys.readouterr().err
    assert f"with {added} tokens added" in said and " of them trained, from " in said
    kept = [open_bundle(tmp_path / "runs" / "f" / name).model.state_dict() for name in ("bundle", "bundle_averaged")]
    assert set(kept[0]) == set(kept[1]) and not torch.equal(kept[0]["ctc.weight"], kept[1]["ctc.weight"])


def test_pretraining_goes_without_dropout_and_fine_tuning_with_it_whatever_a_bundle_says(corpus, tmp_path):
    assert composed("pretrain")["model"]["encoder"]["dropout"] == 0
    assert composed("pretrain", "dropout=0.3")["model"]["encoder"]["dropout"] == 0.3
    random_bundle(tmp_path / "b")
    wanted = {"usual": ([], 0.1), "another": (["dropout=0.2"], 0.2), "own": (["dropout=null"], None)}
    for name, (overrides, expected) in wanted.items():
        trained(corpus, tmp_path / name, f"bundle={tmp_path}/b", *overrides)
        bundle = open_bundle(tmp_path / name / "runs" / "f" / "bundle")
        assert [part.get("dropout") for part in bundle.config["model"].values()] == [expected, expected]
        assert {m.p for m in bundle.model.modules() if isinstance(m, nn.Dropout)} == {expected or 0.1}


def test_a_model_without_a_decoder_gets_its_dropout_too():
    model = {"encoder": {"width": 8, "dropout": 0.0}, "decoder": None}
    assert with_dropout(model, 0.1) == {"encoder": {"width": 8, "dropout": 0.1}, "decoder": None}
    assert with_dropout(model, None) is model


def test_a_metric_that_is_not_measured_is_refused(corpus, tmp_path):
    with pytest.raises(InputError, match=r"dev/cer_streaming is none of dev/loss, dev/wer, dev/cer \(of streams"):
        trained(corpus, tmp_path, "bundle=null", "snapshots.metric=dev/cer_streaming")
    streams = ["chunks.probability=0.5", "chunks.validate_frames=4", "snapshots.metric=dev/cer_streaming"]
    trained(corpus, tmp_path, "bundle=null", *streams)
    facts = json.loads((tmp_path / "runs" / "f" / "finished.json").read_text())
    assert facts["dev"]["metric"] == "dev/cer_streaming" and facts["dev"]["value"] > 0


def test_adapters_from_scratch_are_refused(corpus, tmp_path):
    with pytest.raises(InputError, match="there is nothing to adapt"):
        trained(corpus, tmp_path, "bundle=null", "adapters.rank=2")


def test_what_begins_afresh_is_trained_whole(tmp_path):
    recognizer = build_recognizer(composed("finetune", *SMALL)["model"], 6)
    size = adapted(recognizer, 1, False, rank=2, alpha=4.0)
    assert size == f"{sum(p.numel() for p in recognizer.parameters() if p.requires_grad) / 1e6:.2f} M"
    names = dict(recognizer.named_parameters())
    frozen = {name for name in names if not names[name].requires_grad}
    assert not any(name.startswith(("encoder.blocks.1.", "decoder.", "ctc.")) for name in frozen)
    assert all(name in frozen for name in names if name.startswith("encoder.subsampling.") and ".0." not in name)
    adapted(recognizer := build_recognizer(composed("finetune", *SMALL)["model"], 6), 0, True, rank=2, alpha=4.0)
    whole = {name for name, p in recognizer.named_parameters() if p.requires_grad and ".parametrizations." not in name}
    assert whole == {*VOCABULARY, "encoder.mask_embedding"}


def test_weights_are_averaged_one_by_one():
    mean = mean_weights([{"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 6.0])}])
    assert torch.equal(mean["a"], torch.tensor([2.0, 4.0]))


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


def test_an_experiment_may_change_what_the_primary_config_says():
    config = composed("finetune", "experiment/finetune=adapters")
    assert config["adapters"]["rank"] == 8 and config["optimizer"]["learning_rate"] == 3e-3
