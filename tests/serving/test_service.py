"""One system for everybody: answers are those of one request after the other, and what is too much is refused."""

import asyncio
import tempfile
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from glmasr.frontend.audio import read_audio, write_audio
from glmasr.serving.service import Limits, Options, Refused, Service, limits_of
from glmasr.speech import InputError, Segment, Transcript
from tests.serving.served import Counting, wait_for


@pytest.fixture
def service_of(intake):
    """A function that makes services; all are closed in the end."""
    made = []

    def make(system, **limits):
        made.append(Service(system, Limits(**limits), intake))
        return made[-1]

    yield make
    for service in made:
        service.close()


async def until(condition):
    """Until it holds, without holding up the loop."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def without_confidence(transcript):
    """All that is said and when; how sure, a batch rounds otherwise in the seventh digit."""
    segments = [
        replace(segment, words=tuple(replace(word, confidence=0.0) for word in segment.words))
        for segment in transcript.segments
    ]
    return replace(transcript, segments=tuple(segments))


def test_together_they_are_heard_as_one_after_the_other(service_of, transcriber, clips, tmp_path):
    long = tmp_path / "long.wav"
    write_audio(long, np.concatenate([read_audio(str(clip)) for clip in clips * 4]))
    files = [long, *clips, *clips[:3], long]
    alone = [transcriber.transcribe_file(str(file)) for file in files]
    assert len({one.text for one in alone}) > 4 and len(alone[0].segments) > 1
    service = service_of(transcriber, batch_seconds=6.0)

    async def ask():
        return await asyncio.gather(*(service.transcribe(file) for file in files))

    assert list(map(without_confidence, asyncio.run(ask()))) == list(map(without_confidence, alone))
    assert service.in_flight == 0 and service.is_idle
    assert service.audio_seconds == pytest.approx(sum(one.duration_seconds for one in alone), abs=0.01)


def test_each_request_has_its_options(service_of, transcriber, clips):
    service = service_of(transcriber)
    asked = [Options(), Options(script="traditional"), Options(gain=True), Options(language="zh", numerals=True)]

    async def ask():
        return await asyncio.gather(*(service.transcribe(clips[0], options) for options in asked))

    expected = [transcriber.variant(**options.chosen).transcribe_file(str(clips[0])) for options in asked]
    assert asyncio.run(ask()) == expected
    with pytest.raises(Refused, match="script 'runes' is unknown") as refused:
        asyncio.run(service.transcribe(clips[0], Options(script="runes")))
    assert refused.value.status == 400
    assert Options(gain=False).chosen == {"gain": False} and Options().chosen == {}


def test_a_stream_grows_to_the_whole(service_of, transcriber, clips, tmp_path):
    long = tmp_path / "long.wav"
    write_audio(long, np.concatenate([read_audio(str(clip)) for clip in clips * 4]))
    service = service_of(transcriber, batch_seconds=1.0)

    async def ask():
        return [part async for part in service.stream(long)]

    parts, whole = asyncio.run(ask()), without_confidence(transcriber.transcribe_file(str(long)))
    assert len(parts) > 2 and without_confidence(parts[-1]) == whole
    assert all(later.text.startswith(part.text) for part, later in pairwise(parts))
    assert len(parts[0].text) < len(parts[-1].text)


def test_the_queue_is_bounded_and_its_places_come_back(service_of, clips):
    system = Counting()
    service = service_of(system, queue=3)
    system.may.clear()

    async def ask():
        waiting = [asyncio.create_task(service.transcribe(clips[0])) for _ in range(3)]
        await until(lambda: service.in_flight == 3)
        with pytest.raises(Refused, match="3 recordings are waiting") as refused:
            await service.transcribe(clips[0])
        assert refused.value.status == 429 and refused.value.retry_after_seconds >= 1
        with pytest.raises(Refused):
            _ = [part async for part in service.stream(clips[0])]
        system.may.set()
        first = await asyncio.gather(*waiting)
        return [*first, await service.transcribe(clips[0])]

    assert len({one.text for one in asyncio.run(ask())}) == 1
    assert service.in_flight == 0


def test_only_so_many_are_read_before_their_turn(service_of, intake, clips, monkeypatch):
    system, read = Counting(), []
    service = service_of(system, ahead=2)
    system.may.clear()
    monkeypatch.setattr(service, "intake", intake)
    original = intake.read
    monkeypatch.setattr(intake, "read", lambda *arguments: read.append(1) or original(*arguments))

    async def ask():
        waiting = [asyncio.create_task(service.transcribe(clips[0])) for _ in range(6)]
        await until(lambda: len(read) == 2)
        await asyncio.sleep(0.2)
        assert len(read) == 2
        system.may.set()
        await asyncio.gather(*waiting)

    asyncio.run(ask())
    assert len(read) == 6


def test_who_leaves_is_not_transcribed_and_his_file_may_be_closed(service_of, clips):
    system, busy = Counting(), threading.Event()
    service = service_of(system)
    system.may.clear()

    async def ask():
        errand = asyncio.create_task(service.run(busy.wait, 20))  # nothing is read before it is over
        with tempfile.TemporaryFile() as file:
            file.write(clips[1].read_bytes())
            kept = asyncio.create_task(service.transcribe(file))
            left = asyncio.create_task(service.transcribe(file))
            await until(lambda: service.in_flight == 2)
        with tempfile.TemporaryFile() as other:  # its descriptor is the one that was closed
            other.write(clips[0].read_bytes())
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
            assert service.in_flight == 1
            busy.set()
            assert await errand
            system.may.set()
            return await kept

    assert asyncio.run(ask()).text == f"{len(read_audio(str(clips[1])))} samples"
    assert system.heard == 1


def test_what_is_no_audio_is_refused_and_what_breaks_is_not_kept(service_of, clips):
    class Broken(Counting):
        def __call__(self, waveforms):
            raise RuntimeError("CUDA out of memory")

    service = service_of(Broken())
    with pytest.raises(Refused, match="not audio") as refused:
        asyncio.run(service.transcribe(b"hello"))
    assert refused.value.status == 400
    with pytest.raises(RuntimeError, match="CUDA"):
        asyncio.run(service.transcribe(clips[0]))
    assert service.in_flight == 0 and service.ahead._value == service.limits.ahead


def test_any_system_is_served_as_far_as_it_goes(service_of, clips):
    class Chinese(Counting):
        name, languages = "chinese", ("zh",)

        def __call__(self, waveforms):
            text = "三千人说汉语"
            return [Transcript(text, 1.0, (Segment(text, 0.0, 1.0),), "zh") for _ in waveforms]

    service = service_of(Chinese())

    def text(**options):
        return asyncio.run(service.transcribe(clips[0], Options(**options))).text

    assert text() == text(language="zh") == "三千人说汉语"
    assert text(script="traditional") == "三千人說漢語" and text(numerals=True) == "3000人说汉语"
    for options in ({"language": "en"}, {"gain": True}, {"script": "runes"}):
        with pytest.raises(Refused) as refused:
            text(**options)
        assert refused.value.status == 400
    with pytest.raises(Refused, match="whole recordings") as refused:
        service.live()
    assert refused.value.status == 501


def test_live_streams_are_counted_while_they_are_kept(service_of, transcriber, clips):
    service = service_of(transcriber, streams=2)
    speech = read_audio(str(clips[0]))

    async def captions(live):
        return [*await service.run(live.hear, speech), *await service.run(live.finish)]

    kept = [service.live(), service.live(Options(script="traditional"))]
    with pytest.raises(Refused, match="live streams") as refused:
        service.live()
    assert refused.value.status == 429 and not service.is_idle
    heard = asyncio.run(captions(kept.pop(0)))
    assert [caption.segment.text for caption in heard if caption.is_final]
    wait_for(lambda: len(service.streams) == 1)
    kept.append(service.live())
    kept.clear()
    wait_for(lambda: service.is_idle)
    service.drain()
    with pytest.raises(Refused) as refused:
        service.live()
    assert refused.value.status == 503


def test_limits_are_read_from_words():
    assert limits_of([]) == Limits()
    limits = limits_of(["queue=3", "duration_seconds=0.5", "upload_bytes=1e6"])
    assert (limits.queue, limits.duration_seconds, limits.upload_bytes) == (3, 0.5, 1_000_000)
    assert isinstance(limits.queue, int) and isinstance(limits.upload_bytes, int)
    for wrong in ("queue", "queue=", "queue=0", "queue=1.5", "queue=nan", "queues=1", "head_seconds=inf"):
        with pytest.raises(InputError, match=f"'{wrong}' is no limit"):
            limits_of([wrong])


def test_a_service_of_its_own_ends_its_process(clips):
    service = Service(Counting())
    process = service.intake.process
    assert asyncio.run(service.transcribe(Path(clips[0]))).text.endswith("samples")
    service.close()
    assert process.poll() == 0 and not service.turns.thread.is_alive()
