"""Gradio's API answers as its clients ask, its page brings all it needs, and neither reads what was not sent here."""

import base64
import contextlib
import json
import shutil
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import soundfile

from glmasr.frontend.audio import read_audio
from glmasr.serving import web
from glmasr.serving.rest import build_app
from glmasr.serving.service import Limits, Service
from glmasr.text.tokenizer import SPECIAL
from tests.serving.served import Counting, running, wait_for

PREDICT = "/gradio_api/run/predict"


def serve(service, stack):
    """The address of the service with its page, until the stack is closed, and the app."""
    app = build_app(service, pages=("web",))
    stack.callback(service.close)
    return stack.enter_context(running(app, service)), app


@pytest.fixture(scope="module")
def serving(intake):
    """A function that serves a system with limits, and gives a client of it."""
    with contextlib.ExitStack() as stack:

        def start(system, **limits):
            service = Service(system, Limits(**limits), intake)
            address, app = serve(service, stack)
            client = stack.enter_context(httpx.Client(base_url=address, timeout=30, trust_env=False))
            client.uploads, client.service = Path(app.state.uploads.name), service
            return client

        yield start


@pytest.fixture(scope="module")
def client(serving, transcriber):
    return serving(transcriber)


@pytest.fixture(scope="module")
def expected(transcriber, clips) -> str:
    return transcriber([read_audio(str(clips[0]))])[0].text


def data_url(content: bytes, kind: str = "audio/wav") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def upload(client, content: bytes, name: str = "a.wav") -> str:
    """The path that Gradio gives to an upload."""
    answer = client.post("/gradio_api/upload", files={"files": (name, content)})
    answer.raise_for_status()
    return answer.json()[0]


def silence(seconds: float, folder: Path) -> bytes:
    soundfile.write(folder / "a.flac", np.zeros(round(seconds * 16_000)), 16_000)
    return (folder / "a.flac").read_bytes()


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="there is no curl here")
def test_curl_as_the_readme_says(client, clips, expected):
    command = (
        """printf '{"data": ["data:audio/wav;base64,%s"]}' "$(base64 -w0 "$0")" |"""
        """ curl -s "$1"/gradio_api/run/predict -H 'Content-Type: application/json' -d @-"""
    )
    spoken = subprocess.run(
        ["bash", "-c", command, str(clips[0]), str(client.base_url).rstrip("/")], capture_output=True, check=True
    )
    assert json.loads(spoken.stdout) == {"data": [expected]} and expected


@pytest.mark.parametrize("path", web.PREDICT)
@pytest.mark.parametrize("kind", ["audio/wav", "audio/webm;codecs=opus", "application/octet-stream"])
def test_a_data_url_is_heard_whatever_it_calls_itself(client, clips, expected, path, kind):
    answer = client.post(path, json={"data": [data_url(clips[0].read_bytes(), kind), "", None]})
    assert answer.status_code == 200 and answer.json() == {"data": [expected]}


def test_a_file_object_of_gradio_is_heard(client, clips, expected):
    path = upload(client, clips[0].read_bytes(), "my talk.flac")
    sent = {"path": path, "orig_name": "my talk.flac", "meta": {"_type": "gradio.FileData"}}
    assert client.post(PREDICT, json={"data": [sent]}).json() == {"data": [expected]}


def test_the_client_of_gradio_is_answered(client, clips, expected):
    gradio_client = pytest.importorskip("gradio_client")
    there = gradio_client.Client(str(client.base_url), verbose=False, analytics_enabled=False)
    assert there.predict(gradio_client.handle_file(str(clips[0])), api_name="/predict") == expected
    with pytest.raises(Exception, match="base64"):
        there.predict("https://elsewhere.example/a.wav", api_name="/predict")


def test_choices_are_those_of_rest(client, serving, clips):
    audio = data_url(clips[0].read_bytes())
    assert client.post(PREDICT, json={"data": [audio, "", True]}).status_code == 200
    other = serving(Counting())
    for choice, word in ((["xx"], "'xx'"), (["", True], "gain")):
        answer = other.post(PREDICT, json={"data": [audio, *choice]})
        assert answer.status_code == 400 and word in answer.json()["error"]["message"]


@pytest.mark.parametrize("rest", [[], [""], ["", True]])
def test_gradios_own_call_answers_one_value_through_its_events(client, clips, expected, rest):
    """As Gradio's guide has curl ask: `call/predict` names an event, whose stream ends with what was heard."""
    begun = client.post("/gradio_api/call/predict", json={"data": [data_url(clips[0].read_bytes()), *rest]})
    assert begun.status_code == 200 and set(begun.json()) == {"event_id"}
    assert called(client, begun.json()["event_id"]) == ("complete", [expected])


