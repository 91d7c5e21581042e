"""Live captions over a WebSocket are those of one stream alone, and whoever sends nonsense is told so and let go."""

import asyncio
import contextlib
import json
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import soxr
import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from glmasr import cli
from glmasr.frontend.audio import read_audio
from glmasr.live import LiveTranscriber
from glmasr.serving import live, server
from glmasr.serving.rest import build_app
from glmasr.serving.review.rules import Rule, Rules
from glmasr.serving.service import Limits, Service
from tests.serving.served import Counting, running, wait_for

FRAME_BYTES = 3_200


@pytest.fixture(scope="module")
def serving(intake):
    """A function that serves live captions of a system, and gives their address and the service."""
    with contextlib.ExitStack() as stack:

        def serve(system, key=None, rules=None, **choices):
            limits = {name: choices.pop(name) for name in list(choices) if name in vars(Limits())}
            service = Service(system, Limits(**limits), intake)
            app = build_app(service, key, pages=())
            app.state.rules = rules
            live.mount(app, service, **choices)
            stack.callback(service.close)
            return stream_at(stack.enter_context(running(app, service))), service

        yield serve


def stream_at(url: str) -> str:
    """Where a server has its live captions."""
    return f"{url.replace('http', 'ws', 1)}{live.PATH}"


@pytest.fixture(scope="module")
def served(serving, transcriber):
    """The address of a service that all tests of this file may use, and the service."""
    return serving(transcriber)


@pytest.fixture(scope="session")
def speeches(clips) -> list[np.ndarray]:
    """Each clip twice with pauses between and behind, as 16-bit samples."""
    pause = np.zeros(16_000, np.float32)
    waveforms = [np.concatenate([read_audio(str(clip)), pause] * 2) for clip in clips]
    return [(waveform * 32767).astype("<i2") for waveform in waveforms]


async def captioned(url, audio: bytes, frame_bytes=FRAME_BYTES, start=None) -> list[dict]:
    """All that a stream says, from the first to the last message."""
    async with connect(url) as socket:
        await socket.send(json.dumps(start or {}))

        async def send():
            for at in range(0, len(audio), frame_bytes):
                await socket.send(audio[at : at + frame_bytes])
            await socket.send('{"type": "end"}')

        sending = asyncio.ensure_future(send())
        messages = [json.loads(message) async for message in socket]
        await sending
        assert socket.close_code == 1000
        return messages


def finals(messages: list[dict]) -> list[tuple]:
    return [(one["text"], one["start"], one["end"]) for one in messages if one["type"] == "final"]


def alone(transcriber, samples: np.ndarray) -> list[tuple]:
    """The final captions of a stream that nobody else disturbs."""
    stream = LiveTranscriber(transcriber)
    captions = stream.hear(samples) + stream.finish()
    return finals([live.as_message(caption) for caption in captions])


def refused(url, *messages) -> tuple[int, str, dict]:
    """The close code and reason after these messages, and the last thing said."""

    async def ask():
        said = {}
        async with connect(url) as socket:
            for message in messages:
                await socket.send(message)
            try:
                while True:
                    said = json.loads(await socket.recv())
            except ConnectionClosed:
                return socket.close_code, socket.close_reason, said

    return asyncio.run(asyncio.wait_for(ask(), 20))


def test_eight_streams_hear_each_its_own(served, transcriber, speeches):
    url, service = served
    spoken = [*speeches, *speeches[:2]]
    expected = [alone(transcriber, samples / np.float32(32768)) for samples in spoken]
    assert len({str(one) for one in expected}) == 6 and all(len(one) >= 2 for one in expected)

    async def all_of_them():
        return await asyncio.gather(
            *(captioned(url, samples.tobytes(), FRAME_BYTES + 2 * i) for i, samples in enumerate(spoken))
        )

    said = asyncio.run(all_of_them())
    assert [finals(messages) for messages in said] == expected
    for messages, samples in zip(said, spoken, strict=True):
        assert messages[0]["type"] == "ready" and messages[-1]["type"] == "end"
        assert abs(messages[-1]["seconds"] - len(samples) / 16_000) < 0.04
        assert any(one["type"] == "partial" for one in messages)
    wait_for(lambda: not service.streams)


