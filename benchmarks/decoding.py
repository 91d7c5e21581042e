"""A bundle and labelled recordings in; each search's error, score and speed beside its peers', all in one run, out.

python benchmarks/decoding.py --bundle runs/mine/bundle --manifest /my/corpus/manifest.jsonl --split dev --json FILE

Searches: ours with their defaults at --beam, on the scores of one utterance at a time and of batches. Peers on the same
scores at equal beams: flashlight (torchaudio's ctc_decoder without a lexicon) summing alignments as ours does, and with
its default, the best alignment alone; fast_ctc_decode. `ratio` is a row's time over flashlight's, which sums; `lower`
counts the utterances where ours found a text of lower exact CTC log-probability than the peer's. The whole path, from
waveform to text, is measured against faster-whisper. Times are CPU seconds of one thread, taken in turns,
several rounds, and medians kept. Intervals and paired tests are those of glmasr/evaluation/bootstrap.py, by utterance.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fast_ctc_decode import beam_search as fast_beam_search
from torchaudio.models.decoder import ctc_decoder

from glmasr.bundle import Bundle, open_bundle
from glmasr.data.catalog import prepare_catalog
from glmasr.data.corpora import Manifest
from glmasr.data.rhyme_test import RhymeTest
from glmasr.decoding.ctc import exact_scores
from glmasr.decoding.search import SEARCHES, Search, open_search
from glmasr.evaluation.baselines import Whisper
from glmasr.evaluation.bootstrap import interval, paired
from glmasr.frontend.audio import read_audio
from glmasr.model.recognizer import Heard
from glmasr.speech import RATE_HZ, Utterance
from glmasr.text.errors import count_errors
from glmasr.text.normalize import metrics_for
from glmasr.text.tokenizer import BLANK
from glmasr.training.record import provenance

REPOSITORY = Path(__file__).resolve().parent.parent
TOKENS = 20
"""Tried at each frame, by ours and by flashlight."""
BATCH = 16
FLASHLIGHT = "flashlight, sum"
Decode = Callable[[Heard], list[tuple[int, ...]]]


def ours(search: Search) -> Decode:
    """The best tokens of each utterance of a batch."""
    return lambda heard: [one[0].tokens for one in search(heard)]


def flashlight(size: int, beam: int, log_add: bool) -> Decode:
    """torchaudio's decoder, without its own pruning by score, which ours does not have."""
    names = ["-", *(f"t{token}" for token in range(1, size))]
    words = {"blank_token": "-", "sil_token": "-", "unk_word": "t1"}
    limits = {"beam_size": beam, "beam_size_token": min(TOKENS, size), "beam_threshold": 1e6}
    decoder = ctc_decoder(None, names, nbest=1, log_add=log_add, **words, **limits)  # type: ignore[arg-type]

    def decode(heard: Heard) -> list[tuple[int, ...]]:
        found = decoder(heard.ctc_log_probs.contiguous(), heard.lengths)
        return [tuple(token for token in one[0].tokens.tolist() if token != BLANK) for one in found]

    return decode


def fast_ctc(size: int, beam: int) -> Decode:
    """fast_ctc_decode, one character of the private planes for each token."""
    alphabet = [chr(0xF0000 + token) for token in range(size)]
    threshold = min(1e-3, 0.5 / size)  # without one it takes minutes for a large vocabulary

    def decode(heard: Heard) -> list[tuple[int, ...]]:
        probs = heard.ctc_log_probs.exp().numpy()
        rows = zip(probs, heard.lengths.tolist(), strict=True)
        texts = [fast_beam_search(row[:end], alphabet, beam, threshold)[0] for row, end in rows]
        return [tuple(ord(character) - 0xF0000 for character in text) for text in texts]

    return decode


def hear(bundle: Bundle, waveforms: Sequence[np.ndarray]) -> Heard:
    """Ear and encoder, on a batch."""
    lengths = torch.tensor([len(one) for one in waveforms])
    batch = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(one) for one in waveforms], batch_first=True)
    with torch.no_grad():
        return bundle.recognizer()(*bundle.ear(batch, lengths))


def test_set(given: argparse.Namespace, home: Path) -> list[Utterance]:
    """Labelled utterances, evenly drawn where there are more than wanted."""
    reader = Manifest(given.manifest) if given.manifest else RhymeTest(str(REPOSITORY / "data" / "corpora"))
    catalog = prepare_catalog(reader, str(home / "catalogs")).subset(given.split)
    rows = [one for one in catalog if one.text]
    count = min(given.utterances, len(rows))
    return [rows[int(place)] for place in np.linspace(0, len(rows) - 1, count).round()]


