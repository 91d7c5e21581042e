"""A bundle and utterances in; how long live captions lag behind speech, what a stream costs, what streaming errs, out.

python benchmarks/latency.py --bundle DIR --manifest FILE [--utterances 40] [--json FILE]

Each utterance comes with half a second of a room's faint noise before and two behind, in blocks of 20 ms as a
microphone gives them. A caption's time is the stream's when the block came that brought it about, and what computing
took since: what a listener waits on a machine that does nothing else. `first` counts from the first frame in which the
voice detector hears speech, `final` from the last; of that `final_wait` is the pause that ends a stretch, which no
machine can save. Errors are of the final captions (live), of the greedy search in chunks (chunked), and in the whole
(offline), these two without the noise around. `partials_kept` is the share of partial captions whose text the final
one of their stretch begins with, `stable_kept` the same of their stable part, where there is one: what the second pass
mends is missing.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glmasr.data.corpora import Manifest
from glmasr.evaluation.bootstrap import interval, paired
from glmasr.evaluation.report import surroundings
from glmasr.frontend.audio import read_audio
from glmasr.frontend.vad import speech_probabilities, speech_regions
from glmasr.live import LiveTranscriber
from glmasr.model import streaming
from glmasr.speech import RATE_HZ, Utterance
from glmasr.text.errors import count_errors
from glmasr.text.normalize import metrics_for
from glmasr.transcriber import FRAME_SECONDS, Transcriber

BLOCK = RATE_HZ // 50
BEFORE, BEHIND = RATE_HZ // 2, 2 * RATE_HZ
ROOM = 10 ** (-65 / 20)
"""Root mean square: -65 dB of full scale."""
CHUNKS = (0.16, 0.32, 0.64, 1.28)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--manifest", required=True, help="a NeMo-style manifest, or its folder")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--positions", choices=("even", "odd"))
    parser.add_argument("--utterances", type=int, default=40)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        u
        for u in Manifest(asked.manifest, language="", dev_share=0.0).utterances()
        if isinstance(u, Utterance) and u.split == asked.split and u.text
    ]
    rows = rows[{"even": 0, "odd": 1}[asked.positions] :: 2] if asked.positions else rows
    rows = rows[:: max(1, len(rows) // asked.utterances)][: asked.utterances]
    if not rows:
        parser.error(
            f"{asked.manifest} has no transcribed utterance in its split '{asked.split}': name another --split"
        )
    found = measured(asked.bundle, rows)
    for row in found["chunks"]:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    print(f"{len(rows)} utterances, load {os.getloadavg()[0]:.1f}")
    if asked.json:
        asked.json.write_text(json.dumps(surroundings() | {"load": os.getloadavg()[0]} | found, indent=1) + "\n")


def measured(bundle: str, rows: list[Utterance]) -> dict[str, Any]:
    """One row a chunk length, and the rates of hearing the whole."""
    waveforms = [read_audio(u.audio, u.offset_seconds, u.duration_seconds) for u in rows]
    metric = metrics_for(rows[0].language, [u.text or "" for u in rows])[0]
    offline = errors(rows, [t.text for t in Transcriber(bundle)(waveforms)], metric)
    transcriber, found = Transcriber(bundle), []
    for chunk in CHUNKS:
        decoding = {"_target_": "glmasr.transcriber.Streaming", "chunk_frames": round(chunk / FRAME_SECONDS)}
        chunked = errors(rows, [t.text for t in Transcriber(bundle, decoding=decoding)(waveforms)], metric)
        first, final, texts, kept, computing, audio = [], [], [], [], 0.0, 0.0
        for waveform in waveforms:
            one = listened(LiveTranscriber(transcriber, chunk_seconds=chunk), waveform)
            first += [] if one["first"] is None else [one["first"]]
            final += [] if one["final"] is None else [one["final"]]
            texts.append(one["text"])
            kept += one["kept"]
            computing, audio = computing + one["computing"], audio + one["audio"]
        live = errors(rows, texts, metric)
        found.append(
            {
                "chunk_ms": round(1000 * chunk),
                "first_p50_ms": percentile(first, 50),
                "first_p95_ms": percentile(first, 95),
                "final_p50_ms": percentile(final, 50),
                "final_p95_ms": percentile(final, 95),
                "final_wait_ms": round(1000 * LiveTranscriber(transcriber).endpoint_seconds),
                "rtf": round(computing / audio, 4),
                "state_kb_after_10_s": round(state_bytes(transcriber, chunk) / 1000),
                "metric": metric,
                "live": rate(live),
                "chunked": rate(chunked),
                "live_by_offline": ratio(live, offline),
                "chunked_by_offline": ratio(chunked, offline),
                "p_live_offline": round(paired(live[0], offline[0], offline[1])[1], 4),
                "p_chunked_offline": round(paired(chunked[0], offline[0], offline[1])[1], 4),
                "partials": len(kept),
                "partials_kept": share([whole for whole, _ in kept if whole is not None]),
                "stable_kept": share([stable for _, stable in kept if stable is not None]),
            }
        )
    return {"bundle": Path(bundle).parent.name, "utterances": len(rows), "offline": rate(offline), "chunks": found}


def listened(live: LiveTranscriber, waveform: np.ndarray) -> dict[str, Any]:
    """One utterance as it would be heard live: seconds from speech to captions, text, seconds of computing."""
    stream = np.random.default_rng(0).normal(0, ROOM, BEFORE + len(waveform) + BEHIND).astype(np.float32)
    stream[BEFORE : BEFORE + len(waveform)] += waveform
    regions = speech_regions(speech_probabilities(stream, last=True)[0], len(stream) / RATE_HZ, min_speech_seconds=0.1)
    begin, end = (regions[0][0], regions[-1][1]) if regions else (0.0, 0.0)
    first = final = None
    texts, kept, partial, ready, computing = [], [], [], 0.0, 0.0
    for start in range(0, len(stream), BLOCK):
        block = stream[start : start + BLOCK]
        came = (start + len(block)) / RATE_HZ
        begun = time.perf_counter()
        captions = live.hear(block)
        took = time.perf_counter() - begun
        computing += took
        ready = max(ready, came) + took  # a block waits while the one before is worked on
        for caption in captions:
            first = ready - begin if first is None else first
            if not caption.is_final:
                partial.append(caption)
                continue
            final, text = ready - end, caption.segment.text
            texts.append(text)
            kept += [(begins(text, one.segment.text), begins(text, one.stable_text)) for one in partial]
            partial = []
    texts += [caption.segment.text for caption in live.finish() if caption.is_final]
    audio = len(stream) / RATE_HZ
    text = " ".join(texts)
    return {"first": first, "final": final, "text": text, "kept": kept, "computing": computing, "audio": audio}


def state_bytes(transcriber: Transcriber, chunk: float) -> int:
    """What a stretch of 10 s holds, beside its samples."""
    encoder, ear = transcriber.recognizer.encoder, transcriber.ear
    frames = round(chunk / FRAME_SECONDS)
    return streaming.step(encoder, ear, torch.randn(10 * RATE_HZ), streaming.begin(encoder, ear), frames)[1].size_bytes


def errors(rows: list[Utterance], texts: list[str], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """(errors, units) of each utterance."""
    counts = [count_errors(u.text or "", text, u.language, metric) for u, text in zip(rows, texts, strict=True)]
    return np.array([c.errors for c in counts]), np.array([c.words for c in counts])


def rate(columns: tuple[np.ndarray, np.ndarray]) -> str:
    """The rate in percent with its interval."""
    value, low, high = interval(*columns)
    return f"{100 * value:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def ratio(columns: tuple[np.ndarray, np.ndarray], offline: tuple[np.ndarray, np.ndarray]) -> str:
    """Errors for each error of offline, with the interval of that ratio over the same utterances."""
    if not offline[0].sum():
        return "offline errs nowhere"
    value, low, high = interval(columns[0], offline[0])
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


def begins(whole: str, part: str) -> bool | None:
    """Whether with `part`; None where that is nothing, with which everything begins."""
    return whole.startswith(part) if part else None


def share(kept: list[bool]) -> float | None:
    """None of none."""
    return round(sum(kept) / len(kept), 3) if kept else None


def percentile(seconds: list[float], share: int) -> int | None:
    """In milliseconds; None where nothing was heard."""
    return round(1000 * float(np.percentile(seconds, share))) if seconds else None


if __name__ == "__main__":
    main()
