"""Long recordings with times, complete and as they break; test_ready.py reads each corpus whole."""

import json

import pytest

from glmasr.data.catalog import Skipped
from glmasr.data.segments import Aishell4, LibriLight, SegmentedJson, WenetSpeechYue, pieces, read_textgrid
from tests.data.made import aishell4, gigaspeech, libri_light, textgrid, wenetspeech_yue


def causes(reader) -> list[str]:
    return [one.cause for one in reader.utterances() if isinstance(one, Skipped)]


@pytest.mark.parametrize(
    ("spoken", "expected"),
    [
        ([], []),
        ([(1.0, 2.0), (2.5, 3.0)], [(1.0, 3.0)]),
        ([(0.0, 6.0), (7.0, 10.0), (10.5, 11.0)], [(0.0, 10.0), (10.5, 11.0)]),
        ([(0.0, 1.0), (2.0, 24.0), (24.5, 25.0)], [(0.0, 1.0), (2.0, 12.0), (12.0, 22.0), (22.0, 25.0)]),
        ([(0.0, 20.0)], [(0.0, 10.0), (10.0, 20.0)]),
    ],
)
def test_speech_is_joined_up_to_the_limit_and_cut_beyond(spoken, expected):
    assert list(pieces(spoken, 10.0)) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_a_textgrid_is_read_in_every_encoding(tmp_path, encoding):
    (tmp_path / "x.TextGrid").write_text(textgrid({"S1": [(0, 1.5, 'a ""quoted"" 好')], "S2": [(1, 2, "")]}), encoding)
    assert read_textgrid(str(tmp_path / "x.TextGrid")) == [("S1", 0.0, 1.5, 'a "quoted" 好'), ("S2", 1.0, 2.0, "")]
    (tmp_path / "x.TextGrid").write_text("File type", encoding)
    with pytest.raises(ValueError):
        read_textgrid(str(tmp_path / "x.TextGrid"))


def test_what_is_no_speech_or_has_no_times_is_skipped(tmp_path):
    made = gigaspeech(tmp_path)
    file = tmp_path / "GigaSpeech.json"
    reader = SegmentedJson(made.settings["path"], {"dev": "DEV", "test": "TEST"}, "en")
    assert reader.name == "gigaspeech" and causes(reader) == ["not speech"]
    content = json.loads(file.read_text())
    content["audios"][0]["segments"] += [{"sid": "x", "subsets": ["{DEV}"], "begin_time": "soon", "end_time": 1}, None]
    content["audios"].append({"path": "audio/gone.opus", "segments": [content["audios"][0]["segments"][2]]})
    before = reader.fingerprint()
    file.write_text(json.dumps(content))
    assert causes(reader) == ["not speech", "malformed", "missing"] and reader.fingerprint() != before


def test_a_chapter_without_its_voice_activity_is_skipped_once(tmp_path):
    libri_light(tmp_path)
    [about] = tmp_path.rglob("*.json")
    about.write_text('{"voice_activity": [[0.1]]}')
    assert causes(LibriLight(str(tmp_path))) == ["voice activity is missing"]
    about.write_text('{"voice_activity": [[0.1, 1.0]]}')
    next(tmp_path.rglob("*.flac")).write_bytes(b"not a flac")
    assert causes(LibriLight(str(tmp_path))) == ["not audio"]


def test_a_meeting_is_dev_or_train_as_a_whole_and_a_broken_one_is_skipped(tmp_path):
    aishell4(tmp_path)
    everything = [one for one in Aishell4(str(tmp_path), dev_share=1.0).utterances() if not isinstance(one, Skipped)]
    assert {one.split for one in everything} == {"dev", "test"}
    next((tmp_path / "test").rglob("*.TextGrid")).unlink()
    assert causes(Aishell4(str(tmp_path))) == ["transcript is damaged"]


def test_a_row_of_wenetspeech_yue_needs_its_recording_and_a_confidence(tmp_path):
    made = wenetspeech_yue(tmp_path)
    reader = WenetSpeechYue(made.settings["path"], made.settings["audio"])
    skipped = [one for one in reader.utterances() if isinstance(one, Skipped)]
    assert [(one.name, one.cause, one.is_audio) for one in skipped] == [("gd0000002_100_600", "not fetched", False)]
    assert len(list(reader.utterances())) == 4
    (tmp_path / "metadata.json").write_text('{"utt_id": "gd0000001_100_600", "confidence": "high"}\n')
    assert causes(reader) == ["malformed"]
