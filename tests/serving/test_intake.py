"""Audio that nobody trusts: what is sound is read to the sample, everything else is refused within its limits."""

import contextlib
import io
import json
import os
import resource
import signal
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from glmasr.frontend.audio import read_audio, read_blocks, resample
from glmasr.serving import intake as room
from glmasr.serving.intake import Allowance, Intake, Refused, container_of, decode
from glmasr.speech import RATE_HZ, InputError
from tests.serving.served import wait_for

PLENTY = Allowance(duration_seconds=600.0, decode_seconds=60.0, decode_bytes=256 << 20, upload_bytes=10 << 20)
FORMS = {
    "call.wav": (8_000, 1, {"subtype": "PCM_16"}),
    "ulaw.wav": (8_000, 1, {"subtype": "ULAW"}),
    "studio.wav": (96_000, 2, {"subtype": "FLOAT"}),
    "talk.flac": (44_100, 2, {}),
    "talk.mp3": (44_100, 1, {}),
    "talk.ogg": (16_000, 1, {}),
    "voice.opus": (48_000, 1, {"format": "OGG", "subtype": "OPUS"}),
    "old.aiff": (22_050, 1, {}),
}


def refusal(intake, audio, allowance=PLENTY):
    with pytest.raises(Refused) as found:
        intake.read(audio, allowance)
    assert "/dev/fd" not in found.value.message and len(found.value.message.splitlines()) == 1
    return found.value.status, found.value.message


def recorded(path, seconds, rate_hz=16_000, channels=1):
    noise = np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate_hz), channels))
    soundfile.write(path, noise, rate_hz)
    return path


@pytest.mark.parametrize(("name", "codec"), [("phone.m4a", "aac"), ("browser.webm", "libopus")])
def test_what_phones_and_browsers_record_is_read(intake, clips, tmp_path, name, codec):
    av = pytest.importorskip("av")
    speech = resample(read_audio(str(clips[0])), RATE_HZ, 48_000)
    with av.open(str(tmp_path / name), "w", format="mp4" if codec == "aac" else "webm") as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        for start in range(0, len(speech), 960):
            frame = av.AudioFrame.from_ndarray(speech[None, start : start + 960].copy(), "fltp", "mono")
            frame.sample_rate, frame.pts = 48_000, start
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    found = intake.read((tmp_path / name).read_bytes(), PLENTY)
    np.testing.assert_array_equal(found, np.concatenate(list(read_blocks(str(tmp_path / name), room.BLOCK_SECONDS))))
    assert abs(len(found) / RATE_HZ - len(speech) / 48_000) < 0.1


@pytest.mark.parametrize("name", FORMS)
def test_every_format_is_read_as_the_command_line_reads_it(intake, clips, tmp_path, name):
    rate_hz, channels, options = FORMS[name]
    speech = resample(read_audio(str(clips[0])), RATE_HZ, rate_hz)
    soundfile.write(tmp_path / name, np.stack([speech] * channels, axis=1), rate_hz, **options)
    expected = np.concatenate(list(read_blocks(str(tmp_path / name), room.BLOCK_SECONDS)))
    assert len(expected) > 10_000
    for audio in (tmp_path / name, (tmp_path / name).read_bytes(), (tmp_path / name).open("rb")):
        np.testing.assert_array_equal(intake.read(audio, PLENTY), expected)


def test_what_is_no_audio_is_refused_in_a_sentence(intake, clips):
    flac = clips[0].read_bytes()
    assert refusal(intake, b"") == (400, "the file is empty (0 bytes): record or export it again")
    playlist = b"#EXTM3U\n#EXTINF:1\nfile:///etc/passwd\n"
    for text in (
        b"hello",
        playlist,
        b"<svg/>",
        b"PK\x03\x04" + bytes(64),
        b"RIFF\x10\0\0\0AVI LIST",
        b"http://x/a.wav",
    ):
        status, message = refusal(intake, text)
        assert status == 400 and "not audio of a format that is read here" in message
    soundfile.write(empty := io.BytesIO(), np.zeros(0), RATE_HZ, format="WAV")
    status, message = refusal(intake, empty.getvalue())
    assert status == 400 and "no samples" in message
    for broken in (b"RIFF\x10\0\0\0WAVEjunk", flac[:200], b"fLaC" + bytes(100), b"\x1a\x45\xdf\xa3" + bytes(99)):
        assert refusal(intake, broken)[0] == 400


