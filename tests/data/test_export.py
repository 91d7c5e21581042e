"""Catalogs on their way out: manifests and shards that come back as they went, whole or not at all."""

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from glmasr.data import export
from glmasr.data.catalog import Catalog, prepare_catalog, write_catalog
from glmasr.data.corpora import Manifest
from glmasr.data.export import ROWS_AT_A_TIME, shard_plan, to_manifest, to_shards
from glmasr.data.shards import ParquetShards
from glmasr.data.streaming import StreamedShards
from glmasr.frontend.audio import read_audio, write_audio
from glmasr.speech import InputError, Utterance
from tests.data.made import record
from tests.small import REPOSITORY


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    record(tmp_path / "audio" / "a.wav", 2.0)
    record(tmp_path / "audio" / "b.flac", 1.0)
    a, b = (str(tmp_path / "audio" / name) for name in ("a.wav", "b.flac"))
    rows = [
        Utterance("long/1", a, 0.5, 0.25, "你好 there", "zh", "anna", "dev"),
        Utterance("long/2", a, 1.0, 1.0, None, "", "", "train"),
        Utterance("b", b, 1.0, text="hello", language="en", speaker="ben", split="test"),
    ]
    return write_catalog(rows, tmp_path / "catalog")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_manifest_comes_back_as_it_went(catalog, tmp_path):
    path = to_manifest(catalog, tmp_path / "manifest.jsonl")
    assert str(tmp_path) not in path.read_text() and "你好" in path.read_text("utf-8")
    assert list(prepare_catalog(Manifest(str(path)), str(tmp_path / "again"))) == list(catalog)
    elsewhere = to_manifest(catalog, tmp_path / "out" / "all.jsonl")
    assert list(Manifest(str(elsewhere)).utterances()) == list(catalog)


def test_bytes_do_not_fit_into_a_manifest_and_nothing_is_left(tmp_path):
    catalog = write_catalog([Utterance("a", b"RIFF", 1.0)], tmp_path / "catalog")
    with pytest.raises(InputError, match="export to shards"):
        to_manifest(catalog, tmp_path / "out" / "m.jsonl")
    assert not list((tmp_path / "out").iterdir())


def test_flac_shards_hold_the_same_samples_and_words(catalog, tmp_path):
    shards = to_shards(catalog, tmp_path / "shards", shard_seconds=1.0)
    assert [shard.name for shard in shards] == [f"shard-{n:05d}-of-00002.parquet" for n in range(2)]
    again = prepare_catalog(ParquetShards(str(tmp_path / "shards")), str(tmp_path / "again"))
    for one, other in zip(catalog, again, strict=True):
        assert (one.id, one.text, one.language, one.speaker, one.split) == (
            *(other.id, other.text, other.language),
            *(other.speaker, other.split),
        )
        before = read_audio(one.audio, one.offset_seconds, one.duration_seconds)
        np.testing.assert_array_equal(read_audio(other.audio), before)
    before = contents(tmp_path / "shards")
    to_shards(catalog, tmp_path / "twice", shard_seconds=1.0)
    assert contents(tmp_path / "twice") == before


def test_opus_shards_are_smaller_and_last_as_long(catalog, tmp_path):
    to_shards(catalog, tmp_path / "opus", format="opus")
    to_shards(catalog, tmp_path / "flac")
    assert sum(map(len, contents(tmp_path / "opus").values())) < sum(map(len, contents(tmp_path / "flac").values()))
    again = [*ParquetShards(str(tmp_path / "opus")).utterances()]
    assert [one.duration_seconds for one in again] == [0.5, 1.0, 1.0]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="flac, opus"):
        to_shards(catalog, tmp_path / "mp3", format="mp3")


