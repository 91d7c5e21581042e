"""Audio of many people at once in, transcripts out: one system behind a bounded queue, limits, and turns for all."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from math import ceil, isfinite
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakSet

import numpy as np

from glmasr.channels import merged
from glmasr.live import LiveTranscriber
from glmasr.serving.intake import Allowance, Intake, Refused
from glmasr.serving.turns import Recording, Turns
from glmasr.speech import RATE_HZ, InputError, System, Transcript
from glmasr.text.written import written
from glmasr.transcriber import Piece, Transcriber

VARIANTS = 32
"""Views of the system, one for each choice of options, that are kept."""
RECENT = 0.2
"""How much of what is known of a request's time is the last one's."""
BLOCK_SAMPLES = 60 * RATE_HZ


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take; beyond it they are refused, never slowed for the others.

    Recordings that are read and waited for (`queue`: 429), bytes of one upload (413) and of all that are held
    (`held_bytes`: 429), its length (422), how many children read at a time and what each may take (422), how many
    recordings are read before their turn, live streams (429), seconds to send a request's head (cut off) and all of it
    (408), seconds of audio that the model hears at a time, and how long the last ones are waited for.
    """

    queue: int = 64
    upload_bytes: int = 100 << 20
    held_bytes: int = 1 << 30
    duration_seconds: float = 7200.0
    decoders: int = 2
    decode_seconds: float = 120.0
    decode_bytes: int = 256 << 20
    ahead: int = 8
    streams: int = 32
    head_seconds: float = 10.0
    body_seconds: float = 120.0
    batch_seconds: float = 30.0
    drain_seconds: float = 300.0


