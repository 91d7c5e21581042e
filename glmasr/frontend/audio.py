"""An audio file, or its bytes, in; a 16 kHz mono float32 waveform out. The only room for soundfile and soxr."""

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from glmasr.frontend.containers import HEAD_BYTES, Container, MissingPlayer, Unplayable, container_of
from glmasr.speech import RATE_HZ, InputError

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus"),
    *(".aiff", ".aif", ".aifc", ".au", ".caf", ".w64", ".rf64", ".sph"),
)
"""File names libsndfile reads."""

CONTAINER_SUFFIXES = (".m4a", ".mp4", ".webm", ".aac", ".mka", ".mkv", ".mov", ".3gp")
"""What PyAV reads besides, where it is installed."""

DAMAGED = (soundfile.SoundFileError, OSError, Unplayable)

WRITTEN_FORMATS = {".wav": "WAV", ".flac": "FLAC"}
ENCODINGS = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}
ENCODED_SAMPLES = 1 << 16
"""Handed to an encoder at a time: Ogg's overflow the stack on a long waveform."""

LOUDEST = 2.0**31
"""Some write integers of 32 bits as floats, as they are; what is beyond was never recorded."""

GSM_RATE_HZ = 8_000
OPUS_KBPS = range(6, 257)
MP3_KBPS = (16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""The constant bit rates of MPEG-2 Layer III at 16 kHz that LAME offers through libsndfile."""

MP3_DELAY_SAMPLES = 1105
"""LAME's delay and the decoder's. Frames of 32 kbit/s and less have no room for the tag that says so to decoders."""


class UnreadableAudio(InputError):
    """One recording cannot be used; `cause` is the reason in a few words, to count by."""

    def __init__(self, message: str, cause: str = "not readable"):
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says."""

    duration_seconds: float
    rate_hz: int
    channels: int


def read_audio(
    source: str | bytes, offset_seconds: float = 0.0, duration_seconds: float | None = None, rate_hz: int = RATE_HZ
) -> np.ndarray:
    """The stretch (N) of a recording as float32, channels averaged, at `rate_hz`; only the stretch is decoded.

    A stretch that reaches over the end stops there. UnreadableAudio where there is nothing finite to return.
    """
    with _opened(source) as file:
        start = round(offset_seconds * file.samplerate)
        if not 0 <= start < file.frames:
            raise _nothing_at(source, offset_seconds, file)
        count = -1 if duration_seconds is None else round(duration_seconds * file.samplerate)
        try:
            file.seek(start)
            channels = file.read(count, dtype="float32", always_2d=True)
        except DAMAGED as error:
            message = f"{_name(source)} is damaged ({error}); encode it again or remove it"
            raise UnreadableAudio(message, "damaged") from error
        if not len(channels):
            raise _nothing_at(source, offset_seconds, file)
        _check_samples(channels, source)  # before the average, in which two wrongs can look right
        waveform = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
        waveform = resample(waveform, file.samplerate, rate_hz)
        if not len(waveform):
            raise _nothing_at(source, offset_seconds, file)
        return waveform


def read_blocks(
    path: str, block_seconds: float = 60.0, rate_hz: int = RATE_HZ, channel: int | None = None
) -> Iterator[np.ndarray]:
    """A whole recording as consecutive waveforms (N) of about `block_seconds`, of which one is in memory at a time.

    `channel` is the only one to be heard, from 0; None averages all, and joined the blocks are what `read_audio` gives.
    UnreadableAudio as there, from the block on that is the reason, and where there is no such channel.
    """
    with _opened(path) as file:
        if channel is not None and not 0 <= channel < file.channels:
            message = f"{_name(path)} has {file.channels} channels; choose one of 0 to {file.channels - 1}"
            raise UnreadableAudio(message, "no such channel")
        if not file.frames:
            raise _nothing_at(path, 0.0, file)
        stream = None if file.samplerate == rate_hz else soxr.ResampleStream(file.samplerate, rate_hz, 1, quality="HQ")
        count, is_last = max(1, round(block_seconds * file.samplerate)), False
        while not is_last:
            try:
                channels = file.read(count, dtype="float32", always_2d=True)
            except DAMAGED as error:
                message = f"{_name(path)} is damaged ({error}); encode it again or remove it"
                raise UnreadableAudio(message, "damaged") from error
            _check_samples(channels, path)
            waveform = channels.mean(axis=1) if channel is None else channels[:, channel]
            is_last = len(waveform) < count
            if stream is not None:
                waveform = stream.resample_chunk(waveform, last=is_last)
            if len(waveform):
                yield waveform


def probe_audio(source: str | bytes) -> AudioInfo:
    """Duration, rate and channels from the header, no samples decoded; UnreadableAudio where there are none."""
    with _opened(source) as file:
        if not file.frames:
            raise _nothing_at(source, 0.0, file)
        return AudioInfo(file.frames / file.samplerate, file.samplerate, file.channels)


def write_audio(path: str | Path, waveform: np.ndarray, rate_hz: int = RATE_HZ) -> None:
    """Write 16-bit WAV or FLAC, by suffix; the file appears whole or not at all, samples beyond ±1 are clipped."""
    path = Path(path)
    form = WRITTEN_FORMATS.get(path.suffix.lower())
    if form is None:
        raise InputError(f"'{path}' cannot be written: use one of {', '.join(WRITTEN_FORMATS)}")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        soundfile.write(unfinished, waveform, rate_hz, subtype="PCM_16", format=form)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def encode_audio(waveform: np.ndarray, encoding: str = "flac", rate_hz: int = RATE_HZ) -> bytes:
    """The bytes of a whole FLAC (16 bit, the same for the same waveform) or Ogg Opus file; beyond ±1 is clipped."""
    if encoding not in ENCODINGS:
        raise InputError(f"'{encoding}' is no encoding: use one of {', '.join(ENCODINGS)}")
    (container, subtype), encoded = ENCODINGS[encoding], io.BytesIO()
    with soundfile.SoundFile(encoded, "w", rate_hz, 1, subtype=subtype, format=container) as file:
        for start in range(0, len(waveform), ENCODED_SAMPLES):
            file.write(waveform[start : start + ENCODED_SAMPLES])
    return encoded.getvalue()


def transcode(waveform: np.ndarray, codec: str) -> np.ndarray:
    """The waveform (N) at 16 kHz as it comes back (N) from `gsm`, `opus-6k` … `opus-256k` or `mp3-16k` … `mp3-160k`.

    GSM 06.10 is 13 kbit/s at 8 kHz, Opus has a variable bit rate, MP3 a constant one. Time stays as it is; samples
    beyond ±1 may be clipped. InputError where the codec is none of these.
    """
    name, kbps = parse_codec(codec)
    if not len(waveform):
        return waveform
    if name == "gsm":
        encoded = _encoded(resample(waveform, RATE_HZ, GSM_RATE_HZ), GSM_RATE_HZ, "WAV", "GSM610")
    elif name == "opus":
        level = (OPUS_KBPS[-1] - kbps) / (OPUS_KBPS[-1] - OPUS_KBPS[0])
        encoded = _encoded(waveform, RATE_HZ, "OGG", "OPUS", compression_level=level)
    else:
        level = (MP3_KBPS[-1] - kbps) / (MP3_KBPS[-1] - 8)  # 8 kbit/s is LAME's lowest, which libsndfile refuses
        encoded = _encoded(waveform, RATE_HZ, "MP3", "MPEG_LAYER_III", compression_level=level, bitrate_mode="CONSTANT")
    with _opened(encoded) as file:  # read from its beginning, as GSM cannot be sought in
        heard = resample(file.read(file.frames, dtype="float32"), file.samplerate, RATE_HZ)
    is_late = name == "mp3" and len(heard) > len(waveform)
    heard = heard[MP3_DELAY_SAMPLES if is_late else 0 :][: len(waveform)]
    return np.pad(heard, (0, len(waveform) - len(heard)))


def parse_codec(codec: str) -> tuple[str, int]:
    """(`gsm`, `opus` or `mp3`, kbit/s) of a name that `transcode` takes; InputError where it takes it not."""
    name, _, rate = codec.partition("-")
    kbps = int(rate[:-1]) if rate.endswith("k") and rate[:-1].isdecimal() else 0
    if codec == "gsm":
        return "gsm", 13
    if kbps in {"opus": OPUS_KBPS, "mp3": MP3_KBPS}.get(name, ()):
        return name, kbps
    offered = f"gsm, opus-{OPUS_KBPS[0]}k to opus-{OPUS_KBPS[-1]}k or mp3-{{{','.join(map(str, MP3_KBPS))}}}k"
    raise InputError(f"codec '{codec}' is unknown: use {offered}")


def _encoded(waveform: np.ndarray, rate_hz: int, container: str, subtype: str, **options) -> bytes:
    encoded = io.BytesIO()
    with soundfile.SoundFile(encoded, "w", rate_hz, 1, subtype=subtype, format=container, **options) as file:
        for start in range(0, len(waveform), ENCODED_SAMPLES):
            file.write(waveform[start : start + ENCODED_SAMPLES])
    return encoded.getvalue()


def resample(waveform: np.ndarray, from_hz: float, to_hz: float) -> np.ndarray:
    """The waveform (N) at another rate as float32, by soxr's high-quality band-limited filter."""
    waveform = np.ascontiguousarray(waveform, dtype=np.float32)
    return waveform if from_hz == to_hz else soxr.resample(waveform, from_hz, to_hz, quality="HQ")


def _opened(source: str | bytes) -> soundfile.SoundFile | Container:
    name = _name(source)
    if not isinstance(source, bytes):
        if not os.path.exists(source):
            raise UnreadableAudio(f"{name} does not exist; check the path", "missing")
        if os.path.isdir(source):
            raise UnreadableAudio(f"{name} is a folder; name an audio file", "not audio")
    if not (len(source) if isinstance(source, bytes) else os.path.getsize(source)):
        raise UnreadableAudio(f"{name} is empty (0 bytes); fetch or record it again", "empty")
    try:
        kind = container_of(_head(source))
        if kind is not None:
            return Container(source, kind)
        return soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source))
    except MissingPlayer as error:
        message = f'{name} is {error}, which PyAV reads; run pip install "glmasr[serve]", or convert it to WAV or FLAC'
        raise UnreadableAudio(message, "needs PyAV") from error
    except (*DAMAGED, TypeError) as error:
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        message = f"{name} is not audio that can be read here ({reason}); convert it to WAV or FLAC, say with ffmpeg"
        raise UnreadableAudio(message, "not audio") from error


