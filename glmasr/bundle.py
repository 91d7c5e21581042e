"""A trained model as a folder: config.yaml + weights.safetensors + tokenizer, opened without Hydra or Lightning."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from glmasr.build import build
from glmasr.frontend.pipeline import Ear
from glmasr.model.encoder import Encoder
from glmasr.model.recognizer import Recognizer
from glmasr.speech import InputError
from glmasr.text.tokenizer import Tokenizer, open_tokenizer

FORMAT = 1
CONFIG = "config.yaml"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Bundle:
    """`model` is a Recognizer where there is a tokenizer, else the bare pretrained Encoder."""

    folder: Path
    config: dict[str, Any]
    ear: Ear
    model: nn.Module
    tokenizer: Tokenizer | None

    @property
    def size_bytes(self) -> int:
        """Of what it takes to run it; a model card written into it later does not count."""
        return sum(file.stat().st_size for file in self.folder.iterdir() if file.name != "README.md")

    def digest(self) -> str:
        """Names the weights, to tell a retrained bundle from the one before."""
        with (self.folder / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def recognizer(self) -> Recognizer:
        """The model, or an InputError where this bundle cannot transcribe yet."""
        if not isinstance(self.model, Recognizer):
            raise InputError(
                f"{self.folder} is a pretrained encoder without labels: fine-tune it first (make finetune)"
            )
        return self.model


def build_recognizer(model: dict[str, Any], vocabulary_size: int) -> Recognizer:
    """The recognizer a `model` config (`encoder`, `decoder` or null) describes."""
    encoder = build(model["encoder"])
    decoder = build(model["decoder"], vocabulary_size=vocabulary_size) if model.get("decoder") else None
    return Recognizer(encoder, decoder, vocabulary_size)


def save_bundle(
    folder: Path,
    *,
    ear: dict[str, Any],
    model: dict[str, Any],
    weights: dict[str, Tensor],
    tokenizer: Tokenizer | None,
    training: dict[str, Any],
) -> None:
    """Write a bundle beside `folder`, then put it in its place: there is never half a bundle.

    `ear` and `model` are the configs they were built from, `training` says where the weights come from.
    """
    staged = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    config = {
        "format": FORMAT,
        "kind": "recognizer" if tokenizer else "encoder",
        "ear": ear,
        "model": model,
        "vocabulary_size": tokenizer.size if tokenizer else None,
        "training": training,
    }
    (staged / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    if tokenizer:
        tokenizer.save(staged)
    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, staged / WEIGHTS)
    with (staged / WEIGHTS).open("rb") as written:
        os.fsync(written.fileno())
    (staged / WEIGHTS).chmod((staged / CONFIG).stat().st_mode)  # safetensors makes it private
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    staged.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def read_config(folder: Path) -> dict[str, Any]:
    """A bundle's config, or an InputError that says what is wrong with the folder."""
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(
            f"{folder} is not a bundle: it has no {CONFIG} (make pretrain and make finetune write bundles)"
        )
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not readable YAML ({reason}): copy or train the bundle again") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path} is not a bundle of format {FORMAT}: it was written by another version of glmasr")
    return config


def open_bundle(folder: str | Path) -> Bundle:
    """Build what a bundle describes and fill in its weights, on the CPU, in evaluation mode."""
    folder = Path(folder)
    config = read_config(folder)
    try:
        tokenizer = open_tokenizer(folder) if config["kind"] == "recognizer" else None
        weights = load_file(folder / WEIGHTS)
        if tokenizer and tokenizer.size != config["vocabulary_size"]:
            raise ValueError(f"its tokenizer has {tokenizer.size} tokens, not {config['vocabulary_size']}")
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:  # Runtime is SentencePiece's
        raise InputError(f"the bundle {folder} is damaged ({error}): copy or train it again") from error
    if tokenizer:
        model: nn.Module = build_recognizer(config["model"], config["vocabulary_size"])
        model.ctc_weights = dict(config.get("training", {}).get("ctc_weights") or {})
    else:
        model = build(config["model"]["encoder"])
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"the weights in {folder} do not fit its {CONFIG}: {str(error).splitlines()[-1].strip()}"
        ) from error
    return Bundle(folder, config, build(config["ear"]), model.eval(), tokenizer)


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write named tensors as safetensors; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(path.name + ".tmp")
    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, staged)
    with staged.open("rb") as written:
        os.fsync(written.fileno())
    staged.replace(path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Tensors that `save_weights` wrote; an InputError where the file is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as safetensors ({error}): write it again") from error


def encoder_of(bundle: Bundle) -> Encoder:
    """The encoder of a bundle of either kind."""
    return bundle.model if isinstance(bundle.model, Encoder) else bundle.recognizer().encoder


def encoder_weights(bundle: Bundle) -> dict[str, Tensor]:
    """The encoder's weights, named as in `Encoder`."""
    return encoder_of(bundle).state_dict()
