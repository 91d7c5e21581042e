"""`glmasr serve` as a user starts it: one line, answers, an end that loses nothing and leaves nothing."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from glmasr import cli
from glmasr.frontend.audio import read_audio
from glmasr.serving.service import Limits
from glmasr.text.tokenizer import learn_characters
from glmasr.transcriber import Transcriber
from tests.serving.served import connection, said, wait_for
from tests.small import REPOSITORY, random_bundle

ENDPOINT = "/v1/audio/transcriptions"
HEAD = f"POST {ENDPOINT} HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=x\r\n"
PART = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "demo" / "pretrained" / "bundle"
    random_bundle(folder, learn_characters(["abc de"]), language="en")
    return folder


@pytest.fixture(scope="module")
def clip(rhyme_root) -> Path:
    return rhyme_root / "rhyme_test" / "audio" / "M4_b1_w1.flac"


def started(*options, cwd, **environment) -> subprocess.Popen:
    command = [sys.executable, "-m", "glmasr.cli", "serve", "--port", "0", *map(str, options)]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=surroundings, **pipe)


@contextlib.contextmanager
def running(*options, cwd, **environment) -> Iterator[tuple[subprocess.Popen, str]]:
    """A server and its address, once it has said its line."""
    with started(*options, cwd=cwd, **environment) as process:
        try:
            line = process.stdout.readline()
            assert " listens on http://127.0.0.1:" in line, process.stderr.read()
            yield process, line.split()[4]
        finally:
            process.kill()


def children(process: int) -> list[int]:
    """What a process has started, as long as none of it starts more."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def alive(processes: list[int]) -> list[int]:
    """Those that are there, and no zombies."""
    states = {one: Path(f"/proc/{one}/stat") for one in processes}
    return [
        one
        for one, state in states.items()
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"
    ]


def complaint(*options, cwd) -> str:
    """Its last words, where it does not start: one sentence."""
    out, err = (process := started(*options, cwd=cwd)).communicate(timeout=120)
    assert process.returncode == 1 and not out and "Traceback" not in err and err.startswith("glmasr: ")
    return err


def test_it_serves_the_demos_bundle_and_what_is_in_flight_survives_its_end(bundle, clip, tmp_path):
    """In flight is here: half of the body is there, as SIGTERM comes."""
    home = bundle.parents[3]
    (home / "runs").symlink_to(bundle.parents[2]) if not (home / "runs").exists() else None
    expected = Transcriber(str(bundle)).transcribe_file(str(clip)).text
    body = PART + clip.read_bytes() + b"\r\n--x--\r\n"
    head = f"{HEAD}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
    with running(cwd=home, TMPDIR=str(tmp_path)) as (process, url):
        family = children(process.pid)
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            assert client.audio.transcriptions.create(file=clip, model="whisper-1").text == expected
            with connection(url) as first, connection(url) as second:
                for line in (first, second):
                    line.sendall(head + body[:-50])
                numbers = "glmasr_held_bytes"
                wait_for(lambda: float(dict(map(str.split, plain(url)))[numbers]) >= 2 * (len(body) - 50))
                process.send_signal(signal.SIGTERM)
                wait_for(lambda: httpx.get(f"{url}/health").status_code == 503)
                with pytest.raises(openai.InternalServerError, match="shutting down") as refused:
                    client.audio.transcriptions.create(file=clip, model="whisper-1")
                assert refused.value.status_code == 503 and refused.value.response.headers["retry-after"]
                for line in (first, second):
                    line.sendall(body[-50:])
                for line in (first, second):
                    answered = said(line)
                    assert answered.startswith(b"HTTP/1.1 200") and expected.encode() in answered
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    assert family
    wait_for(lambda: not alive(family))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def plain(url):
    """Prometheus' lines that have no labels."""
    return [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line[0] != "#" and "{" not in line]


def test_killed_it_leaves_no_process_and_no_file(bundle, clip, tmp_path):
    with running("--bundle", bundle, cwd=tmp_path, TMPDIR=str(tmp_path), GLMASR_API_KEY="sesame") as (process, url):
        family = children(process.pid)
        assert httpx.get(f"{url}/v1/models").status_code == 401
        known = {"authorization": "Bearer sesame"}
        assert httpx.post(f"{url}{ENDPOINT}", files={"file": clip.open("rb")}, headers=known).status_code == 200
        with connection(url) as line:
            line.sendall(f"{HEAD}authorization: Bearer sesame\r\ncontent-length: 9999999\r\n\r\n".encode() + PART)
            line.sendall(bytes(2_000_000))
            process.kill()
            process.wait()
    assert family
    wait_for(lambda: not alive(family))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_cannot_be_served_is_one_sentence(bundle, tmp_path):
    (tmp_path / "key").write_text("\n")
    assert "make demo" in complaint(cwd=tmp_path) and "--system whisper:tiny.en" in complaint(cwd=tmp_path)
    assert "'queue=many' is no limit" in complaint("--bundle", bundle, "--limit", "queue=many", cwd=tmp_path)
    assert "no key on its first line" in complaint("--bundle", bundle, "--api-key-file", "key", cwd=tmp_path)
    assert "'kaldi:x' is no system" in complaint("--system", "kaldi:x", cwd=tmp_path)


def test_the_help_tells_every_limit_as_it_is():
    for field in dataclasses.fields(Limits):
        assert (
            f"{field.name}={field.default:g}" in cli.SERVE_EPILOG or f"{field.name}={field.default}" in cli.SERVE_EPILOG
        )


def test_whisper_is_served_through_the_same_door(rhyme_root, tmp_path):
    model = REPOSITORY / "data" / "models" / "whisper-tiny.en"
    if not (model / "model.bin").exists():
        pytest.skip("no Whisper weights lie in data/models")
    clip = rhyme_root / "rhyme_test" / "audio" / "F1_b10_w1.flac"
    with (
        running("--system", f"whisper:{model}", cwd=tmp_path) as (_, url),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        heard = client.audio.transcriptions.create(file=clip, model="whisper-1", response_format="verbose_json")
        assert "select the word" in heard.text.lower() and heard.language == "english"
        assert heard.duration == pytest.approx(len(read_audio(str(clip))) / 16_000, abs=0.001)
