"""Conditions: exactly the SNR and gain they name, the same for the same utterance, never a silent noise."""

import numpy as np
import pytest

from glmasr.evaluation.conditions import Condition, in_16_bits, read_conditions
from glmasr.frontend.audio import read_audio, write_audio
from glmasr.frontend.level import rms
from glmasr.speech import RATE_HZ, InputError


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
    ],
)
def test_what_cannot_be_is_an_input_error(noises, rows, noise, clips, message):
    with pytest.raises(InputError, match=message):
        read_conditions(rows, noises if noise else None, clips)


def test_a_quiet_recording_loses_what_is_below_its_last_bit():
    waveform = np.array([0.4 / 32768, 0.6 / 32768, 2.0, -2.0], np.float32)
    np.testing.assert_allclose(in_16_bits(waveform), [0, 1 / 32768, 32767 / 32768, -1])
