"""Noise at an exact SNR, generated with the promised colour or taken from recordings."""

import hashlib
import json

import numpy as np
import pytest

from glmasr.augment.noise import ColoredNoise, NoiseMixing, Stretch, envelope, list_recordings, list_stretches, mix
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


def manifest(folder, rows: list[dict]) -> str:
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return str(folder)


@pytest.mark.parametrize("listed", [False, True])
def test_recordings_without_offsets_are_drawn_as_ever(tmp_path, listed):
    rng, rows = np.random.default_rng(5), []
    for name, samples in (("a", 12_345), ("b", 40_000), ("c", 3_001)):
        write_audio(tmp_path / f"{name}.wav", (rng.integers(-3000, 3000, samples) / 32768).astype(np.float32))
        rows.append({"audio_filepath": f"{name}.wav", "duration": round(samples / RATE_HZ, 3)})
    if listed:
        manifest(tmp_path, rows)
    speech = (np.random.default_rng(6).integers(-9000, 9000, 16_000) / 32768).astype(np.float32)
    mixing, digest = NoiseMixing(-5.0, 15.0, 0.8, str(tmp_path)), hashlib.sha256()
    for seed in range(12):
        noisy = mixing(speech, np.random.default_rng(seed))
        digest.update(np.rint(noisy * 32768).astype("<i4").tobytes())
    assert digest.hexdigest()[:16] == "5b3d66694f4f25d6"


def test_noise_is_taken_from_inside_its_stretch_and_nothing_else_is_read(tmp_path, speech, monkeypatch):
    seconds = np.arange(60 * RATE_HZ) / RATE_HZ
    inside = (seconds >= 20) & (seconds < 26)
    recording = np.where(inside, seconds / 100, -0.5).astype(np.float32)  # its value tells the time
    write_audio(tmp_path / "long.wav", recording)
    asked = []
    monkeypatch.setattr("glmasr.augment.noise.read_audio", lambda *given: asked.append(given[1:]) or read_audio(*given))
    monkeypatch.setattr("glmasr.augment.noise.probe_audio", lambda _: pytest.fail("the row says all there is to know"))
    row = {"audio_filepath": "long.wav", "offset": 20.0, "duration": 6.0}
    mixing = NoiseMixing(0.0, 0.0, 1.0, manifest(tmp_path, [row]))
    starts = []
    for seed in range(40):
        noise = mixing.stretches[0].draw(1.25, np.random.default_rng(seed))
        assert len(noise) == 20_000 and noise.min() > 0.2 - 1e-4 and noise.max() < 0.26 + 1e-4
        starts.append(noise[0] * 100)
        assert np.isfinite(mixing(speech, np.random.default_rng(seed))).all()
    assert min(starts) < 20.4 and 24.3 < max(starts) <= 24.76
    assert max(duration for _, duration in asked) <= 1.26
    longer = Stretch(str(tmp_path / "long.wav"), 20.0, 6.0).draw(8.0, np.random.default_rng(0))
    assert len(longer) == 6 * RATE_HZ and longer.min() > 0.2 - 1e-4


def test_a_stretch_at_the_start_ends_where_it_says(tmp_path):
    write_audio(tmp_path / "long.wav", np.repeat(np.float32([0.1, -0.5]), 3 * RATE_HZ))
    first = list_stretches(manifest(tmp_path, [{"audio_filepath": "long.wav", "duration": 3.0}]))[0]
    rest = Stretch(first.path, 3.0)
    assert first.seconds == rest.seconds == 3.0
    assert Stretch(first.path, 0.0, 5.996).seconds == Stretch(first.path, 0.0, 6.004).seconds == 6.0  # rounded
    for seed in range(20):
        assert first.draw(1.0, np.random.default_rng(seed)).min() > 0.09
        assert rest.draw(1.0, np.random.default_rng(seed)).max() < -0.49


def test_a_prepared_corpus_of_noise_is_named_by_its_folder(tmp_path):
    """Its manifest.jsonl is as `to_manifest` writes it; noise that belongs to no split is as good as train's."""
    rows = [{"id": "a", "audio_filepath": "/noise/a.wav", "duration": 9.5, "speaker": "free-sound", "split": "train"}]
    rows += [{"id": "b", "audio_filepath": "b.wav", "offset": 3.5, "duration": 2.0, "split": None}]
    rows += [{"id": "c", "audio_filepath": "b.wav", "offset": 8.5, "duration": 2.0, "split": ""}]
    rows += [{"id": "d", "audio_filepath": "d.wav", "duration": 2.0, "split": "dev"}]
    found = list_stretches(manifest(tmp_path, rows))
    named = str(tmp_path / "b.wav")
    assert found == [Stretch("/noise/a.wav", 0.0, 9.5), Stretch(named, 3.5, 2.0), Stretch(named, 8.5, 2.0)]
    assert list_recordings(str(tmp_path)) == ["/noise/a.wav", named]


def test_a_long_manifest_is_read_once(tmp_path, speech):
    write_audio(tmp_path / "a.wav", 0.1 * speech)
    mixing = NoiseMixing(0.0, 0.0, 1.0, manifest(tmp_path, [{"audio_filepath": "a.wav"}] * 1000))
    first = mixing(speech, np.random.default_rng(0))
    (tmp_path / "manifest.jsonl").unlink()
    np.testing.assert_array_equal(mixing(speech, np.random.default_rng(0)), first)
    assert len(mixing.stretches) == 1000


def test_nothing_to_mix_is_an_input_error(tmp_path, speech):
    with pytest.raises(InputError, match="noise"):
        NoiseMixing(0.0, 0.0, 1.0, str(tmp_path))(speech, np.random.default_rng(0))
    (tmp_path / "manifest.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="audio_filepath"):
        list_recordings(str(tmp_path))
    (tmp_path / "manifest.jsonl").write_text('{"audio_filepath": "a.wav", "offset": "later"}\n')
    with pytest.raises(InputError, match="seconds"):
        list_stretches(str(tmp_path))