def test_gradios_own_call_says_what_it_does_not_hear(client):
    begun = client.post("/gradio_api/call/predict", json={"data": [data_url(b"no audio at all")]})
    kind, told = called(client, begun.json()["event_id"])
    assert kind == "error" and "is not audio" in told["error"]
    assert client.post("/gradio_api/call/predict", json={"data": [1, 2, 3, 4]}).status_code == 400


def called(client, event: str):
    """The last event of a call, and what it says."""
    lines = client.get(f"/gradio_api/call/predict/{event}").text.strip().splitlines()
    return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"{", "JSON"),
        (b"[" * 9999, "JSON"),
        (b"[]", "data"),
        (b"{}", "data"),
        (b'{"data": []}', "data"),
        (b'{"data": [null]}', "data URL"),
        (b'{"data": ["data:audio/wav;base64,AAA"]}', "base64"),
        ('{"data": ["data:audio/wav;base64,é"]}'.encode(), "base64"),
        (b'{"data": ["data:audio/wav;base64,"]}', "empty"),
        (b'{"data": ["data:audio/wav;base64,AAAA"]}', "audio"),
        (b'{"data": ["https://elsewhere.example/a.wav"]}', "data URL"),
        (b'{"data": ["/etc/hostname"]}', "data URL"),
        (b'{"data": [{"path": "/etc/hostname"}]}', "data URL"),
        (b'{"data": [{"path": "http://127.0.0.1/a.wav"}]}', "data URL"),
        (b'{"data": [{"path": "\\u0000"}]}', "data URL"),
        (b'{"data": [{"url": "http://127.0.0.1/a.wav"}]}', "data URL"),
        (b'{"data": ["data:audio/wav;base64,AAAA", 1]}', "language"),
        (b'{"data": ["data:audio/wav;base64,AAAA", "", "yes"]}', "gain"),
    ],
)
def test_what_is_no_request_is_refused_in_a_sentence(client, body, word):
    answer = client.post(PREDICT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and word in answer.json()["error"]["message"], answer.text


def test_limits_are_those_of_rest(serving, tmp_path):
    system = Counting()
    small = serving(system, upload_bytes=1 << 20, duration_seconds=5.0, queue=1)
    assert small.post(PREDICT, json={"data": [data_url(bytes(2 << 20))]}).status_code == 413
    assert small.post("/gradio_api/upload", files={"files": ("a.wav", bytes(2 << 20))}).status_code == 413
    assert small.post(PREDICT, json={"data": [data_url(silence(6, tmp_path))]}).status_code == 422
    system.may.clear()
    short = {"data": [data_url(silence(1, tmp_path))]}
    first = threading.Thread(target=small.post, args=(PREDICT,), kwargs={"json": short})
    first.start()
    try:
        wait_for(lambda: small.post(PREDICT, json={"data": []}).status_code == 429)
        assert int(small.post(PREDICT, json=short).headers["retry-after"]) > 0
    finally:
        system.may.set()
        first.join(20)
    assert small.post(PREDICT, json=short).json() == {"data": ["16000 samples"]}


def test_uploads_are_bounded_and_leave_with_the_app(intake, transcriber):
    with contextlib.ExitStack() as stack:
        address, app = serve(Service(transcriber, Limits(held_bytes=300_000), intake), stack)
        folder = Path(app.state.uploads.name)
        with httpx.Client(base_url=address, timeout=30, trust_env=False) as client:
            path = Path(upload(client, b"a" * 200_000))
            assert path.is_relative_to(folder) and client.get(f"/gradio_api/file={path}").content == b"a" * 200_000
            upload(client, b"b" * 200_000)
            (folder / "gone.wav").symlink_to(folder / "nothing")  # as one that leaves while they are weighed
            assert client.post("/gradio_api/upload", files={"files": ("c.wav", b"c")}).status_code == 429
            assert web._bytes_in(folder) == 400_000
    app.state.uploads.cleanup()
    assert not folder.exists() and web._bytes_in(folder) == 0


def test_a_server_that_ends_hears_all_files_of_a_page_first(serving, tmp_path):
    system = Counting()
    client = serving(system)
    files = [{"path": upload(client, silence(seconds, tmp_path), f"{seconds}.flac")} for seconds in (1, 2)]
    files = [{**file, "meta": {"_type": "gradio.FileData"}} for file in files]
    system.may.clear()
    asked = {"data": ["", False, None, files], "fn_index": 1, "session_hash": "drained"}
    client.post("/gradio_api/queue/join", json=asked).raise_for_status()
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "drained"}) as answer:
        wait_for(lambda: client.service.requests)
        client.service.drain()
        time.sleep(0.3)  # three looks of the server's at whether all is done
        system.may.set()
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    last = next(event for event in events if event["msg"] == "process_completed")
    assert last["success"] and all(f"{count} samples" in str(last["output"]) for count in (16_000, 32_000))
    wait_for(lambda: client.service.is_idle)


