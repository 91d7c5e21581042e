"""The real client of OpenAI against a server on loopback: every format, every mistake, and nothing kept of it."""

import asyncio
import json
import tempfile

import httpx
import numpy as np
import openai
import pysubs2
import pytest
import soundfile
import srt

from glmasr.channels import transcribe_apart
from glmasr.frontend.audio import read_audio, write_audio
from glmasr.serving.rest import _events
from glmasr.serving.service import Limits, Service
from glmasr.speech import RATE_HZ, Transcript
from tests.serving.served import Counting, connection, served, wait_for

ENDPOINT = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def service(intake, transcriber):
    made = Service(transcriber, Limits(batch_seconds=2.0), intake)
    yield made
    made.close()


@pytest.fixture(scope="module")
def url(service):
    with served(service) as address:
        yield address


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def talk(tmp_path_factory, clips):
    """Half a minute of speech in a file."""
    file = tmp_path_factory.mktemp("talk") / "talk.wav"
    write_audio(file, np.concatenate([read_audio(str(clip)) for clip in clips * 3]))
    return file


@pytest.fixture(scope="module")
def whole(transcriber, talk):
    return transcriber.transcribe_file(str(talk))


@pytest.fixture(scope="module")
def ask(client, talk):
    """The client's own request for a file."""

    def call(**options):
        return client.audio.transcriptions.create(file=talk, model=options.pop("model", "mine"), **options)

    return call


@pytest.fixture(scope="module")
def post(url):
    """A form as any program may send it; its answer."""

    def call(data=None, content=b"hello", name="a.wav", **options):
        return httpx.post(f"{url}{ENDPOINT}", data=data or {}, files={"file": (name, content)}, **options)

    return call


def test_json_and_text(ask, whole):
    found = ask()
    assert found.text == whole.text != ""
    assert found.usage.type == "duration" and found.usage.seconds == pytest.approx(whole.duration_seconds, abs=0.001)
    assert ask(response_format="json", model="whisper-1").text == whole.text
    assert ask(response_format="text") == f"{whole.text}\n"


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_subtitles_as_another_library_reads_them(ask, whole, form):
    text = ask(response_format=form)
    cues = pysubs2.SSAFile.from_string(text, format_=form).events
    assert len(cues) > 2 and "".join("".join(cue.plaintext.split()) for cue in cues) == "".join(whole.text.split())
    times = [time for cue in cues for time in (cue.start, cue.end)]
    assert times == sorted(times) and times[-1] <= whole.duration_seconds * 1000 + 1
    assert all(cue.end > cue.start for cue in cues)
    if form == "srt":
        assert [cue.index for cue in srt.parse(text)] == list(range(1, len(cues) + 1))


