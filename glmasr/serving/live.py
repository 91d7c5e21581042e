"""Audio over a WebSocket in, captions out while somebody speaks: `/v1/stream`, one LiveTranscriber for each client.

A client says once, as JSON, what it sends: `{"sample_rate": 48000, "format": "pcm16", "language": "zh", "gain": true}`,
each of which may be left out. Then come binary frames of samples (one channel, little-endian), and `{"type": "end"}`.
"""

import asyncio
import contextlib
import json
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from glmasr.frontend.audio import streaming_resampler
from glmasr.live import Caption, LiveTranscriber
from glmasr.serving.intake import Refused
from glmasr.serving.service import DEFAULT, Options, Service
from glmasr.speech import RATE_HZ, InputError

PATH = "/v1/stream"
SAMPLES = {"pcm16": np.dtype("<i2"), "float32": np.dtype("<f4")}
LOWEST_HZ, HIGHEST_HZ = 8_000, 192_000
CHOICES = {"language": str, "gain": bool, "script": str, "numerals": bool}
FIELDS = {"type": str, "sample_rate": int, "format": str, **CHOICES}
LONGEST_TAG = 35
TURN_SECONDS = 4.0
"""Heard at a time at most, so that a stream that is behind keeps no other waiting."""
START_SECONDS = 10.0
DRAIN_CHECK_SECONDS = 0.2
REASON_BYTES = 123
"""What fits into a close frame (RFC 6455, 5.5)."""
CODES = {429: 1013, 503: 1012}
"""Close codes of refusals; others are 1008."""


class Ended(Exception):
    """Why a stream cannot go on: a WebSocket close code and one sentence."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True)
class Start:
    """What a client says before it sends audio."""

    options: Options = DEFAULT
    rate_hz: int = RATE_HZ
    format: str = "pcm16"


class Inbox:
    """Samples on their way from a socket to the model; where `most` of them wait, whoever brings more has to wait."""

    def __init__(self, most: int):
        self.most, self.held, self.is_over = most, 0, False
        self.blocks: deque[np.ndarray] = deque()
        self.changed = asyncio.Condition()

    async def put(self, samples: np.ndarray) -> None:
        """Add samples (N), once there is room."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.held < self.most)
            self.blocks.append(samples)
            self.held += len(samples)
            self.changed.notify_all()

    async def take(self, most: int) -> np.ndarray | None:
        """All samples that wait, though no more than about `most`; None at the end."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.blocks or self.is_over)
            taken: list[np.ndarray] = []
            while self.blocks and sum(map(len, taken)) < most:
                taken.append(self.blocks.popleft())
            self.held -= sum(map(len, taken))
            self.changed.notify_all()
            return np.concatenate(taken) if taken else None

    async def end(self, is_gone: bool = False) -> None:
        """Nothing more comes; where the client is gone, what waits is of no use either."""
        async with self.changed:
            self.is_over = True
            if is_gone:
                self.blocks.clear()
            self.changed.notify_all()


class Hearing:
    """What is done on the model's thread for one stream: captions, and alerts where there are rules for them."""

    def __init__(self, live: LiveTranscriber, rules: Any, language: str):
        self.live, self.alerts = live, None
        if rules is not None:
            from glmasr.serving.review.alerts import Alerts

            self.alerts = Alerts(rules, language=language)

    def hear(self, samples: np.ndarray) -> list[dict]:
        """Messages that these 16 kHz samples (N) bring about."""
        messages = self._told(self.live.hear(samples))
        return messages + (self.alerts.until(self.seconds) if self.alerts else [])

    def finish(self) -> list[dict]:
        """Messages at the end of the stream."""
        messages = self._told(self.live.finish())
        return messages + (self.alerts.finish(self.seconds) if self.alerts else [])

    @property
    def seconds(self) -> float:
        """How much has been heard."""
        return self.live.position / RATE_HZ

    def _told(self, captions: list[Caption]) -> list[dict]:
        messages = []
        for caption in captions:
            messages += [as_message(caption), *(self.alerts.hear(caption) if self.alerts else [])]
        return messages