@pytest.mark.parametrize(
    "name", ["../../../../tmp/up.wav", "/etc/up.wav", "..", "a\x00b.wav", "x" * 300 + ".wav", "<b>.wav"]
)
def test_no_name_of_an_upload_leads_out_of_its_folder(client, name):
    answer = client.post("/gradio_api/upload", files={"files": (name, b"1234")})
    assert answer.status_code < 500
    if answer.status_code == 200:
        assert Path(answer.json()[0]).resolve().is_relative_to(client.uploads)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/gradio_api/file=/etc/hostname", 403),
        ("/gradio_api/file=..%2f..%2fetc%2fhostname", 403),
        ("/gradio_api/file=http://127.0.0.1:1/", 403),
        ("/gradio_api/proxy=http://127.0.0.1:1/", 404),
        ("/gradio_api/stream/a/b/c/playlist.m3u8", 404),
        ("/gradio_api/monitoring", 404),
        ("/gradio_api/mcp/", 404),
        ("/file=/etc/hostname", 404),
        ("/docs", 404),
        ("/openapi.json", 404),
    ],
)
def test_gradio_gives_nothing_else_away(client, path, status):
    answer = client.get(path)
    assert answer.status_code == status and answer.json()["error"]["message"], answer.text


@pytest.mark.parametrize(
    "door", ["queue/join", "run/predict/", "call/predict", "call/v2/predict", "api/predict/", "run/hear"]
)
@pytest.mark.parametrize("path", ["/etc/hostname", "http://127.0.0.1:1/a.wav", "glmasr/speech.py"])
def test_no_door_of_gradio_takes_a_path(client, door, path):
    sent = {"path": path, "meta": {"_type": "gradio.FileData"}}
    for data in ([sent, "", False], ["", False, sent, None], ["", False, None, [sent]]):
        answer = client.post(
            f"/gradio_api/{door}",
            json={"data": data, "fn_index": 0, "session_hash": "s"},
            follow_redirects=False,
        )
        assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize(("method", "path"), [("GET", "/config"), ("OPTIONS", "/gradio_api/upload"), ("GET", "/x")])
def test_no_page_of_another_address_may_read_an_answer(client, method, path):
    """Nor ask with what its user's browser knows of him; whatever name the server is reached by."""
    asking = {"origin": "http://elsewhere.example", "host": "office.lan", "access-control-request-method": "POST"}
    answer = client.request(method, path, headers=asking)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.xhtml", "a.js"])
def test_an_upload_is_never_run_as_a_page(client, name):
    answer = client.get(f"/gradio_api/file={upload(client, b'<script>alert(1)</script>', name)}")
    assert answer.status_code == 200 and answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"


def test_the_page_says_that_it_needs_no_other_address(client):
    answer = client.get("/")
    assert answer.status_code == 200 and "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "new WebSocket" in answer.text and "fonts.googleapis" not in answer.text


def test_a_system_that_hears_whole_recordings_has_a_page_without_captions(serving):
    page = serving(Counting()).get("/").text
    assert 'elem_id":"go' in page.replace(" ", "") and "Live captions" not in page


def test_the_languages_offered_are_those_of_the_bundle(transcriber):
    assert web.languages_of(transcriber) == []
    tags = {SPECIAL: "", SPECIAL + 1: "yue", SPECIAL + 2: "en", SPECIAL + 3: "en"}
    tokenizer = SimpleNamespace(size=SPECIAL + 4, language_of=lambda tokens: tags[tokens[0]])
    tagged = object.__new__(type(transcriber))
    tagged.tokenizer = tokenizer
    assert web.languages_of(tagged) == ["en", "yue"]
    assert web.languages_of(SimpleNamespace(languages=("en", "de"))) == ["en", "de"]