def test_a_caption_says_what_when_and_how_surely(served, speeches):
    messages = asyncio.run(captioned(served[0], speeches[0].tobytes(), start={"language": "zh", "gain": True}))
    final = next(one for one in messages if one["type"] == "final")
    assert set(final) == {"type", "text", "stable_text", "start", "end", "words", "language"}
    assert (
        final["text"] and final["language"] == "zh" and 0 <= final["start"] < final["end"] <= len(speeches[0]) / 16_000
    )
    assert [word["word"] for word in final["words"]] and all(0 <= word["probability"] <= 1 for word in final["words"])
    starts = [word["start"] for word in final["words"]]
    assert starts == sorted(starts) and starts[0] == final["start"]


@pytest.mark.parametrize("form", ["pcm16", "float32"])
def test_another_rate_is_heard_as_if_it_had_been_converted_before(served, transcriber, speeches, form):
    sent = soxr.resample(speeches[1] / np.float32(32768), 16_000, 48_000)
    sent = (sent * 32767).astype("<i2") if form == "pcm16" else sent.astype("<f4")
    heard = sent / np.float32(32768) if form == "pcm16" else sent
    stream = soxr.ResampleStream(48_000, 16_000, 1, quality="HQ")
    expected = alone(transcriber, stream.resample_chunk(heard.astype(np.float32), last=True))
    # Frames of odd sizes, none of which is a whole number of 16 kHz samples.
    messages = asyncio.run(captioned(served[0], sent.tobytes(), 4004, {"sample_rate": 48_000, "format": form}))
    assert [text for text, *_ in finals(messages)] == [text for text, *_ in expected]
    assert np.allclose([one[1:] for one in finals(messages)], [one[1:] for one in expected], atol=0.05)


@pytest.mark.parametrize(
    ("messages", "code", "word"),
    [
        ([b"\0\0"], 1003, "JSON"),
        (["no json"], 1007, "JSON"),
        (["[" * 5000], 1007, "JSON"),
        (["[1]"], 1007, "JSON"),
        (['{"rate": 8000}'], 1008, "'rate'"),
        (['{"sample_rate": 1}'], 1008, "8000"),
        (['{"sample_rate": "16000"}'], 1008, "sample_rate"),
        (['{"gain": 1}'], 1008, "gain"),
        (['{"format": "mp3"}'], 1008, "pcm16"),
        (['{"script": "runes"}'], 1008, "runes"),
        (['{"language": "' + "x" * 99 + '"}'], 1008, "language"),
        (["{}", b"\0"], 1007, "whole"),
        (['{"format": "float32"}', b"\0\0"], 1007, "whole"),
        (['{"format": "float32"}', np.float32("nan").tobytes()], 1007, "NaN"),
        (["{}", "hello"], 1007, "JSON"),
        (["{}", "{}"], 1003, "binary"),
    ],
)
def test_nonsense_ends_a_stream_with_a_sentence(served, messages, code, word):
    found, reason, said = refused(served[0], *messages)
    assert found == code and word in said["message"], said
    assert said["type"] == "error" and said["code"] == code and said["message"].startswith(reason) and reason
    wait_for(lambda: not served[1].streams)


def test_what_was_heard_before_nonsense_is_said(served, speeches):
    async def ask():
        async with connect(served[0]) as socket:
            await socket.send("{}")
            await socket.send(speeches[0].tobytes())
            await socket.send(b"\0")
            with contextlib.suppress(ConnectionClosed):
                while True:
                    said.append(json.loads(await socket.recv()))

    said = []
    asyncio.run(asyncio.wait_for(ask(), 20))
    assert finals(said) and said[-1]["type"] == "error"


