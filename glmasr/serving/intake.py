"""Audio that nobody trusts in, its 16 kHz samples out: read by a child process that may take so much and no more.

`python -m glmasr.serving.intake FD` is the process that the children are forked from: everything they need is imported
in it, and nothing that anybody sent is ever read in it.
"""

import contextlib
import json
import mmap
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from glmasr.frontend.audio import probe_audio, read_blocks
from glmasr.speech import RATE_HZ, InputError

SAMPLE_BYTES = 4
BLOCK_SECONDS = 5.0
"""Decoded at a time: 8 channels at 96 kHz are 15 MB."""
CHANNELS, RATES_HZ = 32, range(1_000, 768_001)
"""What recorders write; beyond it, a header was made up."""
HEAD_BYTES = 16
PATIENCE_SECONDS = 10.0
"""How much longer than a child may live it is waited for: it is killed by the kernel, not by who waits."""
REPORT_BYTES = 4096
SECRETS = ("GLMASR_API_KEY",)
FORMATS = "WAV, FLAC, MP3, OGG, Opus, AIFF, M4A or WebM"


class Refused(Exception):
    """A request that is not served: an HTTP status, a sentence for who asked, and when to come again."""

    def __init__(self, status: int, message: str, retry_after_seconds: float | None = None):
        super().__init__(message)
        self.status, self.message, self.retry_after_seconds = status, message, retry_after_seconds


@dataclass(frozen=True)
class Allowance:
    """What reading one recording may take: seconds of audio, of wall and CPU time; bytes sent, and of memory."""

    duration_seconds: float
    decode_seconds: float
    decode_bytes: int
    upload_bytes: int


class Intake:
    """Reads what it is handed, one child for each. Any number of threads may use it at once."""

    def __init__(self):
        self.lock = threading.Lock()
        self.process, self.channel = _start()

    def read(self, audio: Path | bytes | BinaryIO, allowance: Allowance, apart: bool = False) -> np.ndarray:
        """16 kHz mono samples (N) as float32, mapped from an unnamed file: only what is looked at is in memory.

        With `apart` all channels (C, N), which together may last as long as one recording. A file is read by its
        descriptor. Refused: 400 what is no audio, 413 too large, 422 too long or too much work.
        """
        with _file_of(audio) as source, tempfile.TemporaryFile() as target:
            size = os.fstat(source.fileno()).st_size
            if size > allowance.upload_bytes:
                raise too_large(allowance.upload_bytes)
            if not size:
                raise Refused(400, "the file is empty (0 bytes): record or export it again")
            report = self._ask(allowance, apart, source.fileno(), target.fileno())
            if "status" in report:
                raise Refused(report["status"], report["message"])
            samples = np.memmap(target, dtype="<f4", mode="c")
            return samples.reshape(report["channels"], -1) if apart else samples

    def close(self) -> None:
        """End the process behind it; children that are still reading end by their own limits."""
        self.channel.close()
        self.process.wait(PATIENCE_SECONDS)

    def _ask(self, allowance: Allowance, apart: bool, source: int, target: int) -> dict:
        heard, told = os.pipe()
        try:
            self._send({**asdict(allowance), "apart": apart}, [source, target, told])
        finally:
            os.close(told)
        with os.fdopen(heard, "rb") as pipe:
            ear = select.poll()  # `select.select` takes no descriptor above 1023, which any crowd of sockets exceeds
            ear.register(pipe, select.POLLIN)
            is_ready = ear.poll(1000 * (allowance.decode_seconds + PATIENCE_SECONDS))
            said = os.read(pipe.fileno(), REPORT_BYTES) if is_ready else b""
        if not said:
            raise Refused(
                422,
                f"the audio takes more than {allowance.decode_seconds:g} s or "
                f"{allowance.decode_bytes >> 20} MB of memory to read, or breaks its decoder: convert it to WAV "
                "or FLAC first",
            )
        return json.loads(said)

    def _send(self, asked: dict, descriptors: list[int]) -> None:
        order = json.dumps(asked).encode()
        with self.lock:
            try:
                socket.send_fds(self.channel, [order], descriptors)
            except OSError:  # somebody killed it
                self.channel.close()
                self.process.wait(PATIENCE_SECONDS)
                self.process, self.channel = _start()
                socket.send_fds(self.channel, [order], descriptors)


def too_large(upload_bytes: int) -> Refused:
    """What is said to who sends more than this."""
    return Refused(413, f"a file may have {upload_bytes >> 20} MB here: send FLAC, MP3 or Opus, or cut it in parts")