def mount(app: FastAPI, service: Service, idle_seconds: float = 30.0, buffer_seconds: float = 30.0) -> None:
    """Add PATH to the app. A client that sends nothing for `idle_seconds` is told to go; one that sends faster than the
    model hears gets `buffer_seconds` ahead of it, then nothing more is read from it until there is room.

    `app.state.rules` (review's Rules) may hold rules for live alerts.
    """

    @app.websocket(PATH)
    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        try:
            start = await _started(socket)
            live = service.live(start.options)
            try:
                hearing = Hearing(live, getattr(app.state, "rules", None), start.options.language or "")
                inbox = Inbox(round(buffer_seconds * RATE_HZ))
                await _say(socket, [{"type": "ready", "model": service.name, "sample_rate": start.rate_hz}])
                await _captions(socket, service, hearing, inbox, _read(socket, start, inbox, idle_seconds))
            finally:
                service.streams.discard(live)  # a traceback may keep it for a while
            await socket.close(1000)
        except Ended as ended:
            await _leave(socket, ended)
        except Refused as refused:
            await _leave(socket, Ended(CODES.get(refused.status, 1008), refused.message))
        except InputError as error:
            await _leave(socket, Ended(1008, str(error)))
        except (WebSocketDisconnect, TimeoutError):
            pass  # it is gone, or listens no more


def start_of(message: str) -> Start:
    """What the first message says; Ended (1007 no JSON, 1008 what cannot be had) where it is wrong."""
    said = _object(message)
    for name, value in said.items():
        if name not in FIELDS:
            raise Ended(1008, f"'{name[:40]}' is no field here: say {', '.join(FIELDS)}")
        if value is not None and type(value) is not FIELDS[name]:
            raise Ended(1008, f"'{name}' is to be a {FIELDS[name].__name__}: mend the first message")
    said = {name: value for name, value in said.items() if value is not None}
    rate, form = said.get("sample_rate", RATE_HZ), said.get("format", "pcm16")
    if said.get("type", "start") != "start":
        raise Ended(1008, "the first message is of type start, or of none")
    if not LOWEST_HZ <= rate <= HIGHEST_HZ:
        raise Ended(1008, f"sample_rate is a whole number from {LOWEST_HZ} to {HIGHEST_HZ}")
    if form not in SAMPLES:
        raise Ended(1008, f"'{form[:20]}' is no format here: say {' or '.join(SAMPLES)}")
    if len(said.get("language", "")) > LONGEST_TAG:
        raise Ended(1008, "this is no language tag: say en, zh or yue")
    options = {name: said[name] for name in CHOICES if name in said and said[name] != ""}
    return Start(Options(**options), rate, form)


def samples_of(frame: bytes, form: str) -> np.ndarray:
    """A frame's samples (N) as float32 in -1 … 1; Ended (1007) where it holds no such."""
    kind = SAMPLES[form]
    if len(frame) % kind.itemsize:
        raise Ended(1007, f"a frame of {len(frame)} bytes holds no whole {form} samples of {kind.itemsize} bytes")
    samples = np.frombuffer(frame, kind).astype(np.float32)
    if form == "pcm16":
        return samples / 32768.0
    if not np.isfinite(samples).all():
        raise Ended(1007, "a frame holds NaN or infinity: send finite samples in -1 … 1")
    return samples.clip(-1.0, 1.0)


def as_message(caption: Caption) -> dict:
    """A caption as JSON; times in seconds since the stream began."""
    segment = caption.segment
    return {
        "type": "final" if caption.is_final else "partial",
        "text": segment.text,
        "stable_text": caption.stable_text,
        "start": round(segment.start_seconds, 3),
        "end": round(segment.end_seconds, 3),
        "words": [
            {
                "word": word.text,
                "start": round(word.start_seconds, 3),
                "end": round(word.end_seconds, 3),
                "probability": round(word.confidence, 4),
            }
            for word in segment.words
        ],
        "language": caption.language,
    }