def timed(rows: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each row in each round, in turns, after a round that does not count.

    All run on one thread: the clock tells the same on a quiet machine, and nothing on a shared one.
    """
    times: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, work in rows.items():
            started = time.process_time()
            work()
            if number:
                times[name].append(time.process_time() - started)
    return times


def speeds(times: dict[str, list[float]], seconds: float, than: str) -> dict[str, dict[str, Any]]:
    """Milliseconds for 10 s of audio, and the median over rounds of the ratio to the row `than`."""
    return {
        name: {
            "ms_per_10_s": 1e4 * statistics.median(taken) / seconds,
            "ratio": statistics.median(a / b for a, b in zip(taken, times[than], strict=True)),
            "rounds_s": [round(one, 4) for one in taken],
        }
        for name, taken in times.items()
    }


def errors(utterances: Sequence[Utterance], texts: Sequence[str], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Errors and words of each utterance."""
    pairs = zip(utterances, texts, strict=True)
    counts = [count_errors(one.text or "", text, one.language, metric) for one, text in pairs]
    return np.array([one.errors for one in counts]), np.array([one.words for one in counts])


def accuracy(utterances: Sequence[Utterance], texts: dict[str, list[str]], metric: str) -> dict[str, dict[str, Any]]:
    """Each row's error with its interval, and the paired test against CTC greedy."""
    columns = {name: errors(utterances, found, metric) for name, found in texts.items()}
    base = columns["ctc_greedy"][0]
    told = {}
    for name, (wrong, words) in columns.items():
        rate, low, high = interval(wrong, words)
        delta, p = paired(wrong, base, words)
        told[name] = {metric: rate, "low": low, "high": high, "against_greedy": delta, "p": p}
    return told


def compared(
    alone: Sequence[Heard], own: Sequence[tuple[int, ...]], other: Sequence[tuple[int, ...]]
) -> dict[str, Any]:
    """Exact CTC log-probabilities of two systems' texts, ours minus the peer's."""
    differences = []
    for heard, *both in zip(alone, own, other, strict=True):
        scores = exact_scores(heard.ctc_log_probs[0].numpy(), both)
        differences.append(float(scores[0] - scores[1]))
    far = np.array(differences)
    return {
        "lower": int((far < -1e-3).sum()),
        "higher": int((far > 1e-3).sum()),
        "mean_difference": float(far.mean()),
        "least_difference": float(far.min()),
    }


def whole_path(
    bundle: Bundle,
    searches: dict[str, Search],
    waveforms: Sequence[np.ndarray],
    rounds: int,
    whispers: Sequence[Whisper],
) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """From waveform to text, one utterance at a time: times in turns, and texts."""
    assert bundle.tokenizer is not None
    decode, texts = bundle.tokenizer.decode, dict[str, list[str]]()

    def through(name: str, search: Search) -> None:
        texts[name] = [decode(search(hear(bundle, [one]))[0][0].tokens).strip() for one in waveforms]

    def whispered(system: Whisper) -> None:
        texts[system.name] = [one.text for one in system(list(waveforms))]

    rows: dict[str, Callable[[], Any]] = {
        name: lambda name=name, search=search: through(name, search) for name, search in searches.items()
    }
    rows |= {system.name: lambda system=system: whispered(system) for system in whispers}
    return timed(rows, rounds), texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default=str(REPOSITORY / "runs" / "finetune" / "bundle"))
    parser.add_argument("--manifest", help="a manifest; without one the rhyme test")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--utterances", type=int, default=200, help="at most")
    parser.add_argument("--path-utterances", type=int, default=20, help="of them through the whole path")
    parser.add_argument("--beam", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whisper", nargs="*", default=["tiny.en"], help="models by size or folder; none to leave out")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    load_before = os.getloadavg()[0]
    bundle = open_bundle(given.bundle)
    recognizer, tokenizer = bundle.recognizer(), bundle.tokenizer
    assert tokenizer is not None
    with tempfile.TemporaryDirectory() as folder:
        utterances = test_set(given, Path(folder))
        waveforms = [read_audio(one.audio, one.offset_seconds, one.duration_seconds) for one in utterances]
    seconds = sum(len(one) for one in waveforms) / RATE_HZ
    alone = [hear(bundle, [one]) for one in waveforms]
    by_length = sorted(waveforms, key=len)
    batches = [hear(bundle, by_length[start : start + BATCH]) for start in range(0, len(by_length), BATCH)]

    names = [name for name in SEARCHES if recognizer.decoder is not None or name.startswith("ctc")]
    searches = {
        name: open_search(
            {"_target_": f"glmasr.decoding.search.{SEARCHES[name].__name__}"}
            | ({} if name == "ctc_greedy" else {"beam": given.beam}),
            recognizer,
            tokenizer,
        )
        for name in names
    }
    rows: dict[str, Decode] = {name: ours(search) for name, search in searches.items()}
    rows[FLASHLIGHT] = flashlight(tokenizer.size, given.beam, True)
    rows["flashlight, best path"] = flashlight(tokenizer.size, given.beam, False)
    rows["fast_ctc_decode"] = fast_ctc(tokenizer.size, given.beam)

    found: dict[str, list[tuple[int, ...]]] = {}

    def one_by_one(name: str, decode: Decode) -> None:
        found[name] = [decode(heard)[0] for heard in alone]

    def in_batches(decode: Decode) -> None:
        for batch in batches:
            decode(batch)

    singly = timed({name: lambda n=name, d=decode: one_by_one(n, d) for name, decode in rows.items()}, given.rounds)
    jointly = timed({name: lambda d=decode: in_batches(d) for name, decode in rows.items()}, given.rounds)
    texts = {name: [tokenizer.decode(one).strip() for one in several] for name, several in found.items()}
    metric = metrics_for(utterances[0].language, [one.text or "" for one in utterances])[0]
    references = [tokenizer.reference(one.text or "") for one in utterances]
    labelled = [
        Utterance(one.id, "", one.duration_seconds, text=text, language=one.language)
        for one, text in zip(utterances, references, strict=True)
    ]
    told: dict[str, Any] = {
        "searches": speeds(singly, seconds, FLASHLIGHT),
        "in_batches": speeds(jointly, seconds, FLASHLIGHT),
        "errors": accuracy(labelled, texts, metric),
        "scores": {name: compared(alone, found["ctc_beam"], found[name]) for name in rows if name not in searches},
    }
    few = np.linspace(0, len(waveforms) - 1, min(given.path_utterances, len(waveforms))).round().astype(int)
    whispers = [
        Whisper(one, threads=1, beam=beam, name=f"{one} beam {beam}")
        for one in given.whisper
        for beam in (1, given.beam)
    ]
    heard_of = [waveforms[place] for place in few]
    times, path_texts = whole_path(bundle, searches, heard_of, max(1, given.rounds // 2), whispers)
    path_seconds = sum(len(one) for one in heard_of) / RATE_HZ
    told["whole_path"] = speeds(times, path_seconds, "ctc_greedy")
    told["whole_path_errors"] = accuracy([labelled[place] for place in few], path_texts, metric)
    told |= {
        "metric": metric,
        "beam": given.beam,
        "tokens": TOKENS,
        "vocabulary": tokenizer.size,
        "utterances": len(utterances),
        "audio_seconds": seconds,
        "batch": BATCH,
        "bundle": bundle.digest(),
        "load": [load_before, os.getloadavg()[0]],
        "rounds": given.rounds,
        **provenance(),
    }
    show(told)
    if given.json:
        given.json.write_text(json.dumps(told, indent=1) + "\n")


def show(told: dict[str, Any]) -> None:
    """The same as a table."""
    metric = told["metric"]
    print(f"{told['utterances']} utterances, {told['audio_seconds']:.0f} s, beam {told['beam']}, load {told['load']}")
    for name, row in told["searches"].items():
        error, batched = told["errors"][name], told["in_batches"][name]
        print(
            f"{name:22} {row['ms_per_10_s']:8.1f} ms/10 s ({row['ratio']:5.2f})  batched {batched['ms_per_10_s']:8.1f} "
            f"({batched['ratio']:5.2f})  {metric} {error[metric]:7.2%} [{error['low']:.2%}, {error['high']:.2%}]  "
            f"{error['against_greedy']:+.2%} p {error['p']:.3f}"
        )
    for name, row in told["scores"].items():
        print(f"ctc_beam's scores against {name}: {row['lower']} lower, {row['higher']} higher")
    for name, row in told["whole_path"].items():
        error = told["whole_path_errors"][name]
        print(
            f"whole path {name:22} {row['ms_per_10_s']:8.1f} ms/10 s   "
            f"{metric} {error[metric]:7.2%} [{error['low']:.2%}, {error['high']:.2%}]"
        )


if __name__ == "__main__":
    main()
