"""Packed corpora that break: torn tar files, members without partners, columns with other names."""

import json

import pytest

from glmasr.data.catalog import Skipped
from glmasr.data.shards import ParquetShards, TarShards, members_of
from glmasr.frontend.audio import encode_audio
from glmasr.speech import InputError, Utterance
from tests.data.made import parquet, parquet_shards, ramp, tar, write

SOUND = encode_audio(ramp())


def test_a_torn_shard_gives_what_is_before_the_break(tmp_path):
    whole = tar(tmp_path / "a.tar", {f"{n}.flac": SOUND for n in range(4)}).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "b.tar").write_bytes(b"no tar at all" * 100)
    tar(tmp_path / "c.tar", {"c.flac": SOUND})
    found = list(TarShards(str(tmp_path)).utterances())
    assert {one.id for one in found if isinstance(one, Utterance)} >= {"0", "1", "c"}
    assert [one.cause for one in found if isinstance(one, Skipped)] == ["damaged", "damaged"]


def test_members_without_partners_are_named(tmp_path):
    members = {"./a.txt": b"only a text", "./b.m4a": b"x", "./b.txt": b"b", "./c.wav": b"", "./d.flac": SOUND}
    tar(tmp_path / "x.tar", {**members, "./d.json": b"[1]", "./e.flac": SOUND, "./e.json": b"{", "./.hidden": b"y"})
    found = TarShards(str(tmp_path)).utterances()
    skipped = {one.name: (one.cause, one.is_audio) for one in found if isinstance(one, Skipped)}
    assert skipped == {
        "a": ("transcript without audio", False),
        "b": ("transcript without audio", False),
        "c": ("empty", True),
        "e": ("transcript is damaged", True),
    }
    assert [key for key, _ in members_of(str(tmp_path / "x.tar"))] == ["a", "b", "c", "d", "e"]


def test_a_list_of_shards_is_followed_and_checked(tmp_path):
    tar(tmp_path / "shards" / "dev_0.tar", {"a.flac": SOUND})
    listing = write(tmp_path / "data.list", "shards/dev_0.tar\n")
    [found] = TarShards(str(listing), language="yue").utterances()
    assert isinstance(found, Utterance) and (found.split, found.language) == ("dev", "yue")
    listing.write_text("shards/dev_0.tar\nshards/dev_1.tar\n")
    with pytest.raises(InputError, match=r"dev_1\.tar', which does not exist"):
        TarShards(str(listing)).fingerprint()
    (tmp_path / "shards" / "dev_0.tar").unlink()
    with pytest.raises(InputError, match=r"no \.tar"):
        TarShards(str(tmp_path)).fingerprint()


def test_columns_of_another_name_are_named(tmp_path):
    sound = {"bytes": SOUND, "path": "a.flac"}
    nothing = {"bytes": None, "path": None}
    parquet(tmp_path / "test-0.parquet", [{"sound": sound, "said": "hi"}, {"sound": nothing, "said": ""}])
    with pytest.raises(InputError, match=r"no column 'audio': set data\.audio to one of sound, said"):
        list(ParquetShards(str(tmp_path)).utterances())
    with pytest.raises(InputError, match=r"set data\.text"):
        list(ParquetShards(str(tmp_path), audio="sound").utterances())
    first, second = ParquetShards(str(tmp_path), audio="sound", text="said").utterances()
    assert isinstance(first, Utterance) and (first.id, first.text, first.split) == ("test-0/a", "hi", "test")
    assert isinstance(second, Skipped) and (second.name, second.cause) == ("test-0/1", "no audio")


def test_audio_beside_the_file_and_bytes_in_a_plain_column_are_read(tmp_path):
    (tmp_path / "a.flac").write_bytes(SOUND)
    parquet(tmp_path / "dev.parquet", [{"audio": "a.flac", "id": "x", "lang": "zh"}])
    [found] = ParquetShards(str(tmp_path), text=None).utterances()
    assert isinstance(found, Utterance)
    assert (found.id, found.audio, found.language) == ("x", str(tmp_path / "a.flac"), "zh")


def test_an_unfinished_export_and_a_torn_file_are_found_out(tmp_path):
    made = parquet_shards(tmp_path)
    [shard] = (tmp_path / "shards").glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:-20])
    [found] = ParquetShards(made.settings["path"]).utterances()
    assert isinstance(found, Skipped) and found.cause == "damaged"
    listing = json.loads((tmp_path / "shards" / "shards.json").read_text())
    (tmp_path / "shards" / "shards.json").write_text(json.dumps({**listing, "shards": [shard.name, "more.parquet"]}))
    with pytest.raises(InputError, match="lacks 1 shards; run the export again"):
        ParquetShards(made.settings["path"]).fingerprint()