def test_sizes_and_lengths_have_limits(intake, tmp_path):
    file = recorded(tmp_path / "noise.wav", 12.0)
    assert refusal(intake, file, replace(PLENTY, upload_bytes=1 << 18))[0] == 413
    assert len(intake.read(file, replace(PLENTY, duration_seconds=12.0))) == 12 * RATE_HZ
    status, message = refusal(intake, file, replace(PLENTY, duration_seconds=11.9))
    assert status == 422 and "minutes" in message


def test_a_header_that_lies_does_not_get_longer_than_allowed(tmp_path, monkeypatch):
    """The length is counted while it is read, whatever was promised."""
    file = recorded(tmp_path / "noise.wav", 12.0)
    about = room.probe_audio(str(file))
    monkeypatch.setattr(room, "probe_audio", lambda path: replace(about, duration_seconds=0.1))
    with file.open("rb") as source, (tmp_path / "out").open("wb") as target:
        report = decode(source.fileno(), target.fileno(), replace(PLENTY, duration_seconds=7.0))
    assert report["status"] == 422 and (tmp_path / "out").stat().st_size <= 7 * RATE_HZ * 4
    monkeypatch.setattr(room, "probe_audio", lambda path: about)
    with file.open("rb") as source:  # one that is honest is not read at all, and nothing written
        assert decode(source.fileno(), -1, replace(PLENTY, duration_seconds=7.0))["status"] == 422
    for made_up in ({"channels": 1000}, {"rate_hz": 1_000_000}, {"rate_hz": 1}):
        monkeypatch.setattr(room, "probe_audio", lambda path, made_up=made_up: replace(about, **made_up))
        with file.open("rb") as source:
            assert decode(source.fileno(), -1, PLENTY)["status"] == 422


def test_what_takes_too_long_or_too_much_is_killed_and_the_next_is_read(intake, clips, tmp_path):
    file = recorded(tmp_path / "wide.wav", 5.0, 96_000, 8)
    status, message = refusal(intake, file, replace(PLENTY, decode_seconds=0.001))
    assert status == 422 and "0.001 s" in message
    status, message = refusal(intake, file, replace(PLENTY, decode_bytes=4 << 20))
    assert status == 422 and "4 MB of memory" in message
    assert len(intake.read(file, PLENTY)) == 5 * RATE_HZ
    assert len(intake.read(clips[0], PLENTY))


def test_a_decoder_that_crashes_takes_nothing_with_it(clips, tmp_path, monkeypatch):
    """A child of this process: it dies of a signal, and says nothing."""
    monkeypatch.setattr(room, "decode", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    heard, told = os.pipe()
    if (child := os.fork()) == 0:
        room._child(False, PLENTY, 0, 1, told)
    os.close(told)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL and os.read(heard, 10) == b""
    os.close(heard)


def test_a_child_is_held_to_its_allowance_by_the_kernel():
    """Should its timer fail, its processor time ends; should its counting, the file it writes."""
    heard, told = os.pipe()
    if (child := os.fork()) == 0:
        room.confine(PLENTY)
        kinds = (resource.RLIMIT_CPU, resource.RLIMIT_CORE, resource.RLIMIT_FSIZE)
        os.write(told, json.dumps([resource.getrlimit(kind) for kind in kinds]).encode())
        os._exit(0)
    os.close(told)
    os.waitpid(child, 0)
    file_bytes = int((PLENTY.duration_seconds + 2 * room.BLOCK_SECONDS) * RATE_HZ * room.SAMPLE_BYTES)
    assert json.loads(os.read(heard, 4096)) == [[60, 60], [0, 0], [file_bytes, file_bytes]]
    os.close(heard)


def test_whatever_a_child_raises_is_a_report(monkeypatch):
    for error, status in ((MemoryError(), 422), (ZeroDivisionError(), 400), (RecursionError(), 400)):

        def broken(*_, error=error):
            raise error

        monkeypatch.setattr(room, "decode", broken)
        heard, told = os.pipe()
        if (child := os.fork()) == 0:
            room._child(False, PLENTY, 0, 1, told)
        assert os.waitpid(child, 0)[1] == 0
        assert json.loads(os.read(heard, 4096))["status"] == status


def test_channels_apart_are_all_read_and_count_as_one_recording_after_another(intake, clips, tmp_path):
    left, right = (read_audio(str(clip))[:RATE_HZ] for clip in clips[:2])
    soundfile.write(tmp_path / "call.wav", np.stack([left, right], axis=1), RATE_HZ, subtype="FLOAT")
    found = intake.read(tmp_path / "call.wav", PLENTY, apart=True)
    np.testing.assert_array_equal(found, np.stack([left, right]))
    with pytest.raises(Refused, match="may last") as refused:
        intake.read(tmp_path / "call.wav", replace(PLENTY, duration_seconds=1.5), apart=True)
    assert refused.value.status == 422
    with (tmp_path / "call.wav").open("rb") as source:  # nothing is written of it
        assert decode(source.fileno(), -1, replace(PLENTY, duration_seconds=1.5), apart=True)["status"] == 422
    assert len(intake.read(tmp_path / "call.wav", replace(PLENTY, duration_seconds=1.5))) == RATE_HZ
    assert intake.read(clips[0], PLENTY, apart=True).shape == (1, len(intake.read(clips[0], PLENTY)))


def test_a_crowd_of_open_sockets_is_no_hindrance(intake, clips):
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < 2048:
        pytest.skip("a process may not have so many files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), most))
    with contextlib.ExitStack() as crowd:
        crowd.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, most))
        while crowd.enter_context(open(os.devnull)).fileno() < 1100:
            pass
        assert len(intake.read(clips[0], PLENTY))


