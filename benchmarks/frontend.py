"""A minute of speech in; how fast it is decoded, resampled and made features of, by us and by peers, out.

python benchmarks/frontend.py --json benchmarks/results/frontend.json

Files of one minute at 16 kHz (and MP3 at 44.1 kHz) come from the page cache and go to float32 at 16 kHz; resampling is
of a minute in memory; features are 80 log-mel bins of six utterances of 10 s as one batch, or one by one where a peer
knows no batches. Peers in every table do the same job, not bit for bit: filters and windows are their own. All take
turns; medians of seconds of audio per second are kept, `ratio` is ours over the peer's: below 1 the peer is faster.
"""

import argparse
import io
import json
import logging
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import soundfile
import torch
import torchaudio
from limits import CLOCKS, about, seconds

from glmasr.data.corpora import Manifest
from glmasr.frontend.audio import read_audio, resample
from glmasr.frontend.logmel import LogMel
from glmasr.frontend.pipeline import Ear
from glmasr.speech import RATE_HZ, Utterance

REPOSITORY = Path(__file__).resolve().parent.parent
CORPUS = REPOSITORY.parent / "shared" / "corpora" / "librispeech_mini"
MINUTE, UTTERANCES = 60, 6
FILES = {
    "WAV": ("WAV", "PCM_16", RATE_HZ),
    "FLAC": ("FLAC", "PCM_16", RATE_HZ),
    "Opus": ("OGG", "OPUS", RATE_HZ),
    "MP3 44.1 kHz": ("MP3", "MPEG_LAYER_III", 44_100),
}
RATES = ((8_000, RATE_HZ), (44_100, RATE_HZ), (48_000, RATE_HZ), (RATE_HZ, 17_600))
"""The last is what speed augmentation asks for."""

Work = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--manifest", default=str(CORPUS), help="a corpus of speech")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: on a shared machine, with one thread")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if not Path(asked.manifest).exists():
        parser.error(f"there is no corpus at {asked.manifest}: name one with --manifest (a NeMo-style manifest)")
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    minute = speech(asked.manifest)
    found = about("soundfile", "soxr", "torchaudio", "av", "faster-whisper", "transformers", "speechbrain", "scipy")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tables = {f"read {name}": reading(Path(folder), minute, *form) for name, form in FILES.items()}
        tables |= {f"resample {one} to {other} Hz": resampling(minute, one, other) for one, other in RATES}
        tables["features"] = features(minute)
        for table, works in tables.items():
            rows += compared(table, works, asked.rounds, asked.clock)
    found["load"].append(round(os.getloadavg()[0], 2))
    if asked.json:
        asked.json.write_text(json.dumps(found | {"clock": asked.clock, "rows": rows}, indent=1) + "\n")


def compared(table: str, works: dict[str, Work], rounds: int, clock: str) -> list[dict[str, Any]]:
    """A row for each of those that do the same; ours is the first."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(seconds(work, CLOCKS[clock]))
    speeds = {name: MINUTE / statistics.median(them) for name, them in taken.items()}
    own = next(iter(speeds.values()))
    for name, speed in speeds.items():
        print(f"{table:28} {name:36} {speed:9.0f} audio-s/s {own / speed:6.2f}", flush=True)
    return [
        {"name": name, "task": table, "audio_seconds_per_second": speed, "ratio": own / speed}
        for name, speed in speeds.items()
    ]


def speech(manifest: str) -> np.ndarray:
    """The first minute of a corpus."""
    waves, samples = [], 0
    for one in Manifest(manifest, language="en", dev_share=0.0).utterances():
        if isinstance(one, Utterance):
            waves.append(read_audio(one.audio, one.offset_seconds, one.duration_seconds))
            samples += len(waves[-1])
        if samples >= MINUTE * RATE_HZ:
            break
    return np.resize(np.concatenate(waves), MINUTE * RATE_HZ)


def reading(folder: Path, minute: np.ndarray, container: str, subtype: str, rate_hz: int) -> dict[str, Work]:
    """Of one file."""
    from faster_whisper.audio import decode_audio

    written = io.BytesIO()
    with soundfile.SoundFile(written, "w", rate_hz, 1, subtype=subtype, format=container) as file:
        for part in np.array_split(resample(minute, RATE_HZ, rate_hz), MINUTE):  # Opus in one piece overruns a stack
            file.write(part)
    path = folder / f"{subtype}.{container.lower()}"
    path.write_bytes(written.getvalue())

    def bare() -> torch.Tensor:
        samples, rate = soundfile.read(path, dtype="float32")
        return torchaudio.functional.resample(torch.from_numpy(samples), rate, RATE_HZ)

    return {
        "glmasr": lambda: read_audio(str(path)),
        "soundfile and torchaudio": bare,
        "faster-whisper (PyAV)": lambda: decode_audio(str(path), RATE_HZ),
    }


def resampling(minute: np.ndarray, from_hz: int, to_hz: int) -> dict[str, Work]:
    """Of a minute at `from_hz`."""
    from scipy.signal import resample_poly

    waveform = np.resize(minute, MINUTE * from_hz)
    tensor, common = torch.from_numpy(waveform), int(np.gcd(from_hz, to_hz))
    return {
        "glmasr (soxr)": lambda: resample(waveform, from_hz, to_hz),
        "torchaudio": lambda: torchaudio.functional.resample(tensor, from_hz, to_hz),
        "scipy resample_poly": lambda: resample_poly(waveform, to_hz // common, from_hz // common),
    }


def features(minute: np.ndarray) -> dict[str, Work]:
    """Of six utterances of 10 s."""
    from faster_whisper.feature_extractor import FeatureExtractor
    from speechbrain.lobes.features import Fbank
    from transformers import SeamlessM4TFeatureExtractor, WhisperFeatureExtractor

    batch = torch.from_numpy(minute).reshape(UTTERANCES, -1)
    lengths, ear, logmel = torch.full((UTTERANCES,), batch.shape[1]), Ear(), LogMel()
    mel = torchaudio.transforms.MelSpectrogram(RATE_HZ, 512, 400, 160, n_mels=80)
    whisper, seamless = WhisperFeatureExtractor(chunk_length=10), SeamlessM4TFeatureExtractor()
    faster, fbank = FeatureExtractor(chunk_length=10), Fbank(n_fft=400, n_mels=80)
    rows = list(batch.numpy())
    return {
        "glmasr log-mel": lambda: logmel(batch, lengths),
        "glmasr log-mel, normalized": lambda: ear(batch, lengths),
        "torchaudio MelSpectrogram, log": lambda: mel(batch).clamp(min=1e-10).log(),
        "torchaudio kaldi fbank": lambda: [
            torchaudio.compliance.kaldi.fbank(one[None], num_mel_bins=80) for one in batch
        ],
        "speechbrain Fbank": lambda: fbank(batch),
        "transformers WhisperFeatureExtractor": lambda: whisper(rows, sampling_rate=RATE_HZ),
        "transformers SeamlessM4T (w2v-BERT)": lambda: seamless(rows, sampling_rate=RATE_HZ),
        "faster-whisper FeatureExtractor": lambda: [faster(one) for one in rows],
    }


if __name__ == "__main__":
    main()
