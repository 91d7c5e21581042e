"""Real speech in; what a pretraining step takes, ours and its peers', side by side in one run, out.

python benchmarks/training.py --json benchmarks/results/training.json        # the corpora beside the repository
python benchmarks/training.py --manifest /my/corpus --sizes 7M --only "glmasr|torchaudio"
python benchmarks/training.py --loading --json benchmarks/results/loading.json       # make pretrain against its steps

A step is features, forward, backward, clipping and AdamW, of one batch of 8 utterances of 4 to 10 s, padded. At each
size all have as many parameters within a few percent, those that hear log-mel the same width too, kernels of 15 and,
but where a row says otherwise, no dropout. Log-mel models name random-projection codes of the hidden 40 % of their
frames by the same head (glmasr/objective/cluster.py), ours `visible frames only` by an encoder that leaves hidden
frames out, and two convolutions that infer them (glmasr/model/predictor.py); raw-wave models are pretrained by their
own contrast. All take a step in turns; medians are kept, `ratio` is to the first row of the size, and the slowest sides
rest in some rounds. `mfu` is the share of the sgemm peak, which is measured before and after; its operations are those
of matrix products and convolutions as executed, on padding too where a side computes it, without the Fourier transform.
`mb_per_audio_second` is how far a step raises the process' memory, per second of padded audio.

With --loading, conf/pretrain.yaml is run as it stands but for the data, and without probes; every ten steps it waits
while a copy of its model takes bare steps on the ten batches it has just heard. `share_lost` is what of its time those
would have saved: loading, logs, health. So both sides see the same batches within seconds, and a machine that slows
down slows both; what cannot be seen so is a loading process that fills its queue (two batches) while the other waits.
The corpus is cut to what half of the steps hear once, and figures are those of the other half: of a second epoch, for
which decoded audio is kept, and of a first one, for which it is decoded, by batches.decoded_mb=0.
"""

import argparse
import contextlib
import copy
import gc
import io
import json
import logging
import os
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import torchaudio
from hydra import compose, initialize_config_dir
from limits import CLOCKS, Clock, about, measure, operations, seconds
from omegaconf import OmegaConf
from pytorch_lightning import Callback
from torch import Tensor, nn

from glmasr.build import build
from glmasr.data.corpora import Manifest
from glmasr.evaluation.memory import PeakMemory
from glmasr.frontend.audio import read_audio, write_audio
from glmasr.lengths import padding_mask
from glmasr.model.subsampling import stack_features
from glmasr.objective.contract import View
from glmasr.objective.masking import draw_mask
from glmasr.speech import RATE_HZ, Batch, Utterance
from glmasr.training import run as training_run
from glmasr.training.optimizer import adamw
from glmasr.training.pretrain import Pretraining
from glmasr.training.run import build_pretraining

REPOSITORY = Path(__file__).resolve().parent.parent
CORPUS = REPOSITORY.parent / "shared" / "corpora" / "librispeech_mini"
UTTERANCES, SHORTEST, LONGEST = 8, 4.0, 10.0
BLOCK = 10
"""Steps that --loading takes before it compares."""

SLOW = 4.0
"""A step so many times ours is taken every other round only."""

BINS, KERNEL, CLIP = 80, 15, 5.0
DROPOUT, ANOTHER = 0.0, 0.1
"""conf/pretrain.yaml's, given to all sides; and what the fastest are measured with once more."""

SIZES: dict[str, dict[str, Any]] = {
    "7M": {
        "ours": ("conformer_tiny", 240, 5, 4),
        "torchaudio": (240, 4),
        "speechbrain": (240, 5),
        "w2v-bert": (240, 5),
        "Wav2Vec2": (144, 9),
        "Wav2Vec2Conformer": (144, 5),
    },
    "28M": {
        "ours": ("conformer_small", 384, 8, 6),
        "torchaudio": (384, 7),
        "speechbrain": (384, 8),
        "w2v-bert": (384, 8),
        "Wav2Vec2": (384, 12),
        "Wav2Vec2Conformer": (384, 6),
    },
}
"""Of each side width and blocks that make it the size; of ours model, width, blocks and heads."""

Loss = Callable[[Batch], Tensor]