async def _started(socket: WebSocket) -> Start:
    origin = socket.headers.get("origin")
    if origin and urlsplit(origin).netloc != socket.headers.get("host"):
        raise Ended(1008, "pages of another address may not listen here: open this server's own page")
    try:
        async with asyncio.timeout(START_SECONDS):
            message = await _received(socket)
    except TimeoutError:
        raise Ended(1008, f"nothing was sent within {START_SECONDS:g} s: begin with a JSON message") from None
    if not isinstance(message, str):
        raise Ended(1003, "the first message is JSON text that says what is sent; audio comes after it")
    return start_of(message)


async def _captions(socket: WebSocket, service: Service, hearing: Hearing, inbox: Inbox, read: Any) -> None:
    """Send captions of what comes, and at its end, or the server's, what is still due."""
    reader = asyncio.create_task(read)
    watcher = asyncio.create_task(_cancelled_by_drain(service, reader))
    try:
        while (block := await inbox.take(round(TURN_SECONDS * RATE_HZ))) is not None:
            await _say(socket, await service.run(hearing.hear, block))
        await asyncio.wait([reader])
        if not reader.cancelled() and isinstance(reader.exception(), WebSocketDisconnect):
            return
        await _say(socket, await service.run(hearing.finish))
        if reader.cancelled():
            raise Ended(1012, "the server is shutting down: connect again later")
        reader.result()
        await _say(socket, [{"type": "end", "seconds": round(hearing.seconds, 3)}])
    finally:
        watcher.cancel()
        if not reader.cancel() and not reader.cancelled():
            reader.exception()  # has been heard of, or is of no interest any more


async def _read(socket: WebSocket, start: Start, inbox: Inbox, idle_seconds: float) -> None:
    """Hand on what comes, at 16 kHz, until the client says that it is at its end; Ended where it sends nonsense."""
    at_16_khz, is_gone = streaming_resampler(start.rate_hz), False
    try:
        while True:
            try:
                async with asyncio.timeout(idle_seconds):
                    message = await _received(socket)
            except TimeoutError:
                raise Ended(1008, f"no audio came for {idle_seconds:g} s: send silence, or connect again") from None
            if isinstance(message, str):
                if _object(message) != {"type": "end"}:
                    raise Ended(1003, 'after the first message come binary frames of audio, then {"type": "end"}')
                return
            await inbox.put(at_16_khz(samples_of(message, start.format), False))
    except WebSocketDisconnect:
        is_gone = True
        raise
    finally:
        if not is_gone:
            inbox.blocks.append(at_16_khz(np.zeros(0, np.float32), True))
        await inbox.end(is_gone)


async def _cancelled_by_drain(service: Service, reader: asyncio.Task) -> None:
    while not service.is_draining:
        await asyncio.sleep(DRAIN_CHECK_SECONDS)
    reader.cancel()


async def _received(socket: WebSocket) -> str | bytes:
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    return message["bytes"] if text is None else text


async def _say(socket: WebSocket, messages: list[dict]) -> None:
    """Send messages; WebSocketDisconnect where the client is gone, TimeoutError where it does not listen."""
    async with asyncio.timeout(START_SECONDS):
        for message in messages:
            try:
                await socket.send_text(json.dumps(message, ensure_ascii=False))
            except RuntimeError as error:  # what starlette says of a socket that has been closed meanwhile
                raise WebSocketDisconnect(1006) from error


async def _leave(socket: WebSocket, ended: Ended) -> None:
    """Say why, whole, and close with as much of it as fits."""
    reason = ended.message.encode()[:REASON_BYTES].decode(errors="ignore")
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
        await _say(socket, [{"type": "error", "code": ended.code, "message": ended.message}])
        await socket.close(ended.code, reason)


def _object(message: str) -> dict:
    try:
        said = json.loads(message)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise Ended(1007, "a text message is a JSON object: mend it")
    return said
