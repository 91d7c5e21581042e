"""Requests in; those with a key, of a bounded size, that come in time on to the app: a gate around all of it.

Whoever is refused gets OpenAI's shape of an error. Nothing of what is sent is logged.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import math

import h11
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from glmasr.serving.intake import Refused, too_large
from glmasr.serving.metrics import Metrics
from glmasr.serving.service import Limits, Service, closing

OPEN_PATHS = ("/health",)
"""What needs no key: a health check has none, and learns nothing."""
READING = ("GET", "HEAD", "OPTIONS")
FORM_BYTES = 1 << 16
"""What a form may weigh beside its file."""
GRACE_SECONDS = 5.0
KINDS = {401: "invalid_request_error", 408: "timeout_error", 429: "rate_limit_error"}
CODES = {401: "invalid_api_key", 404: "not_found", 413: "file_too_large", 429: "rate_limit_exceeded"}


def as_error(refused: Refused, param: str | None = None, code: str | None = None) -> dict:
    """A refusal as OpenAI's clients read it."""
    kind = KINDS.get(refused.status, "invalid_request_error" if refused.status < 500 else "server_error")
    return {
        "error": {
            "message": refused.message,
            "type": kind,
            "param": param,
            "code": code or CODES.get(refused.status),
        }
    }


def headers_of(refused: Refused) -> dict[str, str]:
    """What goes with a refusal: when to come again, and how to show a key."""
    headers = {"www-authenticate": 'Basic realm="glmasr"'} if refused.status == 401 else {}
    if refused.retry_after_seconds is not None:
        headers["retry-after"] = str(math.ceil(refused.retry_after_seconds))
    return headers


class Gate:
    """ASGI middleware. `key` is what a request shows as its bearer token, or a browser's user as his password."""

    def __init__(self, app: ASGIApp, service: Service, metrics: Metrics, key: str | None = None):
        self.app, self.service, self.metrics = app, service, metrics
        self.key = _digest(key.encode()) if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            return await self._connect(scope, receive, send)
        passage = Passage(self.service, receive, send)
        is_counted = scope["method"] not in READING
        self.service.requests += is_counted
        try:
            with self.metrics.timed(scope["path"], passage):
                try:
                    self._check(scope)
                except Refused as refused:
                    await passage.refuse(refused)
                else:
                    await self.app(scope, passage.receive, passage.send)
        except ClientDisconnect:
            pass
        except Exception:
            if not passage.is_refused:
                raise
        finally:
            self.service.requests -= is_counted
            self.service.held_bytes -= passage.bytes

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
        except Refused as refused:
            await send({"type": "websocket.close", "code": 1012 if refused.status == 503 else 1008})
        else:
            await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if self.key and scope["path"] not in OPEN_PATHS and not self._is_known(headers.get(b"authorization", b"")):
            raise Refused(401, "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'")
        if self.service.is_draining and scope.get("method") not in READING:
            raise closing()
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.service.limits.upload_bytes + FORM_BYTES:
            raise too_large(self.service.limits.upload_bytes)

    def _is_known(self, shown: bytes) -> bool:
        scheme, _, value = shown.partition(b" ")
        if scheme.lower() == b"basic":
            try:
                value = base64.b64decode(value, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != b"bearer":
            return False
        return hmac.compare_digest(_digest(value.strip()), self.key or b"")


class Passage:
    """One request on its way in and its answer on the way out: counted, timed, and cut off where it is too much.

    Then the app hears that the client is gone, and what it still says goes nowhere.
    """

    def __init__(self, service: Service, receive: Receive, send: Send):
        self.service, self._receive, self._send = service, receive, send
        self.deadline = asyncio.get_running_loop().time() + service.limits.body_seconds
        self.bytes, self.status = 0, 0
        self.is_whole = self.is_refused = False

    async def receive(self) -> Message:
        """The next part of the body, as long as there is no reason to refuse it."""
        if self.is_refused:
            return {"type": "http.disconnect"}
        limits = self.service.limits
        try:
            async with asyncio.timeout_at(None if self.is_whole else self.deadline):
                message = await self._receive()
        except TimeoutError:
            return await self.refuse(
                Refused(408, f"the request took more than {limits.body_seconds:g} s to arrive: send it again")
            )
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self.bytes += size
            self.service.held_bytes += size
            self.is_whole = not message.get("more_body", False)
            if self.bytes > limits.upload_bytes + FORM_BYTES:
                return await self.refuse(too_large(limits.upload_bytes))
            if self.service.held_bytes > limits.held_bytes:
                return await self.refuse(Refused(429, "too much is being sent at once: try again later", GRACE_SECONDS))
        return message

    async def send(self, message: Message) -> None:
        """Pass on a part of the answer."""
        if self.is_refused:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def refuse(self, refused: Refused) -> Message:
        """Answer at once, if nothing has been; the app hears what this returns."""
        if not self.status:
            content = json.dumps(as_error(refused), ensure_ascii=False).encode()
            headers = {"content-type": "application/json", "content-length": str(len(content)), **headers_of(refused)}
            if refused.status == 408:
                headers["connection"] = "close"
            self.status = refused.status
            pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
            await self._send({"type": "http.response.start", "status": refused.status, "headers": pairs})
            await self._send({"type": "http.response.body", "body": content})
        self.is_refused = True
        return {"type": "http.disconnect"}


def protocol_within(limits: Limits) -> type[H11Protocol]:
    """Uvicorn's HTTP, for which a connection is free to send nothing for ever, with an end to that.

    A head has to come within `head_seconds`; a body that nobody waits for any more, soon after `body_seconds`.
    """

    class Timed(H11Protocol):
        state, timer = None, None

        def connection_made(self, transport) -> None:
            super().connection_made(transport)
            self._watch()

        def handle_events(self) -> None:
            super().handle_events()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _watch(self) -> None:
            if self.conn.their_state is self.state:
                return
            self._stop()
            self.state = self.conn.their_state
            seconds = {h11.IDLE: limits.head_seconds, h11.SEND_BODY: limits.body_seconds + GRACE_SECONDS}
            if self.state in seconds and self.transport.get_protocol() is self:
                self.timer = self.loop.call_later(seconds[self.state], self.transport.abort)

        def _stop(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
            self.timer = None

    return Timed


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
