"""A telephone: its band, G.711 to the bit, and speech that stays in its place at its level."""

import io

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
import torchaudio.functional

from glmasr.augment.telephone import Telephone, compand, limit_band, quantizer
from glmasr.frontend.level import rms, scale_to_level


@pytest.fixture
def clip(spoken) -> np.ndarray:
    return spoken[1].numpy()


def band_db(waveform: np.ndarray, low_hz: float, high_hz: float) -> float:
    hertz, power = scipy.signal.welch(waveform.astype(np.float64), 16_000, nperseg=1024)
    return float(10 * np.log10(power[(hertz >= low_hz) & (hertz < high_hz)].sum()))


def test_only_the_band_is_left_of_real_speech(spoken):
    for clip in (waveform.numpy() for waveform in spoken):
        heard = Telephone(1.0, -16.0, -16.0)(clip, np.random.default_rng(0))
        fall_db = [band_db(clip, *edges) - band_db(heard, *edges) for edges in ((4100, 8000), (500, 3200))]
        assert fall_db[0] > fall_db[1] + 40 and -6 < fall_db[1] < 0.5  # what the band takes the level gives back
        assert band_db(heard, 4100, 8000) < band_db(heard, 0, 8000) - 60
        assert band_db(clip, 0, 200) - band_db(heard, 0, 200) > fall_db[1] + 15


@pytest.mark.parametrize(
    ("hertz", "low_db", "high_db"),
    [(100, -200, -30), (400, -1, 1), (1000, -0.1, 0.1), (3250, -1, 1), (3700, -200, -30)],
)
def test_the_filter_passes_the_band_alone(hertz, low_db, high_db):
    tone = np.sin(2 * np.pi * hertz * np.arange(8000) / 8000).astype(np.float32)
    middle = slice(1000, 7000)
    assert low_db < 20 * np.log10(rms(limit_band(tone)[middle]) / rms(tone[middle])) < high_db


@pytest.mark.parametrize(("law", "subtype"), [("mu", "ULAW"), ("a", "ALAW")])
def test_companding_is_libsndfiles_to_the_bit(law, subtype):
    steps = np.arange(-32764, 32765, 16 if law == "a" else 4).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, steps, 8000, subtype=subtype, format="WAV")
    file.seek(0)
    wanted = soundfile.read(file, dtype="int16")[0]
    ours = compand((steps / 32768).astype(np.float32), law) * 32768
    inner = steps != 0 if law == "a" else np.ones(len(steps), bool)  # either zero of A-law is right
    inner &= (steps >= 0) | ~np.isin(-steps / 32768, quantizer(law)[0])  # as is either side of an edge below zero
    np.testing.assert_array_equal(ours[inner], wanted[inner])


def test_mu_law_comes_near_torchaudios_continuous_one(clip):
    loud = np.clip(scale_to_level(clip, -20.0), -1, 1)
    codes = torchaudio.functional.mu_law_encoding(torch.from_numpy(loud), 256)
    smooth = torchaudio.functional.mu_law_decoding(codes, 256).numpy()
    for law in ("mu", "a"):
        ours = compand(loud, law)
        assert 20 * np.log10(rms(loud) / rms(ours - loud)) > 35
        assert rms(ours - loud) < 1.2 * rms(smooth - loud)
        assert np.abs(ours - smooth).max() < 0.04 and len(np.unique(ours)) <= 256
    assert len(np.unique(compand(loud, "mu"))) > 100


def test_level_length_and_place_stay(clip):
    for seed in range(8):
        part = clip[: len(clip) - seed]
        heard = Telephone(1.0)(part, np.random.default_rng(seed))
        assert heard.dtype == np.float32 and heard.shape == part.shape and np.isfinite(heard).all()
        assert rms(heard) == pytest.approx(rms(part), rel=1e-5)
        agreement = scipy.signal.correlate(heard.astype(np.float64), part.astype(np.float64), "same")
        assert abs(int(np.argmax(agreement)) - len(part) // 2) <= 1


def test_a_quiet_line_is_noisier(clip):
    def error(line_dbfs: float) -> float:
        flat = Telephone(1.0, line_dbfs, line_dbfs)(clip, np.random.default_rng(1))
        exact = Telephone(1.0, -16.0, -16.0)(clip, np.random.default_rng(1))
        return rms(flat - exact)

    assert error(-60.0) > 3 * error(-30.0) > 0


def test_both_laws_and_all_levels_are_drawn_and_repeat(clip):
    telephone = Telephone(1.0)
    np.testing.assert_array_equal(telephone(clip, np.random.default_rng(5)), telephone(clip, np.random.default_rng(5)))
    assert len({telephone(clip, np.random.default_rng(seed)).tobytes() for seed in range(6)}) == 6
    fixed = Telephone(1.0, -30.0, -30.0)
    assert len({fixed(clip, np.random.default_rng(seed)).tobytes() for seed in range(12)}) == 2


def test_probability_silence_and_scraps(clip):
    assert Telephone(0.0)(clip, np.random.default_rng(0)) is clip
    assert 40 < sum(Telephone(0.3)(clip, np.random.default_rng(seed)) is not clip for seed in range(200)) < 80
    assert not Telephone(1.0)(np.zeros(900, np.float32), np.random.default_rng(0)).any()
    for samples in (1, 2, 3, 170):
        scrap = Telephone(1.0)(clip[5000 : 5000 + samples], np.random.default_rng(0))
        assert scrap.shape == (samples,) and np.isfinite(scrap).all()
