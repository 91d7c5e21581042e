"""A resolved config in, a finished run folder out: build, resume, fit, write the bundle."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.loggers.logger import Logger
from torch import Tensor

from glmasr.build import build, check_names
from glmasr.bundle import build_recognizer, encoder_weights, open_bundle, save_bundle
from glmasr.data.catalog import Catalog, prepare_catalog
from glmasr.decoding.search import check_weight, open_search
from glmasr.model.adapters import merged
from glmasr.model.predictor import build_predictor
from glmasr.model.recognizer import parameter_count
from glmasr.speech import InputError, Interrupted
from glmasr.text.tokenizer import Tokenizer, learn_characters
from glmasr.training.callbacks import Checkpoints, Lines, MetricsFile, Snapshots, Throughput
from glmasr.training.checkpoints import Written
from glmasr.training.clusters import fit_codebooks
from glmasr.training.datamodule import SpeechBatches
from glmasr.training.faults import explained
from glmasr.training.finetune import METRICS, STREAMED, Finetuning
from glmasr.training.folder import Config, Run, say
from glmasr.training.gradients import whole
from glmasr.training.guards import Diverged, Guards
from glmasr.training.health import Collapsed, Health
from glmasr.training.loggers import Forgiving
from glmasr.training.preemption import Preemption, attentive, cluster
from glmasr.training.pretrain import Pretraining
from glmasr.training.probing import Probing, loaded
from glmasr.training.record import record_data
from glmasr.training.start import (
    adapted,
    feasible,
    fresh_blocks,
    kept_tokenizer,
    same_encoder,
    say_left_out,
    start_from,
    with_dropout,
)
from glmasr.training.watchdog import Watchdog
from glmasr.training.weighing import best_weights, weigh_ctc
from glmasr.transcriber import streaming_of

WEIGHED_MINUTES = 5.0
"""Of dev, by which it is decided how much CTC has to say in joint decoding."""


def open_catalog(config: Config) -> Catalog:
    """The corpus a run trains on, prepared on first use."""
    return prepare_catalog(build(config["data"]), config["catalogs"])


def build_logger(config: Config, folder: Path) -> list[Logger]:
    """metrics.csv and TensorBoard always; Weights & Biases by choice, offline where no account is set up.

    Only metrics.csv is needed: whichever other fails is let go with a warning.
    """
    from pytorch_lightning.loggers import TensorBoardLogger

    loggers: list[Logger] = [TensorBoardLogger(str(folder), name="", version="tensorboard")]
    if config["logger"]["wandb"]:
        from pytorch_lightning.loggers import WandbLogger

        offline = not os.environ.get("WANDB_API_KEY")
        name = config["name"]
        loggers.append(WandbLogger(name=name, project="glmasr", save_dir=str(folder), offline=offline, config=config))
    return [MetricsFile(folder / "metrics.csv"), *(Forgiving(logger) for logger in loggers)]


def build_trainer(config: Config, folder: Path, callbacks: list[Callback]) -> lightning.Trainer:
    """Lightning's Trainer with the config's settings, whose names are checked, and ours."""
    check_names(lightning.Trainer.__init__, config["trainer"], "trainer")
    quiet_lightning()
    settings = config["trainer"] | {"strategy": build(config["trainer"]["strategy"])}
    if isinstance(settings["val_check_interval"], int) and settings["max_steps"] > 0:  # or a short run were never heard
        settings["val_check_interval"] = min(settings["val_check_interval"], settings["max_steps"])
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
        plugins=[Written(), *cluster()],
        enable_model_summary=False,
        use_distributed_sampler=False,
        **settings,
    )


def quiet_lightning() -> None:
    """Leave out Lightning's tips and device lists; its warnings stay, and those of what it uses, but for two."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode.*")  # an encoder whose clusters are targets
    warnings.filterwarnings("ignore", ".*The `srun` command is available.*")
    warnings.filterwarnings("ignore", "Grad strides do not match")  # they do, but for axes of size 1: the same memory


def watchers(run: Run) -> list[Callback]:
    """What stands guard over the steps of every training, asked before all others."""
    config = run.config
    return [
        Guards(run.folder, **config["guards"], say=say),
        Watchdog(run.folder, **config["watchdog"]),
    ]


