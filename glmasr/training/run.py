"""A resolved config in, a finished run folder out: build, resume, fit, write the bundle."""

import fcntl
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytorch_lightning as lightning
import torch
import yaml
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.utilities import rank_zero_only

from glmasr.build import build, check_names
from glmasr.bundle import build_recognizer, encoder_weights, open_bundle, read_config, save_bundle
from glmasr.data.catalog import Catalog, prepare_catalog
from glmasr.frontend.logmel import HOP_SAMPLES
from glmasr.model.recognizer import Recognizer, parameter_count
from glmasr.model.subsampling import STRIDE
from glmasr.speech import RATE_HZ, InputError
from glmasr.text.tokenizer import Tokenizer, learn_characters
from glmasr.training.callbacks import Checkpoints, Lines, MetricsFile, Snapshots, Throughput
from glmasr.training.clusters import fit_codebooks
from glmasr.training.datamodule import SpeechBatches
from glmasr.training.finetune import Finetuning
from glmasr.training.health import Health
from glmasr.training.pretrain import Pretraining
from glmasr.training.probing import Probing, loaded

Config = dict[str, Any]
FREE_TO_CHANGE = ("trainer", "logger", "overwrite", "checkpoints", "batches.workers", "health")
"""Settings an interrupted run may be resumed with a new value of; the rest decides what the numbers mean."""


def say(message: str) -> None:
    """One line for the person who watches."""
    print(f"glmasr: {message}", file=sys.stderr, flush=True)


class Run:
    """A folder `runs/<name>`: config.yaml, metrics.csv, checkpoints/, bundle/, and finished.json when it is done."""

    def __init__(self, config: Config):
        self.config = config
        self.folder = Path(config["run_dir"])
        self.finished_file = self.folder / "finished.json"
        self.kept = self.folder / "config.yaml"
        self.lock_file: TextIO | None = None

    def begin(self) -> bool:
        """Make the folder and keep the config in it; False where the run was finished before.

        Only one process may train in a folder; of a distributed run the first rank answers for all.
        """
        if getattr(rank_zero_only, "rank", 0):  # set from the launcher's environment
            return not self.finished_file.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock()
            if self.config["overwrite"]:
                self.clear()
            if not self.is_open():
                self.unlock()
                return False
            staged = self.kept.with_suffix(".tmp")
            staged.write_text(yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True), encoding="utf-8")
            staged.replace(self.kept)
        except OSError as error:
            raise InputError(
                f"cannot write to {self.folder} ({error.strerror}): choose a folder with run_dir=…"
            ) from error
        return True

    def is_open(self) -> bool:
        """False where the run is finished; an InputError where it was begun with settings that change its meaning."""
        finished = self.finished_file.exists()
        begun = any((self.folder / "checkpoints").glob("step_*.ckpt"))
        if not self.kept.exists() or not (begun or finished):
            return True
        free = ("overwrite",) if finished else FREE_TO_CHANGE
        changes = differences(yaml.safe_load(self.kept.read_text(encoding="utf-8")), self.config)
        changes = [change for change in changes if not change.startswith(free)]
        if changes:
            what = "was finished" if finished else "was begun"
            raise InputError(
                f"{self.folder} {what} with other settings ({'; '.join(changes[:3])}): choose another name=…, "
                "or overwrite=true to discard it"
            )
        if finished:
            say(f"{self.folder} is finished, nothing to do (overwrite=true does it again)")
        return not finished

    def lock(self) -> None:
        """Hold the folder while this process lives; an InputError where another one does."""
        self.lock_file = (self.folder / ".lock").open("w")
        try:
            fcntl.lockf(self.lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another process is training in {self.folder}: wait for it, or choose another name=…"
            ) from error

    def unlock(self) -> None:
        """Leave the folder to others."""
        if self.lock_file is not None:
            self.lock_file.close()
            (self.folder / ".lock").unlink(missing_ok=True)

    def clear(self) -> None:
        """Discard what the folder holds."""
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != ".lock":
                entry.unlink()

    def finish(self, **facts) -> None:
        """Say that nothing is left to do, and how it went."""
        staged = self.finished_file.with_suffix(".tmp")
        staged.write_text(json.dumps(facts | provenance(), indent=1))
        staged.replace(self.finished_file)
        self.unlock()


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Every leaf that differs, as `a.b: old → new`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*new, *(k for k in old if k not in new)]
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{path}.{k}".lstrip("."))]
    return [] if old == new else [f"{path}: {old} → {new}"]


