"""The researcher's door: what is mistyped, missing or broken is one sentence with the remedy."""

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from glmasr.speech import InputError, Interrupted
from tests.small import REPOSITORY


@pytest.fixture
def door(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import door

    return door


@pytest.fixture
def refused(door):
    """What `scripts/<verb>.py override …` says before it exits; None where it would go on."""

    def check(verb, *overrides):
        try:
            return door.check_overrides(verb, overrides)
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


def test_a_launcher_takes_even_a_single_run_as_a_sweep(door):
    assert door.arguments("pretrain", ["seed=1", "trainer=gpus"]) == ["seed=1", "trainer=gpus"]
    assert door.arguments("pretrain", ["--help", "-m"]) == ["--help", "-m"]
    launched = ["hydra/launcher=slurm", "name=mine"]
    assert door.arguments("pretrain", launched) == ["--multirun", *launched]
    assert door.launcher_in(launched) == "slurm" and door.launcher_in(["seed=1"]) == ""


@pytest.mark.parametrize("given", [[], ["name=mine"], ["data=folder", "data.path=/a b/c"]])
def test_every_job_of_a_sweep_has_a_name_of_its_own(door, given):
    """As Hydra itself composes the jobs, without running them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser

    argv = door.arguments("pretrain", [*given, "-m", "seed=1,2", "model=conformer_tiny,conformer_small"])
    assert argv[0] == "--multirun"
    jobs, folders = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(argv[1:]), None)[0], []
    for job in jobs:
        with door.initialize_config_dir(door.CONF, version_base="1.3"):
            config = door.compose("pretrain", job, return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        folders.append(config.run_dir)
    base = "mine" if "name=mine" in given else "pretrain"
    models, seeds = ("conformer_tiny", "conformer_small"), (1, 2)
    assert sorted(folders) == sorted(f"runs/{base}/model={model},seed={seed}" for model in models for seed in seeds)


def test_a_sweep_over_names_keeps_them(door):
    assert door.arguments("pretrain", ["-m", "name=a,b"]) == ["--multirun", "name=a,b"]
    assert door.arguments("pretrain", ["-m", "run_dir=a,b", "seed=1"]) == ["--multirun", "run_dir=a,b", "seed=1"]


def test_the_choices_of_a_sweep_are_checked_too(refused):
    assert refused("pretrain", "-m", "seed=1,2") is None
    assert refused("pretrain", "-m", "seeed=1,2").endswith("did you mean seed=…?")
    assert "conformer_tony" in refused("pretrain", "--multirun", "model=conformer_tony,conformer_tiny")


def test_a_launched_job_fails_for_the_scheduler_and_for_who_launched_it(door, monkeypatch, tmp_path, capsys):
    left = []
    monkeypatch.setattr(door.atexit, "register", lambda *call: left.append(call))
    monkeypatch.setenv("SUBMITIT_FOLDER", f"{tmp_path}/%j")
    job = type("Job", (), {"id": "7_1"})
    monkeypatch.setattr(door.HydraConfig, "get", lambda: type("Config", (), {"job": job}))
    assert door.end_job("pretrain", SystemExit(0)) is None and not left
    for error, said in [
        (InputError("no audio there"), "glmasr pretrain: no audio there"),
        (SystemExit("glmasr: told"), "glmasr: told"),
        (SystemExit(9), "glmasr pretrain: a rank ended with code 9"),
        (ZeroDivisionError("by zero"), "glmasr pretrain: ZeroDivisionError: by zero"),
    ]:
        with pytest.raises(door.JobFailed) as failed:
            door.end_job("pretrain", error)
        assert failed.value.args == (said, f"{tmp_path}/7_1") and left.pop() == (door.os._exit, 1)
    assert "ZeroDivisionError: by zero\nglmasr pretrain" in capsys.readouterr().err  # the traceback, had it been raised
    logs = tmp_path / "7_1"
    logs.mkdir()
    (logs / "7_1_0_log.out").write_text("old\n" * 99 + "the last line of rank 0\n")
    (logs / "7_1_1_log.out").write_text("the last line of rank 1\n")
    for error in (failed.value, RuntimeError(f"Job 7 with path {logs}/7_1_0_result.pkl\nhas not produced any output")):
        with pytest.raises(SystemExit) as end:
            door.tell("pretrain", error)
        shown = capsys.readouterr().err
        assert str(end.value).startswith("glmasr pretrain: ") and "last line of rank 0" in shown
        assert shown.count("old") == door.LOG_LINES - 1


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


@pytest.fixture
def made(tmp_path):
    """What `make` runs in a checkout without runs, by its scripts' names, and its exit code; only the door is real."""
    (tmp_path / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
    (tmp_path / "pyproject.toml").touch()
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    (tmp_path / ".venv/.installed").touch()
    real = f'[ $1 != scripts/door.py ] || exec "{sys.executable}" "{REPOSITORY}/$@"'
    python.write_text(f'#!/bin/bash\necho "$1" >> "{tmp_path}/ran"\n{real}\n')
    python.chmod(0o755)

    def make(target, arguments):
        done = subprocess.run(
            ["make", target, f"ARGS={arguments}"], cwd=tmp_path, check=False, capture_output=True, text=True
        )
        return [Path(line).stem for line in (tmp_path / "ran").read_text().split()], done.returncode, done.stderr

    return make


def test_make_finetune_reads_its_settings_before_it_pretrains(made):
    ran, code, said = made("finetune", "trainer.max_step=3")
    assert ran == ["door"] and code and "did you mean trainer.max_steps=…?" in said


@pytest.mark.parametrize(
    "target, arguments, wanted",
    [
        ("finetune", "trainer.max_steps=3", ["door", "pretrain", "finetune"]),
        ("finetune", "--help", ["finetune"]),
        ("finetune", "bundle=null", ["finetune"]),
        ("benchmark", "whisper=[]", ["door", "door", "pretrain", "finetune", "benchmark"]),
        ("benchmark", "--help", ["benchmark"]),
    ],
)
def test_make_trains_first_what_is_not_there_yet(made, target, arguments, wanted):
    ran, code, _ = made(target, arguments)
    assert ran == wanted and not code
