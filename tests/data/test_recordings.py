"""Stretches of recordings, times, tables and large JSON, as files claim them."""

import gzip
import json

import numpy as np
import pytest

from glmasr.data import recordings
from glmasr.data.catalog import Skipped
from glmasr.data.recordings import joined, lines_of, objects_in, pairs_of, seconds_of, split_in_name, stretch_of
from glmasr.frontend.audio import write_audio
from glmasr.speech import InputError, Utterance


@pytest.fixture
def second(tmp_path) -> str:
    write_audio(tmp_path / "a.wav", np.full(16_000, 0.1, np.float32))
    return str(tmp_path / "a.wav")


def test_a_stretch_is_cut_at_the_end_of_the_recording(second):
    assert stretch_of(second, "u", text="t") == Utterance("u", second, 1.0, text="t")
    found = stretch_of(second, "u", offset_seconds=0.25, duration_seconds=9.0)
    assert isinstance(found, Utterance) and (found.offset_seconds, found.duration_seconds) == (0.25, 0.75)


@pytest.mark.parametrize(
    ("offset", "duration", "cause"),
    [(1.0, None, "outside the recording"), (-0.5, 1.0, "outside the recording"), (0.0, 0.0, "empty stretch")],
)
def test_a_stretch_of_nothing_is_skipped_and_says_why(second, offset, duration, cause):
    found = stretch_of(second, "u7", offset_seconds=offset, duration_seconds=duration)
    assert isinstance(found, Skipped) and found.cause == cause and "'u7'" in found.detail
    assert stretch_of("/nowhere.wav", "u").cause == "missing"  # type: ignore[union-attr]


def test_spaces_go_from_between_chinese_characters_only():
    assert joined(" 今天 天气\t很好 ") == "今天天气很好"
    assert joined("我 用 iPhone 打 电话  now ok") == "我用 iPhone 打电话 now ok"
    assert joined(" ") is joined(None) is None


@pytest.mark.parametrize(("value", "seconds"), [("1.5", 1.5), (2, 2.0)])
def test_times_are_numbers(value, seconds):
    assert seconds_of(value) == seconds
    for wrong in ("nan", True, "later"):
        with pytest.raises(ValueError):
            seconds_of(wrong)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[("cuts_dev-clean.jsonl.gz", "dev"), ("validation.other", "dev"), ("TEST_NET", "test"), ("train_sp", "train")],
        *[("train_dev", "dev"), ("train_nodev", "train"), ("test_dev93", "dev"), ("test_eval92", "test")],
    ],
)
def test_a_split_is_found_in_a_name(name, split):
    assert split_in_name(name) == split and split_in_name("constrained_devices") is None


def test_tables_are_read_plain_and_gzipped_and_must_be_whole_text(tmp_path):
    (tmp_path / "t").write_bytes("\ufeffa one  two\r\n\nb\u2028c\nd  \n".encode())
    assert pairs_of(str(tmp_path / "t")) == {"a": "one  two", "b": "c", "d": ""}
    packed = gzip.compress(b"x y\n" * 100)
    (tmp_path / "t.gz").write_bytes(packed)
    assert list(lines_of(str(tmp_path / "t.gz"))) == ["x y"] * 100
    (tmp_path / "t.gz").write_bytes(packed[:-9])
    (tmp_path / "latin").write_bytes("naïve".encode("latin-1"))
    for name in ("t.gz", "latin", "absent"):
        with pytest.raises(InputError, match=name):
            list(lines_of(str(tmp_path / name)))


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("form", ["list", "lines", "key"])
def test_objects_come_one_at_a_time_whatever_the_chunks(tmp_path, monkeypatch, chunk, form):
    monkeypatch.setattr(recordings, "CHUNK_CHARACTERS", chunk)
    rows = [{"n": n, "text": "好]},{" * n, "audios": [1]} for n in range(20)]
    text = {
        "list": json.dumps(rows, indent=1),
        "lines": "".join(json.dumps(row) + "\n" for row in rows),
        "key": json.dumps({"dataset": "X", "more": {"audio": []}, "audios": rows, "behind": 1}),
    }[form]
    (tmp_path / "x.json").write_text(text, "utf-8")
    assert list(objects_in(str(tmp_path / "x.json"), "audios" if form == "key" else None)) == rows


def test_json_that_breaks_off_is_an_input_error(tmp_path):
    (tmp_path / "x.json").write_text('{"audios": [{"a": 1}, {"b": ')
    found = objects_in(str(tmp_path / "x.json"), "audios")
    assert next(found) == {"a": 1}
    with pytest.raises(InputError, match="breaks off"):
        next(found)
    with pytest.raises(InputError, match='no list of "cuts"'):
        list(objects_in(str(tmp_path / "x.json"), "cuts"))
