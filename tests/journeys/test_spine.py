"""The main job through the real scripts on real speech: pretrain, be killed, resume, fine-tune, measure, transcribe."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from glmasr.bundle import open_bundle
from glmasr.frontend.audio import read_audio
from glmasr.text.errors import count_errors
from glmasr.training import run as stages
from glmasr.transcriber import Transcriber
from tests.small import composed, small

STEPS = ["trainer.max_steps=80", "trainer.val_check_interval=20", "checkpoints.every_steps=10", "batches.workers=1"]
TIMED = ("train/audio_seconds_per_second", "probe/time_share")


def metrics(folder: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv without the columns that measure time."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMED} for row in csv.DictReader(file)]


def strike(process: subprocess.Popen, folder: Path, step: int, number: signal.Signals) -> str:
    """Signal a run as soon as it has saved `step` and its metrics (a moment later); what it had printed by its end."""
    checkpoint, patience = folder / "checkpoints" / f"step_{step:09d}.ckpt", time.monotonic() + 90
    while not (checkpoint.exists() and f"\n{step - 1}," in (folder / "metrics.csv").read_text()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < patience, "no checkpoint came"
        time.sleep(0.005)
    process.send_signal(number)
    return process.communicate(timeout=60)[0]


@pytest.fixture(scope="module")
def whole(desk) -> Iterator[subprocess.Popen]:
    """A pretraining that nothing interrupts, begun beside whatever else runs first."""
    process = desk.start("pretrain", *STEPS, "name=whole")
    yield process
    process.kill()


@pytest.fixture(scope="module")
def pretrained(desk, whole) -> Path:
    """Its run folder, when it is finished."""
    said, _ = whole.communicate(timeout=120)
    assert whole.returncode == 0 and "wrote" in said, said
    return desk.home / "runs" / "whole"


@pytest.fixture(scope="module")
def struck(desk, whole) -> Path:
    """The run folder of the same pretraining, killed, then told to stop, then left alone."""
    folder = desk.home / "runs" / "struck"
    killed = desk.start("pretrain", *STEPS, "name=struck")
    strike(killed, folder, 10, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL and not (folder / "bundle").exists()
    stopped = desk.start("pretrain", *STEPS, "name=struck")
    said = strike(stopped, folder, 30, signal.SIGTERM)
    assert stopped.returncode == 1 and "resuming" in said and "Traceback" not in said
    assert "glmasr pretrain: stopped after step" in said.splitlines()[-1] and "same command goes on" in said
    assert not (folder / "bundle").exists()
    assert "resuming" in desk.do("pretrain", *STEPS, "name=struck")
    return folder


def test_a_run_killed_and_stopped_ends_bit_for_bit_like_one_that_was_not(struck, pretrained):
    assert open_bundle(struck / "bundle").digest() == open_bundle(pretrained / "bundle").digest()
    assert metrics(struck) == metrics(pretrained) and len(metrics(struck)) == 80 + 4 + 3  # steps, validations, probes
    left = {path.name for path in struck.iterdir()}
    written = {"bundle", "bundle_last", "config.yaml", "finished.json", "metrics.csv", "probe.json"}
    written |= {"health.json", "report.html"}
    written |= {"environment.json", "changes.diff", "data.json"}
    assert left == written | {"checkpoints", "tensorboard"}


def test_a_finished_run_is_left_alone(desk, pretrained, capsys):
    before = {path: path.stat().st_mtime_ns for path in pretrained.rglob("*")}
    stages.pretrain(composed("pretrain", *small(desk.corpus, desk.home, *STEPS, "name=whole")))
    assert "is finished, nothing to do" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in pretrained.rglob("*")}


def test_metrics_say_what_pretraining_did(pretrained):
    first, *_, last = [row for row in metrics(pretrained) if row["train/loss"]]
    assert float(last["train/loss"]) < float(first["train/loss"])
    parts = {name.removeprefix("train/") for name in last if name.startswith("train/")}
    assert {"contrastive/accuracy", "contrastive/code_perplexity", "contrastive/probability_perplexity"} <= parts
    assert {"reconstruction/masked", "reconstruction/visible"} <= parts
    with (pretrained / "metrics.csv").open(newline="") as file:
        assert all(float(row[TIMED[0]]) > 0 for row in csv.DictReader(file) if row["train/loss"])


@pytest.fixture(scope="module")
def finetuned(desk, pretrained) -> list[Path]:
    """Run folders of a recognizer from scratch and of one from the pretrained bundle, trained side by side."""
    steps = ["trainer.max_steps=20", "trainer.val_check_interval=10", "labels.max_total_minutes=null"]
    origins = {"scratch": "null", "pretrained": f"{pretrained}/bundle"}
    running = [desk.start("finetune", *steps, f"name={name}", f"bundle={origin}") for name, origin in origins.items()]
    for process in running:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
    return [desk.home / "runs" / name for name in origins]


def test_fine_tuning_leaves_the_best_and_the_averaged_bundle(finetuned, pretrained):
    for folder in finetuned:
        best, averaged = open_bundle(folder / "bundle"), open_bundle(folder / "bundle_averaged")
        assert best.recognizer().ctc.out_features == best.tokenizer.size and best.digest() != averaged.digest()
        training = best.config["training"]
        assert training["utterances"] == 8 and training["language"] == "en" and training["dev"]["metric"] == "dev/cer"
        assert any(row["dev/wer"] and row["dev/cer"] for row in metrics(folder))
    scratch, pretrained_one = (open_bundle(folder / "bundle").config["training"]["from"] for folder in finetuned)
    assert scratch is None and pretrained_one == f"{pretrained}/bundle"


def test_a_benchmark_reports_in_the_agreed_schema(desk, finetuned):
    bundles = ",".join(f"{folder}/bundle" for folder in finetuned)
    data = ["data=folder", f"data.path={desk.corpus}", f"catalogs={desk.home}/catalogs"]
    desk.do("benchmark", "name=measured", f"bundle=[{bundles}]", "whisper=[]", *data)
    folder = desk.home / "runs" / "measured" / "report"
    assert {path.name for path in folder.iterdir()} >= {"report.json", "report.md", "report.html"}
    report = json.loads((folder / "report.json").read_text())
    assert [system["name"] for system in report["systems"]] == ["scratch", "pretrained"]
    for system in report["systems"]:
        assert set(system) >= {"name", "parameters", "size_bytes"} and system["parameters"] > 10_000
    keys = {"system", "test_set", "condition", "metric", "value", "low", "high", "words", "rtf"}
    assert len(report["results"]) == 2 * 2
    for result in report["results"]:
        assert set(result) >= keys and result["condition"] == "clean" and result["rtf"] > 0
        assert 0 <= result["low"] <= result["value"] <= result["high"] <= 5
        assert result["words"] == (10 if result["metric"] == "wer" else sum(map(len, characters(desk))))
    assert {result["metric"] for result in report["results"]} == {"wer", "cer"}
    for comparison in report["comparisons"]:
        assert set(comparison) >= {"a", "b", "test_set", "condition", "metric", "delta", "p_value"}
        assert (comparison["a"], comparison["b"]) == ("scratch", "pretrained") and 0 < comparison["p_value"] <= 1


def characters(desk) -> list[str]:
    return [path.read_text().strip().replace(" ", "") for path in (desk.corpus / "test").rglob("*.txt")]


def test_eight_utterances_are_learned_by_heart_and_become_subtitles(desk, tmp_path):
    """The whole way from labels to an SRT file: what was trained on is written again, with times inside the audio."""
    shape = ["model.encoder.width=64", "dropout=0.0"]
    steps = ["trainer.max_steps=150", "trainer.val_check_interval=50", "trainer.log_every_n_steps=50"]
    rote = ["augment=none", "specaugment=null", "optimizer.learning_rate=0.004", "labels.max_total_minutes=null"]
    options = [*shape, *steps, *rote, "splits.dev=train", "bundle=null", "name=rote", "batches.batch_seconds=20.0"]
    stages.finetune(composed("finetune", *small(desk.corpus, tmp_path, *options)))
    bundle = tmp_path / "runs" / "rote" / "bundle"
    files = sorted((desk.corpus / "train").rglob("*.flac"))
    heard = [transcript.text for transcript in Transcriber(str(bundle))([read_audio(str(file)) for file in files])]
    counts = [
        count_errors(f.with_suffix(".txt").read_text(), h, "en", "cer") for f, h in zip(files, heard, strict=True)
    ]
    rate = sum(c.errors for c in counts) / sum(c.words for c in counts)
    assert rate < 0.1, heard

    command = [sys.executable, "-m", "glmasr.cli", "transcribe", "--bundle", str(bundle), str(files[0])]
    command += ["--format", "srt", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    number, times, *text = (tmp_path / f"{files[0].stem}.srt").read_text().strip().splitlines()
    assert number == "1" and times.startswith("00:00:0") and times[13:17] == "--> " and " ".join(text) == heard[0]