def fit(run: Run, module: lightning.LightningModule, batches: SpeechBatches, callbacks: list[Callback]) -> Config:
    """Train to max_steps from where the run is; facts for finished.json.

    InputError where something outside ends it. Where all ranks end for the same reason, the first one says so.
    """
    if is_sharded(run.config) and not isinstance(module, Pretraining):
        raise InputError("trainer=fsdp shards pretraining only: choose another trainer=…")
    checkpoints = Checkpoints(run.folder / "checkpoints", **run.config["checkpoints"])
    trainer = build_trainer(run.config, run.folder, [*watchers(run), *callbacks, Preemption(checkpoints), checkpoints])
    accumulate(trainer, run.config["batches"]["batch_seconds"], run.config["update_seconds"])
    if trainer.is_global_zero:
        record_data(run.folder, train=batches.train, dev=batches.dev)
    if run.origin:
        say(f"resuming {run.folder} from {run.origin.name}")
    started = time.time()
    try:
        trainer.fit(module, batches, ckpt_path=str(run.origin) if run.origin else None, weights_only=True)
    except (Interrupted, Collapsed, Diverged):
        if trainer.global_rank:
            sys.exit(0)  # a failure would have the launcher kill the first rank before it has spoken
        raise
    except Exception as error:
        sentence = explained(error, run.folder, trainer.global_rank, trainer.world_size)
        if sentence is None:
            raise
        raise InputError(sentence) from error
    return {"step": trainer.global_step, "seconds": round(time.time() - started, 1)}


def is_sharded(config: Config) -> bool:
    """Whether the trainer spreads the model over its ranks."""
    return isinstance(config["trainer"]["strategy"], Mapping)


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


def seed_everything(seed: int) -> None:
    """Seed what initializes weights; every step seeds itself."""
    torch.manual_seed(seed)
    np.random.seed(seed)


def build_pretraining(config: Config) -> Pretraining:
    """Encoder, objective and what else a pretraining trains, with fresh weights."""
    encoder, objective = build(config["model"]["encoder"]), build(config["objective"])
    return Pretraining(
        ear=build(config["frontend"]),
        encoder=encoder,
        objective=objective,
        predictor=build_predictor(config["predictor"]),
        optimizer=build(config["optimizer"]),
        schedule=build(config["schedule"]),
        seed=config["seed"],
        chunks=config["chunks"],
        **config["masking"],
    )


