"""Measures of recordings: right where level, noise and bandwidth are known, the same however they are stored."""

import io

import numpy as np
import pytest
import soundfile

from glmasr.data import measure as room
from glmasr.data.measure import Measures, measure
from glmasr.data.overlap import ALIKE_BITS
from glmasr.frontend.audio import UnreadableAudio, resample


def encoded(waveform: np.ndarray, form: str = "WAV", subtype: str | None = "PCM_16", rate_hz: int = 16_000) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, waveform, rate_hz, format=form, subtype=subtype)
    return stream.getvalue()


def measured(waveform: np.ndarray, *how, rate_hz: int = 16_000) -> Measures:
    return measure(encoded(waveform, *how, rate_hz=rate_hz), 0.0, len(waveform) / rate_hz)


def differing(one: Measures, other: Measures) -> int:
    """Bits in which two sketches differ."""
    return (int(one.sketch, 16) ^ int(other.sketch, 16)).bit_count()


@pytest.fixture(scope="module")
def voices(spoken) -> list[np.ndarray]:
    return [waveform.numpy() for waveform in spoken]


def test_a_tone_has_its_level_and_band():
    tone = 0.1 * np.sin(2 * np.pi * 1010 * np.arange(32_000) / 16_000)
    found = measured(tone)
    assert found.level_dbfs == pytest.approx(-23.01, abs=0.02) and found.clipped_share == 0
    assert 1250 <= found.bandwidth_hz <= 1500 and found.silence_share == 0
    assert (found.rate_hz, found.channels, found.seconds) == (16_000, 1, 2.0)


def test_clipping_is_the_share_of_samples_at_full_scale():
    tone = np.sin(2 * np.pi * 100 * np.arange(16_000) / 16_000)
    assert measured(np.clip(2 * tone, -1, 1)).clipped_share == pytest.approx(2 / 3, abs=0.02)
    assert measured(0.9 * tone).clipped_share == 0


@pytest.mark.parametrize("snr_db", [0, 10, 20])
def test_the_snr_of_real_speech_in_noise_is_estimated(voices, snr_db):
    rng = np.random.default_rng(1)
    for voice in voices:
        voice = np.concatenate([np.zeros(4000, np.float32), voice, np.zeros(4000, np.float32)])
        noise = rng.standard_normal(len(voice)) * np.sqrt(np.mean(np.square(voice))) * 10 ** (-snr_db / 20)
        assert measured(0.3 * (voice + noise)).snr_db == pytest.approx(snr_db, abs=1.5)


def test_telephone_audio_is_told_from_wide_in_a_file_of_16_khz(voices):
    for voice in voices:
        narrow = resample(resample(voice, 16_000, 8_000), 8_000, 16_000)
        assert measured(narrow).bandwidth_hz <= 4250 < 7000 <= measured(voice).bandwidth_hz


def test_silence_is_measured_without_complaint():
    found = measured(np.zeros(8000))
    assert (found.snr_db, found.sketch, found.level_dbfs, found.bandwidth_hz) == (None, "", -120.0, 0)
    half = np.concatenate([np.zeros(16_000), 0.1 * np.random.default_rng(0).standard_normal(16_000)])
    assert measured(half).silence_share == pytest.approx(0.5, abs=0.02)
    assert measured(np.full(40, 0.1)).seconds == pytest.approx(40 / 16_000)


def test_the_same_samples_have_the_same_digest_and_others_another(voices):
    wave, other = measured(voices[0]), measured(voices[0][1:])
    assert wave.digest == measured(voices[0], "FLAC").digest != other.digest
    rounded = np.rint(voices[0] * 32768) / 32768
    assert wave.digest == measured(rounded, "WAV", "FLOAT").digest


def test_the_same_sound_has_nearly_the_same_sketch_and_another_another(voices):
    silence = np.zeros(4037, np.float32)
    for voice in voices:
        whole = measured(voice)
        for same in (
            measured(voice, "OGG", "OPUS"),
            measured(voice, "MP3", None),
            measured(0.25 * voice),
            measured(np.concatenate([silence, voice, silence])),
            measured(resample(voice, 16_000, 8_000), rate_hz=8_000),
        ):
            assert differing(whole, same) <= ALIKE_BITS and same.digest != whole.digest
        assert len(whole.sketch) == 64
    apart = [differing(measured(one), measured(other)) for one in voices for other in voices if one is not other]
    assert min(apart) > ALIKE_BITS + 20


def test_a_long_recording_is_read_piece_by_piece(voices, monkeypatch):
    whole = measured(voices[0])
    monkeypatch.setattr(room, "STRETCH_SECONDS", 0.5)
    pieces = measured(voices[0])
    assert (pieces.digest, pieces.seconds, pieces.level_dbfs) == (whole.digest, whole.seconds, whole.level_dbfs)
    assert pieces.snr_db == pytest.approx(whole.snr_db, abs=2) and differing(pieces, whole) <= ALIKE_BITS


def test_only_the_stretch_asked_for_is_measured(voices):
    part = measure(encoded(voices[0]), 0.5, 0.25)
    assert part.digest == measured(voices[0][8000:12_000]).digest and part.seconds == 0.25


@pytest.mark.parametrize(("form", "cause"), [("FLAC", "damaged"), ("MP3", "truncated")])
def test_a_recording_that_ends_before_its_header_says_is_refused(voices, form, cause):
    long = np.tile(voices[0], 4)
    whole = encoded(long, form, None)
    with pytest.raises(UnreadableAudio) as error:
        measure(whole[: len(whole) // 2], 0.0, len(long) / 16_000)
    assert error.value.cause == cause
