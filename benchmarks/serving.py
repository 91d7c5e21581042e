"""`glmasr serve` in; what malformed, huge, slow and many requests do to it, and whether those in flight live, out.

python benchmarks/serving.py --json FILE                             # the demo's bundle, else one of random weights
python benchmarks/serving.py --bundle DIR --audio clips/*.wav        # speech other than the embedded corpus

Everything goes over loopback to a server in a process of its own; memory is the resident set of it and its children.
Live streams are sent as fast as somebody speaks; a caption's delay counts from when the last sample that it covers was
sent, a final one's includes the pause that is waited for. It exits with 1 where a promise is broken.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import soundfile
from websockets.asyncio.client import connect

sys.path.insert(0, str(Path(__file__).parents[1]))

from limits import about

from glmasr.frontend.audio import read_audio
from glmasr.speech import RATE_HZ

ENDPOINT = "/v1/audio/transcriptions"
MALFORMED, TOGETHER, STREAMS, SOCKETS = 1000, 32, 8, 200
GROWTH_MB, BOMB_MB, SLOW_SECONDS = 50.0, 500.0, 2.0
BLOCK_SECONDS = 0.1


@dataclass
class Server:
    """A `glmasr serve` of its own, with its address."""

    process: subprocess.Popen
    url: str

    def megabytes(self) -> float:
        """Resident in it and all its descendants."""
        return sum(resident(one) for one in family(self.process.pid)) / 1e6

    def post(self, name: str, content: bytes, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{ENDPOINT}", files={"file": (name, content)}, timeout=120, **options)


@contextlib.contextmanager
def serving(bundle: str) -> Iterator[Server]:
    command = [sys.executable, "-c", "from glmasr.cli import main; main()", "serve", "--port", "0", "--bundle", bundle]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            sys.exit(f"it did not start: {line}")
        try:
            yield Server(process, line[line.index("http://") :].split()[0])
        finally:
            process.kill()


def family(root: int) -> list[int]:
    """A process and its descendants."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [root]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def peak_during(server: Server, work) -> tuple[Any, float]:
    """What the work gives, and the most megabytes seen meanwhile."""
    done, peak = threading.Event(), [server.megabytes()]

    def look() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], server.megabytes())

    watching = threading.Thread(target=look)
    watching.start()
    try:
        return work(), peak[0]
    finally:
        done.set()
        watching.join()


def seeds(waveform: np.ndarray) -> list[tuple[str, bytes]]:
    """Twenty small files: the formats that are read, of several rates and channels."""
    found = []
    for rate in (8_000, 16_000, 48_000):
        for form, subtype in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", None), ("OGG", "OPUS"), ("MP3", None)):
            found.append(
                (f"{rate}.{form.lower()}", written(waveform[:RATE_HZ], rate, 1 + len(found) % 2, form, subtype))
            )
    found += [(f"a.{form}", contained(waveform[:RATE_HZ], form, codec)) for form, codec in CONTAINERS]
    return found


CONTAINERS = (("webm", "libopus"), ("mp4", "aac"), ("adts", "aac"), ("matroska", "flac"), ("matroska", "libopus"))


def written(waveform: np.ndarray, rate: int, channels: int, form: str, subtype: str | None) -> bytes:
    held = io.BytesIO()
    soundfile.write(held, np.repeat(waveform[:, None], channels, 1), rate, format=form, subtype=subtype)
    return held.getvalue()


