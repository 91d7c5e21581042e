"""What browsers and telephones record: M4A, WebM and AAC are read as WAV is, and nothing else comes through."""

import builtins
import io
from fractions import Fraction

import numpy as np
import pytest

from glmasr.frontend import containers
from glmasr.frontend.audio import UnreadableAudio, encode_audio, probe_audio, read_audio, read_blocks, resample
from glmasr.frontend.containers import CODECS, container_of
from glmasr.speech import RATE_HZ

av = pytest.importorskip("av")

CASES = [
    *(("mp4", "aac", rate) for rate in (8_000, 16_000, 44_100, 48_000)),
    *(("webm", "libopus", rate) for rate in (8_000, 16_000, 48_000)),
    *(
        ("matroska", "pcm_s16le", 16_000),
        ("matroska", "flac", 48_000),
        ("mp4", "alac", 16_000),
        ("adts", "aac", 16_000),
    ),
]


def encode(waveforms: np.ndarray, rate_hz: int, container: str, codec: str, to=None, **options) -> bytes:
    """A file of channels (C, N) as FFmpeg writes it."""
    layout, written = {1: "mono", 2: "stereo"}[len(waveforms)], to or io.BytesIO()
    with av.open(written, "w", format=container, **options) as file:
        stream = file.add_stream(codec, rate=rate_hz, layout=layout, bit_rate=96_000)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveforms, np.float32), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), 0
        shaped = av.AudioResampler(stream.format, layout, rate_hz, stream.frame_size or 1024)
        for part in (*shaped.resample(frame), *shaped.resample(None), None):
            file.mux(stream.encode(part))
    return written.getvalue()


@pytest.fixture(scope="module")
def speech(spoken) -> np.ndarray:
    return spoken[0].numpy()


@pytest.mark.parametrize(("container", "codec", "rate_hz"), CASES)
def test_speech_comes_back_in_place(speech, container, codec, rate_hz, tmp_path):
    content = encode(resample(speech, RATE_HZ, rate_hz)[None], rate_hz, container, codec)
    expected = resample(resample(speech, RATE_HZ, rate_hz), rate_hz, RATE_HZ)
    found, about = read_audio(content), probe_audio(content)
    assert found.dtype == np.float32 and about.channels == 1
    assert about.duration_seconds == pytest.approx(len(speech) / RATE_HZ, abs=0.15)
    shared = min(len(found), len(expected))
    assert shared >= len(expected) - 200
    spectra = (np.fft.rfft(part[:shared], 2 * shared) for part in (found, expected))
    lags = np.fft.irfft(next(spectra) * np.conj(next(spectra)))
    lag = int(lags.argmax())
    assert lag <= (
        1_100 if container == "adts" else 8
    )  # ADTS has no room to say how much of its start is the encoder's
    assert lags.max() > 0.95 * np.linalg.norm(expected[:shared]) * np.linalg.norm(found[:shared])
    (tmp_path / "a").write_bytes(content)
    blocks = [*read_blocks(str(tmp_path / "a"), 0.3)]
    assert len(blocks) > 3
    np.testing.assert_allclose(np.concatenate(blocks), found, atol=1e-6)


def test_what_keeps_every_sample_gives_every_sample(speech):
    exact = np.round(speech * 32768) / 32768
    for container, codec in (("mp4", "alac"), ("matroska", "pcm_s16le"), ("matroska", "flac")):
        content = encode(exact[None], RATE_HZ, container, codec)
        np.testing.assert_allclose(read_audio(content), exact, atol=1 / 32768)
        np.testing.assert_allclose(read_audio(content, 0.3, 0.5), exact[4_800:12_800], atol=1 / 32768)
        np.testing.assert_allclose(read_audio(content, 1.25, 0.25), exact[20_000:24_000], atol=1 / 32768)
        assert probe_audio(content).duration_seconds == pytest.approx(len(exact) / RATE_HZ, abs=0.002)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("matroska", "pcm_s16le"), ("matroska", "flac")])
def test_two_channels_can_be_kept_apart(speech, tmp_path, container, codec):
    """Whether the codec keeps them one after the other or sample by sample."""
    both = np.stack([speech, np.zeros_like(speech)])
    (tmp_path / "call.m4a").write_bytes(encode(both, RATE_HZ, container, codec))
    left, right = (np.concatenate([*read_blocks(str(tmp_path / "call.m4a"), channel=c)]) for c in (0, 1))
    assert np.abs(left).max() > 0.1 and np.abs(right).max() < 0.01
    np.testing.assert_allclose(read_audio(str(tmp_path / "call.m4a")), (left + right) / 2, atol=1e-5)


