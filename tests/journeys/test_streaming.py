"""Pretraining from shards on loopback servers, killed and resumed: it sees what an uninterrupted run sees."""

import signal
from pathlib import Path

import pytest

from glmasr.bundle import open_bundle
from glmasr.data.catalog import prepare_catalog
from glmasr.data.corpora import AudioFolder
from glmasr.data.export import to_shards
from tests.data.servers import over_http, over_s3
from tests.journeys.test_spine import metrics, strike

STEPS = ["trainer.max_steps=24", "trainer.val_check_interval=12", "checkpoints.every_steps=6", "batches.workers=1"]
SMALL = ["probe.every_steps=null", "health.guard=false", "batches.stream.lanes=2", "batches.stream.window=2"]


@pytest.fixture(scope="module")
def shards(desk) -> Path:
    """The small corpus in row groups of two utterances."""
    catalog = prepare_catalog(AudioFolder(str(desk.corpus), "en"), str(desk.home / "packed"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glmasr.data.export.ROWS_AT_A_TIME", 2)
        to_shards(catalog, desk.home / "shards", shard_seconds=10.0)
    return desk.home / "shards"


def streaming(desk, name: str, url: str):
    """Start a pretraining from a URL."""
    return desk.start("pretrain", *STEPS, *SMALL, f"name={name}", "data=streamed_shards", f"data.url={url}")


@pytest.fixture(scope="module")
def whole(desk, shards) -> Path:
    """A run from the folder of shards that nothing interrupts."""
    process = streaming(desk, "whole", str(shards))
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return desk.home / "runs" / "whole"


def check_struck(desk, whole: Path, url: str, name: str) -> None:
    folder = desk.home / "runs" / name
    killed = streaming(desk, name, url)
    strike(killed, folder, 6, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL and not (folder / "bundle").exists()
    resumed = streaming(desk, name, url)
    said, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0 and "resuming" in said, said
    assert open_bundle(folder / "bundle").digest() == open_bundle(whole / "bundle").digest()
    assert metrics(folder) == metrics(whole)


def test_killed_and_resumed_over_http_no_batch_is_lost_or_repeated(desk, shards, whole):
    with over_http(shards) as served:
        check_struck(desk, whole, served.url, "http")
        assert any(name.endswith(".parquet") for name in served.given)


def test_killed_and_resumed_over_s3_no_batch_is_lost_or_repeated(desk, shards, whole, monkeypatch):
    with over_s3(shards) as (url, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        check_struck(desk, whole, url, "s3")


def test_a_wrong_url_is_one_sentence(desk):
    process = streaming(desk, "nowhere", "http://127.0.0.1:1/shards")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in said
    assert "shards.json' cannot be read" in said.splitlines()[-1]
