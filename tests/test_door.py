"""The researcher's door: what is mistyped, missing or broken is one sentence with the remedy."""

import sys

import pytest
from omegaconf import OmegaConf

from glmasr.speech import InputError
from glmasr.training.callbacks import Interrupted
from tests.small import REPOSITORY


@pytest.fixture
def door(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import door

    return door


@pytest.fixture
def refused(door, monkeypatch):
    """What `scripts/<verb>.py override …` says before it exits; None where it would go on."""

    def check(verb, *overrides):
        monkeypatch.setattr(sys, "argv", [f"{verb}.py", *overrides])
        try:
            return door.check_overrides(verb)
        except SystemExit as end:
            return str(end.code)

    return check


@pytest.mark.parametrize("verb", ["pretrain", "finetune", "benchmark"])
def test_what_exists_is_let_through(refused, verb):
    assert refused(verb) is None
    assert (
        refused(verb, "data=folder", "data.path=a b", "seed=3", "name=x/y", "data.text_suffix=.lab", "+new.thing=1")
        is None
    )
    assert refused(verb, "--help") is None


MISTYPED = {
    "modle.encoder.width=3": "did you mean model.encoder.width=…?",
    "trainer.max_step=3": "did you mean trainer.max_steps=…?",
    "trainerr=gpu": "did you mean trainer=…?",
    "qqq=3": "`python scripts/pretrain.py --help` lists what there is",
}


def test_the_nearest_name_is_sought_where_the_other_overrides_lead(refused):
    assert refused("pretrain", "data=folder", "data.path=x", "data.pathh=y").endswith("did you mean data.path=…?")
    said = refused("finetune", "data.pathh=y", "data=folder", "model=nosuch")
    assert said.startswith("glmasr: ") and "\n" not in said


@pytest.mark.parametrize("override", MISTYPED)
def test_an_unknown_override_is_named_with_the_nearest(refused, override):
    said = refused("pretrain", "seed=1", override)
    assert said == f"glmasr: the override '{override}' names nothing in conf/pretrain.yaml; {MISTYPED[override]}"


@pytest.mark.parametrize("override", ["seed", "seed=[1", "+seed=3", "~nothing", "model=conformer_tony"])
def test_any_other_slip_is_one_line_that_repeats_it(refused, override):
    said = refused("pretrain", "data=folder", override)
    assert said.startswith("glmasr: ") and "\n" not in said and override.lstrip("+~").split("=")[0] in said


def test_a_choice_that_does_not_exist_lists_the_choices(refused):
    said = refused("pretrain", "model=conformer_tony")
    assert "conformer_tony" in said and "conformer_tiny" in said


def test_a_missing_setting_is_asked_for(door):
    with pytest.raises(InputError, match=r"data\.path is not set: add data.path=… to the command"):
        door.plain(OmegaConf.create({"data": {"path": "???"}, "z": "???", "seed": 1}))
    assert door.plain(OmegaConf.create({"a": [1, {"b": "${c}"}], "c": 2})) == {"a": [1, {"b": 2}], "c": 2}


def test_leaves_are_addresses(door):
    assert door.leaves({"a": {"b": 1, "c": {"d": None}}, "e": [1]}) == ["a", "a.b", "a.c", "a.c.d", "e"]


def test_what_the_user_can_mend_ends_in_a_sentence_and_what_we_must_in_a_traceback(door):
    def said(error):
        with pytest.raises(SystemExit) as end:
            door.stop("pretrain", error)
        return end.value.code

    assert said(InputError("the folder 'x' is gone; check it")) == "glmasr pretrain: the folder 'x' is gone; check it"
    assert said(InputError("Caught InputError in worker\n  File\nthe sentence")) == "glmasr pretrain: the sentence"
    assert said(Interrupted("stopped after step 3")) == "glmasr pretrain: stopped after step 3"
    full = said(OSError(28, "No space left on device", "/runs/x"))
    assert full.startswith("glmasr pretrain: /runs/x: No space left on device; what was saved is intact")
    with pytest.raises(ZeroDivisionError):
        door.stop("pretrain", ZeroDivisionError())
    with pytest.raises(OSError, match="odd"):
        door.stop("pretrain", OSError("odd"))
