"""A bundle or Whisper, and recordings turned down and in noise, in; error rates with and without gain, and a p, out.

python benchmarks/gain.py --bundle DIR --corpus CORPUS --noise NOISES --json gain.json
python benchmarks/gain.py --whisper tiny.en --corpus CORPUS --noise NOISES --limit 6 --levels -30 -40 --snr clean 10

CORPUS and NOISES are folders with a manifest.jsonl and recordings. Arms of a bundle: "off"; "on", where only the voice
detector hears quiet speech lifted; "lifted", where the model does, too; "no vad", where all is heard and none lifted.
Whisper has no voice detector here: its "on" is the lifted waveform. "mixed" rows have two recordings, one at full level
and one turned down, half a second apart. p is of the paired permutation test of "on" against "off".
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glmasr.evaluation.baselines import Whisper
from glmasr.evaluation.bootstrap import paired
from glmasr.evaluation.conditions import Condition, in_16_bits, read_conditions
from glmasr.frontend.audio import read_audio
from glmasr.frontend.gain import gain_of, lift
from glmasr.speech import RATE_HZ
from glmasr.text.errors import count_errors
from glmasr.transcriber import Transcriber

PAUSE_SECONDS = 0.5
BATCH = 16

Hear = Callable[[list[np.ndarray]], list[str]]


@dataclass(frozen=True)
class Said:
    """What somebody says, and a condition of how it is heard."""

    id: str
    text: str
    waveform: np.ndarray


def main() -> None:
    asked = arguments()
    started, gain = time.perf_counter(), json.loads(asked.gain) if asked.gain else True
    arms = arms_of(asked.bundle, gain) if asked.bundle else whisper_arms(asked.whisper, gain)
    said, rows = recordings(asked), []
    for name, heard in scenes(said, asked):
        errors = {arm: np.array(errors_of(heard, hear)) for arm, hear in arms.items()}
        rows.append(row(name, errors))
        print(in_words(rows[-1]), flush=True)
    seconds = time.perf_counter() - started
    print(f"{len(said)} recordings of {asked.corpus}, {asked.positions} rows, {seconds:.0f} s")
    if asked.json:
        about = {name: str(value) for name, value in vars(asked).items() if name != "json"}
        about |= {"recordings": len(said), "seconds": round(seconds), "load": os.getloadavg()}
        asked.json.write_text(json.dumps({"asked": about, "rows": rows}, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--bundle")
    which.add_argument("--whisper", help="a model's name or folder")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--noise", required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--positions", choices=("even", "odd"), default="odd", help="even: for choices (default: odd)")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--levels", type=float, nargs="*", default=[0.0, -20.0, -30.0, -40.0])
    parser.add_argument("--snr", nargs="*", default=["clean", "20", "10", "5"])
    parser.add_argument("--no-mixed", action="store_true")
    parser.add_argument("--gain", help="parameters as JSON (default: the gain's own)")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def recordings(asked: argparse.Namespace) -> list[Said]:
    """At most so many of the split's even or odd rows, evenly over them."""
    lines = (asked.corpus / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    found = [line for line in map(json.loads, lines) if line["split"] == asked.split]
    found = found[asked.positions == "odd" :: 2]
    count = min(asked.limit, len(found))
    chosen = [found[i * len(found) // count] for i in range(count)]
    return [Said(one["id"], one["text"], read_audio(str(asked.corpus / one["audio_filepath"]))) for one in chosen]


def scenes(said: list[Said], asked: argparse.Namespace) -> list[tuple[str, list[Said]]]:
    """Every level in every noise, then pairs of levels."""
    rows: list[dict[str, Any]] = [
        {
            key: value
            for key, value in (("snr_db", None if snr == "clean" else float(snr)), ("level_db", level))
            if value
        }
        for snr in asked.snr
        for level in asked.levels
    ]
    conditions: list[Condition] = read_conditions(rows, asked.noise)
    made = [(c.name, [Said(one.id, one.text, c.apply(one.waveform, one.id)) for one in said]) for c in conditions]
    quiet = [] if asked.no_mixed else [level for level in asked.levels if level]
    return made + [(f"mixed,level={level:g}", mixed(said, level)) for level in quiet]


def mixed(said: list[Said], level_db: float) -> list[Said]:
    """Neighbors in one recording: a loud one and, before or behind it, a quiet one."""
    made, pause = [], np.zeros(round(PAUSE_SECONDS * RATE_HZ), np.float32)
    for i, (one, other) in enumerate(zip(said[::2], said[1::2], strict=False)):
        gains = (0.0, level_db) if i % 2 else (level_db, 0.0)
        parts = [in_16_bits(w.waveform * 10 ** (db / 20)) for w, db in zip((one, other), gains, strict=True)]
        made.append(
            Said(f"{one.id}+{other.id}", f"{one.text} {other.text}", np.concatenate([parts[0], pause, parts[1]]))
        )
    return made


def arms_of(bundle: str, gain: Any) -> dict[str, Hear]:
    """By name, what hears waveforms."""
    system = Transcriber(bundle)
    parameters = gain if isinstance(gain, dict) else {}
    variants = {
        "off": system,
        "on": system.variant(gain=gain),
        "lifted": system.variant(gain={"slope": 1.0, **parameters}),
        "no vad": system.variant(vad=False),
    }
    return {name: in_batches(variant) for name, variant in variants.items()}


def in_batches(system: Transcriber) -> Hear:
    def hear(waveforms: list[np.ndarray]) -> list[str]:
        batches = [waveforms[i : i + BATCH] for i in range(0, len(waveforms), BATCH)]
        return [transcript.text for batch in batches for transcript in system(batch)]

    return hear


def whisper_arms(model: str, gain: Any) -> dict[str, Hear]:
    """What was heard once is not heard again: most of what is loud comes out of the gain as it went in."""
    system, known, compensator = Whisper(model, language="en"), {}, gain_of(gain)
    assert compensator is not None

    def hear(waveform: np.ndarray) -> str:
        key = waveform.tobytes()
        if key not in known:
            known[key] = system([waveform])[0].text
        return known[key]

    return {
        "off": lambda waveforms: [hear(waveform) for waveform in waveforms],
        "on": lambda waveforms: [hear(lift(compensator, waveform)) for waveform in waveforms],
    }


def errors_of(said: list[Said], hear: Hear) -> list[tuple[int, int]]:
    """(errors, words) of each."""
    heard = hear([one.waveform for one in said])
    counts = [count_errors(one.text, text, "en") for one, text in zip(said, heard, strict=True)]
    return [(count.errors, count.words) for count in counts]


def row(name: str, errors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Rates by arm, the difference that gain makes, and whether chance explains it."""
    words = errors["off"][:, 1]
    rates = {arm: float(found[:, 0].sum() / words.sum()) for arm, found in errors.items()}
    delta, p = paired(errors["on"][:, 0], errors["off"][:, 0], words)
    return {"scene": name, "wer": rates, "delta": delta, "p": p, "words": int(words.sum())}


def in_words(found: dict[str, Any]) -> str:
    rates = "  ".join(f"{arm} {100 * rate:5.1f}" for arm, rate in found["wer"].items())
    return f"{found['scene']:20} {rates}   {100 * found['delta']:+6.1f}  p={found['p']:.4f}  {found['words']} words"


if __name__ == "__main__":
    main()