def provenance() -> Config:
    """What a figure must name: commit, machine, versions."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=False
    )
    packages = ("torch", "pytorch-lightning", "datasets")
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": git.stdout.strip() or "unknown",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in packages},
    }


def open_catalog(config: Config) -> Catalog:
    """The corpus a run trains on, prepared on first use."""
    return prepare_catalog(build(config["data"]), config["catalogs"])


def build_logger(config: Config, folder: Path) -> list:
    """metrics.csv and TensorBoard always; Weights & Biases by choice, offline where no account is set up."""
    from pytorch_lightning.loggers import TensorBoardLogger

    loggers: list = [
        MetricsFile(folder / "metrics.csv"),
        TensorBoardLogger(str(folder), name="", version="tensorboard"),
    ]
    if config["logger"]["wandb"]:
        from pytorch_lightning.loggers import WandbLogger

        offline = not os.environ.get("WANDB_API_KEY")
        name = config["name"]
        loggers.append(WandbLogger(name=name, project="glmasr", save_dir=str(folder), offline=offline, config=config))
    return loggers


def build_trainer(config: Config, folder: Path, callbacks: list[Callback]) -> lightning.Trainer:
    """Lightning's Trainer with the config's settings, whose names are checked, and ours."""
    check_names(lightning.Trainer.__init__, config["trainer"], "trainer")
    quiet_lightning()
    terminal = sys.stderr.isatty()
    watching: Callback = TQDMProgressBar(refresh_rate=5) if terminal else Lines(config["logger"]["lines_every_steps"])
    return lightning.Trainer(
        default_root_dir=folder,
        logger=build_logger(config, folder),
        callbacks=[*callbacks, Throughput(), watching],
        max_epochs=-1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=terminal,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **config["trainer"],
    )


def quiet_lightning() -> None:
    """Leave out Lightning's tips and device lists; its warnings stay, but for one of a library it uses."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")


def fit(run: Run, module: lightning.LightningModule, batches: SpeechBatches, callbacks: list[Callback]) -> Config:
    """Train to max_steps from the newest checkpoint that can be read; facts for finished.json."""
    checkpoints = Checkpoints(run.folder / "checkpoints", **run.config["checkpoints"])
    trainer = build_trainer(run.config, run.folder, [*callbacks, checkpoints])
    accumulate(trainer, run.config["batches"]["batch_seconds"], run.config["update_seconds"])
    resume = readable(checkpoints.found())
    if resume:
        say(f"resuming {run.folder} from {resume.name}")
    started = time.time()
    trainer.fit(module, batches, ckpt_path=str(resume) if resume else None, weights_only=True)
    if trainer.is_global_zero:
        for old in checkpoints.found()[1:]:
            old.unlink()
    return {"step": trainer.global_step, "seconds": round(time.time() - started, 1)}


def accumulate(trainer: lightning.Trainer, batch_seconds: float, update_seconds: float | None) -> None:
    """Make every optimizer step see `update_seconds` of audio, however many devices share it.

    Step s so takes the same global batches on 1 device as on 64, and the mean of their gradients.
    """
    if update_seconds is None:
        return
    batches = update_seconds / (batch_seconds * trainer.world_size)
    if batches < 0.999 or abs(batches - round(batches)) > 1e-6:
        raise InputError(
            f"update_seconds={update_seconds:g} is no multiple of batches.batch_seconds={batch_seconds:g} × "
            f"{trainer.world_size} devices: change one of them"
        )
    trainer.accumulate_grad_batches = round(batches)
    if isinstance(trainer.val_check_interval, int):  # Lightning counts batches there, we steps
        trainer.val_check_interval *= round(batches)


def readable(checkpoints: list[Path]) -> Path | None:
    """The newest checkpoint that torch can open; damaged ones are named and passed over."""
    for path in checkpoints:
        try:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return path
        except Exception as error:  # whatever a damaged file makes the unpickler raise
            say(f"checkpoint {path} cannot be read ({type(error).__name__}); trying the one before it")
    return None


def seed_everything(seed: int) -> None:
    """Seed what initializes weights; every step seeds itself."""
    torch.manual_seed(seed)
    np.random.seed(seed)


