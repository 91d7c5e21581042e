"""Who has no key, sends too much, too slowly or too late is told so, and is in nobody else's way."""

import asyncio
import base64
import contextlib
import threading
import time
from types import SimpleNamespace

import httpx
import pytest
from starlette.requests import ClientDisconnect

from glmasr.serving import gate
from glmasr.serving.gate import Gate, headers_of
from glmasr.serving.intake import Refused
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
        bad += [
            {"authorization": "Token sesame"},
            basic(""),
            basic("sesam"),
            {"authorization": "Basic %%%"},
            {"x-api-key": "sesame"},
        ]
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


async def connected(door, **scope):
    """What a WebSocket is answered at the gate; True where it is let through."""
    answers = []

    async def send(message):
        answers.append(message)

    await door({"type": "websocket", "path": "/v1/stream", "headers": [], **scope}, None, send)
    return answers


@pytest.mark.parametrize(("key", "is_draining", "code"), [("k", False, 1008), (None, True, 1012), (None, False, None)])
def test_live_streams_pass_the_same_gate(key, is_draining, code):
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
        assert all(b"connection: close" in end for end in ends[20:40])
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


def test_a_head_that_comes_byte_by_byte_has_no_more_time(intake):
    with serving(intake, head_seconds=0.6) as (_, url), connection(url) as line:
        start = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for byte in HEAD.encode()[:100]:
                line.sendall(bytes([byte]))
                time.sleep(0.05)
        assert 0.4 < time.monotonic() - start < 3.0


def test_who_is_refused_may_not_keep_the_line_for_what_he_does_not_send(intake, monkeypatch):
    monkeypatch.setattr(gate, "GRACE_SECONDS", 0.1)
    with serving(intake, upload_bytes=1000, body_seconds=0.3) as (_, url), connection(url) as line:
        line.sendall(f"{HEAD}content-length: 999999999\r\n\r\n".encode())
        start = time.monotonic()
        assert said(line).startswith(b"HTTP/1.1 413") and time.monotonic() - start < 4.0


def asked(app, *parts: bytes, method="POST", **limits):
    """What an app's client is sent at the gate, who sends these parts of a body and more; and the service."""
    service = SimpleNamespace(is_draining=False, limits=Limits(**limits), requests=0, held_bytes=0)
    waiting, answers = list(parts), []

    async def receive():
        return {"type": "http.request", "body": waiting.pop(0), "more_body": True}

    async def send(message):
        answers.append(message)

    async def inner(scope, receive, send):
        await app(service, receive, send)

    scope = {"type": "http", "method": method, "path": "/x", "headers": []}
    asyncio.run(Gate(inner, service, Metrics(service))(scope, receive, send))
    assert service.requests == service.held_bytes == 0
    return answers


STARTED, ENDED = {"type": "http.response.start", "status": 200, "headers": []}, {"type": "http.response.body"}


@pytest.mark.parametrize(("first", "status"), [([], 413), ([STARTED], 200)])
def test_an_app_that_does_not_hear_of_a_refusal_is_not_heard_either(first, status):
    """However it goes on, the client gets one answer: the refusal, where no other had begun."""
    told = []

    async def deaf(service, receive, send):
        for message in first:
            await send(message)
        told.extend([(await receive())["type"], (await receive())["type"]])
        await send(STARTED)
        await send(ENDED)
        raise RuntimeError("the form ended too early")

    answers = asked(deaf, bytes(gate.FORM_BYTES + 11), upload_bytes=10)
    assert told == ["http.disconnect"] * 2
    assert [one["status"] for one in answers if one["type"] == "http.response.start"] == [status]
    assert answers[-1]["type"] == ("http.response.start" if first else "http.response.body")


def test_what_breaks_is_told_of_and_a_client_that_leaves_is_no_break():
    async def breaks(*_):
        raise ZeroDivisionError

    async def leaves(*_):
        raise ClientDisconnect

    with pytest.raises(ZeroDivisionError):
        asked(breaks)
    assert asked(leaves) == []


@pytest.mark.parametrize(("method", "count"), [("POST", 1), ("GET", 0), ("HEAD", 0)])
def test_an_end_waits_for_what_is_sent_and_not_for_who_only_reads(method, count):
    """A page that is open reads events for as long as it is."""

    async def counts(service, receive, send):
        seen.append(service.requests)

    seen = []
    asked(counts, method=method)
    assert seen == [count]


def test_when_to_come_again_is_in_whole_seconds_and_never_at_once():
    assert headers_of(Refused(429, "", 0.2)) == {"retry-after": "1"}
    assert headers_of(Refused(413, "")) == {}


def test_a_long_answer_is_not_cut_off(intake, clips):
    system = Counting()
    system.may.clear()
    with serving(intake, system=system, head_seconds=0.3, body_seconds=0.5) as (_, url):
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
        assert httpx.get(f"{url}/metrics").status_code == 200  # who waits for an answer still reads
        assert not service.is_idle
        slow.sendall(request[-100:])
        system.may.set()
        assert line.recv(4096).startswith(b"HTTP/1.1 200") and slow.recv(4096).startswith(b"HTTP/1.1 200")
        wait_for(lambda: service.is_idle)