def limits_of(settings: Iterable[str]) -> Limits:
    """Limits with settings as `queue=16`; InputError for one that is none."""
    known, chosen = {field.name: type(field.default) for field in fields(Limits)}, {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if name not in known or not (isfinite(number) and number > 0) or (known[name] is int and number % 1):
            raise InputError(
                f"'{setting}' is no limit: write NAME=N with a number above 0 and one of {', '.join(known)}"
            )
        chosen[name] = known[name](number)
    return Limits(**chosen)


@dataclass(frozen=True)
class Options:
    """What one request asks for; None and False leave it as the server was started."""

    language: str | None = None
    gain: bool | None = None
    script: str | None = None
    numerals: bool = False
    apart: bool = False
    """Each channel is a speaker of its own."""

    @property
    def chosen(self) -> dict[str, Any]:
        """Those of the system that differ."""
        known = {"language": self.language, "gain": self.gain, "script": self.script, "numerals": self.numerals or None}
        return {name: value for name, value in known.items() if value is not None}


DEFAULT = Options()


class Service:
    """One system for everybody. What it does is awaited on one event loop; the loop itself never works or waits."""

    def __init__(self, system: System, limits: Limits | None = None, intake: Intake | None = None):
        self.system, self.name, self.limits = system, system.name, limits or Limits()
        names = ("duration_seconds", "decode_seconds", "decode_bytes", "upload_bytes")
        self.allowance = Allowance(**{name: getattr(self.limits, name) for name in names})
        self.intake, self.is_host = intake or Intake(), intake is None
        self.readers = ThreadPoolExecutor(self.limits.decoders, thread_name_prefix="read")
        self.turns = Turns(self.limits.batch_seconds)
        self.ahead = asyncio.Semaphore(self.limits.ahead)
        self.variant = lru_cache(VARIANTS)(self._variant)
        self.in_flight = self.requests = self.held_bytes = 0
        self.audio_seconds = 0.0
        self.seconds_each = 1.0
        self.streams: WeakSet[LiveTranscriber] = WeakSet()
        self.is_draining = False

    async def transcribe(self, audio: Path | bytes | BinaryIO, options: Options = DEFAULT) -> Transcript:
        """What is said in a recording, a file of any format that is read here.

        Refused: 400 what is no audio or an option the system has not, 413 too large, 422 too long, 429 too busy.
        """
        with self._admitted():
            return await self._heard(audio, options)

    async def stream(self, audio: Path | bytes | BinaryIO, options: Options = DEFAULT) -> AsyncIterator[Transcript]:
        """The transcript as far as it is heard, again and again as it grows, at last the whole; Refused as above."""
        with self._admitted():
            parts: asyncio.Queue[Transcript | None] = asyncio.Queue()
            loop = asyncio.get_running_loop()
            tell = partial(loop.call_soon_threadsafe, parts.put_nowait)
            whole = asyncio.ensure_future(self._heard(audio, options, tell))
            whole.add_done_callback(lambda _: parts.put_nowait(None))
            try:
                while (part := await parts.get()) is not None:
                    yield part
                yield await whole
            finally:
                whole.cancel()

    def live(self, options: Options = DEFAULT) -> LiveTranscriber:
        """A new stream, counted for as long as anybody keeps it; Refused: 429 too many, 501 it cannot, 503 it ends.

        Its `hear` and `finish` belong into `run`.
        """
        if self.is_draining:
            raise closing()
        if not can_stream(self.system):
            raise Refused(501, f"'{self.name}' hears whole recordings only: send a file, or serve a bundle")
        if len(self.streams) >= self.limits.streams:
            raise Refused(429, f"all {self.limits.streams} live streams are taken: try again later", 10.0)
        transcriber = self.variant(options)
        assert isinstance(transcriber, Transcriber)  # as can_stream says
        stream = LiveTranscriber(transcriber)
        self.streams.add(stream)
        return stream

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Something short done on the model's thread, before any recording's next turn."""
        return await asyncio.wrap_future(self.turns.run(partial(function, *arguments)))

    def check(self) -> None:
        """Refused (429) where one recording more would be too many; worth asking before one is sent."""
        if self.in_flight >= self.limits.queue:
            seconds = ceil(max(1.0, self.seconds_each * self.in_flight))
            raise Refused(429, f"{self.in_flight} recordings are waiting: try again in {seconds} s", seconds)

    def drain(self) -> None:
        """Take nothing new from here on; what is in flight goes on."""
        self.is_draining = True

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for anything any more."""
        return not (self.in_flight or self.requests or self.streams)

    def close(self) -> None:
        """End the threads and the reading process; what still waits is cancelled."""
        self.readers.shutdown(wait=False, cancel_futures=True)
        self.turns.close()
        if self.is_host:
            self.intake.close()

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        self.check()
        self.in_flight += 1
        start, together = time.monotonic(), self.in_flight
        try:
            yield
        finally:
            self.in_flight -= 1
            self.seconds_each += RECENT * ((time.monotonic() - start) / together - self.seconds_each)

    async def _heard(
        self, audio: Path | bytes | BinaryIO, options: Options, tell: Callable[[Transcript], object] | None = None
    ) -> Transcript:
        if not isinstance(audio, bytes | Path):
            # Who sent it may be gone, and his file closed, before its turn to be read.
            audio = os.fdopen(os.dup(audio.fileno()), "rb")
        system = await self.run(self.variant, options)
        loop = asyncio.get_running_loop()
        async with self.ahead:
            waveform = await loop.run_in_executor(self.readers, self.intake.read, audio, self.allowance, options.apart)
            self.audio_seconds += waveform.size / RATE_HZ
            if not options.apart:
                return await self._heard_by(system, waveform, tell)
            return merged([await self._heard_by(system, channel) for channel in waveform])

    async def _heard_by(
        self, system: System, waveform: np.ndarray, tell: Callable[[Transcript], object] | None = None
    ) -> Transcript:
        if not isinstance(system, Transcriber):
            return await self.run(lambda: system([np.asarray(waveform)])[0])
        pieces = await asyncio.get_running_loop().run_in_executor(self.readers, _begun, system, waveform)
        recording = Recording(system, len(waveform) / RATE_HZ, pieces, tell)
        return await asyncio.wrap_future(self.turns.hear(recording))

    def _variant(self, options: Options) -> System:
        """The system with these options; Refused (400) where it has none such."""
        try:
            if isinstance(self.system, Transcriber):
                return self.system.variant(**options.chosen) if options.chosen else self.system
            return Other(self.system, options)
        except InputError as error:
            raise Refused(400, str(error)) from error


def can_stream(system: System) -> bool:
    """Whether it hears a recording bit by bit, as live captions need it."""
    return isinstance(system, Transcriber) and system.can_stream


def closing() -> Refused:
    """What is said to who comes too late."""
    return Refused(503, "the server is shutting down: try again later", 10.0)


def _begun(transcriber: Transcriber, waveform: np.ndarray) -> Iterator[Piece]:
    """The pieces of a recording; where they are is found here and now, which listens through all of it."""
    blocks = [waveform[start : start + BLOCK_SAMPLES] for start in range(0, len(waveform), BLOCK_SAMPLES)]
    _, places, found = transcriber.find_pieces(lambda: blocks)
    return ((0, start / RATE_HZ, piece) for (start, _), piece in zip(places, found, strict=True))


class Other:
    """A system that is no Transcriber, as far as it can do what is asked: written otherwise, in a language it hears."""

    def __init__(self, system: System, options: Options):
        hears = getattr(system, "languages", None)
        if options.gain:
            raise InputError(f"'{system.name}' has no gain: leave 'gain' out")
        if options.language and options.language not in (hears or ()):
            offered = f"say one of {', '.join(hears)}, or leave it out" if hears else "leave it out"
            raise InputError(f"'{system.name}' cannot be told that the language is '{options.language}': {offered}")
        self.system, self.name, self.parameters, self.size_bytes = (
            system,
            system.name,
            system.parameters,
            system.size_bytes,
        )
        self.written = partial(written, script=options.script, numerals=options.numerals)
        self.written(Transcript("", 0.0))

    def __call__(self, waveforms: list[np.ndarray]) -> list[Transcript]:
        """As the system itself, and then as it was asked to be written."""
        return [self.written(transcript) for transcript in self.system(waveforms)]