@dataclass
class Side:
    """One model with its loss and optimizer, and the seconds its steps took."""

    name: str
    module: nn.Module
    loss: Loss
    taken: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.module.train()
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = adamw([{"params": parameters}], 1e-4, 0.01)

    def step(self, batch: Batch) -> None:
        """Features to update."""
        loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), CLIP)
        self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--manifest", default=str(CORPUS), help="a corpus of utterances of 4 to 10 s")
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="a regular expression of names")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: on a shared machine, with one thread")
    parser.add_argument("--loading", action="store_true", help="make pretrain against its steps, instead of peers")
    parser.add_argument("--steps", type=int, default=100, help="of --loading")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if not Path(asked.manifest).exists():
        parser.error(f"there is no corpus at {asked.manifest}: name one with --manifest (a NeMo-style manifest)")
    quiet()
    found = about("torchaudio", "transformers", "speechbrain")
    if asked.loading:
        found |= {"rows": [row for size in asked.sizes for row in loading(asked.manifest, asked.steps, size)]}
        if asked.json:
            asked.json.write_text(json.dumps(found, indent=1) + "\n")
        return
    batch, clock = batch_of(asked.manifest), CLOCKS[asked.clock]
    before, rows = measure(clock), []
    for size in asked.sizes:
        rows += compared(size, sides(size, batch, asked.only), batch, asked.rounds, clock)
    after = measure(clock)
    found["load"].append(round(os.getloadavg()[0], 2))
    peak = max(before.gflops, after.gflops)
    for row in rows:
        row["mfu"] = row["gflops_per_audio_second"] * row["audio_seconds_per_second"] / peak
    limits = {"before": asdict(before), "after": asdict(after)}
    padding = 1 - batch.seconds / (batch.waveform.numel() / RATE_HZ)
    facts = {"clock": asked.clock, "audio_seconds": batch.seconds, "padding": padding, "limits": limits}
    print(
        f"peak {before.gflops:.0f} then {after.gflops:.0f} GFLOP/s, copies {before.gb_s:.0f} then {after.gb_s:.0f} GB/s"
    )
    for row in rows:
        print(shown(row))
    if asked.json:
        asked.json.write_text(json.dumps(found | facts | {"rows": rows}, indent=1) + "\n")


def quiet() -> None:
    """Peers say much about what they are."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)


def compared(size: str, them: list[Side], batch: Batch, rounds: int, clock: Clock) -> list[dict[str, Any]]:
    """Each one's operations, which makes it warm, and memory; then steps in turns."""
    flops = [operations(lambda one=one: one.step(batch)) for one in them]
    memory = [rise(one, batch) for one in them]
    for at in range(rounds):
        for one in them:
            if at % 2 == 0 or one.taken[0] < SLOW * them[0].taken[0]:
                one.taken.append(seconds(lambda one=one: one.step(batch), clock))
    own = statistics.median(them[0].taken)
    rows = []
    for one, count, risen in zip(them, flops, memory, strict=True):
        taken, padded = statistics.median(one.taken), batch.waveform.numel() / RATE_HZ
        rows.append(
            {
                "name": one.name,
                "size": size,
                "parameters": sum(p.numel() for p in one.module.parameters() if p.requires_grad),
                "audio_seconds_per_second": batch.seconds / taken,
                "ratio": taken / own,
                "gflops_per_audio_second": count / 1e9 / batch.seconds,
                "mb_per_audio_second": risen / 1e6 / padded,
                "seconds": [round(s, 4) for s in one.taken],
            }
        )
        print(f"{size} {one.name}: {taken:.2f} s a step", flush=True)
        one.optimizer.zero_grad(set_to_none=True)
    them.clear()
    gc.collect()
    return rows


def rise(side: Side, batch: Batch) -> int:
    """How far one more step raises the memory of this process, in bytes."""
    with PeakMemory() as memory:
        side.step(batch)
    side.optimizer.zero_grad(set_to_none=True)
    return memory.peak_bytes or 0


def shown(row: Mapping[str, Any]) -> str:
    """One line of the table."""
    return (
        f"{row['size']:>4} {row['name']:56} {row['parameters'] / 1e6:5.1f} M"
        f" {row['audio_seconds_per_second']:7.1f} audio-s/s"
        f" {row['ratio']:6.2f} x our step {row['gflops_per_audio_second']:6.2f} GFLOP/audio-s"
        f" mfu {row['mfu']:4.0%} {row['mb_per_audio_second']:6.1f} MB/audio-s"
    )


