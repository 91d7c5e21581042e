"""Conditions: each does what it names and no more, the same for the same utterance everywhere, and tells its hash."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from glmasr.augment.reverb import find_direct
from glmasr.data.corpora import Manifest
from glmasr.evaluation import conditions as conditions_module
from glmasr.evaluation.conditions import (
    CLEAN,
    Condition,
    fingerprint_of,
    grid,
    hash_samples,
    hear,
    in_16_bits,
    read_conditions,
    reverberate,
    simulated,
    turn_down,
    write_damaged,
)
from glmasr.frontend import audio
from glmasr.frontend.audio import MP3_KBPS, parse_codec, read_audio, transcode, write_audio
from glmasr.frontend.level import rms
from glmasr.speech import RATE_HZ, InputError, Utterance


@pytest.fixture(scope="module")
def noises(tmp_path_factory) -> str:
    """Two loud clips, and one with a bark in two seconds of hardly anything."""
    folder, rng = tmp_path_factory.mktemp("noises"), np.random.default_rng(0)
    for name in ("1-hiss", "2-hum"):
        write_audio(folder / f"{name}.wav", rng.normal(0, 0.1, RATE_HZ).astype(np.float32))
    bark = rng.normal(0, 1e-4, 2 * RATE_HZ)
    bark[:800] += rng.normal(0, 0.3, 800)
    write_audio(folder / "3-bark.wav", bark.astype(np.float32))
    return str(folder)


@pytest.fixture(scope="module")
def speech(spoken) -> np.ndarray:
    return spoken[0].numpy()


def test_the_snr_and_the_gain_are_those_named(noises, speech):
    noisy, quiet, both = read_conditions([{"snr_db": 5}, {"level_db": -30}, {"snr_db": 5, "level_db": -30}], noises)
    added = noisy.apply(speech, "a") - speech
    assert 20 * np.log10(rms(speech) / rms(added)) == pytest.approx(5, abs=0.01)
    assert 20 * np.log10(rms(quiet.apply(speech, "a")) / rms(speech)) == pytest.approx(-30, abs=0.05)
    np.testing.assert_allclose(both.apply(speech, "a"), noisy.apply(speech, "a") * 10**-1.5, atol=0.51 / 32768)
    assert Condition().apply(speech, "a") is speech


def test_the_same_utterance_is_damaged_alike_and_another_otherwise(noises, speech):
    five, ten = read_conditions([{"snr_db": 5}, {"snr_db": 10}], noises)
    np.testing.assert_array_equal(five.apply(speech, "a"), five.apply(speech, "a"))
    assert not np.array_equal(five.apply(speech, "a"), five.apply(speech, "b"))
    five_db, ten_db = five.apply(speech, "a") - speech, ten.apply(speech, "a") - speech
    np.testing.assert_allclose(five_db, ten_db * 10**0.25, atol=1e-6)


def test_a_silent_stretch_is_passed_over(noises):
    [condition] = read_conditions([{"snr_db": 0}], noises, ["1-*", "3-*"])
    speech = np.full(400, 0.1, np.float32)
    hiss, bark = (read_audio(f"{noises}/{name}.wav") for name in ("1-hiss", "3-bark"))
    for key in map(str, range(40)):
        added = condition.apply(speech, key) - speech
        added = added / rms(added)
        peaks = [np.abs(np.correlate(clip, added)).max() / 400 / rms(clip) for clip in (hiss, bark[:1200])]
        assert max(peaks) > 0.5, key  # it is a piece of the hiss, or of the bark itself
    with pytest.raises(InputError, match="noise that is heard"):
        Condition(5.0).apply(speech, "a")


def test_noise_shorter_than_the_speech_goes_round(noises):
    [condition] = read_conditions([{"snr_db": 0}], noises, ["2-*"])
    speech = np.full(3 * RATE_HZ, 0.1, np.float32)
    added = condition.apply(speech, "a") - speech
    np.testing.assert_allclose(added[:RATE_HZ], added[RATE_HZ : 2 * RATE_HZ], atol=1e-6)
    assert len(condition.apply(speech[:0], "a")) == 0


def test_names_and_identities_tell_conditions_apart(noises):
    rows = [{}, {"snr_db": 0}, {"level_db": -30}, {"snr_db": 2.5, "level_db": -30}]
    conditions = read_conditions(rows, noises, ["1-*", "2-*"])
    assert [c.name for c in conditions] == ["clean", "snr=0", "level=-30", "snr=2.5,level=-30"]
    assert conditions[1].clips == ["1-hiss", "2-hum"] and conditions[0].clips == []
    assert conditions[0].identity() == []
    assert read_conditions(rows, noises, ["1-*"])[1].identity() != conditions[1].identity()


@pytest.mark.parametrize(
    ("rows", "noise", "clips", "message"),
    [
        ([{"snr_db": 5}], False, ["*"], r"noise\.path"),
        ([{"snr_db": 5}], True, ["9-*"], "is called like 9-"),
        ([{"snr": 5}], True, ["*"], "snr_db, level_db"),
        ([{}, {}], True, ["*"], "the same: clean, clean"),
        ([{"noise": "seen"}], True, ["*"], "no group of noise called 'seen'"),
        ([{"room": "hall"}], True, ["*"], "'hall' must be a recorded one"),
        ([{"room": 0.0}], True, ["*"], "room that is not above 0"),
        ([{"speed": -1}], True, ["*"], "speed that is not above 0"),
        ([{"codec": "opus"}], True, ["*"], "codec 'opus' is unknown: use gsm, opus-6k"),
        ([{"codec": "mp3-33k"}], True, ["*"], "codec 'mp3-33k' is unknown"),
    ],
)
def test_what_cannot_be_is_an_input_error(noises, rows, noise, clips, message):
    with pytest.raises(InputError, match=message):
        read_conditions(rows, noises if noise else None, clips)


def lag(heard: np.ndarray, speech: np.ndarray) -> int:
    """By how many samples `heard` is late."""
    size = 1 << (len(heard) + len(speech)).bit_length()
    found = int(np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(speech, size)), size).argmax())
    return found if found < size // 2 else found - size


def share_above(waveform: np.ndarray, hertz: float) -> float:
    """The share of the energy above a frequency."""
    power = np.abs(np.fft.rfft(waveform)) ** 2
    return float(power[np.fft.rfftfreq(len(waveform), 1 / RATE_HZ) > hertz].sum() / power.sum())


PINNED = {
    "snr=5": "d0b0185c724f131e",
    "level=-30": "1459b4c5356c23ac",
    "snr=5,level=-30": "9115572bb8857844",
}
"""Of the samples in 16 bits, from before there were other conditions."""


def test_what_was_measured_under_earlier_conditions_still_holds(noises, speech):
    rows = [{"snr_db": 5}, {"level_db": -30}, {"snr_db": 5, "level_db": -30}]
    heard = {c.name: np.rint(c.apply(speech, "a") * 32768).astype("<i4") for c in read_conditions(rows, noises)}
    assert {name: hashlib.sha256(samples.tobytes()).hexdigest()[:16] for name, samples in heard.items()} == PINNED
    assert [c.identity() for c in read_conditions(rows[:2], noises, ["1-*"])] == [
        ["snr=5", ["1-hiss"]],
        ["level=-30", []],
    ]


ALL = [
    {"room": 0.3},
    {"telephone": True},
    *({"codec": codec} for codec in ("opus-8k", "mp3-32k", "gsm")),
    {"speed": 1.1, "room": 0.3, "snr_db": 5, "telephone": True, "codec": "gsm", "level_db": -20},
]
ELSEWHERE = """
import json, sys
from glmasr.evaluation.conditions import hash_samples, read_conditions
from glmasr.frontend.audio import read_audio
rows, noises, speech = json.loads(sys.argv[1]), sys.argv[2], read_audio(sys.argv[3])
print(*(hash_samples(c.apply(speech, "a")) for c in reversed(read_conditions(rows, noises))))
"""


def test_another_process_hears_the_same_samples(noises, speech, tmp_path):
    write_audio(tmp_path / "speech.flac", speech)
    given = [sys.executable, "-c", ELSEWHERE, json.dumps(ALL), noises, str(tmp_path / "speech.flac")]
    folder = Path(__file__).parents[2]
    theirs = subprocess.Popen(
        given, stdout=subprocess.PIPE, text=True, cwd=folder, env={**os.environ, "PYTHONHASHSEED": "7"}
    )
    heard = read_audio(str(tmp_path / "speech.flac"))
    ours = [hash_samples(condition.apply(heard, "a")) for condition in read_conditions(ALL, noises)]
    assert theirs.communicate()[0].split() == ours[::-1] and len(set(ours)) == len(ALL)


def test_a_room_rings_as_long_as_it_says_and_keeps_time_and_level(speech):
    click = np.zeros(RATE_HZ, np.float32)
    click[100] = 1.0
    for seconds in (0.3, 0.8):
        condition = Condition(room=seconds)
        measured = [decay_seconds(condition.apply(click, key)) for key in map(str, range(8))]
        assert np.median(measured) == pytest.approx(seconds, rel=0.25)
        assert {find_direct(condition.apply(click, key)) for key in map(str, range(8))} == {100}
    heard = Condition(room=0.8).apply(speech, "a")
    assert len(heard) == len(speech) and rms(heard) == pytest.approx(rms(speech), rel=1e-3)
    again = Condition(room=0.8)
    simulated.cache_clear()
    np.testing.assert_array_equal(again.apply(speech, "a"), heard)
    others = {hash_samples(again.apply(speech, key)) for key in map(str, range(12))}
    assert 4 <= len(others) <= 12  # one of 16 rooms each


def decay_seconds(response: np.ndarray) -> float:
    """RT60 from the fall between -5 and -25 dB of what is left of the energy."""
    left = np.cumsum(np.square(response[::-1], dtype=np.float64))[::-1]
    db = 10 * np.log10(left / left[0] + 1e-12)
    return 3 * (np.argmax(db < -25) - np.argmax(db < -5)) / RATE_HZ


def test_recorded_rooms_are_those_a_pattern_names(tmp_path, speech):
    for name, delay in (("hall-1", 800), ("hall-2", 1600), ("bath-1", 400)):
        response = np.zeros(2000, np.float32)
        response[[10, 10 + delay]] = 0.9, 0.45
        write_audio(tmp_path / f"{name}.wav", response)
    hall, bath = read_conditions([{"room": "hall-*"}, {"room": "bath-*"}], room_path=str(tmp_path))
    assert [Path(path).stem for path in hall.responses] == ["hall-1", "hall-2"]
    assert hall.identity()[2:] == [conditions_module.VERSION, ["hall-1", "hall-2"]]

    def echo(waveform: np.ndarray, delay: int) -> np.ndarray:
        return waveform + 0.5 * np.pad(waveform, (delay, 0))[: len(waveform)]

    heard = bath.apply(speech, "a")
    wanted = echo(speech, 400)
    np.testing.assert_allclose(heard, wanted * (rms(speech) / rms(wanted)), atol=1e-4)
    kinds = {
        round(float(np.corrcoef(hall.apply(speech, key), echo(speech, 800))[0, 1]), 2) for key in map(str, range(9))
    }
    assert len(kinds) == 2 and 1.0 in kinds
    with pytest.raises(InputError, match="no impulse response"):
        read_conditions([{"room": "attic"}], room_path=str(tmp_path))
    with pytest.raises(InputError, match="needs recorded rooms"):
        Condition(room="attic").apply(speech, "a")


def test_a_telephone_carries_the_band_of_a_telephone(speech, noises):
    [noisy] = read_conditions([{"snr_db": 0, "telephone": True}], noises, ["1-*"])
    heard = noisy.apply(speech, "a")
    assert (
        share_above(heard, 3_700)
        < 1e-3
        < share_above(read_conditions([{"snr_db": 0}], noises)[0].apply(speech, "a"), 3_700)
    )
    assert 1 - share_above(heard, 200) < 0.01 and len(heard) == len(speech)
    assert abs(lag(Condition(telephone=True).apply(speech, "a"), speech)) <= 1


@pytest.mark.parametrize(
    ("codec", "lowest", "highest"),
    [
        ("opus-6k", -3, 12),
        ("opus-64k", 18, 50),
        ("mp3-16k", 3, 20),
        ("mp3-32k", 8, 25),
        ("mp3-40k", 8, 30),
        ("mp3-160k", 25, 60),
        ("gsm", 3, 15),
    ],
)
def test_a_codec_costs_what_its_bit_rate_says_and_no_time(speech, codec, lowest, highest):
    heard = Condition(codec=codec).apply(speech, "a")
    assert len(heard) == len(speech) and heard.dtype == np.float32
    assert abs(lag(heard, speech)) <= 1
    error = rms(heard - speech)
    assert lowest < 20 * np.log10(rms(speech) / error) < highest
    assert rms(heard) == pytest.approx(rms(speech), rel=0.15)
    loud = Condition(codec=codec).apply(speech * 20, "a")
    assert np.abs(loud).max() > 1 and rms(loud - speech * 20) < 3 * 20 * error + 1e-3  # not clipped


def test_a_codec_has_the_bit_rate_of_its_name(spoken, monkeypatch):
    speech, sizes, encode = np.tile(np.concatenate([w.numpy() for w in spoken]), 3), [], audio._encoded
    monkeypatch.setattr(audio, "_encoded", lambda *a, **b: sizes.append(len(found := encode(*a, **b))) or found)
    for codec in ("gsm", "opus-6k", "opus-8k", "opus-24k", *(f"mp3-{kbps}k" for kbps in MP3_KBPS)):
        transcode(speech, codec)
        kbps = sizes[-1] * 8 / (len(speech) / RATE_HZ) / 1000
        assert kbps == pytest.approx(parse_codec(codec)[1], rel=0.1), codec


@pytest.mark.parametrize("codec", ["gsm", "opus-8k", "mp3-24k", "mp3-64k"])
@pytest.mark.parametrize("samples", [0, 1, 100, 1601])
def test_a_codec_takes_speech_of_any_length(speech, codec, samples):
    heard = transcode(speech[8000 : 8000 + samples], codec)
    assert len(heard) == samples and np.isfinite(heard).all()


def test_codecs_are_known_by_their_rates():
    assert [parse_codec(codec) for codec in ("gsm", "opus-6k", "opus-256k", "mp3-16k")] == [
        *(("gsm", 13), ("opus", 6), ("opus", 256), ("mp3", 16))
    ]
    for wrong in ("gsm-13k", "opus-5k", "opus-257k", "mp3-8k", "mp3-16", "aac-16k", "opus-²k"):
        with pytest.raises(InputError, match="is unknown: use gsm, opus-6k to opus-256k or mp3-"):
            parse_codec(wrong)


def test_speed_changes_tempo_and_pitch():
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    for speed in (0.9, 1.1):
        heard = Condition(speed=speed).apply(tone, "a")
        assert len(heard) == pytest.approx(RATE_HZ / speed, abs=1)
        assert np.abs(np.fft.rfft(heard)).argmax() * RATE_HZ / len(heard) == pytest.approx(440 * speed, abs=1)


def test_steps_come_in_the_order_of_the_world(noises, speech, monkeypatch):
    """Noise does not reverberate and its SNR is to the speech in the room; the line carries both."""
    [room, noisy] = read_conditions([{"speed": 0.9, "room": 0.5}, {"speed": 0.9, "room": 0.5, "snr_db": 3}], noises)
    there = room.apply(speech, "a")
    np.testing.assert_array_equal(there, Condition(room=0.5).apply(Condition(speed=0.9).apply(speech, "a"), "a"))
    added = noisy.apply(speech, "a") - there
    assert 20 * np.log10(rms(there) / rms(added)) == pytest.approx(3, abs=0.01)
    line = Condition(telephone=True).apply(noisy.apply(speech, "a"), "a")
    coded = Condition(codec="gsm").apply(line, "a")
    quiet = Condition(level_db=-20).apply(coded, "a")
    row = {"speed": 0.9, "room": 0.5, "snr_db": 3, "telephone": True, "codec": "gsm", "level_db": -20}
    np.testing.assert_array_equal(read_conditions([row], noises)[0].apply(speech, "a"), quiet)


def test_groups_of_noise_are_named(noises, speech):
    groups = {"seen": {"clips": ["1-*"]}, "unseen": {"path": noises, "clips": "2-*"}}
    rows = [{"snr_db": 5, "noise": "seen"}, {"snr_db": 5, "noise": "unseen"}, {"snr_db": 5}]
    seen, unseen, any_noise = read_conditions(rows, noises, noises=groups)
    assert (seen.clips, unseen.clips, len(any_noise.clips)) == (["1-hiss"], ["2-hum"], 3)
    assert [c.name for c in (seen, unseen)] == ["snr=5,noise=seen", "snr=5,noise=unseen"]
    assert not np.array_equal(seen.apply(speech, "a"), unseen.apply(speech, "a"))
    with pytest.raises(InputError, match=r"names noise but no snr_db"):
        read_conditions([{"noise": "seen"}], noises, noises=groups)


def test_a_name_says_all_in_its_order_and_json_gives_the_row_back(noises):
    row = {"level_db": -20, "codec": "gsm", "telephone": True, "snr_db": 3, "room": 0.5, "speed": 0.9}
    [condition] = read_conditions([row], noises)
    assert condition.name == "speed=0.9,room=0.5,snr=3,telephone,codec=gsm,level=-20"
    assert condition.as_json() == row and json.loads(json.dumps(condition.as_json())) == row
    assert CLEAN.as_json() == {} and Condition(level_db=0.0).as_json() == {"level_db": 0.0}
    assert Condition(telephone=False, room=None).name == "clean"


def test_a_grid_turns_one_thing_at_a_time_and_crosses_snr_with_noise():
    rows = grid([-5, 0], ["seen", "unseen"], [0, -10], [0.5], True, ["gsm"], [0.9, 1.0])
    assert rows == [
        {},
        *({"snr_db": db, "noise": noise} for noise in ("seen", "unseen") for db in (-5, 0)),
        *({"level_db": -10}, {"room": 0.5}, {"telephone": True}, {"codec": "gsm"}, {"speed": 0.9}),
    ]
    assert grid(snr=[5]) == [{}, {"snr_db": 5}] and grid() == [{}]


@pytest.fixture
def utterances(tmp_path, spoken) -> list[Utterance]:
    """Three real clips; one is a stretch of its file."""
    for i, waveform in enumerate(spoken[:3]):
        write_audio(tmp_path / f"{i}.flac", waveform.numpy())
    starts = (0.0, 0.0, 0.5)
    return [
        Utterance(f"a/{i}", str(tmp_path / f"{i}.flac"), len(w) / RATE_HZ - s, s, f"text {i}", "en", "F1", "test")
        for i, (w, s) in enumerate(zip(spoken[:3], starts, strict=True))
    ]


def test_a_fingerprint_is_of_the_samples(utterances, noises, tmp_path, monkeypatch):
    five, ten = read_conditions([{"snr_db": 5}, {"snr_db": 10}], noises)
    cache = tmp_path / "kept" / "hashes.json"
    first = fingerprint_of(five, utterances, cache)
    assert fingerprint_of(five, utterances[::-1]) == first != fingerprint_of(ten, utterances, cache)
    assert len(json.loads(cache.read_text())) == 2
    assert fingerprint_of(CLEAN, utterances[:2]) != fingerprint_of(CLEAN, utterances)
    heard = []
    monkeypatch.setattr(conditions_module, "hear", lambda u, c: heard.append(u.id) or hear(u, c))
    assert fingerprint_of(five, utterances, cache) == first and heard == ["a/0"]  # the rest is known
    waveform = read_audio(utterances[2].audio)
    write_audio(str(utterances[2].audio), waveform[::-1])
    assert fingerprint_of(five, utterances, cache) != first
    monkeypatch.setattr(conditions_module, "SILENT_SHARE", 10.0)  # another version of the damage
    with pytest.raises(InputError):
        fingerprint_of(five, utterances, cache)
    cache.write_text("{")
    monkeypatch.undo()
    assert len(fingerprint_of(five, utterances, cache)) == 64


def test_another_version_of_the_damage_is_noticed(utterances, tmp_path, monkeypatch):
    cache = tmp_path / "hashes.json"
    first = fingerprint_of(Condition(codec="gsm"), utterances, cache)
    monkeypatch.setattr(conditions_module, "transcode", lambda waveform, codec: waveform)
    assert fingerprint_of(Condition(codec="gsm"), utterances, cache) != first


def test_damaged_speech_is_kept_for_other_programs(utterances, noises, tmp_path):
    [condition] = read_conditions([{"snr_db": -5, "room": 0.3}], noises)
    utterances[1:2] = [
        loud := Utterance("loud", audio.encode_audio(read_audio(utterances[1].audio) * 5), 2.0, text="x")
    ]
    manifest = write_damaged(condition, utterances, tmp_path / "damaged")
    assert manifest.parent.name == "room=0.3_snr=-5"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    about = json.loads((manifest.parent / "about.json").read_text())
    assert about["fingerprint"] == fingerprint_of(condition, utterances)
    for row, utterance in zip(rows, utterances, strict=True):
        kept, heard = read_audio(str(manifest.parent / row["audio_filepath"])), hear(utterance, condition)
        assert hash_samples(kept) == hash_samples(heard) == row["sha256"]
        np.testing.assert_allclose(kept, turn_down(heard), atol=0.51 / 32768)
        assert row["duration"] == len(heard) / RATE_HZ
    assert np.abs(hear(loud, condition)).max() > 1.2
    reread = list(Manifest(str(manifest), language="", dev_share=0.0).utterances())
    assert [(u.id, u.text, u.split) for u in reread] == [(u.id, u.text, u.split) for u in utterances]
    written = manifest.stat().st_mtime_ns
    assert write_damaged(condition, utterances, tmp_path / "damaged") == manifest
    assert manifest.stat().st_mtime_ns == written
    write_damaged(condition, utterances[:1], tmp_path / "damaged")
    assert len(manifest.read_text().splitlines()) == 1 and len(list(manifest.parent.iterdir())) == 3


def test_damaged_speech_appears_whole_or_not_at_all(utterances, tmp_path, monkeypatch):
    missing = [*utterances, Utterance("b", str(tmp_path / "none.flac"), 1.0)]
    with pytest.raises(InputError, match="does not exist"):
        write_damaged(Condition(level_db=-20), missing, tmp_path / "damaged")
    assert not list((tmp_path / "damaged").glob("*")) and not list((tmp_path / "damaged").glob(".*"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose a writable folder"):
        write_damaged(CLEAN, utterances, tmp_path / "file")
    with pytest.raises(InputError, match="choose a writable folder"):
        fingerprint_of(CLEAN, utterances, tmp_path / "file" / "x.json")


def test_silence_stays_silence(noises):
    silence = np.zeros(RATE_HZ, np.float32)
    for condition in read_conditions([{"room": 0.3}, {"telephone": True}, {"snr_db": 5}, {"speed": 0.9}], noises):
        assert not condition.apply(silence, "a").any()
    np.testing.assert_array_equal(reverberate(silence, simulated(0.3, 0)), silence)


def test_a_quiet_recording_loses_what_is_below_its_last_bit():
    waveform = np.array([0.4 / 32768, 0.6 / 32768, 2.0, -2.0], np.float32)
    np.testing.assert_allclose(in_16_bits(waveform), [0, 1 / 32768, 32767 / 32768, -1])
