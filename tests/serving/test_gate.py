"""Who has no key, sends too much, too slowly or too late is told so, and is in nobody else's way."""

import base64
import contextlib
import time
from types import SimpleNamespace

import httpx
import pytest

from glmasr.serving.gate import Gate
from glmasr.serving.metrics import Metrics
from glmasr.serving.service import Limits, Service
from tests.serving.served import Counting, connection, said, served, wait_for

ENDPOINT = "/v1/audio/transcriptions"
HEAD = f"POST {ENDPOINT} HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=x\r\n"
PART = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'


@contextlib.contextmanager
def serving(intake, key=None, system=None, **limits):
    service = Service(system or Counting(), Limits(**limits), intake)
    try:
        with served(service, key) as url:
            yield service, url
    finally:
        service.close()


def test_a_key_is_asked_for_everywhere_but_at_the_health_check(intake):
    def basic(password):
        return {"authorization": "Basic " + base64.b64encode(f"me:{password}".encode()).decode()}

    with serving(intake, "sesame") as (_, url):
        good = [{"authorization": "Bearer sesame"}, {"authorization": "bearer  sesame"}, basic("sesame")]
        bad = [{}, {"authorization": "Bearer sesam"}, {"authorization": "sesame"}, {"authorization": "Bearer"}]
        bad += [basic(""), basic("sesam"), {"authorization": "Basic %%%"}, {"x-api-key": "sesame"}]
        assert [httpx.get(f"{url}/v1/models", headers=headers).status_code for headers in good] == [200] * 3
        for headers in bad:
            answered = httpx.get(f"{url}/v1/models", headers=headers)
            assert answered.status_code == 401 and answered.json()["error"]["code"] == "invalid_api_key"
            assert answered.headers["www-authenticate"].startswith("Basic")
        assert httpx.get(f"{url}/metrics").status_code == httpx.get(f"{url}/nowhere").status_code == 401
        assert httpx.post(f"{url}{ENDPOINT}", files={"file": b"x"}).status_code == 401
        assert httpx.get(f"{url}/health").status_code == 200


def test_without_a_key_nobody_is_asked(intake):
    with serving(intake) as (_, url):
        assert httpx.get(f"{url}/v1/models").status_code == 200


async def connected(gate, **scope):
    """What a WebSocket is answered at the gate; True where it is let through."""
    answers = []

    async def send(message):
        answers.append(message)

    await gate({"type": "websocket", "path": "/v1/stream", "headers": [], **scope}, None, send)
    return answers


@pytest.mark.parametrize(("key", "is_draining", "code"), [("k", False, 1008), (None, True, 1012), (None, False, None)])
def test_live_streams_pass_the_same_gate(key, is_draining, code):
    import asyncio

    passed = []

    async def app(scope, receive, send):
        passed.append(scope)

    service = SimpleNamespace(is_draining=is_draining, limits=Limits())
    answers = asyncio.run(connected(Gate(app, service, Metrics(service), key)))
    assert answers == ([{"type": "websocket.close", "code": code}] if code else []) and bool(passed) == (code is None)


def test_a_size_is_checked_before_and_while_it_comes(intake):
    with serving(intake, upload_bytes=200_000) as (service, url):
        with connection(url) as line:
            line.sendall(f"{HEAD}content-length: 999999999\r\n\r\n".encode())
            assert line.recv(4096).startswith(b"HTTP/1.1 413") and not service.held_bytes
        with connection(url) as line:
            line.sendall(f"{HEAD}transfer-encoding: chunked\r\n\r\n".encode())
            line.sendall(f"{len(PART):x}\r\n".encode() + PART + b"\r\n")
            for _ in range(50):
                line.sendall(b"4000\r\n" + bytes(0x4000) + b"\r\n")
            assert line.recv(4096).startswith(b"HTTP/1.1 413")
        wait_for(lambda: service.held_bytes == 0 and service.requests == 0)


def test_all_that_is_sent_at_once_is_bounded(intake):
    with serving(intake, held_bytes=100_000) as (service, url):
        with connection(url) as line:
            line.sendall(f"{HEAD}content-length: 90000\r\n\r\n".encode() + PART + bytes(80_000))
            wait_for(lambda: service.held_bytes >= 80_000)
            assert httpx.post(f"{url}{ENDPOINT}", files={"file": bytes(50_000)}).status_code == 429
        wait_for(lambda: service.held_bytes == 0)
        assert httpx.post(f"{url}{ENDPOINT}", files={"file": bytes(50_000)}).status_code == 400


def test_who_sends_too_slowly_is_cut_off_and_in_nobodys_way(intake, clips):
    with serving(intake, head_seconds=1.0, body_seconds=1.5) as (_, url), contextlib.ExitStack() as open_lines:
        lines = [open_lines.enter_context(connection(url)) for _ in range(60)]
        for line in lines[:20]:
            line.sendall(HEAD.encode())
        for line in lines[20:40]:
            line.sendall(f"{HEAD}content-length: 1000\r\n\r\n--x".encode())
        start = time.monotonic()
        answered = httpx.post(f"{url}{ENDPOINT}", files={"file": clips[0].read_bytes()})
        assert answered.status_code == 200 and time.monotonic() - start < 2.0
        ends = [said(line) for line in lines]
        assert 0.5 < time.monotonic() - start < 10.0
        assert [end.split(b"\r\n")[0] for end in ends] == [b""] * 20 + [b"HTTP/1.1 408 Request Timeout"] * 20 + [
            b""
        ] * 20


def test_a_second_request_on_a_line_may_not_dawdle_either(intake):
    with serving(intake, head_seconds=0.5) as (_, url), connection(url) as line:
        line.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        answered = b""
        while not answered.endswith(b"}"):
            answered += line.recv(4096)
        line.sendall(b"GET /health HT")
        start = time.monotonic()
        assert said(line) == b"" and 0.2 < time.monotonic() - start < 4.0


def test_a_long_answer_is_not_cut_off(intake, clips):
    system = Counting()
    system.may.clear()
    with serving(intake, system=system, head_seconds=0.3, body_seconds=0.5) as (_, url):
        import threading

        threading.Timer(1.5, system.may.set).start()
        assert httpx.post(f"{url}{ENDPOINT}", files={"file": clips[0].read_bytes()}, timeout=20).status_code == 200


def test_while_it_drains_new_ones_are_sent_away_and_old_ones_answered(intake, clips):
    system = Counting()
    system.may.clear()
    with serving(intake, system=system) as (service, url), connection(url) as line, connection(url) as slow:
        body = PART + clips[0].read_bytes() + b"\r\n--x--\r\n"
        request = f"{HEAD}content-length: {len(body)}\r\n\r\n".encode() + body
        line.sendall(request)
        slow.sendall(request[:-100])
        wait_for(lambda: service.in_flight == 1 and service.requests == 2)
        service.drain()
        answered = httpx.post(f"{url}{ENDPOINT}", files={"file": b"x"})
        assert answered.status_code == 503 and answered.headers["retry-after"]
        assert httpx.get(f"{url}/health").status_code == 503
        assert not service.is_idle
        slow.sendall(request[-100:])
        system.may.set()
        assert line.recv(4096).startswith(b"HTTP/1.1 200") and slow.recv(4096).startswith(b"HTTP/1.1 200")
        wait_for(lambda: service.is_idle)
