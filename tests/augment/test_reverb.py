"""Rooms: exact convolution, the decay that was asked for, the direct sound in its place, a bank simulated once."""

import pickle
import shutil

import numpy as np
import pytest
import scipy.signal

from glmasr.augment import reverb
from glmasr.augment.reverb import Reverberation, Room, Rooms, convolve, find_direct, prepare_response, simulate, trim
from glmasr.frontend.audio import read_audio, write_audio
from glmasr.frontend.level import rms
from glmasr.speech import RATE_HZ, InputError


def bank(folder, count: int = 3, **changed) -> Rooms:
    settings = {"rt60_low_seconds": 0.2, "rt60_high_seconds": 0.6, "distance_low_meters": 0.5, "seed": 0}
    return Rooms(**{"count": count, "distance_high_meters": 3.0, "folder": str(folder), **settings, **changed})


def decay_seconds(response: np.ndarray) -> float:
    """Schroeder's backward integral from -5 to -35 dB, times two."""
    left = np.cumsum(np.square(response[::-1], dtype=np.float64))[::-1]
    fall_db = 10 * np.log10(left / left[0])
    return 2 * (np.argmax(fall_db <= -35) - np.argmax(fall_db <= -5)) / RATE_HZ


def delay_samples(sent: np.ndarray, heard: np.ndarray) -> int:
    """By cross-correlation of whitened spectra, as a voice is alike to itself a period later."""
    size = 2 * len(sent)
    cross = np.fft.rfft(heard, size) * np.fft.rfft(sent, size).conj()
    return (int(np.argmax(np.fft.irfft(cross / (np.abs(cross) + 1e-9)))) + len(sent)) % size - len(sent)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms")
    bank(folder).recordings()
    return folder


@pytest.fixture
def clip(spoken) -> np.ndarray:
    return spoken[0].numpy()


@pytest.mark.parametrize("taps", [1, 2, 700, 5000, 33_000])
@pytest.mark.parametrize("samples", [1, 399, 8192, 50_001])
def test_the_convolution_is_scipys(taps, samples):
    rng = np.random.default_rng(taps)
    waveform, response = (rng.standard_normal(size).astype(np.float32) for size in (samples, taps))
    wanted = scipy.signal.fftconvolve(waveform.astype(np.float64), response)
    heard = convolve(waveform, prepare_response(response))
    assert heard.dtype == np.float32 and heard.shape == wanted.shape
    np.testing.assert_allclose(heard, wanted, atol=1e-5 * np.abs(wanted).max() + 1e-6)


@pytest.mark.parametrize("rt60_seconds", [0.2, 0.4, 0.8])
def test_a_simulated_room_decays_as_asked(rt60_seconds):
    room = Room((6.0, 4.5, 2.8), rt60_seconds, (1.5, 1.2, 1.5), (3.9, 2.6, 1.2))
    response = simulate(room, seed=3)
    assert decay_seconds(response) == pytest.approx(rt60_seconds, rel=0.25)
    flight_samples = np.linalg.norm(np.subtract(room.talker, room.microphone)) / 343 * RATE_HZ
    assert find_direct(response) == pytest.approx(flight_samples + 40, abs=1.5)  # 40: pyroomacoustics' own delay
    np.testing.assert_array_equal(response, simulate(room, seed=3))


def test_rooms_fill_their_ranges_and_hold_who_is_in_them(tmp_path):
    rooms = bank(tmp_path, distance_high_meters=4.0)
    drawn = [rooms.draw(number) for number in range(60)]
    distances = [np.linalg.norm(np.subtract(room.talker, room.microphone)) for room in drawn]
    assert 0.5 <= min(distances) < 0.9 and 3.5 < max(distances) <= 4.0 and 1.9 < np.mean(distances) < 2.6
    assert min(room.rt60_seconds for room in drawn) < 0.25 and max(room.rt60_seconds for room in drawn) > 0.55
    assert all(0.39 < place < side - 0.39 for room in drawn for place, side in zip(room.talker, room.size, strict=True))
    assert all(0 < room.absorption < 1 for room in drawn)


