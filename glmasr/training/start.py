"""A bundle and labelled audio in; what a training begins with out: weights, vocabulary, transcripts CTC can learn."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from glmasr.bundle import Bundle, encoder_weights
from glmasr.data.catalog import Catalog
from glmasr.frontend.logmel import HOP_SAMPLES
from glmasr.model.adapters import adapt
from glmasr.model.recognizer import Recognizer, with_vocabulary
from glmasr.model.subsampling import STRIDE
from glmasr.speech import RATE_HZ, InputError
from glmasr.text.tokenizer import Tokenizer
from glmasr.training.folder import Config, differences, say

NAMED = 5
"""Utterances that a line names one by one."""


def same_encoder(origin: Bundle, config: Config) -> None:
    """An InputError unless a bundle's ear and encoder are those of a config, but for what no weight depends on."""
    free = ("dropout", "inner_dropout", "checkpointing")
    brought, asked = (
        {"model.encoder": {k: v for k, v in encoder.items() if k not in free}, "frontend": ear}
        for encoder, ear in (
            (origin.config["model"]["encoder"], origin.config["ear"]),
            (config["model"]["encoder"], config["frontend"]),
        )
    )
    changes = differences(brought, asked)
    if changes:
        raise InputError(
            f"the encoder in bundle={config['bundle']} is another one ({'; '.join(changes[:3])}): pass the model and "
            "the frontend that it was trained with"
        )


def with_dropout(model: Config, dropout: float | None) -> Config:
    """A model's config with this dropout in encoder and decoder, None: with its own."""
    if dropout is None:
        return model
    return {part: shape and shape | {"dropout": dropout} for part, shape in model.items()}


def fresh_blocks(asked: int | str, kept: Config) -> int:
    """How many top blocks begin afresh: a number, or "auto", what the probe in a bundle's config says (0 without)."""
    if isinstance(asked, int):
        return asked
    if asked != "auto":
        raise InputError(f"reinitialized_blocks={asked} is neither a number of blocks nor auto")
    judged = kept.get("training", {}).get("probe")
    return judged["reinitialized_blocks"] if judged else 0


def kept_tokenizer(heads: str, origin: Bundle | None) -> Tokenizer | None:
    """The tokenizer of a bundle whose heads and decoder are kept; None where they begin afresh."""
    if heads not in ("auto", "keep", "fresh"):
        raise InputError(f"heads={heads} is not one of auto, keep, fresh")
    tokenizer = origin.tokenizer if origin else None
    if heads == "keep" and tokenizer is None:
        raise InputError("heads=keep needs the bundle of a recognizer: a pretrained encoder has no heads (heads=auto)")
    return None if heads == "fresh" else tokenizer


def start_from(
    recognizer: Recognizer, origin: Bundle, reinitialized_blocks: int, origins: Sequence[int] | None = None
) -> None:
    """Copy a bundle's encoder, except for its top `reinitialized_blocks`, which keep their fresh weights.

    With `origins`, which say where each token comes from, its heads and decoder too.
    """
    if origins is None:
        weights = {f"encoder.{name}": value for name, value in encoder_weights(origin).items()}
    else:
        weights = with_vocabulary(origin.recognizer().state_dict(), origins)
    blocks = len(recognizer.encoder.blocks)
    fresh = tuple(f"encoder.blocks.{i}." for i in range(blocks - reinitialized_blocks, blocks))
    kept = {name: value for name, value in weights.items() if not name.startswith(fresh)}
    recognizer.load_state_dict(kept, strict=False)


def adapted(recognizer: Recognizer, reinitialized_blocks: int, has_decoder: bool, rank: int, alpha: float) -> str:
    """Give what comes from a bundle adapters and freeze it; the size of what is left to train, for people.

    What has a row for every token is trained whole, as is what begins afresh.
    """
    encoder, decoder = recognizer.encoder, recognizer.decoder
    kept = encoder.blocks[: len(encoder.blocks) - reinitialized_blocks]
    parts = [encoder.subsampling, encoder.project, *kept]
    if has_decoder and decoder is not None:
        parts += [decoder.blocks, decoder.norm]
    for part in parts:
        adapt(part, rank, alpha)
    return f"{sum(p.numel() for p in recognizer.parameters() if p.requires_grad) / 1e6:.2f} M"


def say_left_out(train: Catalog, min_seconds: float, max_seconds: float | None) -> None:
    """Count what is not trained on for its length: what a model has never heard it does not recognize."""
    seconds, max_seconds = train.durations, np.inf if max_seconds is None else max_seconds
    few, many = int((seconds < min_seconds).sum()), int((seconds > max_seconds).sum())
    if few or many:
        say(
            f"left out {few + many} of {len(train)} utterances: {few} shorter than utterances.min_seconds="
            f"{min_seconds:g}, {many} longer than utterances.max_seconds={max_seconds:g}"
        )


def feasible(train: Catalog, tokenizer: Tokenizer, listed: Path | None = None) -> Catalog:
    """Leave out, count and name utterances with more tokens than CTC can place in their frames.

    Equal neighbors need a blank between them. All are written to `listed`, a line of JSON each.
    """
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
    if fits.all():
        return train
    ids, texts = train.ids, train.texts()
    lines = [
        {"id": ids[row], "text": texts[row], "frames": int(frames[row]), "frames_needed": needed[row]}
        for row in np.flatnonzero(~fits).tolist()
    ]
    say(
        f"left out {len(lines)} of {len(train)} utterances whose transcripts do not fit their audio: "
        + ", ".join(line["id"] for line in lines[:NAMED])
        + (f" and {len(lines) - NAMED} more" if len(lines) > NAMED else "")
        + (f"; {listed} names them all" if listed else "")
    )
    if listed:
        listed.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return train.rows(np.flatnonzero(fits))
