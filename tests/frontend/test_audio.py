"""Reading, probing, writing and resampling audio files."""

import io

import numpy as np
import pytest
import soundfile

from glmasr.frontend.audio import (
    UnreadableAudio,
    encode_audio,
    probe_audio,
    read_audio,
    read_blocks,
    resample,
    streaming_resampler,
    write_audio,
)
from glmasr.speech import RATE_HZ, InputError


def tone(hertz: float, seconds: float, rate_hz: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_what_is_written_is_read(tmp_path, suffix):
    waveform = tone(440, 0.5, RATE_HZ)
    write_audio(tmp_path / f"a{suffix}", waveform)
    np.testing.assert_allclose(read_audio(str(tmp_path / f"a{suffix}")), waveform, atol=1 / 2**15)
    assert [file.name for file in tmp_path.iterdir()] == [f"a{suffix}"]


def test_flac_bytes_are_exact_and_opus_bytes_sound_alike_and_last_as_long():
    waveform = np.round(tone(440, 5.0, RATE_HZ) * 2**15) / 2**15
    flac, opus = encode_audio(waveform), encode_audio(waveform, "opus")
    np.testing.assert_array_equal(read_audio(flac), waveform)
    assert flac == encode_audio(waveform) and len(opus) < len(flac)
    heard = read_audio(opus)
    assert len(heard) == len(waveform) and np.abs(heard - waveform)[800:-800].max() < 0.1
    with pytest.raises(InputError, match="flac, opus"):
        encode_audio(waveform, "mp3")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, tone(440, 0.1, RATE_HZ))
    before = path.read_bytes()
    with pytest.raises(Exception):  # noqa: B017
        write_audio(path, np.zeros((2, 2, 2), np.float32))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match=r"\.flac"):
        write_audio(tmp_path / "a.mp3", tone(440, 0.1, RATE_HZ))


@pytest.mark.parametrize("rate_hz", [8000, 44100, 48000])
def test_a_tone_keeps_its_pitch_and_level_at_another_rate(tmp_path, rate_hz):
    write_audio(tmp_path / "a.wav", tone(1000, 1.0, rate_hz), rate_hz)
    waveform = read_audio(str(tmp_path / "a.wav"))
    assert waveform.dtype == np.float32 and len(waveform) == RATE_HZ
    np.testing.assert_allclose(waveform[2000:-2000], tone(1000, 1.0, RATE_HZ)[2000:-2000], atol=2e-3)


def test_resampling_down_removes_what_would_alias():
    assert np.abs(resample(tone(11_000, 1.0, 48_000), 48_000, RATE_HZ)[1000:-1000]).max() < 1e-3


def test_channels_are_averaged(tmp_path):
    left, right = tone(300, 0.2, RATE_HZ), tone(700, 0.2, RATE_HZ)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), RATE_HZ, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(str(tmp_path / "a.wav")), (left + right) / 2, atol=1e-6)
    assert probe_audio(str(tmp_path / "a.wav")).channels == 2


@pytest.mark.parametrize("corpus", ["librispeech_mini", "fsdd"])
def test_a_stretch_of_real_speech_is_the_stretch_of_the_whole(shared_corpora, corpus):
    path = str(min((shared_corpora / corpus / "audio").iterdir()))
    info = probe_audio(path)
    whole = read_audio(path, rate_hz=info.rate_hz)
    part = read_audio(path, 0.1, 0.15, rate_hz=info.rate_hz)
    start, count = round(0.1 * info.rate_hz), round(0.15 * info.rate_hz)
    np.testing.assert_array_equal(part, whole[start : start + count])
    assert len(whole) == round(info.duration_seconds * info.rate_hz)


def test_bytes_are_read_like_the_file(tmp_path):
    write_audio(tmp_path / "a.flac", tone(440, 0.3, RATE_HZ))
    content = (tmp_path / "a.flac").read_bytes()
    np.testing.assert_array_equal(read_audio(content, 0.1), read_audio(str(tmp_path / "a.flac"), 0.1))
    assert probe_audio(content) == probe_audio(str(tmp_path / "a.flac"))


def test_a_stretch_over_the_end_stops_there(tmp_path):
    write_audio(tmp_path / "a.wav", tone(440, 0.5, RATE_HZ))
    assert len(read_audio(str(tmp_path / "a.wav"), 0.4, 9.0)) == 1600


def spoiled(kind: str) -> bytes:
    floats = {
        "nan": [0.0, np.nan, 0.1],
        "inf": [0.0, -np.inf],
        "huge": [0.1, -1e38],
        "huge pair": [[1e38, -1e38]],
        "no samples": [],
    }
    if kind in floats:
        stream = io.BytesIO()
        waveform = np.array(floats[kind], np.float32)
        soundfile.write(stream, waveform, RATE_HZ, format="WAV", subtype="FLOAT")
        return stream.getvalue()
    return {"empty": b"", "text": b"this is not audio, whatever its name says"}[kind]


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("empty", "empty"),
        ("text", "not audio"),
        ("nan", "not finite"),
        ("inf", "not finite"),
        ("huge", "damaged"),
        ("huge pair", "damaged"),
        ("no samples", "no samples"),
    ],
)
def test_a_spoiled_file_is_named_with_its_cause(tmp_path, kind, cause):
    path = tmp_path / "spoiled.wav"
    path.write_bytes(spoiled(kind))
    for source in (str(path), spoiled(kind)):
        with pytest.raises(UnreadableAudio) as error:
            read_audio(source)
        assert error.value.cause == cause
    with pytest.raises(UnreadableAudio, match=r"spoiled\.wav"):
        read_audio(str(path))


@pytest.mark.parametrize("kind", ["nan", "inf", "huge", "huge pair"])
def test_samples_nobody_recorded_are_found_block_by_block(tmp_path, kind):
    (tmp_path / "spoiled.wav").write_bytes(spoiled(kind))
    with pytest.raises(UnreadableAudio, match=r"spoiled\.wav"):
        list(read_blocks(str(tmp_path / "spoiled.wav"), 1.0))


@pytest.mark.parametrize(("offset", "duration"), [(0.5, None), (-1.0, None), (7.0, 1.0), (0.1, 0.0)])
def test_a_stretch_outside_the_recording_is_refused(tmp_path, offset, duration):
    write_audio(tmp_path / "a.wav", tone(440, 0.5, RATE_HZ))
    with pytest.raises(UnreadableAudio, match="offset"):
        read_audio(str(tmp_path / "a.wav"), offset, duration)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(UnreadableAudio, match="does not exist"):
        read_audio(str(tmp_path / "nowhere.wav"))
    with pytest.raises(UnreadableAudio, match="folder"):
        probe_audio(str(tmp_path))


def test_a_flac_cut_short_is_an_input_error(tmp_path):
    path = tmp_path / "a.flac"
    write_audio(path, np.random.default_rng(0).uniform(-1, 1, 4 * RATE_HZ).astype(np.float32))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(UnreadableAudio, match=r"a\.flac' is damaged"):
        read_audio(str(path))


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
def test_a_stream_at_another_rate_is_the_file_at_that_rate(tmp_path, rate_hz):
    sound = tone(440, 1.0, rate_hz).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, rate_hz, subtype="FLOAT")
    stream, blocks = streaming_resampler(rate_hz), np.array_split(sound, 37)
    heard = np.concatenate([*(stream(block, False) for block in blocks), stream(sound[:0], True)])
    assert len(heard) == RATE_HZ and np.array_equal(heard, np.concatenate(list(read_blocks(str(tmp_path / "a.wav")))))