def test_verbose_json_has_segments_and_words(ask, whole):
    found = ask(response_format="verbose_json")
    assert (found.text, found.language, found.words) == (whole.text, "chinese", None)
    assert found.duration == pytest.approx(whole.duration_seconds, abs=0.001)
    assert [segment.text for segment in found.segments] == [segment.text for segment in whole.segments]
    assert all(segment.avg_logprob < 0 and segment.end > segment.start for segment in found.segments)
    words = [word for segment in whole.segments for word in segment.words]
    found = ask(response_format="verbose_json", timestamp_granularities=["word"])
    assert found.segments is None and [word.word for word in found.words] == [word.text for word in words]
    assert [word.start for word in found.words] == pytest.approx([word.start_seconds for word in words], abs=0.001)
    both = ask(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert both.words == found.words and len(both.segments) == len(whole.segments)


def test_a_stream_says_what_is_new_and_then_the_whole(ask, whole):
    events = list(ask(stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) > 1 and "".join(deltas) == whole.text
    assert [event.type for event in events[:-1]] == ["transcript.text.delta"] * len(deltas)
    assert (events[-1].type, events[-1].text) == ("transcript.text.done", whole.text)


def test_what_was_said_in_a_stream_is_not_said_otherwise():
    """A later part may mend an earlier one (numbers in digits do); then only the end says so."""

    async def events():
        async def parts():
            for text in ("ten", "10 1", "ten two"):
                yield Transcript(text, 1.0)

        rest = parts()
        return [json.loads(one[6:]) async for one in _events(await anext(rest), rest)]

    found = asyncio.run(events())
    assert [one.get("delta") for one in found] == ["ten", " two", None] and found[-1]["text"] == "ten two"


def test_options_are_those_of_the_request(ask, transcriber, talk):
    found = ask(language="zh", extra_body={"gain": "true", "script": "traditional", "numerals": True})
    chosen = transcriber.variant(language="zh", gain=True, script="traditional", numerals=True)
    assert found.text == chosen.transcribe_file(str(talk)).text


def test_channels_apart_are_a_speaker_each(client, transcriber, clips, tmp_path):
    first, second = (read_audio(str(clip)) for clip in clips[:2])
    silence = np.zeros(len(first) + RATE_HZ, np.float32)
    sides = [np.concatenate([first, np.zeros(RATE_HZ + len(second), np.float32)]), np.concatenate([silence, second])]
    call = tmp_path / "call.wav"
    soundfile.write(call, np.stack(sides, axis=1), RATE_HZ, subtype="FLOAT")

    def ask(form):
        extra = {"channels": "apart"}
        return client.audio.transcriptions.create(file=call, model="mine", response_format=form, extra_body=extra)

    expected, found = transcribe_apart(transcriber, str(call)).segments, ask("verbose_json").segments
    assert [(one.speaker, one.text, one.start) for one in found] == [
        (one.speaker, one.text, pytest.approx(one.start_seconds, abs=0.001)) for one in expected
    ]
    assert [one.speaker for one in found] == ["Speaker 1", "Speaker 2"]
    shown = [cue.content for cue in srt.parse(ask("srt"))]
    assert shown[0].startswith("Speaker 1: ") and any(one.startswith("Speaker 2: ") for one in shown)


def test_models(client, url):
    assert [model.id for model in client.models.list()] == ["mine"]
    assert client.models.retrieve("mine").owned_by == "glmasr"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
        client.models.retrieve("gpt")
    assert httpx.get(f"{url}/health").json() == {"status": "ok", "model": "mine"}


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"response_format": "diarized_json"}, "response_format"),
        ({"language": "../../etc"}, "language"),
        ({"temperature": 7}, "temperature"),
        ({"include": ["logprobs"]}, "include"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
        ({"response_format": "verbose_json", "timestamp_granularities": ["day"]}, "timestamp_granularities"),
        ({"response_format": "srt", "stream": True}, "stream"),
        ({"extra_body": {"gain": "perhaps"}}, "gain"),
        ({"extra_body": {"script": "runes"}}, "script"),
        ({"extra_body": {"channels": "left"}}, "channels"),
        ({"extra_body": {"channels": "apart"}, "stream": True}, "channels"),
    ],
)
def test_a_mistake_is_named(ask, options, param):
    with pytest.raises(openai.BadRequestError) as error:
        ask(**options)
    assert error.value.param == param and error.value.type == "invalid_request_error" and error.value.message


def test_an_unknown_model_or_a_broken_file_is_told_of(ask, client):
    with pytest.raises(openai.NotFoundError) as error:
        ask(model="gpt-5")
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="not audio of a format"):
        client.audio.transcriptions.create(file=("x.wav", b"hello"), model="mine")
    with pytest.raises(openai.BadRequestError, match="not audio of a format"):
        list(client.audio.transcriptions.create(file=("x.wav", b"hello"), model="mine", stream=True))


def test_forms_that_are_none_are_refused(url, post):
    def status(**request):
        answered = httpx.post(f"{url}{ENDPOINT}", **request)
        assert set(answered.json()["error"]) == {"message", "type", "param", "code"}
        return answered.status_code

    form = {"content-type": "multipart/form-data; boundary=x"}
    assert status(json={"file": "data:audio/wav;base64,AAAA"}) == 400
    assert status(content=b"", headers={"content-type": "multipart/form-data"}) == 400
    assert status(content=b"--y\r\nnonsense", headers=form) == 400
    part = b'--x\r\ncontent-disposition: form-data; name="file"\r\n\r\nhttp://127.0.0.1/secret.wav\r\n--x--\r\n'
    assert status(content=part, headers=form) == 400
    weird = part.replace(b'"file"', b'"\xff\xfe"')
    for charset in ("idna", "utf-16", "base64", "nonsense", "punycode"):
        assert status(content=weird, headers={"content-type": f"{form['content-type']}; charset={charset}"}) == 400
    assert status(files={"file": ("a", b"x"), "other": ("b", b"y")}) == 400
    assert status(data={"model": "m" * 100_000}, files={"file": ("a", b"x")}) == 400
    assert status(data={f"field{i}": "1" for i in range(99)}, files={"file": ("a", b"x")}) == 400
    assert status(content=b"--x\r\n" + b"a: " + b"b" * 200_000, headers=form) == 400


