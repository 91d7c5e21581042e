"""Real speech joined to one recording of hours, cut by voice activity; what that costs, finds, and reads from disk.

python benchmarks/cut.py shared/corpora/librispeech_mini shared/corpora/arctic_fraser --hours 3 --json cut.json
python benchmarks/cut.py my/audio --hours 1 --formats wav flac opus mp3

Clips follow one another in a random order, with the pauses they begin and end with, and come again when all have been.
Of each clip it is known where its sound begins and ends (40 dB below its loudest 10 ms), whatever the voice activity
model says. Bytes are those of read calls (rchar in /proc/self/io), without the disk's cache.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from glmasr.data.cuts import LongRecordings
from glmasr.data.recordings import files_below
from glmasr.frontend.audio import AUDIO_SUFFIXES, read_audio
from glmasr.frontend.vad import speech_probabilities
from glmasr.speech import RATE_HZ

FORMATS = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", None)}
HOP_SAMPLES = RATE_HZ // 100
SOUND_DROP_DB, LOUD_DROP_DB = 40.0, 25.0
"""Below the loudest 10 ms of a clip: where its sound begins and ends; what is louder is in the midst of it."""

WRITTEN_SAMPLES = 1 << 16
EDGE_SECONDS = 0.05
"""So near its ends a piece may begin or end in a clip's sound without counting as cut inside it."""

Spans = np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sources", nargs="+", help="folders of recordings, or recordings")
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=["wav", "flac", "opus"])
    parser.add_argument("--pieces", type=int, default=50, help="decoded at random of each format")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    clips = [
        file for one in asked.sources for file in (files_below(one, AUDIO_SUFFIXES) if os.path.isdir(one) else [one])
    ]
    if not clips:
        parser.error("there is no recording in what is named")
    with tempfile.TemporaryDirectory() as home:
        spans, loud, seconds = build(clips, asked.hours * 3600, Path(home), asked.formats)
        heard = seconds / 3600
        print(f"{heard:.2f} h of {len(clips)} clips, {len(spans)} places: each {len(spans) / len(clips):.1f} times")
        rows = []
        for form in asked.formats:
            with multiprocessing.get_context("spawn").Pool(1) as alone:
                row, pieces = alone.apply(measured, (str(Path(home) / form), asked.pieces))
            rows.append({"format": form, **row, **found(np.array(pieces), spans, loud)})
            print(json.dumps(rows[-1]), flush=True)
    print(table(rows))
    if asked.json:
        about = {"hours": heard, "clips": len(clips), "places": len(spans), "sources": asked.sources}
        asked.json.write_text(json.dumps({**about, "formats": rows}, indent=1) + "\n")