def _check_samples(samples: np.ndarray, source: str | bytes) -> None:
    """UnreadableAudio where a float file holds what no recorder writes, and no square of it fits a float32."""
    peak = max(samples.max(initial=0.0), -samples.min(initial=0.0))  # NaN where any is
    if not np.isfinite(peak):
        message = f"{_name(source)} holds samples that are not finite; encode it again or remove it"
        raise UnreadableAudio(message, "not finite")
    if peak > LOUDEST:
        message = f"{_name(source)} is damaged: it holds samples of {peak:.0e}; encode it again or remove it"
        raise UnreadableAudio(message, "damaged")


def _head(source: str | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:HEAD_BYTES]
    with open(source, "rb") as file:
        return file.read(HEAD_BYTES)


def _name(source: str | bytes) -> str:
    return f"the audio ({len(source)} bytes)" if isinstance(source, bytes) else f"'{os.fspath(source)}'"


def _nothing_at(source: str | bytes, offset_seconds: float, file: soundfile.SoundFile | Container) -> UnreadableAudio:
    if not file.frames:
        return UnreadableAudio(f"{_name(source)} holds no samples; fetch or record it again", "no samples")
    length_seconds = file.frames / file.samplerate
    message = f"{_name(source)} has nothing to give at {offset_seconds:g} s of its {length_seconds:.2f} s"
    return UnreadableAudio(f"{message}; correct the offset or the duration", "outside the recording")


def streaming_resampler(from_hz: int) -> Callable[[np.ndarray, bool], np.ndarray]:
    """A function of a stream's next float32 samples (N), and whether they are its last, that gives them at 16 kHz.

    All that it gives, one after another, is what `read_blocks` gives of a file; some of it comes a little later.
    """
    if from_hz == RATE_HZ:
        return lambda samples, _: samples
    stream = soxr.ResampleStream(from_hz, RATE_HZ, 1, quality="HQ")
    return lambda samples, is_last: stream.resample_chunk(samples, last=is_last)
