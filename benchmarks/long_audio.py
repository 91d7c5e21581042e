"""Hours of speech, silence and noise in; memory, words lost at seams, and words that nobody said out.

python benchmarks/long_audio.py --bundle runs/finetune/bundle --json long_audio.json
python benchmarks/long_audio.py --bundle runs/finetune/bundle --minutes 180 --whisper none

The recording is a FLAC file of a corpus' utterances with a pause of 0.4 s, which hisses at -60 dB, between them. Its
transcript is held against that of each utterance alone, and against that of its own pieces alone, without a batch.
Noise is a corpus of recordings in which nobody speaks; what is transcribed there was never said. Last, the share of
short utterances of real speech in which the voice detector hears nobody.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from glmasr.evaluation.memory import PeakMemory
from glmasr.frontend.audio import read_audio, read_blocks
from glmasr.frontend.pieces import listen, pieces_of, take
from glmasr.speech import RATE_HZ
from glmasr.text.errors import count_errors
from glmasr.text.written import joined
from glmasr.transcriber import Transcriber

BREATH_SECONDS, HISS_DB, LONGEST_SECONDS = 0.4, -60.0, 30.0
SHORT = ("fsdd", "cantonese_syllables", "mandarin_words", "telephone_prompts", "keywords")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--decoding", default="ctc_greedy")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--speech", type=Path, default=Path("data/corpora/rhyme_test/audio"), help="folder of FLAC")
    parser.add_argument("--shared", type=Path, default=Path("../shared/corpora"), help="noise_esc10 and short words")
    parser.add_argument("--noise", type=Path, help="another folder of noise, such as what a bundle has never heard")
    parser.add_argument("--noises", type=int, default=100, help="recordings of noise")
    parser.add_argument("--whisper", default="tiny.en", help="to count its words there, too; none does not")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    system = Transcriber(asked.bundle, decoding=asked.decoding)
    found: dict[str, Any] = {"bundle": asked.bundle, "decoding": asked.decoding}
    found["long"] = told("long", long_recording(system, asked.speech, asked.minutes))
    if asked.shared.is_dir():
        found["unheard"] = told("nobody heard in", unheard(asked.shared))
        quiet = nobody(asked.noise or asked.shared / "noise_esc10", asked.noises)
        systems = {"with vad": system, "without vad": Transcriber(asked.bundle, decoding=asked.decoding, vad=False)}
        if asked.whisper != "none":
            from glmasr.evaluation.baselines import Whisper

            systems |= {asked.whisper: Whisper(asked.whisper, threads=1)}
            systems |= {f"{asked.whisper}, its vad": Whisper(asked.whisper, threads=1, vad=True)}
        for name, one in systems.items():
            found[f"invented {name}"] = told(f"invented {name}", invented(one, quiet))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


def told(what: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The same, printed."""
    shown = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in facts.items())
    print(f"{what}: {', '.join(shown)}", flush=True)
    return facts


def long_recording(system: Transcriber, speech: Path, minutes: float) -> dict[str, Any]:
    """Seconds, memory, and words unlike those of utterances and of pieces alone, of a file of so many minutes."""
    files = sorted(speech.glob("*.flac"))
    random.Random(0).shuffle(files)
    with tempfile.TemporaryDirectory() as folder:
        path, parts, samples = f"{folder}/long.flac", [], 0
        hiss = np.random.default_rng(0).standard_normal(round(BREATH_SECONDS * RATE_HZ)) * 10 ** (HISS_DB / 20)
        breath = hiss.astype(np.float32)
        with soundfile.SoundFile(path, "w", RATE_HZ, 1, subtype="PCM_16") as file:
            while samples < minutes * 60 * RATE_HZ:
                parts.append(str(files[len(parts) % len(files)]))
                waveform = np.concatenate([read_audio(parts[-1]), breath])
                file.write(waveform)
                samples += len(waveform)
        started = time.perf_counter()
        with PeakMemory() as memory:
            transcript = system.transcribe_file(path)
        seconds = time.perf_counter() - started
        whole_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        places = pieces_of(listen(read_blocks(path), system.vad), system.piece_seconds)
        alone = [system.transcribe_pieces([piece])[0][0].text for piece in take(read_blocks(path), places)]
    known = {file: system([read_audio(file)])[0].text for file in sorted(set(parts))}
    utterances = count_errors(joined([known[file] for file in parts]), transcript.text, "en")
    words = [word for segment in transcript.segments for word in segment.words]
    return {
        "minutes": transcript.duration_seconds / 60,
        "seconds": seconds,
        "rtf": seconds / transcript.duration_seconds,
        "grew_mb": (memory.peak_bytes or 0) / 1e6,
        "process_mb": whole_process / 1e6,
        "words": len(transcript.text.split()),
        "pieces": len(places),
        "piece_seconds": system.piece_seconds,
        "differ_from_pieces": count_errors(joined(alone), transcript.text, "en").errors,
        "differ_from_utterances": utterances.errors,
        "lost": utterances.deletions,
        "added": utterances.insertions,
        "words_in_order": all(a.end_seconds <= b.start_seconds + 1e-6 for a, b in pairwise(words)),
    }


def unheard(shared: Path, count: int = 250) -> dict[str, float]:
    """Of each corpus of short utterances the share in which nobody is heard."""
    shares = {}
    for corpus in SHORT:
        rows = [json.loads(line) for line in (shared / corpus / "manifest.jsonl").read_text().splitlines()]
        rows = [row for row in rows if row.get("text")]
        chosen = random.Random(0).sample(rows, min(count, len(rows)))
        courses = [listen([read_audio(str(shared / corpus / row["audio_filepath"]))]) for row in chosen]
        shares[corpus] = sum(not pieces_of(course, LONGEST_SECONDS) for course in courses) / len(courses)
    return shares


def nobody(noise: Path, count: int) -> dict[str, list[np.ndarray]]:
    """Recordings in which nobody speaks, by kind."""
    rng = np.random.default_rng(0)
    rows = [json.loads(line) for line in (noise / "manifest.jsonl").read_text().splitlines()]
    chosen = random.Random(0).sample(rows, min(count, len(rows)))
    return {
        "silence": [np.zeros(seconds * RATE_HZ, np.float32) for seconds in (1, 3, 10, 30, 60)],
        "hiss": [
            (rng.standard_normal(10 * RATE_HZ) * 10 ** (db / 20)).astype(np.float32) for db in (-80, -60, -40, -20, -10)
        ],
        "noise": [read_audio(str(noise / row["audio_filepath"])) for row in chosen],
    }


def invented(system: Any, quiet: dict[str, list[np.ndarray]]) -> dict[str, str]:
    """Words in what nobody said, and in how many of the recordings."""
    found = {}
    for kind, waveforms in quiet.items():
        counts = [len(transcript.text.split()) for transcript in system(waveforms)]
        found[kind] = f"{sum(counts)} words in {sum(map(bool, counts))} of {len(counts)}"
    return found


if __name__ == "__main__":
    main()
