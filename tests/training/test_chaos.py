"""Five kills of a random rank at random steps, in one run on real speech: it ends bit for bit like one left alone."""

import json
from pathlib import Path

import pytest
import torch

from glmasr.speech import InputError
from glmasr.training.chaos import chaos, equal, logged
from tests.small import composed


def test_five_kills_change_nothing(corpus, tmp_path):
    data = ["data=folder", f"data.path={corpus}", "data.language=en", f"catalogs={tmp_path}/catalogs"]
    pace = ["kills=5", "trainer.max_steps=40", "trainer.val_check_interval=20", "batches.workers=0"]
    config = composed("chaos", *data, *pace, f"run_dir={tmp_path}/chaos")
    chaos(config)
    told = json.loads((tmp_path / "chaos" / "chaos.json").read_text())
    assert told["identical"] == {"weights": True, "optimizer": True, "metrics": True}
    assert len(told["kills"]) == 5 and all(kill["others_ended_after_seconds"] < 20 for kill in told["kills"])
    with pytest.raises(InputError, match="is there already: choose another name"):
        chaos(config)
    with pytest.raises(InputError, match="need more steps than"):
        chaos(config | {"kills": 40})


def test_equal_means_every_bit():
    nest = {"a": [torch.tensor([1.0, 2.0]), {"b": (1, "x")}]}
    assert equal(nest, {"a": [torch.tensor([1.0, 2.0]), {"b": (1, "x")}]})
    for other in (
        {"a": [torch.tensor([1.0, 2.0000002]), {"b": (1, "x")}]},
        {"a": [torch.tensor([1.0, 2.0], dtype=torch.float64), {"b": (1, "x")}]},
        {"a": [torch.tensor([1.0, 2.0])]},
        {"c": nest["a"]},
    ):
        assert not equal(nest, other)


def test_the_last_step_logged(tmp_path):
    assert logged(Path(tmp_path)) == -1
    (tmp_path / "metrics.csv").write_text("step,loss\n")
    assert logged(tmp_path) == -1
    (tmp_path / "metrics.csv").write_text("step,loss\n3,0.5\n4,0.")
    assert logged(tmp_path) == 3
