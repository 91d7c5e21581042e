"""Spoken digits one after the other, whose joints are known, in; how far the times of words are off out.

python benchmarks/alignment.py --make data/strings                 # a corpus to train a recognizer of such strings on
make finetune ARGS="data=manifest data.path=data/strings/manifest.jsonl data.language=en name=strings"
python benchmarks/alignment.py --bundle runs/strings/bundle --json alignment.json

The text is known and aligned; what is measured is when each word begins and ends, against the samples at which the
digits (Free Spoken Digit Dataset, which cuts them closely) were joined. "tokens" are the bare frames CTC names,
"words" what a transcript says. Strings come one digit right behind the other, or with a pause of up to half a second.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glmasr.decoding.hypothesis import Hypothesis
from glmasr.frontend.audio import read_audio, write_audio
from glmasr.speech import RATE_HZ
from glmasr.transcriber import FRAME_SECONDS, Transcriber, timed

Said = tuple[np.ndarray, list[str], list[tuple[float, float]]]
"""A waveform, its words, and when each begins and ends in seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--corpus", type=Path, default=Path("../shared/corpora/fsdd"), help="folder with manifest.jsonl"
    )
    parser.add_argument("--make", type=Path, metavar="DIR", help="write strings of the train and dev split, and end")
    parser.add_argument("--bundle")
    parser.add_argument("--strings", type=int, default=150)
    parser.add_argument("--words", type=int, default=5, help="in a string")
    parser.add_argument("--split", default="dev", help="train, to choose a setting on")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.make:
        print(f"{make(asked.corpus, asked.make):.1f} minutes in {asked.make}")
        return
    torch.set_num_threads(1)
    rows = measured(Transcriber(asked.bundle), asked.corpus, asked.split, asked.strings, asked.words)
    for row in rows:
        print(
            "{joined:10} {times:7} {words:4} words   start {start_ms:5.1f} ms (bias {start_bias_ms:+6.1f})   ".format(
                **row
            ),
            end="",
        )
        print(
            "end {end_ms:5.1f} ms (bias {end_bias_ms:+6.1f})   both {both_ms:5.1f}, 90 % under {p90_ms:5.1f} ms".format(
                **row
            )
        )
    if asked.json:
        facts = {"bundle": asked.bundle, "split": asked.split, "lines": rows}
        asked.json.write_text(json.dumps(facts, indent=1) + "\n")


def measured(system: Transcriber, corpus: Path, split: str, strings: int, words: int) -> list[dict[str, Any]]:
    """A line each for strings without and with pauses, and for bare tokens and words."""
    rows = []
    for pauses in (False, True):
        tokens, said = [], []
        for one in drawn(corpus, split, strings, words, words, pauses):
            heard = times(system, one)
            if heard is None:
                continue
            for found, kept in zip(heard, (tokens, said), strict=True):
                kept += [(a - b, c - d) for (a, c), (b, d) in zip(found, one[2], strict=True)]
        joined = "pauses" if pauses else "no pauses"
        rows += [line(joined, "tokens", tokens), line(joined, "words", said)]
    return rows


def times(system: Transcriber, one: Said) -> tuple[list, list] | None:
    """Start and end of each word, by bare frames and as a transcript has them; None where the text does not fit."""
    waveform, words, _ = one
    heard = system.encode([waveform])
    tokens = tuple(system.tokenizer.encode(" ".join(words)))
    found = timed(Hypothesis(tokens, 0.0), heard.ctc_log_probs[0])
    if not found.starts:
        return None
    groups = [[]]
    for i, token in enumerate(tokens):
        if system.tokenizer.starts_word(token):
            groups.append([])
        if system.tokenizer.decode([token]).strip():
            groups[-1].append(i)
    bare = [(found.starts[g[0]] * FRAME_SECONDS, found.ends[g[-1]] * FRAME_SECONDS) for g in groups if g]
    made = system.words(found, len(waveform) / RATE_HZ, waveform)
    assert [word.text for word in made] == words, "the bundle's tokenizer does not know words apart"
    return bare, [(word.start_seconds, word.end_seconds) for word in made]


def line(joined: str, what: str, errors: list[tuple[float, float]]) -> dict[str, Any]:
    """Mean absolute errors of starts, ends and both, in ms; bias is the mean error, + where late."""
    starts, ends = 1000 * np.array(errors).T
    both = np.abs(np.concatenate([starts, ends]))
    return {
        "joined": joined,
        "times": what,
        "words": len(errors),
        "start_ms": float(np.abs(starts).mean()),
        "start_bias_ms": float(starts.mean()),
        "end_ms": float(np.abs(ends).mean()),
        "end_bias_ms": float(ends.mean()),
        "both_ms": float(both.mean()),
        "p90_ms": float(np.percentile(both, 90)),
    }


def drawn(corpus: Path, split: str, count: int, fewest: int, most: int, pauses: bool, seed: int = 0) -> list[Said]:
    """So many strings of a speaker's digits each; a pause is as loud as the recording hisses (-90 to -60 dB)."""
    rows = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text().splitlines()]
    rng, noise = random.Random(f"{split} {seed} {pauses}"), np.random.default_rng(seed)
    by_speaker: dict[str, list[dict]] = {}
    for row in rows:
        if row["split"] == split:
            by_speaker.setdefault(row["speaker"], []).append(row)
    strings = []
    for _ in range(count):
        chosen = rng.sample(by_speaker[rng.choice(sorted(by_speaker))], rng.randint(fewest, most))
        parts, places, at = [], [], 0
        for row in chosen:
            digit = read_audio(str(corpus / row["audio_filepath"]))
            pause = noise.standard_normal(rng.randrange(RATE_HZ // 2)) * 10 ** rng.uniform(-4.5, -3)
            parts += [digit, pause.astype(np.float32)] if pauses else [digit]
            places.append((at / RATE_HZ, (at + len(digit)) / RATE_HZ))
            at = sum(map(len, parts))
        strings.append((np.concatenate(parts), [row["text"] for row in chosen], places))
    return strings


def make(corpus: Path, folder: Path) -> float:
    """A corpus of strings of 1 to 7 digits, with and without pauses, 1600 to train on; its minutes."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    lines = []
    for split, count in (("train", 800), ("dev", 60)):
        for pauses in (False, True):
            for number, (waveform, words, _) in enumerate(drawn(corpus, split, count, 1, 7, pauses, seed=1)):
                name = f"{split}_{'pauses' if pauses else 'joined'}_{number:04d}"
                write_audio(folder / "audio" / f"{name}.flac", waveform)
                row = {"audio_filepath": f"audio/{name}.flac", "duration": len(waveform) / RATE_HZ}
                lines.append(row | {"id": name, "text": " ".join(words), "lang": "en", "split": split})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return sum(line["duration"] for line in lines) / 60


if __name__ == "__main__":
    main()