def test_a_stream_too_many_is_told_to_come_again(serving, transcriber):
    url, service = serving(transcriber, streams=1)

    async def ask():
        async with connect(url) as first:
            await first.send("{}")
            assert json.loads(await first.recv())["type"] == "ready"
            return await asyncio.to_thread(refused, url, "{}")

    code, reason, _ = asyncio.run(ask())
    assert code == 1013 and "taken" in reason
    wait_for(lambda: not service.streams)
    assert asyncio.run(captioned(url, b""))[-1]["type"] == "end"


def test_who_is_silent_is_let_go(serving, transcriber):
    code, reason, _ = refused(serving(transcriber, idle_seconds=0.2)[0], "{}")
    assert code == 1008 and "0.2 s" in reason


def test_a_stream_outlives_the_time_that_a_head_may_take(serving, transcriber):
    url, _ = serving(transcriber, head_seconds=0.2, body_seconds=0.2)

    async def ask():
        async with connect(url) as socket:
            await socket.send("{}")
            await asyncio.sleep(0.8)
            await socket.send('{"type": "end"}')
            return [json.loads(message)["type"] async for message in socket]

    assert asyncio.run(ask()) == ["ready", "end"]


def test_a_system_that_cannot_stream_says_so(serving):
    code, reason, _ = refused(serving(Counting())[0], "{}")
    assert code == 1008 and "whole recordings" in reason


def test_a_page_of_another_address_may_not_listen(served):
    async def ask():
        async with connect(served[0], origin="http://elsewhere.example") as socket:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await socket.recv()
            return socket.close_code

    assert asyncio.run(ask()) == 1008


def test_the_key_is_asked_for(serving, transcriber):
    url, _ = serving(transcriber, key="open sesame")

    async def ask(headers):
        async with connect(url, additional_headers=headers) as socket:
            await socket.send("{}")
            return json.loads(await socket.recv())["type"]

    assert asyncio.run(ask({"Authorization": "Bearer open sesame"})) == "ready"
    with pytest.raises(InvalidStatus):
        asyncio.run(ask({}))


def test_who_sends_faster_than_is_heard_has_to_wait(serving, transcriber, monkeypatch):
    url, _ = serving(transcriber, buffer_seconds=1.0)
    may, most = threading.Event(), []

    def held(self, samples):
        assert may.wait(20)
        most.append(len(samples))
        return []

    monkeypatch.setattr(LiveTranscriber, "hear", held)

    async def ask():
        async with connect(url, compression=None) as socket:
            await socket.send("{}")
            sent = 0
            try:
                async with asyncio.timeout(1.0):
                    while sent < 64 << 20:
                        await socket.send(bytes(1 << 18))
                        sent += 1 << 18
            except TimeoutError:
                pass
            may.set()
            await socket.send('{"type": "end"}')
            return sent, [json.loads(message) async for message in socket]

    sent, said = asyncio.run(asyncio.wait_for(ask(), 30))
    assert sent < 32 << 20  # what the sockets' own buffers take
    unsent = 2 * sum(most) - sent  # the frame that was given up on while it was sent
    assert unsent in (0, 1 << 18) and max(most) < (live.TURN_SECONDS + 9) * 16_000
    assert said[-1]["type"] == "end"