def container_of(head: bytes) -> str | None:
    """Which of the formats that are read here a file begins as, by its first 16 bytes; None where it is no such."""
    form = head[8:12]
    if head[:4] in (b"RIFF", b"RF64", b"RIFX") and form == b"WAVE":
        return "WAV"
    if head[:4] == b"FORM" and form in (b"AIFF", b"AIFC"):
        return "AIFF"
    if head[4:8] == b"ftyp":
        return "MP4"
    known = {b"fLaC": "FLAC", b"OggS": "OGG", b"\x1a\x45\xdf\xa3": "WebM", b".snd": "AU", b"caff": "CAF"}
    if head[:4] in known:
        return known[head[:4]]
    if head[:3] == b"ID3":
        return "MP3"
    is_frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    return ("MP3" if head[1] & 0x06 else "AAC") if is_frame else None


@contextlib.contextmanager
def _file_of(audio: Path | bytes | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(audio, bytes):
        with tempfile.TemporaryFile() as file:
            file.write(audio)
            file.flush()
            yield file
    elif isinstance(audio, Path):
        with audio.open("rb") as file:
            yield file
    else:
        audio.flush()
        yield audio


def _start() -> tuple[subprocess.Popen, socket.socket]:
    """The process to fork children from, once it is ready, and the socket it hears orders on."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    if ours.recv(1) != b"+":
        raise InputError(f"the process that reads audio does not start (exit code {process.wait()}): see its words")
    return process, ours


def serve_children(channel: socket.socket) -> None:
    """Fork a child for each order that comes with a source, a target and a pipe to report on, until nobody is left."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)  # who is draining still has files to read
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them, so the kernel buries them
    channel.send(b"+")
    while True:
        order, descriptors, _, _ = socket.recv_fds(channel, REPORT_BYTES, 3)
        if not order:
            return
        if os.fork() == 0:
            channel.close()
            asked = json.loads(order)
            _child(asked.pop("apart"), Allowance(**asked), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _child(apart: bool, allowance: Allowance, source: int, target: int, told: int) -> NoReturn:
    """Read the source into the target within the allowance, report, and end without any of Python's farewells."""
    try:
        confine(allowance)
        report = decode(source, target, allowance, apart)
    except MemoryError:
        message = f"the audio takes more than {allowance.decode_bytes >> 20} MB of memory to read: convert it first"
        report = {"status": 422, "message": message}
    except BaseException as error:
        message = f"the audio cannot be read ({type(error).__name__}): convert it to WAV or FLAC"
        report = {"status": 400, "message": message}
    os.write(told, json.dumps(report).encode()[:REPORT_BYTES])
    os._exit(0)


def confine(allowance: Allowance) -> None:
    """Hold this process to the allowance for the rest of its life; beyond it, the kernel ends it."""
    seconds = max(1, round(allowance.decode_seconds))
    signal.setitimer(signal.ITIMER_REAL, allowance.decode_seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    file_bytes = round((allowance.duration_seconds + 2 * BLOCK_SECONDS) * RATE_HZ * SAMPLE_BYTES)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if os.path.exists("/proc/self/statm"):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        memory = pages * mmap.PAGESIZE + allowance.decode_bytes
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def decode(source: int, target: int, allowance: Allowance, apart: bool = False) -> dict:
    """Write the samples of one descriptor to the other; what to report: how many, or a status and a message.

    With `apart` channel by channel, each from its beginning.
    """
    path = f"/dev/fd/{source}"
    too_long = {
        "status": 422,
        "message": f"a recording may last {allowance.duration_seconds / 60:g} minutes here: cut it in parts",
    }
    head = os.pread(source, HEAD_BYTES, 0)
    if container_of(head) is None:
        return {"status": 400, "message": f"the file is not audio of a format that is read here: send {FORMATS}"}
    try:
        about = probe_audio(path)
        if about.channels > CHANNELS or about.rate_hz not in RATES_HZ:
            return {"status": 422, "message": f"audio has up to {CHANNELS} channels and {RATES_HZ[-1]} Hz: convert it"}
        channels = range(about.channels) if apart else [None]
        if about.duration_seconds * len(channels) > allowance.duration_seconds:
            return too_long
        samples = 0
        for channel in channels:
            for block in read_blocks(path, BLOCK_SECONDS, channel=channel):
                samples += len(block)
                if samples > allowance.duration_seconds * RATE_HZ:
                    return too_long
                _write(target, block)
    except InputError as error:
        return {"status": 400, "message": str(error).replace(f"'{path}'", "the file")}
    if not samples:
        return {"status": 400, "message": "the file holds no samples: record it again"}
    return {"samples": samples, "channels": len(channels)}


def _write(target: int, block: np.ndarray) -> None:
    rest = block.astype("<f4").tobytes()
    while len(rest):
        rest = rest[os.write(target, rest) :]


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # whoever started it is gone already
        serve_children(socket.socket(fileno=int(sys.argv[1])))
