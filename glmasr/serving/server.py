"""An app and an address in, a server out that says one line when it is ready and answers all that it has begun."""

import asyncio
import resource
import socket
from types import FrameType

import numpy as np
import uvicorn
from fastapi import FastAPI

from glmasr.serving.gate import GRACE_SECONDS, protocol_within
from glmasr.serving.service import Service
from glmasr.speech import RATE_HZ, InputError

MESSAGE_BYTES = 1 << 20
"""Of one WebSocket message: 30 s of samples."""


class Server(uvicorn.Server):
    """Uvicorn that drains at SIGTERM or Ctrl-C; a second signal ends it at once.

    While it drains it still listens: new requests are told to come again, instead of finding nobody.
    """

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self.service, self.until = service, float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        host, port = (sockets or self.servers[0].sockets)[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"glmasr: {self.service.name} listens on http://{shown}:{port} (Ctrl-C ends it)", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come."""
        if self.service.is_draining:
            self.should_exit = self.force_exit = True
        self.service.drain()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        now = asyncio.get_running_loop().time()
        if self.service.is_draining:
            self.until = min(self.until, now + self.service.limits.drain_seconds)
            self.should_exit |= self.service.is_idle or now >= self.until
        return await super().on_tick(counter)


def serve(app: FastAPI, service: Service, host: str, port: int) -> None:
    """Answer requests until a signal comes. InputError where the address cannot be had; port 0 takes a free one."""
    taken = listening(host, port)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    service.system([np.zeros(RATE_HZ // 10, np.float32)])  # what is loaded late is loaded now
    try:
        server_of(app, service).run([taken])
    finally:
        service.close()


def server_of(app: FastAPI, service: Service) -> Server:
    """A server of the app that holds connections to the service's limits."""
    config = uvicorn.Config(
        app,
        http=protocol_within(service.limits),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws_max_size=MESSAGE_BYTES,
        ws_per_message_deflate=False,  # a small message would become a large one before anybody counts it
        timeout_graceful_shutdown=round(GRACE_SECONDS),
    )
    return Server(config, service)


def listening(host: str, port: int) -> socket.socket:
    """A socket bound to an address; InputError with the reason where it cannot be."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"nothing can listen on {host}, port {port} ({reason}): choose another --port or --host"
        ) from error