def test_readers_at_once_get_each_his_own(intake, clips):
    expected = [np.concatenate(list(read_blocks(str(clip), room.BLOCK_SECONDS))) for clip in clips]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda clip: intake.read(clip, PLENTY), clips * 4))
    for samples, whole in zip(found, expected * 4, strict=True):
        np.testing.assert_array_equal(samples, whole)


def test_the_process_behind_it_keeps_no_secret_hears_no_signal_and_is_replaced(clips, monkeypatch):
    monkeypatch.setenv("GLMASR_API_KEY", "sesame")
    started = Intake()
    first = started.process
    with open(f"/proc/{first.pid}/environ", "rb") as file:
        assert b"sesame" not in file.read()
    os.kill(first.pid, signal.SIGTERM)
    os.kill(first.pid, signal.SIGINT)
    assert len(started.read(clips[0], PLENTY)) and first.poll() is None
    first.kill()
    first.wait()
    wait_for(lambda: first.poll() is not None)
    assert len(started.read(clips[0], PLENTY)) and started.process is not first
    last = started.process
    started.close()
    assert last.poll() == 0


def test_a_process_that_does_not_start_is_a_sentence(monkeypatch):
    monkeypatch.setattr(room.sys, "executable", "/bin/false")
    with pytest.raises(InputError, match="does not start"):
        Intake()


def test_the_process_behind_it_keeps_nothing_of_a_recording(intake, clips):
    home = Path(f"/proc/{intake.process.pid}")
    before = len(list((home / "fd").iterdir()))
    for _ in range(3):
        intake.read(clips[0], PLENTY)
    wait_for(lambda: len(list((home / "fd").iterdir())) <= before)
    wait_for(lambda: not "".join(task.read_text() for task in home.glob("task/*/children")))


def test_files_have_no_name_and_none_stays_open(intake, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names: set[str] = set()
    done = threading.Event()

    def watch():
        while not done.is_set():
            names.update(os.listdir(tmp_path))

    threading.Thread(target=watch).start()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        intake.read(clips[0].read_bytes(), PLENTY)
        refusal(intake, b"nothing")
    done.set()
    assert not names and len(os.listdir("/proc/self/fd")) <= before + 1


def test_formats_are_known_by_how_they_begin():
    assert container_of(b"\xff\xfb\x90\x00" + bytes(12)) == "MP3" == container_of(b"ID3\x04" + bytes(12))
    assert container_of(b"\0\0\0 ftypM4A " + bytes(4)) == "MP4"
    assert container_of(b"\xff\xf1\x50\x80" + bytes(12)) == "AAC"
    assert container_of(b"") is None and container_of(b"\xff") is None
