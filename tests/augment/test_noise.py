"""Noise at an exact SNR, generated with the promised colour or taken from recordings."""

import json

import numpy as np
import pytest

from glmasr.augment.noise import ColoredNoise, NoiseMixing, envelope, list_recordings, mix
from glmasr.frontend.audio import read_audio, write_audio
from glmasr.frontend.level import rms
from glmasr.speech import RATE_HZ, InputError


def snr_db(clean: np.ndarray, noisy: np.ndarray) -> float:
    return 20 * np.log10(rms(clean) / rms(noisy.astype(np.float64) - clean))


@pytest.fixture
def speech() -> np.ndarray:
    rng = np.random.default_rng(3)
    return (0.1 * rng.standard_normal(20_001) * envelope(20_001, rng)).astype(np.float32)


@pytest.mark.parametrize("target_db", [-10.0, 0.0, 17.5])
def test_the_snr_is_exact(speech, target_db):
    noisy = NoiseMixing(target_db, target_db, 1.0, None)(speech, np.random.default_rng(1))
    assert noisy.dtype == np.float32 and noisy.shape == speech.shape
    assert snr_db(speech, noisy) == pytest.approx(target_db, abs=0.01)


def test_snr_is_drawn_over_the_whole_range(speech):
    mixing = NoiseMixing(-5.0, 15.0, 1.0, None)
    drawn = [snr_db(speech, mixing(speech, np.random.default_rng(seed))) for seed in range(60)]
    assert -5.01 < min(drawn) < -2 and 12 < max(drawn) < 15.01 and 2 < np.mean(drawn) < 8


def test_real_noise_on_real_speech_is_exact_too(shared_corpora):
    speech = read_audio(str(min((shared_corpora / "librispeech_mini" / "audio").iterdir())))
    mixing = NoiseMixing(5.0, 5.0, 1.0, str(shared_corpora / "noise_esc10"))
    first, second = (mixing(speech, np.random.default_rng(seed)) for seed in (1, 2))
    assert snr_db(speech, first) == pytest.approx(5.0, abs=0.01)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, mixing(speech, np.random.default_rng(1)))


def test_probability_decides_how_often(speech):
    mixing = NoiseMixing(0.0, 0.0, 0.3, None)
    touched = sum(mixing(speech, np.random.default_rng(seed)) is not speech for seed in range(300))
    assert 60 < touched < 120


def test_speech_is_not_changed_in_place_and_silence_stays(speech):
    before = speech.copy()
    NoiseMixing(0.0, 0.0, 1.0, None)(speech, np.random.default_rng(0))
    np.testing.assert_array_equal(speech, before)
    assert not NoiseMixing(0.0, 0.0, 1.0, None)(np.zeros(100, np.float32), np.random.default_rng(0)).any()


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_power_falls_with_the_exponent(exponent):
    noise = ColoredNoise(exponent, exponent, 0.0)(10 * RATE_HZ, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(noise * np.hanning(len(noise)))) ** 2
    hertz = np.fft.rfftfreq(len(noise), 1 / RATE_HZ)
    low, high = (power[(hertz > f) & (hertz < 2 * f)].mean() for f in (200, 3200))
    assert 10 * np.log10(low / high) == pytest.approx(exponent * 10 * np.log10(16), abs=1.0)


def test_fluctuating_noise_wanders_more_than_steady_noise():
    def spread(probability: float) -> float:
        noise = ColoredNoise(0.0, 0.0, probability)(4 * RATE_HZ, np.random.default_rng(0))
        return float(np.std(np.log([rms(part) for part in np.split(noise, 40)])))

    assert spread(1.0) > 5 * spread(0.0)


@pytest.mark.parametrize("samples", [1, 2, 3, 4097])
def test_any_length_is_served(samples):
    noise = ColoredNoise()(samples, np.random.default_rng(0))
    assert noise.shape == (samples,) and np.isfinite(noise).all()
    assert np.isfinite(mix(np.ones(samples, np.float32), noise, 0.0)).all()


def test_a_short_recording_is_repeated_and_a_silent_one_replaced(tmp_path, speech):
    write_audio(tmp_path / "silent.wav", np.zeros(800, np.float32))
    mixing = NoiseMixing(3.0, 3.0, 1.0, str(tmp_path))
    assert snr_db(speech, mixing(speech, np.random.default_rng(0))) == pytest.approx(3.0, abs=0.01)
    (tmp_path / "silent.wav").unlink()
    write_audio(tmp_path / "short.wav", np.sin(np.arange(800, dtype=np.float32)))
    noise = NoiseMixing(3.0, 3.0, 1.0, str(tmp_path))(speech, np.random.default_rng(0)) - speech
    np.testing.assert_allclose(noise[:800], noise[800:1600], atol=1e-6)


def test_a_manifest_gives_its_training_noise_only(tmp_path):
    rows = [{"audio_filepath": f"{name}.wav", "split": name} for name in ("train", "dev")]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert list_recordings(str(tmp_path)) == [str(tmp_path / "train.wav")]


def test_nothing_to_mix_is_an_input_error(tmp_path, speech):
    with pytest.raises(InputError, match="noise"):
        NoiseMixing(0.0, 0.0, 1.0, str(tmp_path))(speech, np.random.default_rng(0))
    (tmp_path / "manifest.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="audio_filepath"):
        list_recordings(str(tmp_path))
