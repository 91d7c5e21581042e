"""Utterances of 5 to 15 s in; how many times faster than speech systems transcribe them, ours and its peers', out.

python benchmarks/inference.py --json benchmarks/results/inference.json
python benchmarks/inference.py --bundle runs/finetune/bundle [exported/onnx …] --manifest /my/corpus

First of ours are conformer_tiny and conformer_small with random weights, which compute as trained ones do, but for
searches, whose work depends on what they find: joint decoding needs a bundle. Wav2Vec2 has random weights of
the same size, Whisper tiny.en its own, of faster-whisper, beam 1. Nobody's voice detector runs but where a row says
so. All transcribe all utterances in turns; medians are kept. `rtfx` is seconds of audio per second, `by_whisper` its
ratio to tiny.en at int8. Live captions hear blocks of 20 ms, and every stretch once more as a whole when it has ended.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from limits import CLOCKS, about, seconds
from omegaconf import OmegaConf

from glmasr.bundle import build_recognizer, save_bundle
from glmasr.data.corpora import Manifest
from glmasr.evaluation.baselines import Whisper
from glmasr.frontend.audio import read_audio
from glmasr.live import LiveTranscriber
from glmasr.speech import RATE_HZ, InputError, Utterance
from glmasr.text.tokenizer import CharacterTokenizer
from glmasr.transcriber import Transcriber

REPOSITORY = Path(__file__).resolve().parent.parent
CORPUS = REPOSITORY.parent / "shared" / "corpora" / "librispeech_mini"
SHORTEST, LONGEST = 5.0, 15.0
BLOCK = RATE_HZ // 50
WIDTH, BLOCKS = 384, 14
"""Of Wav2Vec2: 30 M parameters, as conformer_small has."""

Waves = list[np.ndarray]


@dataclass
class Entrant:
    """What transcribes a list of waveforms, and the seconds it took."""

    name: str
    parameters: int
    run: Callable[[Waves], object]
    taken: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", nargs="*", default=[], help="bundles, or what glmasr export made of them")
    parser.add_argument("--manifest", default=str(CORPUS), help="a corpus of utterances of 5 to 15 s")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--utterances", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--whisper", default="tiny.en", help="none: without")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: on a shared machine, with one thread")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if not Path(asked.manifest).exists():
        parser.error(f"there is no corpus at {asked.manifest}: name one with --manifest (a NeMo-style manifest)")
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    waves = waveforms(asked.manifest, asked.split, asked.utterances)
    found = about("faster-whisper", "ctranslate2", "transformers", "onnxruntime")
    audio, threads = sum(map(len, waves)) / RATE_HZ, torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        models = ("conformer_tiny", "conformer_small")
        them = [one for model in models for one in of_ours(random_bundle(Path(folder), model), searches=False)]
        them += [one for bundle in asked.bundle for one in of_ours(bundle)]
        them += [*wav2vec2(), *(whispers(asked.whisper, threads) if asked.whisper != "none" else [])]
        for one in them:
            one.run(waves[:2])
        for _ in range(asked.rounds):
            for one in them:
                one.taken.append(seconds(lambda one=one: one.run(waves), CLOCKS[asked.clock]))
    rows = [
        {"name": one.name, "parameters": one.parameters, "rtfx": audio / statistics.median(one.taken)} for one in them
    ]
    yardstick = next((row["rtfx"] for row in rows if row["name"].endswith("int8")), None)
    for row, one in zip(rows, them, strict=True):
        row |= {"by_whisper": yardstick and row["rtfx"] / yardstick, "seconds": [round(s, 3) for s in one.taken]}
        ratio = f"{row['by_whisper']:6.2f} x whisper int8" if yardstick else ""
        print(f"{row['name']:56} {row['parameters'] / 1e6:5.1f} M  {row['rtfx']:7.1f} x real time {ratio}")
    found["load"].append(round(os.getloadavg()[0], 2))
    print(f"{len(waves)} utterances, {audio:.0f} s, {threads} threads, load {found['load']}")
    if asked.json:
        facts = {"clock": asked.clock, "utterances": len(waves), "audio_seconds": audio, "rows": rows}
        asked.json.write_text(json.dumps(found | facts, indent=1) + "\n")


def waveforms(manifest: str, split: str, count: int) -> Waves:
    """Evenly over those of the split that are neither short nor long."""
    found = [
        one
        for one in Manifest(manifest, language="en", dev_share=0.0).utterances()
        if isinstance(one, Utterance) and one.split == split and SHORTEST <= one.duration_seconds <= LONGEST
    ]
    if len(found) < count:
        sys.exit(f"{manifest} has {len(found)} utterances of 5 to 15 s in its split '{split}': {count} are needed")
    chosen = found[:: len(found) // count][:count]
    return [read_audio(one.audio, one.offset_seconds, one.duration_seconds) for one in chosen]


def random_bundle(home: Path, model: str) -> str:
    """A model as conf/finetune.yaml builds it, untrained."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("finetune", [f"model={model}"]), resolve=True)
    tokenizer = CharacterTokenizer(sorted(" 'abcdefghijklmnopqrstuvwxyz"))
    torch.manual_seed(0)
    weights = build_recognizer(config["model"], tokenizer.size).state_dict()
    folder, training = home / f"{model}, random weights" / "bundle", {"language": "en"}
    folder.parent.mkdir(parents=True)
    save_bundle(
        folder,
        ear=config["frontend"],
        model=config["model"],
        weights=weights,
        tokenizer=tokenizer,
        training=training,
    )
    return str(folder)