def test_the_direct_sound_stays_where_it_was(clip, folder):
    reverberation = Reverberation(1.0, None, bank(folder))
    for seed in range(6):
        heard = reverberation(clip, np.random.default_rng(seed))
        assert abs(delay_samples(clip, heard)) <= 1
        assert heard.dtype == np.float32 and heard.shape == clip.shape
        assert rms(heard) == pytest.approx(rms(clip), rel=1e-5)
        assert np.corrcoef(heard, clip)[0, 1] < 0.99


def test_an_echo_louder_than_the_direct_sound_is_not_taken_for_it():
    response = np.zeros(4000, np.float32)
    response[[500, 503, 900]] = 0.3, -0.5, 1.0
    assert find_direct(response) == 503


def test_a_response_ends_where_it_has_decayed():
    response = np.exp(-np.arange(16_000) / 800).astype(np.float32)
    assert len(trim(response)) == pytest.approx(800 * np.log(1e6) / 2, abs=2)


def test_seed_probability_and_silence(clip, folder):
    reverberation = Reverberation(1.0, None, bank(folder))
    first, again = (reverberation(clip, np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len({reverberation(clip, np.random.default_rng(seed)).tobytes() for seed in range(12)}) == 3
    assert Reverberation(0.0, None, bank(folder))(clip, np.random.default_rng(0)) is clip
    sometimes, part = Reverberation(0.3, None, bank(folder)), clip[:400]
    assert 40 < sum(sometimes(part, np.random.default_rng(seed)) is not part for seed in range(200)) < 80
    assert not reverberation(np.zeros(900, np.float32), np.random.default_rng(0)).any()
    for samples in (1, 2, 17):
        assert np.isfinite(reverberation(clip[2000 : 2000 + samples], np.random.default_rng(0))).all()


def test_a_bank_is_simulated_once_and_is_another_with_other_settings(folder, monkeypatch):
    monkeypatch.setattr(reverb, "simulate", lambda *_, **__: pytest.fail("simulated again"))
    files = bank(folder).recordings()
    assert len(files) == 3 and all(read_audio(file).size > 800 for file in files)
    assert pickle.loads(pickle.dumps(Reverberation(1.0, None, bank(folder)))).recordings == files
    with pytest.raises(pytest.fail.Exception):
        bank(folder, seed=1).recordings()
    assert sorted(path.name for path in folder.iterdir()) == [files[0].split("/")[-2]]


def test_more_rooms_begin_with_the_same(folder, tmp_path):
    pairs = zip(bank(folder).recordings(), bank(tmp_path, count=4).recordings(), strict=False)
    for one, other in pairs:
        np.testing.assert_array_equal(read_audio(one), read_audio(other))


def test_who_comes_second_leaves_the_bank_of_who_was_first(folder, tmp_path, monkeypatch):
    def overtaken(*given, **more):
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        return np.ones(2000, np.float32)

    monkeypatch.setattr(reverb, "simulate", overtaken)
    files = bank(tmp_path).recordings()
    assert len(files) == 3 and all(read_audio(file).std() > 0 for file in files)
    assert [path.name for path in tmp_path.iterdir()] == [files[0].split("/")[-2]]


def test_a_bank_cut_short_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(reverb, "simulate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bank(tmp_path).recordings()
    assert not list(tmp_path.iterdir())


def test_recorded_rooms_are_taken_as_they_are(tmp_path, clip):
    shifted = np.zeros(300, np.float32)
    shifted[120] = 0.5
    write_audio(tmp_path / "rir.wav", shifted)
    write_audio(tmp_path / "a_noise.wav", shifted)
    reverberation = Reverberation(1.0, str(tmp_path), bank(tmp_path / "none"))
    assert [path.split("/")[-1] for path in reverberation.recordings] == ["rir.wav"]
    np.testing.assert_allclose(reverberation(clip, np.random.default_rng(0)), clip, atol=1e-6)


def test_what_cannot_be_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no rooms at"):
        _ = Reverberation(1.0, str(tmp_path / "missing"), bank(tmp_path)).recordings
    with pytest.raises(InputError, match="distance_high_meters"):
        bank(tmp_path, distance_low_meters=20.0, distance_high_meters=20.0).draw(0)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="another folder"):
        bank(tmp_path / "file").recordings()