def loading(manifest: str, steps: int, size: str) -> list[dict[str, Any]]:
    """Audio per second of `make pretrain` without and with a process that loads, and of its steps alone.

    Of the corpus as it is found, decoded once or each time, and decoded to WAV.
    """
    model, rows = shaped(SIZES[size]["ours"]), []
    with tempfile.TemporaryDirectory() as folder:
        found = cut(manifest, Path(folder) / "found", steps / 2 * composed()["batches"]["batch_seconds"])
        kinds = {"as found": (found,), "as found, decoded anew": (found, "batches.decoded_mb=0")}
        kinds["WAV, decoded anew"] = decoded(found, Path(folder) / "wav"), "batches.decoded_mb=0"
        for kind, (path, *settings) in kinds.items():
            for workers in (0, 1):
                row = {"size": size, "name": f"make pretrain, {kind}, batches.workers={workers}"}
                row |= pretrained(steps, f"batches.workers={workers}", *model, *data_of(path), *settings)
                rates = f"{row['audio_seconds_per_second']:7.1f} audio-s/s, alone {row['bare_seconds_per_second']:7.1f}"
                blocks = ", ".join(f"{one:+.1%}" for one in row["blocks"])
                print(f"{size:>4} {row['name']:58} {rates}, {row['share_lost']:+.1%} lost ({blocks})")
                rows.append(row)
    return rows


def data_of(manifest: str) -> tuple[str, ...]:
    """Overrides that name a corpus."""
    return "data=manifest", f"data.path={manifest}", "data.language=en"


