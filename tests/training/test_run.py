"""A run is begun once, resumed from what can be read, finished once, and never mixed with another's settings."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from glmasr.bundle import encoder_weights, open_bundle
from glmasr.data.catalog import write_catalog
from glmasr.model.recognizer import VOCABULARY
from glmasr.speech import InputError, Utterance
from glmasr.text.tokenizer import learn_characters
from glmasr.training import run as stages
from glmasr.training.folder import Run
from glmasr.training.run import accumulate, begin_probing, build_trainer, mean_weights, pretrain
from tests.small import SMALL, composed, random_bundle, small


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
