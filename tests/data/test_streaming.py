"""Shards on loopback servers: the utterances that are on disk, fetched by the row group, few bytes for the list."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from glmasr.data import remote
from glmasr.data.catalog import Catalog, prepare_catalog, write_catalog
from glmasr.data.dataset import SpeechDataset, collate
from glmasr.data.export import to_shards
from glmasr.data.sampler import RankBatches, order_of
from glmasr.data.streaming import StreamedShards
from glmasr.frontend.audio import read_audio
from glmasr.speech import InputError, Utterance
from tests.data.servers import over_http, over_s3

FOOTER_BYTES = 1 << 16
"""What pyarrow reads from the end of a file to find its contents."""


@pytest.fixture(scope="module")
def on_disk(rhyme_root, tmp_path_factory) -> Catalog:
    """Sixty real clips of four talkers."""
    audio = rhyme_root / "rhyme_test" / "audio"
    files = [audio / f"{talker}_b{n}_w{n % 6 + 1}.flac" for n in range(1, 16) for talker in ("F1", "F3", "M3", "M4")]
    rows = (
        Utterance(file.stem, str(file), len(read_audio(str(file))) / 16_000, 0.0, f"text {n}", "en", file.stem[:2])
        for n, file in enumerate(files)
    )
    return write_catalog(rows, tmp_path_factory.mktemp("clips") / "catalog")


@pytest.fixture(scope="module")
def shards(on_disk, tmp_path_factory) -> Path:
    """The clips in three shards of four row groups."""
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glmasr.data.export.ROWS_AT_A_TIME", 5)
        to_shards(on_disk, folder, shard_seconds=float(on_disk.durations.sum()) / 3 + 0.1)
    assert len(list(folder.glob("*.parquet"))) == 3
    return folder


@pytest.fixture(autouse=True)
def nothing_kept():
    """Every test fetches for itself."""
    remote._fetched_by.cache_clear()
    remote._footer.cache_clear()


@pytest.fixture
def streamed(tmp_path):
    """A function from a URL to the catalog made of it."""
    return lambda url: prepare_catalog(StreamedShards(url), str(tmp_path / "catalogs"))


def waveforms(catalog: Catalog) -> dict[str, np.ndarray]:
    return {one.id: read_audio(one.audio, one.offset_seconds, one.duration_seconds) for one in catalog}


def test_what_is_streamed_is_what_is_on_disk(on_disk, shards, streamed):
    expected = waveforms(on_disk)
    catalog = streamed(str(shards))
    assert [(u.id, u.text, u.language, u.speaker, u.split) for u in catalog] == [
        (u.id, u.text, u.language, u.speaker, u.split) for u in on_disk
    ]
    for name, waveform in waveforms(catalog).items():
        np.testing.assert_array_equal(waveform, expected[name])
    np.testing.assert_allclose(catalog.durations, on_disk.durations)


def test_over_http_the_list_costs_few_bytes_and_a_group_is_fetched_once(on_disk, shards, streamed):
    with over_http(shards) as served:
        catalog = streamed(served.url)
        assert 0 < sum(served.given.values()) < 3 * FOOTER_BYTES + 10_000
        served.given.clear()
        first = [catalog[row] for row in range(5)]
        assert all(isinstance(one.audio, bytes) for one in first)
        audio = sum(len(one.audio) for one in first)
        given = sum(served.given.values())
        assert audio < given < 1.01 * audio + FOOTER_BYTES, "one row group and a footer"
        assert [catalog[row].id for row in range(5)] and sum(served.given.values()) == given
        np.testing.assert_array_equal(read_audio(first[3].audio), read_audio(on_disk[3].audio))
        served.given.clear()
        again = streamed(served.url)
        assert len(again) == 60 and set(served.given) == {"shards.json"}


def test_over_s3_it_is_the_same(on_disk, shards, streamed, monkeypatch):
    with over_s3(shards) as (url, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        catalog = streamed(url)
        assert len(catalog) == 60
        np.testing.assert_array_equal(read_audio(catalog[17].audio), read_audio(on_disk[17].audio))


def test_several_places_are_one_corpus(on_disk, shards, streamed, tmp_path):
    others = (replace(on_disk[row], id=f"other/{row}") for row in range(7))
    to_shards(write_catalog(others, tmp_path / "others"), tmp_path / "more")
    catalog = streamed([str(shards), f"{tmp_path}/more/"])
    assert len(catalog) == 67 and catalog.blocks.max() == 12
    assert catalog[65].id == "other/5" and catalog[65].audio == catalog[5].audio


def test_blocks_are_row_groups_and_follow_subsets(shards, streamed, on_disk):
    catalog = streamed(str(shards))
    assert on_disk.blocks is None
    blocks = catalog.blocks
    assert len(set(blocks)) == 12 and (np.bincount(blocks) == 5).all() and (np.diff(blocks) >= 0).all()
    chosen = np.array([50, 3, 4])
    np.testing.assert_array_equal(catalog.rows(chosen).blocks, blocks[chosen])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_batches_are_the_same_with_any_number_of_workers(shards, streamed, workers):
    with over_http(shards) as served:
        catalog = streamed(served.url)
        order = order_of(catalog.durations, 12.0, 0.05, 0, blocks=catalog.blocks, lanes=3, window=2)
        loader = DataLoader(
            SpeechDataset(catalog, seed=1),
            batch_sampler=RankBatches(order, count=30),
            collate_fn=collate,
            num_workers=workers,
        )
        found = [(batch.index, batch.ids, round(float(batch.waveform.abs().sum()), 3)) for batch in loader]
    names = catalog._table.data.column("id").to_pylist()
    assert [ids for _, ids, _ in found] == [
        tuple(names[row] for row, _ in keys) for keys in RankBatches(order, count=30)
    ]
    assert all(size > 0 for _, _, size in found)


def test_lanes_keep_each_loader_process_to_its_own_shards(shards, streamed):
    """Three workers and three lanes: together they fetch everything once, not three times."""
    with over_http(shards) as served:
        catalog = streamed(served.url)
        order = order_of(catalog.durations, 12.0, 0.0, 0, blocks=catalog.blocks, lanes=3, window=100)
        epoch = max(int(order._lane_counts(lane).sum()) for lane in range(3)) * 3
        served.given.clear()
        loader = DataLoader(
            SpeechDataset(catalog), batch_sampler=RankBatches(order, count=epoch), collate_fn=collate, num_workers=3
        )
        assert len(list(loader)) == epoch
        size = sum(file.stat().st_size for file in shards.glob("*.parquet"))
        assert sum(served.given.values()) < size + 3 * 3 * FOOTER_BYTES


def test_a_server_that_fails_for_a_moment_is_asked_again(shards, streamed, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.01)
    with over_http(shards) as served:
        served.failures = 2
        catalog = streamed(served.url)
        served.failures = 2
        assert isinstance(catalog[0].audio, bytes) and served.failures == 0


def test_a_server_that_stays_away_is_an_error_of_one_sentence(shards, streamed, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.01)
    with over_http(shards) as served:
        catalog = streamed(served.url)
        served.failures = 10**6
        with pytest.raises(
            InputError, match=r"no utterance of batch 0 can be read, nor 8 more: the shard .* cannot be read"
        ):
            SpeechDataset(catalog).__getitems__([(0, 0), (1, 0)])


def test_no_shards_are_an_input_error(tmp_path, streamed):
    with pytest.raises(InputError, match="no shards are named"):
        streamed("")
    with pytest.raises(InputError, match=r"shards\.json' cannot be read .*check data\.url"):
        streamed(str(tmp_path))
    with over_http(tmp_path) as served, pytest.raises(InputError, match=r"shards\.json' cannot be read"):
        streamed(served.url)


def test_a_damaged_shard_is_skipped_and_too_many_stop(shards, tmp_path, streamed, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in shards.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    broken = sorted(copy.glob("*.parquet"))[1]
    broken.write_bytes(broken.read_bytes()[:1000])
    source = StreamedShards(str(copy))
    assert [one.cause for one in source.utterances() if not isinstance(one, Utterance)] == ["damaged"]
    catalog = prepare_catalog(source, str(tmp_path / "kept"))
    assert len(catalog) == 40 and "skipped 1 (damaged 1)" in capsys.readouterr().err


def test_a_new_export_is_another_corpus(shards, tmp_path):
    before = StreamedShards(str(shards)).fingerprint()
    assert before == StreamedShards(str(shards)).fingerprint() != StreamedShards(str(shards), "zh").fingerprint()
    listing = json.loads((shards / "shards.json").read_text())
    (tmp_path / "shards.json").write_text(json.dumps(listing | {"contents": "other"}))
    assert StreamedShards(str(tmp_path)).fingerprint() != before