def cut(manifest: str, folder: Path, seconds: float) -> str:
    """The first utterances of a corpus' training split, as many as take so long, and its dev split."""
    lines, taken = [], 0.0
    for one in Manifest(manifest, language="en", dev_share=0.05).utterances():
        if isinstance(one, Utterance) and (one.split == "dev" or taken + one.duration_seconds <= seconds):
            taken += one.duration_seconds if one.split == "train" else 0.0
            lines.append(asdict(one) | {"audio_filepath": os.path.abspath(one.audio), "duration": one.duration_seconds})
    folder.mkdir()
    (folder / "manifest.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return str(folder)


def decoded(manifest: str, folder: Path) -> str:
    """A copy of a corpus as WAV files of 16 bits."""
    folder.mkdir()
    lines = []
    for number, one in enumerate(Manifest(manifest, language="en").utterances()):
        if isinstance(one, Utterance):
            path = folder / f"{number}.wav"
            write_audio(path, read_audio(one.audio, one.offset_seconds, one.duration_seconds))
            facts = {"duration": one.duration_seconds, "text": one.text, "speaker": one.speaker, "split": one.split}
            lines.append(json.dumps({"audio_filepath": path.name, **facts}))
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return str(folder)


def pretrained(steps: int, *settings: str) -> dict[str, Any]:
    """`make pretrain` beside bare steps on its own batches, from half of its steps on."""
    with tempfile.TemporaryDirectory() as home:
        there = [f"run_dir={home}/run", f"catalogs={home}/catalogs", "probe.every_steps=null", "name=loading"]
        config = composed(*settings, *there, f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}")
        original, beside = training_run.fit, []

        def fit(run, module, batches, callbacks):
            beside.append(Beside(module, steps // 2))
            return original(run, module, batches, [*callbacks, *beside])

        with mock.patch.object(training_run, "fit", fit), contextlib.redirect_stderr(io.StringIO()):
            training_run.pretrain(config)
    blocks = beside[0].blocks
    real, bare, audio = (sum(block[i] for block in blocks) for i in range(3))
    return {
        "audio_seconds_per_second": audio / real,
        "bare_seconds_per_second": audio / bare,
        "share_lost": 1 - bare / real,
        "blocks": [round(1 - bare / real, 4) for real, bare, _ in blocks],
    }


class Beside(Callback):
    """Times a training's steps in blocks, and after each block those of a copy on the same batches, uncounted."""

    def __init__(self, module: Pretraining, first: int):
        copied = copy.deepcopy(module)
        self.side = Side("", copied, lambda batch: copied.loss(batch).total)
        self.first, self.since = first, 0.0
        self.batches: list[Batch] = []
        self.blocks: list[tuple[float, float, float]] = []
        """Seconds of the training, seconds of the copy, audio seconds."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        if trainer.global_step > self.first:
            self.batches.append(batch)
        if len(self.batches) == BLOCK:
            real = time.perf_counter() - self.since
            bare = sum(seconds(lambda batch=batch: self.side.step(batch)) for batch in self.batches)
            self.blocks.append((real, bare, sum(batch.seconds for batch in self.batches)))
            self.batches = []
        if not self.batches:
            self.since = time.perf_counter()


def batch_of(manifest: str) -> Batch:
    """Utterances drawn by seed 0, padded, with another in the background as noise, so what is clean is another wave."""
    found = [
        one
        for one in Manifest(manifest, language="en", dev_share=0.0).utterances()
        if isinstance(one, Utterance) and SHORTEST <= one.duration_seconds <= LONGEST
    ]
    if len(found) < UTTERANCES:
        sys.exit(f"{manifest} has {len(found)} utterances of {SHORTEST:g} to {LONGEST:g} s: {UTTERANCES} are needed")
    chosen = np.random.default_rng(0).choice(len(found), UTTERANCES, replace=False)
    waves = [read_audio(one.audio, one.offset_seconds, one.duration_seconds) for one in (found[i] for i in chosen)]
    lengths = torch.tensor([len(wave) for wave in waves])
    clean = nn.utils.rnn.pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True)
    heard = clean + 0.3 * clean.roll(1, 0) * ~padding_mask(lengths, clean.shape[1])
    ids = tuple(found[i].id for i in chosen)
    return Batch(heard, lengths, clean, None, None, ids, (None,) * UTTERANCES, 0)


def sides(size: str, batch: Batch, only: str) -> list[Side]:
    """Ours first."""
    made: dict[str, Callable[[], Side]] = {}
    ours = SIZES[size]["ours"]
    name = f"glmasr {ours[0]}"
    for dropout, with_it in ((DROPOUT, ""), (ANOTHER, f", dropout={ANOTHER}")):
        made[f"{name} random_projection{with_it}"] = lambda dropout=dropout: of_ours(
            ours, "random_projection", batch, False, f"dropout={dropout}"
        )
        made[f"torchaudio Conformer, conv2d stem{with_it}"] = lambda dropout=dropout: best_rq(
            Torchaudio(*SIZES[size]["torchaudio"], dropout), batch
        )
        made[f"speechbrain BEST-RQ Conformer{with_it}"] = lambda dropout=dropout: best_rq(
            SpeechBrain(*SIZES[size]["speechbrain"], dropout), batch
        )
    made[f"{name} random_projection, visible frames only"] = lambda: of_ours(
        ours, "random_projection", batch, False, "predictor.layers=2"
    )
    made[f"{name} contrastive_reconstruction, noise"] = lambda: of_ours(ours, "contrastive_reconstruction", batch, True)
    made["transformers Wav2Vec2Bert"] = lambda: best_rq(W2vBert(*SIZES[size]["w2v-bert"]), batch)
    made["transformers Wav2Vec2 pretraining"] = lambda: raw_wave("Wav2Vec2", *SIZES[size]["Wav2Vec2"])
    made["transformers Wav2Vec2Conformer pretraining"] = lambda: raw_wave(
        "Wav2Vec2Conformer", *SIZES[size]["Wav2Vec2Conformer"]
    )
    chosen = []
    for label, make in made.items():
        if re.search(only, label):
            side = make()
            side.name = label
            chosen.append(side)
    return chosen


def composed(*overrides: str) -> dict[str, Any]:
    """conf/pretrain.yaml with overrides."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return OmegaConf.to_container(compose("pretrain", list(overrides)), resolve=True)  # type: ignore[return-value]


def shaped(shape: tuple[str, int, int, int]) -> tuple[str, ...]:
    """Overrides that name a model of ours."""
    model, width, blocks, heads = shape
    sized = (f"model.encoder.width={width}", f"model.encoder.blocks={blocks}", f"model.encoder.heads={heads}")
    return f"model={model}", *sized


def of_ours(shape: tuple[str, int, int, int], objective: str, batch: Batch, noise: bool, *more: str) -> Side:
    """A pretraining as scripts/pretrain.py builds it, without what Lightning does around it."""
    module = build_pretraining(composed(*shaped(shape), f"objective={objective}", *more))
    if objective == "random_projection":
        module.objective.codebook.fit(*clean_vectors(module.objective.codebook, batch))  # type: ignore[union-attr]
    return Side("", module, lambda batch: module.loss(batch if noise else without_noise(batch)).total)


def without_noise(batch: Batch) -> Batch:
    """What is heard is clean, as for the peers."""
    assert batch.clean is not None
    return Batch(batch.clean, batch.lengths, None, None, None, batch.ids, batch.texts, batch.index)


def clean_vectors(codebook: Any, batch: Batch) -> tuple[Tensor]:
    """What the codebook quantizes, of the whole batch."""
    features, lengths = build(composed()["frontend"])(batch.clean, batch.lengths)
    return (codebook.vectors(features, lengths, features.shape[1] // 4).flatten(0, 1),)


class BestRq(nn.Module):
    """Another house's features and encoder between our mask and our head."""

    def __init__(self, peer: nn.Module, batch: Batch):
        super().__init__()
        config = composed("objective=random_projection", f"model.encoder.width={peer.width}")
        self.peer, self.masking = peer, config["masking"]
        self.objective = build(config["objective"])
        self.objective.codebook.fit(*clean_vectors(self.objective.codebook, batch))

    def forward(self, batch: Batch) -> Tensor:
        assert batch.clean is not None
        with torch.no_grad():
            features, lengths = self.peer.features(batch.clean, batch.lengths)
        frames = self.peer.frames(lengths)
        size = int(frames.max())
        mask = draw_mask(frames.tolist(), size, rng=np.random.default_rng(0), **named(self.masking))
        hidden = nn.functional.pad(mask.repeat_interleave(4, 1), (0, max(0, features.shape[1] - 4 * size)))
        hidden = hidden[:, : features.shape[1], None]
        context = self.peer(torch.where(hidden, 0.1 * torch.randn_like(features), features), lengths)[:, :size]
        padding = padding_mask(frames, size)
        clean = stack_features(features, size)
        return self.objective(View(context, lambda: context, clean, mask, padding, frames, 0, features, lengths)).total


def named(masking: Mapping[str, Any]) -> dict[str, Any]:
    """By the names of draw_mask."""
    return {"share": masking["mask_share"], "span_frames": masking["mask_span_frames"]}


def best_rq(peer: nn.Module, batch: Batch) -> Side:
    """A log-mel peer."""
    module = BestRq(peer, batch)
    return Side("", module, module)


def normalized(features: Tensor, lengths: Tensor) -> Tensor:
    """Each bin of each utterance at zero mean and unit variance."""
    real = ~padding_mask(lengths, features.shape[1])[..., None]
    mean = (features * real).sum(1, keepdim=True) / lengths[:, None, None]
    centered = (features - mean) * real
    return centered / (centered.square().sum(1, keepdim=True) / lengths[:, None, None]).sqrt().clamp(min=1e-5)


class Torchaudio(nn.Module):
    """torchaudio.models.Conformer behind torchaudio's mel spectrogram and the usual 4× Conv2d subsampling."""

    def __init__(self, width: int, blocks: int, dropout: float):
        super().__init__()
        self.width = width
        self.mel = torchaudio.transforms.MelSpectrogram(RATE_HZ, 512, 400, 160, n_mels=BINS)
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 2), nn.ReLU(), nn.Conv2d(width, width, 3, 2), nn.ReLU())
        self.project = nn.Linear(width * (((BINS - 1) // 2 - 1) // 2), width)
        self.conformer = torchaudio.models.Conformer(width, width // 60, 4 * width, blocks, KERNEL, dropout)

    def features(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        found, count = self.mel(waveform).clamp(min=1e-10).log().transpose(1, 2), lengths // 160 + 1
        return normalized(found, count), count

    def frames(self, lengths: Tensor) -> Tensor:
        return ((lengths - 1) // 2 - 1) // 2

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        x = self.stem(features[:, None])
        return self.conformer(self.project(x.transpose(1, 2).flatten(2)), self.frames(lengths))[0]


class SpeechBrain(nn.Module):
    """Features, front end and Conformer of SpeechBrain's BEST-RQ recipe (LibriSpeech), with rotary attention."""

    def __init__(self, width: int, blocks: int, dropout: float):
        from speechbrain.lobes.features import Fbank
        from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
        from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR

        super().__init__()
        self.width = width
        self.fbank = Fbank(sample_rate=RATE_HZ, n_fft=400, n_mels=BINS)
        self.front = ConvolutionFrontEnd(
            (None, None, BINS), 2, 1, [128, 32], [5, 5], [2, 2], residuals=[False, False], dropout=dropout
        )
        self.encoder = TransformerASR(
            tgt_vocab=1,
            input_size=32 * BINS // 4,
            d_model=width,
            nhead=4,
            num_encoder_layers=blocks,
            num_decoder_layers=0,
            d_ffn=4 * width,
            dropout=dropout,
            activation=nn.GELU,
            normalize_before=True,
            kernel_size=KERNEL,
            encoder_module="conformer",
            attention_type="RoPEMHA",
            causal=False,
        )

    def features(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        found, count = self.fbank(waveform), lengths // 160 + 1
        return normalized(found, count), count

    def frames(self, lengths: Tensor) -> Tensor:
        return ((lengths + 1) // 2 + 1) // 2

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        return self.encoder.encode(self.front(features), lengths / lengths.max())


class W2vBert(nn.Module):
    """transformers' w2v-BERT 2.0: frames of 20 ms from two stacked feature frames; pairs of them for the head."""

    def __init__(self, width: int, blocks: int):
        from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

        super().__init__()
        self.width = width
        self.mel = torchaudio.transforms.MelSpectrogram(RATE_HZ, 512, 400, 160, n_mels=BINS)
        self.model = Wav2Vec2BertModel(
            Wav2Vec2BertConfig(
                hidden_size=width,
                num_hidden_layers=blocks,
                num_attention_heads=4,
                intermediate_size=4 * width,
                feature_projection_input_dim=2 * BINS,
                conv_depthwise_kernel_size=KERNEL,
                conformer_conv_dropout=DROPOUT,
                hidden_dropout=DROPOUT,
                attention_dropout=DROPOUT,
                activation_dropout=DROPOUT,
                layerdrop=0.0,
                apply_spec_augment=False,
            )
        )

    features = Torchaudio.features

    def frames(self, lengths: Tensor) -> Tensor:
        return lengths // 4

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        pairs = features[:, : features.shape[1] // 4 * 4].unflatten(1, (-1, 2)).flatten(2)
        attended = ~padding_mask(lengths // 2, pairs.shape[1])
        context = self.model(pairs, attention_mask=attended.long()).last_hidden_state
        return context.unflatten(1, (-1, 2)).mean(2)


def raw_wave(name: str, width: int, blocks: int) -> Side:
    """transformers' own pretraining of wav2vec 2.0, with its Transformer or its Conformer."""
    import transformers
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

    more = {"conv_depthwise_kernel_size": KERNEL} if "Conformer" in name else {}
    config = getattr(transformers, f"{name}Config")(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        intermediate_size=4 * width,
        layerdrop=0.0,
        codevector_dim=128,
        proj_codevector_dim=128,
        **more,
    )
    model = getattr(transformers, f"{name}ForPreTraining")(config)

    def loss(batch: Batch) -> Tensor:
        assert batch.clean is not None
        padding = padding_mask(batch.lengths, batch.clean.shape[1])
        frames = model._get_feat_extract_output_lengths(batch.lengths)
        shape, attended = (len(frames), int(frames.max())), ~padding_mask(frames, int(frames.max()))
        mask = _compute_mask_indices(shape, 0.5, 10, attention_mask=attended.long())
        others = _sample_negative_indices(shape, config.num_negatives, mask)
        found = model(
            batch.clean,
            attention_mask=(~padding).long(),
            mask_time_indices=torch.from_numpy(mask),
            sampled_negative_indices=torch.from_numpy(others),
        )
        return found.loss

    return Side("", model, loss)


if __name__ == "__main__":
    main()