def pretrain(config: Config) -> None:
    """`make pretrain`: an encoder from unlabelled audio."""
    run = Run(config)
    if not run.begin():
        return
    catalog = open_catalog(config)
    limits = config["utterances"]
    train = catalog.subset(split=config["splits"]["train"], **limits)
    dev = catalog.subset(split=config["splits"]["dev"], **limits)
    seed_everything(config["seed"])
    encoder = build(config["model"]["encoder"])
    module = Pretraining(
        ear=build(config["frontend"]),
        encoder=encoder,
        objective=build(config["objective"]),
        optimizer=build(config["optimizer"]),
        schedule=build(config["schedule"]),
        seed=config["seed"],
        chunks=config["chunks"],
        **config["masking"],
    )
    if not readable(sorted((run.folder / "checkpoints").glob("step_*.ckpt"), reverse=True)):
        for facts in fit_codebooks(module.objective, module.ear, train, **config["clusters"]):
            say("codebook: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()))
    batches = SpeechBatches(train, dev, seed=config["seed"], **config["batches"], **build(config["augment"]))
    say(f"pretraining {describe(encoder)} on {hours(train)} of audio; {run.folder}")
    probing = begin_probing(run, catalog)
    watching = [Health(run.folder, **config["health"]), *([probing] if probing else [])]
    facts = fit(run, module, batches, watching)
    if module.global_rank:
        return
    facts["probe"] = probing.conclude(module, facts["step"]) if probing else None
    written = {"bundle": (encoder.state_dict(), facts)}
    if probing:
        best = facts | {"step": probing.best_step}
        written = {"bundle": (probing.weights(), best), "bundle_last": (encoder.state_dict(), facts | {"probe": None})}
    for name, (weights, origin) in written.items():
        save_bundle(
            run.folder / name,
            ear=config["frontend"],
            model=config["model"],
            weights=weights,
            tokenizer=None,
            training={"run": config["name"], "seed": config["seed"], **origin},
        )
    run.finish(audio_hours=float(train.durations.sum()) / 3600, **facts)
    say(f"wrote {run.folder / 'bundle'}" + (f", the weights of step {probing.best_step}" if probing else ""))


def begin_probing(run: Run, catalog: Catalog) -> Probing | None:
    """The probe that `probe:` asks for; None, and a line that says so, where nothing labelled is there."""
    settings = dict(run.config["probe"])
    source, drawn = settings.pop("data"), {part: settings.pop(part) for part in ("learn", "judge")}
    if settings["every_steps"] is None:
        return None
    labelled = prepare_catalog(build(source), run.config["catalogs"]) if source else catalog
    limits = run.config["utterances"]
    try:
        learn, judge = (labelled.subset(labelled=True, **limits, **drawn[part]) for part in ("learn", "judge"))
        tokenizer = learn_characters(learn.texts())
        learn, judge = feasible(learn, tokenizer), feasible(judge, tokenizer)
    except InputError as error:
        if source:
            raise
        say(f"pretraining goes on without a probe: {error}")
        return None
    say(f"probing with {hours(learn)} of labelled audio, judged on {hours(judge)}")
    batches = loaded(learn, tokenizer), loaded(judge, tokenizer)
    return Probing(run.folder, *batches, tokenizer, say, **settings)


def finetune(config: Config) -> None:
    """`make finetune`: a recognizer from labelled audio, on a pretrained bundle or from scratch (`bundle=null`)."""
    run = Run(config)
    source = Path(config["bundle"]) if config["bundle"] else None
    if source is not None and not source.is_dir():
        raise InputError(
            f"there is no bundle at {source}: run `make pretrain` first, pass bundle=DIR, or bundle=null for scratch"
        )
    # A pretrained bundle brings the shape it was trained with; the decoder's is in it too.
    kept = read_config(source) if source else {"model": config["model"], "ear": config["frontend"]}
    reinitialized = fresh_blocks(config["reinitialized_blocks"], kept)
    # So that a run is not taken for finished when what it starts from has been trained again.
    run.config["bundle_digest"] = open_bundle(source).digest() if source else None
    if not run.begin():
        return
    catalog = open_catalog(config)
    limits = config["utterances"]
    train = catalog.subset(split=config["splits"]["train"], labelled=True, **limits, **config["labels"])
    halves = config["splits"]["dev_positions"]
    dev = catalog.subset(split=config["splits"]["dev"], positions=halves, labelled=True, **limits)
    tokenizer: Tokenizer = build(config["tokenizer"], texts=train.texts(), languages=train.languages)
    train = feasible(train, tokenizer)
    seed_everything(config["seed"])
    recognizer = build_recognizer(kept["model"], tokenizer.size)
    if source:
        start_from(recognizer, source, reinitialized)
    language = config["language"] or next(iter(train.languages), "")
    module = Finetuning(
        ear=build(kept["ear"]),
        recognizer=recognizer,
        tokenizer=tokenizer,
        loss=build(config["recognition"]),
        optimizer=build(config["optimizer"]),
        schedule=build(config["schedule"]),
        specaugment=build(config["specaugment"]),
        seed=config["seed"],
        language=language,
        chunks=config["chunks"],
        **config["rates"],
        **config["masking"],
    )
    batches = SpeechBatches(
        train, dev, tokenizer=tokenizer, seed=config["seed"], **config["batches"], **build(config["augment"])
    )
    origin = f"from {source}" if source else "from scratch"
    say(f"fine-tuning {describe(recognizer)} {origin} on {hours(train)} of labelled audio; {run.folder}")
    snapshots = Snapshots(run.folder / "checkpoints", **config["snapshots"])
    facts = fit(run, module, batches, [snapshots])
    if module.global_rank:
        return
    ranking = snapshots.ranking()
    training = {
        "run": config["name"],
        "seed": config["seed"],
        "from": str(source) if source else None,
        "reinitialized_blocks": reinitialized if source else None,
        "language": language,
        "labelled_minutes": round(float(train.durations.sum()) / 60, 2),
        "utterances": len(train),
        **facts,
        "dev": {"metric": config["snapshots"]["metric"], "value": ranking[0][0], "step": ranking[0][1]},
    }
    for name, weights in (("bundle", snapshots.best()), ("bundle_averaged", snapshots.averaged())):
        save_bundle(
            run.folder / name,
            ear=kept["ear"],
            model=kept["model"],
            weights=weights,
            tokenizer=tokenizer,
            training=training | {"weights": name},
        )
    run.finish(**training)
    say(f"wrote {run.folder / 'bundle'} ({config['snapshots']['metric']} {ranking[0][0]:.4f} at step {ranking[0][1]})")


def fresh_blocks(asked: int | str, kept: Config) -> int:
    """How many top blocks begin afresh: a number, or "auto", what the probe in a bundle's config says (0 without)."""
    if isinstance(asked, int):
        return asked
    if asked != "auto":
        raise InputError(f"reinitialized_blocks={asked} is neither a number of blocks nor auto")
    judged = kept.get("training", {}).get("probe")
    return judged["reinitialized_blocks"] if judged else 0


def start_from(recognizer: Recognizer, source: Path, reinitialized_blocks: int) -> None:
    """Copy a bundle's encoder, except for its top `reinitialized_blocks`, which keep their fresh weights."""
    weights = encoder_weights(open_bundle(source))
    blocks = len(recognizer.encoder.blocks)
    fresh = tuple(f"blocks.{i}." for i in range(blocks - reinitialized_blocks, blocks))
    kept = {name: value for name, value in weights.items() if not name.startswith(fresh)}
    recognizer.encoder.load_state_dict(kept, strict=False)


def feasible(train: Catalog, tokenizer: Tokenizer) -> Catalog:
    """Leave out, and count, utterances with more tokens than CTC can place in their frames."""
    frames = train.durations * RATE_HZ / HOP_SAMPLES / STRIDE
    needed = []
    language = next(iter(train.languages), "")  # one tag is as long as another
    for text in train.texts():
        tokens = tokenizer.encode(text, language)
        needed.append(len(tokens) + sum(a == b for a, b in pairwise(tokens)))
    fits = np.array(needed) < frames
    if not fits.any():
        raise InputError(
            "every transcript is longer than its audio can hold: check that texts and audio belong together"
        )
    if not fits.all():
        say(f"left out {int((~fits).sum())} of {len(train)} utterances whose transcripts do not fit their audio")
        train = train.rows(np.flatnonzero(fits))
    return train


def describe(model: torch.nn.Module) -> str:
    """How large a model is, for people."""
    return f"{parameter_count(model) / 1e6:.1f} M parameters"


def hours(catalog: Catalog) -> str:
    """How much audio there is, in minutes below an hour."""
    seconds = float(catalog.durations.sum())
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
