"""Places in shards: what is one, which row group it is in, how much is kept, how long a server is asked."""

import numpy as np
import pyarrow
import pytest

from glmasr.data import remote
from glmasr.data.catalog import write_catalog
from glmasr.data.export import to_shards
from glmasr.frontend.audio import UnreadableAudio, read_audio
from glmasr.speech import Utterance


@pytest.fixture
def shard(spoken, tmp_path, monkeypatch) -> str:
    """Four real clips in two row groups."""
    monkeypatch.setattr("glmasr.data.export.ROWS_AT_A_TIME", 2)
    from glmasr.frontend.audio import write_audio

    rows = []
    for number, waveform in enumerate(spoken):
        write_audio(tmp_path / f"{number}.flac", waveform.numpy())
        rows.append(Utterance(str(number), str(tmp_path / f"{number}.flac"), len(waveform) / 16_000))
    return str(to_shards(write_catalog(rows, tmp_path / "catalog"), tmp_path / "shards")[0])


def test_every_place_gives_its_own_audio(shard, spoken):
    for number, waveform in enumerate(spoken):
        found = read_audio(remote.fetch(f"{shard}#{number // 2}:{number % 2}"))
        np.testing.assert_allclose(found, waveform.numpy(), atol=1 / 32768)


def test_kept_groups_are_few_and_the_latest(shard, monkeypatch):
    asked = []
    read = remote._audio_column
    monkeypatch.setattr(remote, "_audio_column", lambda url, group: asked.append(group) or read(url, group))
    small, large = remote.Fetched(most_bytes=1), remote.Fetched()
    for fetched in (small, large):
        for group in (0, 0, 1, 0):
            assert fetched.audio(f"{shard}#{group}:1")
    assert asked == [0, 1, 0, 0, 1] and len(small._groups) == 1 and len(large._groups) == 2


def test_what_is_not_there_is_unreadable_at_once(shard, monkeypatch):
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: pytest.fail("a missing file was asked for again"))
    with pytest.raises(UnreadableAudio, match="cannot be read") as raised:
        remote.fetch(f"{shard}.gone.parquet#0:0")
    assert raised.value.cause == "not reached"


def test_tries_wait_longer_and_longer_and_end(monkeypatch):
    waits = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)

    def fails():
        raise RuntimeError("busy\nmore")

    with pytest.raises(OSError, match=r"^busy$"):
        remote.patiently(fails)
    assert waits == [0.5, 1.0, 2.0]


def test_blocks_are_numbered_by_row_group():
    paths = ["s3://b/x.parquet#0:0", "s3://b/x.parquet#0:1", "s3://b/x.parquet#10:0", "s3://b/y.parquet#0:12"]
    chunked = pyarrow.chunked_array([paths[:1], paths[1:]])
    assert remote.blocks_of(chunked).tolist() == [0, 0, 1, 2]
    for none in (["a.flac"], [None], []):
        assert remote.blocks_of(pyarrow.chunked_array([pyarrow.array(none, pyarrow.string())])) is None


def test_a_path_is_not_taken_for_a_place():
    assert not remote.is_location("a/b.flac") and not remote.is_location(b"x.parquet#0:1")
    assert remote.is_location("https://h/a.parquet#0:1")
