"""An app or a service in, its address on loopback out; and systems that are quick, slow or broken."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
from fastapi import FastAPI

from glmasr.serving.rest import build_app
from glmasr.serving.server import listening, server_of
from glmasr.serving.service import Service
from glmasr.speech import Segment, Transcript, Word


class Counting:
    """A system that hears how many samples there are, once it may."""

    name, parameters, size_bytes = "counting", 0, 0

    def __init__(self):
        self.may = threading.Event()
        self.may.set()
        self.heard = 0

    def __call__(self, waveforms: list[np.ndarray]) -> list[Transcript]:
        assert self.may.wait(20)
        self.heard += len(waveforms)
        return [self.count(len(waveform)) for waveform in waveforms]

    @staticmethod
    def count(samples: int) -> Transcript:
        seconds, text = samples / 16_000, f"{samples} samples"
        words = (Word(str(samples), 0.0, seconds / 2, 0.5), Word("samples", seconds / 2, seconds, 0.25))
        return Transcript(text, seconds, (Segment(text, 0.0, seconds, words),), "en")


def served(service: Service, key: str | None = None) -> contextlib.AbstractContextManager[str]:
    """The service's API without its page and captions, as `running` has it."""
    return running(build_app(service, key, pages=()), service)


@contextlib.contextmanager
def running(app: FastAPI, service: Service) -> Iterator[str]:
    """The app on a free port, for as long as this lasts."""
    taken = listening("127.0.0.1", 0)
    server = server_of(app, service)
    thread = threading.Thread(target=server.run, args=([taken],), daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def wait_for(condition, seconds: float = 20.0) -> None:
    """Until it holds; a failure where it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.01)


def connection(url: str) -> socket.socket:
    """A bare connection to the server of an address."""
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def said(line: socket.socket) -> bytes:
    """Everything that comes until the other side hangs up."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := line.recv(65536):
            parts.append(part)
    return b"".join(parts)