def test_an_export_cut_short_goes_on_and_a_foreign_folder_is_left_alone(catalog, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    to_shards(catalog, whole, shard_seconds=1.0)
    encode, calls = export.encode_audio, []

    def failing(waveform, encoding):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(waveform, encoding)

    monkeypatch.setattr(export, "encode_audio", failing)
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        to_shards(catalog, cut, shard_seconds=1.0)
    assert len(contents(cut)) == 2
    with pytest.raises(InputError, match="run the export again"):
        ParquetShards(str(cut)).fingerprint()
    to_shards(catalog, cut, shard_seconds=1.0)
    assert contents(cut) == contents(whole) and len(calls) == 4
    with pytest.raises(InputError, match="another export"):
        to_shards(catalog, cut, shard_seconds=2.0)
    (cut / "shards.json").unlink()
    with pytest.raises(InputError, match="other Parquet files"):
        to_shards(catalog, cut)


def test_what_cannot_be_read_is_left_out_and_listed(catalog, tmp_path, capsys):
    Path(catalog[2].audio).unlink()  # type: ignore[arg-type]
    to_shards(catalog, tmp_path / "shards")
    assert [one.id for one in ParquetShards(str(tmp_path / "shards")).utterances()] == ["long/1", "long/2"]  # type: ignore
    assert (tmp_path / "shards" / "skipped.tsv").read_text().startswith("b\tmissing\t")
    assert "left out 1" in capsys.readouterr().err


def test_the_plan_has_every_row_once_and_shards_of_about_a_size():
    durations = np.random.default_rng(0).uniform(1, 20, 1000).astype(np.float32)
    plan = shard_plan(durations, 600.0)
    np.testing.assert_array_equal(np.concatenate(plan), np.arange(1000))
    sizes = [float(durations[rows].sum()) for rows in plan]
    assert max(sizes) < 620 and min(sizes[:-1]) > 580
    assert [len(rows) for rows in shard_plan(np.array([5000.0, 1.0, 1.0]), 3600.0)] == [1, 2]


class Counting(io.FileIO):
    """A file that knows how much of it has been read."""

    taken = 0

    def read(self, size: int = -1) -> bytes:
        content = super().read(size)
        self.taken += len(content)
        return content


def test_what_a_shard_holds_is_known_without_its_audio(tmp_path):
    hiss = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
    write_audio(tmp_path / "hiss.wav", hiss)
    rows = [Utterance(f"u{n}", str(tmp_path / "hiss.wav"), 0.25, n / 400, text="hush " * 20) for n in range(230)]
    [shard] = to_shards(write_catalog(rows, tmp_path / "catalog"), tmp_path / "shards")
    assert pyarrow.parquet.read_metadata(shard).num_row_groups == 3
    assert pyarrow.parquet.ParquetFile(shard).read_row_group(1, columns=["id"])["id"][0].as_py() == "u100"
    assert ROWS_AT_A_TIME == 100  # what a reader over a network fetches at a time
    file = Counting(shard)
    known = ["id", "duration", "text", "language", "speaker", "split"]
    table = pyarrow.parquet.ParquetFile(file, pre_buffer=True).read(columns=known)
    assert table["id"].to_pylist() == [one.id for one in rows]
    assert file.taken < 100_000 < shard.stat().st_size / 10  # of which 64 kB to find the footer


@pytest.fixture
def shards(monkeypatch, capsys, catalog, tmp_path):
    """What scripts/shards.py says, run in this process on `catalog` as `make prepare` would have left it."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import shards

    (tmp_path / "corpora" / "mine").mkdir(parents=True)
    (tmp_path / "catalog").rename(tmp_path / "corpora" / "mine" / "catalog")

    def run(*overrides: str) -> str:
        given = ["data.name=mine", f"data.root={tmp_path}/corpora", *overrides]
        monkeypatch.setattr(sys, "argv", ["shards.py", *given])
        shards.open_door("shards", shards.shards)
        return capsys.readouterr().out

    return run


def test_the_script_packs_a_prepared_corpus_and_says_how_to_use_it(shards, tmp_path):
    said = shards(f"folder={tmp_path}/out", "shard_seconds=1", "format=opus")
    size = sum(len(content) for name, content in contents(tmp_path / "out").items() if name.endswith("parquet"))
    assert said == (
        f"{tmp_path}/out: 2 shards, 0.00 h, {size / 1000:.1f} kB: "
        f'make pretrain ARGS="data=streamed_shards data.url={tmp_path}/out"\n'
    )
    known = [(one.id, one.text, one.duration_seconds) for one in StreamedShards(f"{tmp_path}/out").utterances()]  # type: ignore[union-attr]
    assert known == [("long/1", "你好 there", 0.5), ("long/2", None, 1.0), ("b", "hello", 1.0)]
    before = contents(tmp_path / "out")
    assert shards(f"folder={tmp_path}/out", "shard_seconds=1", "format=opus") == said
    assert contents(tmp_path / "out") == before


def test_the_script_writes_a_manifest(shards, tmp_path):
    said = shards(f"folder={tmp_path}/list", "format=manifest")
    assert f"{tmp_path}/list: a manifest of 3 utterances, 0.00 h, " in said and f"data.path={tmp_path}/list" in said
    assert [one.id for one in Manifest(f"{tmp_path}/list").utterances()] == ["long/1", "long/2", "b"]  # type: ignore


SLIPS = {
    "format=mp3": "glmasr shards: 'mp3' is no format of shards: use one of flac, opus",
    "shard_seconds=0": "glmasr shards: shard_seconds=0 holds no audio",
    "data.name=yours": "glmasr shards: there is no prepared corpus 'yours'",
    "folder=???": "glmasr shards: folder is not set: add folder=…",
}


@pytest.mark.parametrize("slip", SLIPS)
def test_what_is_mistaken_is_one_sentence(shards, tmp_path, slip):
    with pytest.raises(SystemExit) as end:
        shards(f"folder={tmp_path}/out", slip)
    assert str(end.value.code).startswith(SLIPS[slip]) and "\n" not in str(end.value.code)


def test_a_stopped_script_says_that_it_goes_on(shards, monkeypatch, tmp_path):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "encode_audio", stopped)
    with pytest.raises(SystemExit, match="stopped; the same command goes on behind the last whole shard"):
        shards(f"folder={tmp_path}/out")
    assert not list((tmp_path / "out").glob("*.parquet"))