def build(clips: list[str], seconds: float, home: Path, formats: list[str]) -> tuple[Spans, np.ndarray, float]:
    """Write one recording in each format; each clip's sound in seconds (clips 2), which 10 ms are loud, its length."""
    rng, spans, loud, place = np.random.default_rng(0), [], [], 0
    files = []
    for form in formats:
        (home / form).mkdir()
        container, subtype = FORMATS[form]
        opened = soundfile.SoundFile(home / form / f"long.{form}", "w", RATE_HZ, 1, subtype, format=container)
        files.append(opened)
    while place < seconds * RATE_HZ:
        for clip in rng.permutation(clips):
            if place >= seconds * RATE_HZ:
                break
            waveform = read_audio(str(clip))
            waveform = waveform[: len(waveform) // HOP_SAMPLES * HOP_SAMPLES]
            power = np.square(waveform.reshape(-1, HOP_SAMPLES)).mean(axis=1)
            sounding = np.flatnonzero(power > power.max() * 10 ** (-SOUND_DROP_DB / 10))
            spans.append((place + np.array([sounding[0], sounding[-1] + 1]) * HOP_SAMPLES) / RATE_HZ)
            loud.append(power > power.max() * 10 ** (-LOUD_DROP_DB / 10))
            for file in files:
                for start in range(0, len(waveform), WRITTEN_SAMPLES):
                    file.write(waveform[start : start + WRITTEN_SAMPLES])
            place += len(waveform)
    for file in files:
        file.close()
    return np.array(spans), np.concatenate(loud), place / RATE_HZ


def measured(folder: str, count: int) -> tuple[dict[str, Any], list[tuple[float, float]]]:
    """Seconds and memory of cutting, then bytes and CPU of decoding random pieces, in a process of its own."""
    speech_probabilities(np.zeros(RATE_HZ, np.float32))
    memory, started, cpu = peak_mib(), time.perf_counter(), time.process_time()
    pieces: list[Any] = list(LongRecordings(folder, workers=0, cache=None).utterances())
    took, worked, rise = time.perf_counter() - started, time.process_time() - cpu, peak_mib() - memory
    size, read, busy = os.path.getsize(pieces[0].audio), [], []
    length = soundfile.info(pieces[0].audio).duration
    own_bytes = bytes_read() - bytes_read()
    for one in np.random.default_rng(1).choice(len(pieces), count):
        piece = pieces[one]
        before, cpu = bytes_read(), time.process_time()
        read_audio(piece.audio, piece.offset_seconds, piece.duration_seconds)
        busy.append(time.process_time() - cpu)
        read.append((bytes_read() - before + own_bytes, size * piece.duration_seconds / length))
    row = {
        "seconds": took,
        "cpu_seconds": worked,
        "audio_seconds_per_second": length / took,
        "audio_seconds_per_cpu_second": length / worked,
        "memory_rise_mib": rise,
        "file_bytes": size,
        "read_bytes_median": statistics.median(actual for actual, _ in read),
        "read_bytes_most": max(actual for actual, _ in read),
        "times_own_share": statistics.median(actual / share for actual, share in read),
        "share_of_file": statistics.median(actual for actual, _ in read) / size,
        "decode_cpu_ms": 1000 * statistics.median(busy),
    }
    return row, [(piece.offset_seconds, piece.offset_seconds + piece.duration_seconds) for piece in pieces]


def found(pieces: Spans, spans: Spans, loud: np.ndarray) -> dict[str, Any]:
    """How much of the clips' sound is inside pieces, and how many pieces begin or end inside a clip's sound."""
    inside = np.zeros(len(loud), dtype=bool)
    for start, stop in pieces:
        inside[round(start * 100) : round(stop * 100)] = True
    spoken = np.zeros(len(loud), dtype=bool)
    for start, stop in spans:
        spoken[round(start * 100) : round(stop * 100)] = True
    within = np.array([[is_within(edge, spans) for edge in piece] for piece in pieces])
    midst = np.array(
        [[loud[max(0, round(edge * 100) - 2) : round(edge * 100) + 2].all() for edge in piece] for piece in pieces]
    )
    return {
        "pieces": len(pieces),
        "piece_seconds_mean": float(np.diff(pieces).mean()),
        "sound_inside_pieces": float((inside & spoken).sum() / spoken.sum()),
        "loud_inside_pieces": float((inside & loud).sum() / loud.sum()),
        "silence_in_pieces": float((inside & ~spoken).sum() / inside.sum()),
        "cut_inside_a_clip": int(within.any(axis=1).sum()),
        "cut_in_the_midst_of_sound": int((within & midst).any(axis=1).sum()),
    }


def is_within(edge: float, spans: Spans) -> bool:
    """Whether a time is inside a clip's sound, its very ends left out."""
    place = int(np.searchsorted(spans[:, 0], edge)) - 1
    return place >= 0 and spans[place, 0] + EDGE_SECONDS < edge < spans[place, 1] - EDGE_SECONDS


def peak_mib() -> float:
    """The most memory this process has had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def bytes_read() -> int:
    """By read calls of this process so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each figure, a column for each format."""
    lines = [f"{name:32}" + "".join(f"{row[name]:>14.5g}" for row in rows) for name in list(rows[0])[1:]]
    return "\n".join([" " * 32 + "".join(f"{row['format']:>14}" for row in rows), *lines])


if __name__ == "__main__":
    main()