def contained(waveform: np.ndarray, form: str, codec: str) -> bytes:
    rate, held = 48_000, io.BytesIO()
    with av.open(held, "w", format=form) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform[None]), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = (
            rate,
            Fraction(1, rate),
            0,
        )  # three times too fast, and no matter
        shaped = av.AudioResampler(stream.format, "mono", rate, stream.frame_size or 1024)
        for part in (*shaped.resample(frame), *shaped.resample(None), None):
            file.mux(stream.encode(part))
    return held.getvalue()


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Damaged in one of six ways."""
    damaged, kind = bytearray(content), rng.randrange(6)
    if kind == 0:
        return bytes(damaged[: rng.randrange(len(damaged))])
    if kind == 1:
        for _ in range(rng.randrange(1, 40)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    elif kind == 2:
        for place in range(min(64, len(damaged))):
            if rng.random() < 0.3:
                damaged[place] = rng.randrange(256)
    elif kind == 3:
        start = rng.randrange(len(damaged))
        damaged[start : start + rng.randrange(1, 4000)] = b""
    elif kind == 4:
        start = rng.randrange(len(damaged))
        damaged[start:start] = rng.randbytes(rng.randrange(1, 4000))
    else:
        damaged[12:] = rng.randbytes(len(damaged) - 12)
    return bytes(damaged)


def malformed(server: Server, clips: list[np.ndarray]) -> dict[str, Any]:
    """Statuses of damaged uploads, and the memory that stays after them."""
    found, rng = seeds(clips[0]), random.Random(0)
    for name, content in found:  # what is loaded late is loaded now
        server.post(name, content)
    before, statuses = server.megabytes(), Counter()
    for number in range(MALFORMED):
        name, content = found[number % len(found)]
        statuses[server.post(name, mutated(content, rng)).status_code] += 1
    time.sleep(2)
    growth = server.megabytes() - before
    well = server.process.poll() is None and max(statuses) < 500 and growth < GROWTH_MB
    return {"seeds": len(found), "statuses": dict(statuses), "growth_mb": growth, "well": well}


def bombs(server: Server, folder: Path) -> dict[str, Any]:
    """Files that are small and decode to much, and what they cost."""
    hours, wide = folder / "hours.flac", folder / "wide.flac"
    with soundfile.SoundFile(hours, "w", RATE_HZ, 1, format="FLAC") as file:
        for _ in range(8 * 60):
            file.write(np.zeros(60 * RATE_HZ, np.float32))
    with soundfile.SoundFile(wide, "w", 96_000, 8, format="FLAC") as file:
        for _ in range(20):
            file.write(np.zeros((60 * 96_000, 8), np.float32))
    found: dict[str, Any] = {"well": True}
    for path in (hours, wide):
        content, before = path.read_bytes(), server.megabytes()
        answered, peak = peak_during(server, lambda path=path, content=content: server.post(path.name, content))
        found[path.stem] = {
            "file_mb": len(content) / 1e6,
            "status": answered.status_code,
            "growth_mb": peak - before,
        }
        found["well"] &= answered.status_code < 500 and peak - before < BOMB_MB
    return found


def half_open(server: Server, clip: bytes) -> dict[str, Any]:
    """How long a usual request takes beside so many connections that never say all of theirs."""
    host, port = server.url.removeprefix("http://").split(":")
    lines = [socket.create_connection((host, int(port))) for _ in range(SOCKETS)]
    for line in lines:
        line.sendall(f"POST {ENDPOINT} HTTP/1.1\r\nhost: x\r\ncontent-le".encode())
    began = time.monotonic()
    status = server.post("a.wav", clip).status_code
    taken = time.monotonic() - began
    for line in lines:
        line.close()
    return {"sockets": SOCKETS, "seconds": taken, "well": status == 200 and taken < SLOW_SECONDS}


def together(server: Server, clips: list[bytes]) -> dict[str, Any]:
    """So many files at once, against the same one after the other."""
    jobs = [clips[number % len(clips)] for number in range(TOGETHER)]
    ask = lambda clip: server.post("a.wav", clip, data={"response_format": "verbose_json"})  # noqa: E731
    began = time.monotonic()
    serial = [ask(clip).json() for clip in jobs]
    middle = time.monotonic()
    with ThreadPoolExecutor(TOGETHER) as pool:
        answers = list(pool.map(ask, jobs))
    taken = time.monotonic() - middle
    same = [
        one.status_code == 200 and one.json()["text"] == alone["text"]
        for one, alone in zip(answers, serial, strict=True)
    ]
    return {
        "files": TOGETHER,
        "same": sum(same),
        "serial_seconds": middle - began,
        "seconds": taken,
        "well": all(same),
    }


def live(server: Server, clips: list[np.ndarray]) -> dict[str, Any]:
    """Streams at once, each against itself alone, and how late captions are."""
    alone = [asyncio.run(several(server, [clip]))[0] for clip in clips[:STREAMS]]
    all_of_them = asyncio.run(several(server, clips[:STREAMS]))
    finals = lambda heard: [one["text"] for one, _ in heard if one["type"] == "final"]  # noqa: E731
    same = sum(finals(one) == finals(other) for one, other in zip(all_of_them, alone, strict=True))
    found = {"streams": STREAMS, "same": same, "captions": sum(len(finals(one)) for one in all_of_them)}
    for kind in ("partial", "final"):
        late = [seconds for heard in all_of_them for one, seconds in heard if one["type"] == kind]
        found |= {f"{kind}_p50_seconds": quantile(late, 50), f"{kind}_p95_seconds": quantile(late, 95)}
    return found | {"well": same == STREAMS and found["captions"] >= STREAMS}


def quantile(values: list[float], share: float) -> float | None:
    return float(np.percentile(values, share)) if values else None


async def several(server: Server, clips: list[np.ndarray]) -> list[list[tuple[dict, float]]]:
    return await asyncio.gather(*(stream(server, clip) for clip in clips))


async def stream(server: Server, clip: np.ndarray) -> list[tuple[dict, float]]:
    """Captions of a clip as it is spoken, and how long after their last sound was sent each came."""
    size = round(BLOCK_SECONDS * RATE_HZ)
    heard: list[tuple[dict, float]] = []
    async with connect(server.url.replace("http", "ws") + "/v1/stream") as line:
        await line.send(json.dumps({"sample_rate": RATE_HZ, "format": "float32"}))
        began = time.monotonic()

        async def speak() -> None:
            for number, start in enumerate(range(0, len(clip), size), 1):
                await asyncio.sleep(max(0.0, began + number * BLOCK_SECONDS - time.monotonic()))
                await line.send(clip[start : start + size].astype("<f4").tobytes())
            await line.send(json.dumps({"type": "end"}))

        speaking = asyncio.create_task(speak())
        async for message in line:
            said = json.loads(message)
            if said["type"] in ("partial", "final"):
                heard.append((said, time.monotonic() - began - said["end"]))
        await speaking
    return heard


def drained(server: Server, clips: list[np.ndarray]) -> dict[str, Any]:
    """SIGTERM with recordings in flight: how many of them are answered, and how it ends."""
    sound = written(np.concatenate(clips * 4)[: 120 * RATE_HZ], RATE_HZ, 1, "WAV", "PCM_16")
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(server.post, "a.wav", sound) for _ in range(8)]
        while "glmasr_recordings_in_flight 8.0" not in httpx.get(f"{server.url}/metrics").text:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        answered = [job.result().status_code for job in jobs]
    code = server.process.wait(60)
    return {"answered": answered.count(200), "of": 8, "exit_code": code, "well": answered == [200] * 8 and code == 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", help="default: the demo's, or else one of random weights")
    parser.add_argument("--audio", nargs="*", help="speech; the embedded corpus where none is given")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = about("uvicorn", "fastapi", "gradio", "websockets")
    paths = asked.audio or embedded()
    waves = [read_audio(str(path)) for path in paths]
    pause = np.zeros(RATE_HZ, np.float32)
    talks = [
        np.concatenate([part for wave in waves[i::STREAMS][:4] for part in (pause, wave)] + [pause])
        for i in range(STREAMS)
    ]
    clips = [written(wave, RATE_HZ, 1, "WAV", "PCM_16") for wave in waves]
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, serving(asked.bundle or usual(Path(folder))) as server:
        server.post("a.wav", clips[0])
        for name, work in (
            ("half_open", lambda: half_open(server, clips[0])),
            ("together", lambda: together(server, clips)),
            ("live", lambda: live(server, talks)),
            ("bombs", lambda: bombs(server, Path(folder))),
            ("malformed", lambda: malformed(server, waves)),
            ("drained", lambda: drained(server, waves)),
        ):
            began = time.monotonic()
            rows[name] = work() | {"took_seconds": round(time.monotonic() - began, 1)}
            print(f"{name}: {rows[name]}", flush=True)
    if asked.json:
        found["load"].append(round(os.getloadavg()[0], 2))
        asked.json.write_text(json.dumps(found | {"rows": rows}, indent=1) + "\n")
    sys.exit(not all(row["well"] for row in rows.values()))


def usual(folder: Path) -> str:
    """The demo's bundle, or one that was never trained."""
    from glmasr.cli import DEMO_BUNDLE
    from glmasr.text.tokenizer import learn_characters
    from tests.small import random_bundle

    if not Path(DEMO_BUNDLE).is_dir():
        random_bundle(folder / "untrained" / "bundle", learn_characters(["abc de"]), language="en")
        return str(folder / "untrained" / "bundle")
    return DEMO_BUNDLE


def embedded() -> list[Path]:
    """Clips of the rhyme test."""
    from glmasr.data.rhyme_test import RhymeTest

    found = RhymeTest(root=str(Path(__file__).parents[1] / "data" / "corpora")).utterances()
    return [Path(str(one.audio)) for one in list(found)[:64]]


if __name__ == "__main__":
    main()