def test_names_are_never_paths_and_come_back_nowhere(post, clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sound = clips[0].read_bytes()
    for name in ("../../../tmp/evil.wav", "/etc/passwd", "<script>alert(1)</script>.wav", "a\x00b.wav", "x" * 500):
        answered = post(content=sound, name=name)
        assert answered.status_code == 200 and "script" not in answered.text
        assert post(name=name).status_code == 400 and "script" not in post(name=name).text
    assert not list(tmp_path.iterdir())


def test_a_text_cannot_end_its_event_or_its_cue(intake, clips):
    class Rude(Counting):
        def __call__(self, waveforms):
            found = super().__call__(waveforms)[0]
            text = 'a\n\ndata: {"type": "transcript.text.done"}\n\n<b>&\u2028 --> </b>'
            from dataclasses import replace

            return [replace(found, text=text, segments=(replace(found.segments[0], text=text, words=()),))]

    service = Service(Rude(), None, intake)
    with served(service) as url, clips[0].open("rb") as file:
        streamed = httpx.post(f"{url}{ENDPOINT}", files={"file": file}, data={"stream": "true"}).text
        file.seek(0)
        vtt = httpx.post(f"{url}{ENDPOINT}", files={"file": file}, data={"response_format": "vtt"}).text
    service.close()
    events = [json.loads(block.removeprefix("data: ")) for block in streamed.strip().split("\n\n")]
    assert [event["type"] for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert "<b>" not in vtt and vtt.count("-->") == len(pysubs2.SSAFile.from_string(vtt, format_="vtt").events)


def test_too_many_are_told_when_to_come_again(intake, clips):
    system = Counting()
    system.may.clear()
    service = Service(system, Limits(queue=1), intake)
    sound = clips[0].read_bytes()
    with served(service) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        with connection(url) as first:
            body = (
                b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n' + sound + b"\r\n--x--\r\n"
            )
            head = f"POST {ENDPOINT} HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=x\r\n"
            first.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            wait_for(lambda: service.in_flight == 1)
            with pytest.raises(openai.RateLimitError) as error:
                client.audio.transcriptions.create(file=("a.flac", sound), model="whisper-1")
            assert int(error.value.response.headers["retry-after"]) >= 1
            assert error.value.type == "rate_limit_error"
        # The first has hung up: nobody waits for it any more.
        wait_for(lambda: service.in_flight == 0, seconds=10)
        system.may.set()
        assert client.audio.transcriptions.create(file=("a.flac", sound), model="whisper-1").text.endswith("samples")
    service.close()


def test_too_large_and_too_long_have_their_own_answers(intake, clips, tmp_path):
    write_audio(tmp_path / "long.flac", np.zeros(30 * RATE_HZ, np.float32))
    service = Service(Counting(), Limits(upload_bytes=100_000, duration_seconds=20.0), intake)
    with served(service) as url:
        answered = httpx.post(f"{url}{ENDPOINT}", files={"file": ("long.flac", (tmp_path / "long.flac").read_bytes())})
        assert answered.status_code == 422 and "minutes" in answered.json()["error"]["message"]
        answered = httpx.post(f"{url}{ENDPOINT}", files={"file": ("big.wav", bytes(300_000))})
        assert (answered.status_code, answered.json()["error"]["code"]) == (413, "file_too_large")
        wait_for(lambda: service.held_bytes == 0 and service.requests == 0)
    service.close()


def test_what_breaks_is_a_500_that_says_nothing_and_the_next_is_served(intake, clips):
    class Broken(Counting):
        def __call__(self, waveforms):
            if not self.heard:
                self.heard += 1
                raise RuntimeError("a secret")
            return super().__call__(waveforms)

    service = Service(Broken(), None, intake)
    with served(service) as url:
        first, second = (httpx.post(f"{url}{ENDPOINT}", files={"file": clips[0].read_bytes()}) for _ in range(2))
        assert first.status_code == 500 and "secret" not in first.text
        assert first.json()["error"]["type"] == "server_error" and second.status_code == 200
    service.close()


def test_metrics_count_and_say_nothing_of_content(url, ask, whole, client):
    ask()
    httpx.get(f"{url}/nowhere/{whole.text[:3]}")
    text = httpx.get(f"{url}/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(lines[f'glmasr_requests_total{{path="{ENDPOINT}",status="200"}}']) >= 1
    assert float(lines['glmasr_requests_total{path="other",status="404"}']) >= 1
    assert float(lines["glmasr_audio_seconds_total"]) >= whole.duration_seconds
    assert lines["glmasr_recordings_in_flight"] == "0.0" and "nowhere" not in text


def test_nothing_of_what_is_sent_is_logged(url, post, clips, caplog, capfd):
    caplog.set_level("INFO")
    assert post(content=clips[0].read_bytes(), name="my secret name.wav").status_code == 200
    assert post(name="my secret name.wav", data={"language": "secret!"}).status_code == 400
    httpx.get(f"{url}/my-secret-address")
    out, err = capfd.readouterr()
    logged = [record.getMessage() for record in caplog.records if not record.name.startswith("httpx")]
    assert "secret" not in out + err + "".join(logged)