@attentive()
def pretrain(config: Config) -> None:
    """`make pretrain`: an encoder from unlabelled audio."""
    run = Run(config)
    source = Path(config["bundle"]) if config["bundle"] else None
    origin = open_bundle(source) if source and source.is_dir() else None
    if origin:
        same_encoder(origin, config)
    # What goes on from a checkpoint needs the bundle no more, and may outlive it by weeks.
    run.config["bundle_digest"] = origin.digest() if origin else run.remembered("bundle_digest")
    if not run.begin():
        return
    if source and not origin and not run.origin:
        raise InputError(f"there is no bundle at {source}: pass bundle=DIR, or bundle=null for fresh weights")
    catalog = open_catalog(config)
    limits = config["utterances"]
    train = catalog.subset(split=config["splits"]["train"], **limits)
    say_left_out(catalog.subset(split=config["splits"]["train"]), **limits)
    dev = catalog.subset(split=config["splits"]["dev"], **limits)
    seed_everything(config["seed"])
    module = build_pretraining(config)
    encoder = module.encoder
    if origin:
        encoder.load_state_dict(encoder_weights(origin))
    if not run.origin:
        for facts in fit_codebooks(module.objective, module.ear, train, **config["clusters"]):
            say("codebook: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()))
    batches = SpeechBatches(train, dev, seed=config["seed"], **config["batches"], **build(config["augment"]))
    begin = f" from {source}" if source else ""
    say(f"pretraining {describe(encoder)}{begin} on {hours(train)} of audio; {run.folder}")
    probing = begin_probing(run, catalog)
    watching = [Health(run.folder, **config["health"]), *([probing] if probing else [])]
    facts = fit(run, module, batches, watching)
    weights = {name: whole(value) for name, value in encoder.state_dict().items()}  # shards need every rank
    if module.global_rank:
        return
    facts["probe"] = probing.conclude(module, facts["step"]) if probing else None
    written = {"bundle": (weights, facts)}
    if probing:
        best = facts | {"step": probing.best_step}
        written = {"bundle": (probing.weights(), best), "bundle_last": (weights, facts | {"probe": None})}
    start = str(source) if source else None
    for name, (weights, about) in written.items():
        save_bundle(
            run.folder / name,
            ear=config["frontend"],
            model=config["model"],
            weights=weights,
            tokenizer=None,
            training={"run": config["name"], "seed": config["seed"], "from": start, **about},
        )
    run.finish(audio_hours=float(train.durations.sum()) / 3600, **facts)
    say(f"wrote {run.folder / 'bundle'}" + (f", the weights of step {probing.best_step}" if probing else ""))


def begin_probing(run: Run, catalog: Catalog) -> Probing | None:
    """The probe that `probe:` asks for; None, and a line that says so, where nothing labelled is there."""
    settings = dict(run.config["probe"])
    source, drawn = settings.pop("data"), {part: settings.pop(part) for part in ("learn", "judge")}
    if settings["every_steps"] is None:
        return None
    if is_sharded(run.config):
        say("pretraining goes on without a probe: the first rank holds a part of the encoder only (trainer=fsdp)")
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
    start = "bundle" if run.config["bundle"] else "untrained"
    return Probing(run.folder, *batches, tokenizer, say, start=start, **settings)


@attentive()
def finetune(config: Config) -> None:
    """`make finetune`: a recognizer from labelled audio, on a pretrained bundle or from scratch (`bundle=null`)."""
    run = Run(config)
    for weight in config["ctc_weights"]:  # what is wrong with it is said before hours of training
        check_weight(weight)
    source = Path(config["bundle"]) if config["bundle"] else None
    if source is not None and not source.is_dir():
        raise InputError(
            f"there is no bundle at {source}: run `make pretrain` first, pass bundle=DIR, or bundle=null for scratch"
        )
    origin = open_bundle(source) if source else None
    # A bundle brings the shape it was trained with; the decoder's is in it too.
    kept = origin.config if origin else {"model": config["model"], "ear": config["frontend"]}
    model = with_dropout(kept["model"], config["dropout"])
    reinitialized = fresh_blocks(config["reinitialized_blocks"], kept)
    known = kept_tokenizer(config["heads"], origin)
    if config["adapters"]["rank"] and not origin:
        raise InputError("adapters.rank is for a bundle: without one (bundle=null) there is nothing to adapt")
    # So that a run is not taken for finished when what it starts from has been trained again.
    run.config["bundle_digest"] = origin.digest() if origin else None
    if not run.begin():
        return
    catalog = open_catalog(config)
    limits = config["utterances"]
    train = catalog.subset(split=config["splits"]["train"], labelled=True, **limits, **config["labels"])
    say_left_out(catalog.subset(split=config["splits"]["train"], labelled=True), **limits)
    halves = config["splits"]["dev_positions"]
    dev = catalog.subset(split=config["splits"]["dev"], positions=halves, labelled=True, **limits)
    texts = {"texts": train.texts(), "languages": train.languages}
    grown = known.extended(**texts) if known else None
    tokenizer: Tokenizer = grown.tokenizer if grown else build(config["tokenizer"], **texts)
    labelled = len(train)
    train = feasible(train, tokenizer, run.folder / "left_out.jsonl")
    seed_everything(config["seed"])
    recognizer = build_recognizer(model, tokenizer.size)
    size = describe(recognizer)
    if origin:
        start_from(recognizer, origin, reinitialized, grown.origins if grown else None)
    if config["adapters"]["rank"]:
        size += f", {adapted(recognizer, reinitialized, grown is not None, **config['adapters'])} of them trained,"
    language = config["language"] or next(iter(train.languages), "")
    streaming = streaming_of(config["decoding"])
    module = Finetuning(
        ear=build(kept["ear"]),
        recognizer=recognizer,
        tokenizer=tokenizer,
        search=open_search(streaming.search if streaming else config["decoding"], recognizer, tokenizer),
        loss=build(config["recognition"]),
        optimizer=build(config["optimizer"]),
        schedule=build(config["schedule"]),
        specaugment=build(config["specaugment"]),
        seed=config["seed"],
        language=language,
        chunks=config["chunks"],
        streaming=streaming,
        **config["rates"],
        **config["masking"],
    )
    metric = config["snapshots"]["metric"]
    if metric not in module.metrics:
        raise InputError(
            f"snapshots.metric={metric} is none of {', '.join(module.metrics)} (of streams: with chunks.probability)"
        )
    batches = SpeechBatches(
        train, dev, tokenizer=tokenizer, seed=config["seed"], **config["batches"], **build(config["augment"])
    )
    if grown:
        say(f"keeps heads and vocabulary of {source}, with {grown.added} tokens added (heads=fresh learns others)")
    begin = f"from {source}" if source else "from scratch"
    say(f"fine-tuning {size} {begin} on {hours(train)} of labelled audio; {run.folder}")
    snapshots = Snapshots(run.folder / "checkpoints", **config["snapshots"])
    facts = fit(run, module, batches, [snapshots])
    if module.global_rank:
        return
    ranking = snapshots.ranking()
    chosen = [merged(weights) for weights in snapshots.kept()]
    training = {
        "run": config["name"],
        "seed": config["seed"],
        "from": str(source) if source else None,
        "reinitialized_blocks": reinitialized if source else None,
        "tokens_added": grown.added if grown else None,  # None: heads and vocabulary are its own
        "adapters": config["adapters"] if config["adapters"]["rank"] else None,
        "language": language,
        "labelled_minutes": round(float(train.durations.sum()) / 60, 2),
        "utterances": len(train),
        "left_out": labelled - len(train),
        **facts,
        "dev": {"metric": metric, "value": ranking[0][0], "step": ranking[0][1]},
        "ctc_weights": weighed(module, model, chosen[0], dev, metric, config["ctc_weights"]),
    }
    for name, weights in (("bundle", chosen[0]), ("bundle_averaged", mean_weights(chosen))):
        save_bundle(
            run.folder / name,
            ear=kept["ear"],
            model=model,
            weights=weights,
            tokenizer=tokenizer,
            training=training | {"weights": name},
        )
    run.finish(**training)
    say(f"wrote {run.folder / 'bundle'} ({metric} {ranking[0][0]:.4f} at step {ranking[0][1]})")


def weighed(
    module: Finetuning, model: Config, weights: Mapping[str, Tensor], dev: Catalog, metric: str, tried: Sequence[float]
) -> dict[str, float]:
    """How much CTC should have to say in each search that asks the decoder too, by WEIGHED_MINUTES of dev."""
    recognizer = build_recognizer(model, module.tokenizer.size)
    recognizer.load_state_dict(weights)
    counted = metric.removeprefix("dev/").removesuffix(STREAMED)
    errors = partial(module.errors_in, metric=counted if counted in METRICS else "cer")
    few = dev.subset(max_total_minutes=max(WEIGHED_MINUTES, float(dev.durations.max()) / 60))
    if tried and recognizer.decoder is not None:
        say(f"trying on {hours(few)} of dev how much CTC has to say beside the decoder (ctc_weights=[] does not)")
    device = module.trainer.strategy.root_device
    found = weigh_ctc(
        recognizer.to(device), module.ear.to(device), loaded(few, module.tokenizer), module.tokenizer, errors, tried
    )
    best = best_weights(found)
    if tried and recognizer.decoder is not None and not best:
        say("too much of it is wrong to tell: CTC has to say what it usually has")
    for name, weight in best.items():
        say(f"{name} weighs CTC {weight:g}: {found[name][weight]:.1%} of dev wrong")
    return best


def mean_weights(snapshots: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each weight."""
    return {name: torch.stack([weights[name] for weights in snapshots]).mean(0) for name in snapshots[0]}


def describe(model: torch.nn.Module) -> str:
    """How large a model is, for people."""
    return f"{parameter_count(model) / 1e6:.1f} M parameters"


def hours(catalog: Catalog) -> str:
    """How much audio there is, in minutes below an hour."""
    seconds = float(catalog.durations.sum())
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