def of_ours(bundle: str, searches: bool = True) -> list[Entrant]:
    """A row for everything this bundle can do."""
    greedy = Transcriber(bundle, vad=False)
    name, size = f"glmasr {Path(bundle).resolve().parent.name}", greedy.parameters
    rows = {f"{name}, greedy": greedy, f"{name}, greedy, voice detector": Transcriber(bundle)}
    if searches:
        try:
            rows[f"{name}, joint"] = Transcriber(bundle, decoding="joint", vad=False)
        except InputError as refused:
            print(f"{name}: {refused}")
    found = [Entrant(f"{label}, together", size, run) for label, run in rows.items() if "voice" not in label]
    found += [Entrant(f"{label}, one by one", size, one_by_one(run)) for label, run in rows.items()]
    try:
        LiveTranscriber(greedy)
    except InputError as refused:
        print(f"{name}: {refused}")
    else:
        found.append(Entrant(f"{name}, live captions", size, live(greedy)))
    return found


def one_by_one(system: Callable[[Waves], object]) -> Callable[[Waves], object]:
    """As requests come."""
    return lambda waves: [system([wave]) for wave in waves]


def live(transcriber: Transcriber) -> Callable[[Waves], object]:
    """One stream an utterance."""

    def run(waves: Waves) -> None:
        for wave in waves:
            stream = LiveTranscriber(transcriber)
            for start in range(0, len(wave), BLOCK):
                stream.hear(wave[start : start + BLOCK])
            stream.finish()

    return run


def whispers(model: str, threads: int) -> list[Entrant]:
    """Quantized and not."""
    found = []
    for kind in ("int8", "float32"):
        system = Whisper(model, compute_type=kind, threads=threads, root=str(REPOSITORY / "data" / "models"))
        found.append(Entrant(f"faster-whisper {model} {kind}", system.parameters, system))
    return found


def wav2vec2() -> list[Entrant]:
    """transformers' CTC recognizer with the best token of every frame; padded together, and one by one."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    shape = {
        "hidden_size": WIDTH,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 6,
        "intermediate_size": 4 * WIDTH,
    }
    model = Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=32, **shape)).eval()

    @torch.inference_mode()
    def run(waves: Waves) -> None:
        batch = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True)
        lengths = torch.tensor([len(wave) for wave in waves])
        attended = (torch.arange(batch.shape[1]) < lengths[:, None]).long()
        for row in model(batch, attention_mask=attended).logits.argmax(-1):
            torch.unique_consecutive(row).tolist()

    size, name = sum(p.numel() for p in model.parameters()), "transformers Wav2Vec2ForCTC, random weights"
    return [Entrant(f"{name}, together", size, run), Entrant(f"{name}, one by one", size, one_by_one(run))]


if __name__ == "__main__":
    main()