def test_a_recording_of_a_browser_need_not_say_how_long_it_is(speech):
    """A file that is written to a pipe, as browsers do, has neither a duration nor an index."""

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    faster = resample(speech, RATE_HZ, 48_000)[None]
    content = encode(faster, 48_000, "webm", "libopus", Pipe(), options={"live": "1"})
    with av.open(io.BytesIO(content)) as opened:
        assert opened.duration is None
    assert probe_audio(content).duration_seconds == pytest.approx(len(speech) / RATE_HZ, abs=0.1)
    assert len(read_audio(content)) == pytest.approx(len(speech), abs=1_000)
    cut = content[: len(content) // 2]
    assert 0.3 * len(speech) < len(read_audio(cut)) < 0.7 * len(speech)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_file_cut_short_is_an_input_error_or_shorter(speech, share):
    for container, codec in (("mp4", "aac"), ("mp4", "alac"), ("matroska", "flac")):
        content = encode(speech[None], RATE_HZ, container, codec)
        try:
            assert len(read_audio(content[: int(len(content) * share)])) < len(speech)
        except UnreadableAudio as error:
            assert error.cause in ("not audio", "damaged", "no samples") and str(error).count("; ") >= 1


def test_damage_is_an_input_error_or_audio(speech):
    """Bytes changed anywhere in any container: nothing but an UnreadableAudio may come of it."""
    rng, refused = np.random.default_rng(0), 0
    seeds = [
        encode(speech[None, :8_000], RATE_HZ, *kind) for kind in (("mp4", "aac"), ("webm", "libopus"), ("adts", "aac"))
    ]
    for number in range(90):
        spoiled = np.frombuffer(seeds[number % 3], np.uint8).copy()
        spoiled[rng.integers(0, len(spoiled), 30)] = rng.integers(0, 256, 30)
        try:
            assert np.isfinite(read_audio(spoiled.tobytes())).all()
        except UnreadableAudio:
            refused += 1
    assert 5 < refused < 90


def test_a_film_without_sound_and_a_codec_that_is_not_allowed_are_refused(speech, monkeypatch):
    silent = io.BytesIO()
    with av.open(silent, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10, width=16, height=16, pix_fmt="yuv420p")
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    with pytest.raises(UnreadableAudio, match="no audio track"):
        read_audio(silent.getvalue())
    content = encode(speech[None], RATE_HZ, "mp4", "aac")
    assert set(CODECS) <= av.codecs_available
    monkeypatch.setattr(containers, "CODECS", ("opus",))
    with pytest.raises(UnreadableAudio, match="its audio is aac"):
        read_audio(content)


@pytest.mark.parametrize("change", ["rate", "channels"])
def test_a_file_that_changes_on_its_way_is_refused(speech, change):
    first = encode(speech[None], RATE_HZ, "adts", "aac")
    faster, both = resample(speech, RATE_HZ, 32_000)[None], np.stack([speech, speech])
    rest = encode(faster, 32_000, "adts", "aac") if change == "rate" else encode(both, RATE_HZ, "adts", "aac")
    assert len(read_audio(first + first)) > 1.9 * len(speech)
    with pytest.raises(UnreadableAudio, match="change on the way"):
        read_audio(first + rest)


def test_a_rate_that_nobody_records_at_is_refused(speech):
    with pytest.raises(UnreadableAudio, match="384000 Hz"):
        read_audio(encode(speech[None, :4_000], 384_000, "matroska", "pcm_s16le"))


def test_ffmpeg_is_told_what_it_reads_and_guesses_nothing(speech, monkeypatch):
    content = encode(speech[None], RATE_HZ, "webm", "libopus")
    told, opened = [], av.open
    monkeypatch.setattr(av, "open", lambda file, **how: told.append((type(file), how["format"])) or opened(file, **how))
    read_audio(content)
    assert set(told) == {(io.BytesIO, "matroska")}


def test_what_names_other_files_is_never_followed(tmp_path, speech):
    """Playlists, which FFmpeg would follow to other files and addresses, are no audio, whatever they are called."""
    (tmp_path / "secret.wav").write_bytes(encode_audio(speech))
    lists = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile {tmp_path}/secret.wav\n",
        "dash": f"<?xml version='1.0'?><MPD><BaseURL>file://{tmp_path}/secret.wav</BaseURL></MPD>",
    }
    for name, content in lists.items():
        (tmp_path / f"{name}.m4a").write_text(content)
        with pytest.raises(UnreadableAudio, match="not audio that can be read"):
            read_audio(str(tmp_path / f"{name}.m4a"))
        ftyp = b"\x00\x00\x00\x10ftypisom\x00\x00\x02\x00" + content.encode()
        with pytest.raises(UnreadableAudio):
            read_audio(ftyp)


def test_without_pyav_there_is_one_sentence_and_the_rest_is_read(speech, monkeypatch):
    imported = builtins.__import__

    def without(name, *rest, **more):
        if name.split(".")[0] == "av":
            raise ImportError(name)
        return imported(name, *rest, **more)

    content, flac = encode(speech[None], RATE_HZ, "mp4", "aac"), encode_audio(speech)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnreadableAudio, match=r'is MP4 \(m4a\), which PyAV reads; run pip install "glmasr\[serve\]"'):
        read_audio(content)
    assert len(read_audio(flac)) == len(speech)


def test_only_its_own_files_go_to_pyav(speech):
    assert container_of(encode(speech[None], RATE_HZ, "adts", "aac")[:12]) == "aac"
    others = [
        encode_audio(speech),
        encode_audio(speech, "opus"),
        b"RIFF\x00\x00\x00\x00WAVE",
        b"ID3\x04",
        b"\xff\xfb\x90d",
    ]
    others += [b"ftyp", b"\0\0\0\0\0ftyp", b"", b"\xff"]
    assert [container_of(content[:12]) for content in others] == [None] * 9
