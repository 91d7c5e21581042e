"""A bundle of a pretraining that is under way: the encoder as it was at a checkpoint, and clear words otherwise."""

import shutil

import pytest
import torch

from glmasr.bundle import encoder_weights, open_bundle
from glmasr.speech import InputError
from glmasr.training import run as stages
from glmasr.training.midway import bundle
from tests.small import composed, small


@pytest.fixture(scope="module")
def pretraining(corpus, tmp_path_factory):
    """Six steps, with a checkpoint of the third kept, and what the run itself wrote at the end."""
    home = tmp_path_factory.mktemp("midway")
    pace = ["trainer.max_steps=6", "trainer.val_check_interval=6", "probe.every_steps=null"]
    pace += ["checkpoints.every_steps=3", "checkpoints.milestone_steps=3"]
    stages.pretrain(composed("pretrain", *small(corpus, home, *pace, "name=run")))
    return home / "runs" / "run"


def test_it_is_the_encoder_of_the_checkpoint(pretraining):
    made = bundle({"run_dir": str(pretraining), "step": None})
    assert made == pretraining / "bundle_6"
    own, ours = (encoder_weights(open_bundle(folder)) for folder in (pretraining / "bundle", made))
    assert own.keys() == ours.keys() and all(torch.equal(own[name], ours[name]) for name in own)
    earlier = open_bundle(bundle({"run_dir": str(pretraining), "step": 3}))
    assert earlier.config["training"]["step"] == 3 and earlier.config["training"]["of_steps"] == 6
    assert any(not torch.equal(own[name], value) for name, value in encoder_weights(earlier).items())


def test_it_can_be_fine_tuned(pretraining, corpus):
    made, home = bundle({"run_dir": str(pretraining), "step": 3}), pretraining.parents[1]
    pace = ["trainer.max_steps=2", "trainer.val_check_interval=2"]
    stages.finetune(composed("finetune", *small(corpus, home, *pace, "name=tuned", f"bundle={made}")))
    assert open_bundle(home / "runs" / "tuned" / "bundle").config["training"]["from"] == str(made)


def test_what_is_not_there_is_named(pretraining, tmp_path):
    with pytest.raises(InputError, match=r"keeps no checkpoint of step 4, but of 3, 6 \(checkpoints.milestone_steps\)"):
        bundle({"run_dir": str(pretraining), "step": 4})
    with pytest.raises(InputError, match="there is no run in"):
        bundle({"run_dir": str(tmp_path), "step": None})
    (tmp_path / "config.yaml").write_text("name: tuned\n")
    with pytest.raises(InputError, match="is no pretraining: a fine-tuning writes its bundles"):
        bundle({"run_dir": str(tmp_path), "step": None})
    shutil.copy(pretraining / "config.yaml", tmp_path)
    with pytest.raises(InputError, match="has no checkpoint yet"):
        bundle({"run_dir": str(tmp_path), "step": None})


def test_a_damaged_checkpoint_gives_its_place_to_the_one_before_or_is_named(pretraining, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(pretraining, folder)
    newest = folder / "checkpoints" / "step_000000006.ckpt"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert bundle({"run_dir": str(folder), "step": None}).name == "bundle_3"
    assert "step_000000006.ckpt cannot be read" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"step_000000006\.ckpt cannot be read"):
        bundle({"run_dir": str(folder), "step": 6})
