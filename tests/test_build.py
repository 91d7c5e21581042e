"""Configs become objects; what is not ours is refused, what is misspelled is named."""

import functools
import sys

import pytest
from omegaconf import OmegaConf

from glmasr.augment.specaugment import SpecAugment
from glmasr.build import build, locate
from glmasr.frontend.pipeline import Ear
from glmasr.objective.reconstruction import Reconstruction
from glmasr.objective.weighted import Weighted
from glmasr.speech import InputError

SPECAUGMENT = {"_target_": "glmasr.augment.specaugment.SpecAugment", "bands": 2, "band_bins": 15, "stretches": 1}
RECONSTRUCTION = {"_target_": "glmasr.objective.reconstruction.Reconstruction", "width": 4, "features": 6}


def test_an_object_is_built_with_its_parameters_and_defaults():
    assert build({**SPECAUGMENT, "stretch_frames": 9}) == SpecAugment(2, 15, 1, 9, stretch_share=0.2)
    assert build(SPECAUGMENT, stretch_frames=3).stretch_frames == 3


@pytest.mark.parametrize("wrap", [dict, OmegaConf.create])
def test_nested_configs_are_built_first(wrap):
    target = "glmasr.objective.weighted.Weighted"
    weighted = build(wrap({"_target_": target, "objectives": {"r": RECONSTRUCTION}, "weights": {"r": 0.5}}))
    assert isinstance(weighted, Weighted) and isinstance(weighted.objectives["r"], Reconstruction)
    listed = build(wrap({"augmentations": [{**SPECAUGMENT, "stretch_frames": 1}, 3, "text", None]}))
    assert isinstance(listed["augmentations"][0], SpecAugment) and listed["augmentations"][1:] == [3, "text", None]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"dropout": 1.5}, "dropout=1.5: dropout probability has to be"),
        ({"heads": 3}, "heads=3: width 8 must be an even"),
    ],
)
def test_settings_that_an_object_refuses_are_told_in_a_sentence(setting, told):
    encoder = {"_target_": "glmasr.model.encoder.Encoder", "width": 8, "blocks": 1}
    heads = {} if "heads" in setting else {"heads": 2}
    with pytest.raises(InputError, match=rf"^glmasr\.model\.encoder\.Encoder cannot be built from width=8, .*{told}"):
        build({**encoder, **heads, **setting})


def test_a_partial_waits_for_the_rest():
    waiting = build({**SPECAUGMENT, "_partial_": True})
    assert isinstance(waiting, functools.partial) and waiting(stretch_frames=2).stretch_frames == 2


@pytest.mark.parametrize(
    "address",
    [
        "os.system",
        "torch.load",
        "builtins.eval",
        "subprocess.run",
        "system",
        "",
        "glmasrx.build.build",
        "glmasr.build.importlib.import_module",  # reached through one of our own modules
        "glmasr.build.importlib",
        "glmasr.model.encoder.checkpoint",  # torch's, by the name we import it under
        "glmasr.data.rhyme_test.subprocess",
    ],
)
def test_what_is_not_ours_is_refused(address):
    with pytest.raises(InputError, match=r"refused|does not exist") as error:
        build({"_target_": address, "command": "exit 1"})
    assert f"'{address}'" in str(error.value)


@pytest.mark.parametrize("module", ["payload_of_a_stranger", "glmasr_of_a_stranger"])
def test_a_refused_module_is_not_even_imported(tmp_path, monkeypatch, module):
    (tmp_path / f"{module}.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="refused"):
        build({"nested": [{"_target_": f"{module}.main"}]})
    assert module not in sys.modules


@pytest.mark.parametrize("address", ["glmasr.nowhere.Ear", "glmasr.frontend.pipeline.Eer", "glmasr.", "glmasr..build"])
def test_what_does_not_exist_is_named(address):
    with pytest.raises(InputError, match="does not exist") as error:
        locate(address)
    assert f"'{address}'" in str(error.value)


def test_what_is_ours_is_found():
    assert locate("glmasr.frontend.pipeline.Ear") is Ear


@pytest.mark.parametrize("partial", [False, True])
def test_a_typo_is_answered_with_the_nearest_word(partial):
    with pytest.raises(InputError, match=r"no parameter 'strech_frames'; did you mean 'stretch_frames'\?"):
        build({**SPECAUGMENT, "strech_frames": 3, "_partial_": partial})
    with pytest.raises(InputError, match="no parameter 'xyz'; it takes bins, deviation_floor"):
        build({"_target_": "glmasr.frontend.pipeline.Ear", "xyz": 1})


def test_a_missing_parameter_is_named():
    with pytest.raises(InputError, match="stretch_frames"):
        build(SPECAUGMENT)
