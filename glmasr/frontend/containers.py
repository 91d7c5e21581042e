"""An MP4, WebM, Matroska or AAC file, or its bytes, in; blocks of its samples out. The only room for PyAV.

It reads what libsndfile does not, and nothing else: the container is told by its first bytes and not guessed by FFmpeg,
which gets an open file and never a name, so that no address, playlist or other file can be reached through one.
"""

import io
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream
    from av.container import InputContainer

CODECS = (
    "aac",
    "alac",
    "flac",
    "mp3",
    "mp3float",
    "opus",
    "pcm_f32le",
    "pcm_s16be",
    "pcm_s16le",
    "pcm_s24le",
    "vorbis",
)
"""FFmpeg's decoders that may run; the rest of its hundreds never see a file."""

MOST_CHANNELS, MOST_HZ = 32, 192_000

NAMES = {"mp4": "MP4 (m4a)", "matroska": "WebM or Matroska", "aac": "AAC"}
"""What people call the containers that FFmpeg calls so."""

HEAD_BYTES = 12
SCALES = {"s16": 32768.0, "s32": 2147483648.0, "flt": 1.0}
"""Full scale of the sample formats that CODECS decode to, planar or not."""


class Unplayable(Exception):
    """A few words on why a file cannot be played."""


class MissingPlayer(Exception):
    """What cannot be played without PyAV, which is not installed."""


def container_of(head: bytes) -> str | None:
    """FFmpeg's name of the container that begins with `head` (12 bytes), None where libsndfile is to be asked."""
    if head[4:8] == b"ftyp":
        return "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    return None


class Container:
    """The first audio track of a file, to be read from front to back as a `soundfile.SoundFile` is.

    `frames` is what the packets add up to, as recordings of browsers do not say how long they are. Unplayable where
    there is no such track, it is damaged, or PyAV is not there.
    """

    def __init__(self, source: str | bytes, kind: str):
        try:
            from av import open as open_container
            from av.error import FFmpegError
        except ImportError as error:
            raise MissingPlayer(NAMES[kind]) from error
        self.errors = (FFmpegError, ValueError, OSError)
        self.source, self.kind, self.open = source, kind, open_container
        self.frames = self._count()
        self.file, self.container, self.stream = self._opened()
        self.decoded = self._decode()
        self.held = np.zeros((0, self.channels), np.float32)

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *_: Any) -> None:
        self.container.close()
        self.file.close()

    def seek(self, frame: int) -> None:
        """Decode up to a frame ahead: exact in every codec, and as slow as reading that far."""
        while frame > 0 and len(found := self.read(min(frame, self.samplerate))):
            frame -= len(found)

    def read(self, count: int = -1, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """The next `count` frames (all, where negative) as float32 (N, C), fewer at the end."""
        parts, size = [self.held], len(self.held)
        while count < 0 or size < count:
            part = next(self.decoded, None)
            if part is None:
                break
            parts.append(part)
            size += len(part)
        whole = np.concatenate(parts)
        found, self.held = np.split(whole, [len(whole) if count < 0 else min(count, len(whole))])
        return found

    def _opened(self) -> tuple[IO[bytes], "InputContainer", "AudioStream"]:
        file = io.BytesIO(self.source) if isinstance(self.source, bytes) else open(self.source, "rb")  # noqa: SIM115
        try:
            container: InputContainer = self.open(file, mode="r", format=self.kind)
            stream = next(iter(container.streams.audio), None)
            if stream is None:
                raise Unplayable("it has no audio track")
            codec = stream.codec_context
            name = codec.name if codec is not None else "of no codec that is known"
            if name not in CODECS:
                raise Unplayable(f"its audio is {name}")
            self.samplerate, self.channels = int(codec.sample_rate or 0), int(codec.channels or 0)
            if not (0 < self.samplerate <= MOST_HZ and 0 < self.channels <= MOST_CHANNELS):
                raise Unplayable(f"it has {self.channels} channels at {self.samplerate} Hz")
            codec.thread_count = 1
            return file, container, stream
        except self.errors as error:
            file.close()
            raise Unplayable(_reason(error)) from error
        except Unplayable:
            file.close()
            raise

    def _count(self) -> int:
        """Frames by the times in the packets, of which none is decoded."""
        file, container, stream = self._opened()
        end = start = None
        try:
            for packet in container.demux(stream):
                if packet.pts is not None and packet.size:
                    start = packet.pts if start is None else min(start, packet.pts)
                    end = max(end or 0, packet.pts + (packet.duration or 0))
        except self.errors as error:
            raise Unplayable(_reason(error)) from error
        finally:
            container.close()
            file.close()
        if end is None or start is None or stream.time_base is None:
            return 0
        return max(round(float((end - max(start, 0)) * stream.time_base) * self.samplerate), 1)

    def _decode(self) -> Iterator[np.ndarray]:
        try:
            for frame in self.container.decode(self.stream):
                yield self._samples(frame)
        except self.errors as error:
            raise Unplayable(_reason(error)) from error

    def _samples(self, frame: "AudioFrame") -> np.ndarray:
        if frame.sample_rate != self.samplerate or frame.layout.nb_channels != self.channels:
            raise Unplayable("its rate or its channels change on the way")
        form = frame.format.name
        found = frame.to_ndarray()
        found = found.T if form.endswith("p") else found.reshape(-1, self.channels)
        return (found / SCALES[form.removesuffix("p")]).astype(np.float32)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")