def test_a_server_that_ends_says_what_it_has_heard_first(serving, transcriber, speeches):
    url, service = serving(transcriber)
    spoken = speeches[2][: len(speeches[2]) // 2 - 15_000]  # in the middle of a stretch of speech
    expected = alone(transcriber, spoken / np.float32(32768))

    async def ask():
        async with connect(url) as socket:
            await socket.send("{}")
            await socket.send(spoken.tobytes())
            said = [json.loads(await socket.recv()), json.loads(await socket.recv())]
            service.drain()
            with contextlib.suppress(ConnectionClosed):
                while True:
                    said.append(json.loads(await socket.recv()))
            return socket.close_code, said

    code, said = asyncio.run(asyncio.wait_for(ask(), 20))
    assert code == 1012 and finals(said) == expected and expected
    wait_for(lambda: service.is_idle)


def test_a_client_that_vanishes_leaves_nothing(served, speeches):
    url, service = served

    async def ask():
        socket = await connect(url)
        await socket.send("{}")
        await socket.send(speeches[0].tobytes())
        await socket.recv()
        socket.transport.abort()

    asyncio.run(ask())
    start = time.monotonic()
    wait_for(lambda: not service.streams)
    assert time.monotonic() - start < 10


def test_rules_of_a_review_alert_while_somebody_speaks(serving, transcriber, speeches):
    texts = [text for text, *_ in alone(transcriber, speeches[0] / np.float32(32768))]
    sensitive, required = Rule("said", (texts[0],)), Rule("owed", ("白日依山尽",))
    url, _ = serving(transcriber, rules=Rules(sensitive=(sensitive,), required=(required,)))
    messages = asyncio.run(captioned(url, speeches[0].tobytes()))
    told = [(one.get("kind"), one.get("rule")) for one in messages if one["type"] == "alert"]
    assert ("sensitive", "said") in told and told[-1] == ("missing", "owed")
    kinds = [one["type"] for one in messages]
    assert kinds.index("alert") == kinds.index("final") + 1


@pytest.fixture
def serve(monkeypatch, bundle):
    """`glmasr serve --rules FILE` up to the moment it would listen, and then what is done with its app and service."""

    def start(rules, then):
        monkeypatch.setattr(server, "serve", lambda app, service, *_: then(app, service))
        options = ["--bundle", str(bundle), "--no-gain", "--rules", str(rules)]
        monkeypatch.setattr(sys, "argv", ["glmasr", "serve", *options])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code

    return start


def test_rules_that_a_server_is_started_with_alert_on_its_live_captions(serve, transcriber, speeches, tmp_path):
    phrase = " ".join(alone(transcriber, speeches[0] / np.float32(32768))[0][0].split())
    wanted = {"sensitive": [{"name": "said", "phrases": [phrase], "severity": "high"}]}
    wanted["required"] = [{"name": "owed", "phrases": ["白日依山尽"], "by_seconds": 0.5}]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(wanted, allow_unicode=True), encoding="utf-8")
    messages = []

    def listen(app, service):
        with contextlib.closing(service), running(app, service) as url:
            messages.extend(asyncio.run(captioned(stream_at(url), speeches[0].tobytes())))

    assert serve(tmp_path / "rules.yaml", listen) == 0
    alerts = {one["rule"]: one for one in messages if one["type"] == "alert"}
    final = next(one for one in messages if one["type"] == "final")
    said = {"kind": "sensitive", "severity": "high", "phrase": phrase, "heard": phrase}
    assert alerts["said"].items() >= said.items()
    assert final["start"] - 0.1 < alerts["said"]["start"] < alerts["said"]["end"] < final["end"] + 0.1
    assert (alerts["owed"]["kind"], alerts["owed"]["start"]) == ("missing", 0.5)


def test_rules_for_what_cannot_be_live_are_refused(serve, tmp_path, monkeypatch):
    (tmp_path / "rules.yaml").write_text("sensitive:\n- name: risk\n  phrases: [no risk]")
    monkeypatch.setattr(cli, "_system", lambda args: SimpleNamespace(name="whisper-tiny"))
    message = serve(tmp_path / "rules.yaml", lambda *_: pytest.fail("it is about to listen"))
    assert (
        message == "glmasr: --rules are for live captions, which 'whisper-tiny' cannot give: glmasr review takes files"
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("sensitive: [", "line 1"),
        ("sensible: []", "'sensible'"),
        ("sensitive:\n- name: risk\n  phrases: [no risk]\n  match: [loud]", "match loud is unknown"),
        ("required:\n- name: hello\n  phrases: []", "it has no phrase"),
        (None, "cannot be read"),
    ],
)
def test_a_server_with_broken_rules_does_not_start(serve, tmp_path, monkeypatch, text, word):
    """Nor does it load a model first."""
    file = tmp_path / "rules.yaml"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(cli, "_system", lambda args: pytest.fail("a model is loaded for nothing"))
    message = serve(file, lambda *_: pytest.fail("it is about to listen"))
    assert message.startswith("glmasr: '") and "rules.yaml" in message and word in message and "\n" not in message
