"""What tests train: a dozen real recordings, and models that need seconds."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from glmasr.bundle import build_recognizer, save_bundle
from glmasr.data.rhyme_test import clip_names, read_words
from glmasr.model.conformer import BRANCH_GAIN
from glmasr.text.tokenizer import Tokenizer

REPOSITORY = Path(__file__).parents[1]
CONF = REPOSITORY / "conf"

SPOKEN = {
    "train": [f"{talker}_b{row}_w1" for talker in ("F1", "M3") for row in (1, 2, 3, 4)],
    "dev": ["F1_b5_w1", "M3_b5_w1"],
    "test": ["M4_b1_w1", "M4_b6_w2"],
}
"""Clips of the rhyme test by split: 26 s in all."""

ENCODER = ["model.encoder.width=32", "model.encoder.blocks=2", "model.encoder.heads=2", "model.encoder.stem_channels=8"]
SMALL = [*ENCODER, "model.decoder.width=32", "model.decoder.heads=2"]


def composed(verb: str, *overrides: str) -> dict[str, Any]:
    """conf/<verb>.yaml with overrides, as scripts hand it on."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose(verb, list(overrides)), resolve=True)


def small(corpus: Path, home: Path, *overrides: str) -> list[str]:
    """Overrides with which a stage runs in seconds: a small model, a few steps, all under `home`.

    It trains on the small corpus unless an override names other data.
    """
    ours = ["data=folder", f"data.path={corpus}", "data.language=en"]
    data = [] if any(one.startswith("data=") for one in overrides) else ours
    there = [f"catalogs={home}/catalogs", f"run_dir={home}/runs/${{name}}"]
    pace = ["batches.batch_seconds=8.0", "trainer.log_every_n_steps=1"]
    return [*data, *there, *SMALL, *pace, *overrides]


def random_bundle(folder: Path, tokenizer: Tokenizer | None = None, **training: Any) -> dict[str, torch.Tensor]:
    """Write a bundle of random weights that is never silent: a recognizer with a tokenizer, else a bare encoder."""
    torch.manual_seed(1)
    config = composed("finetune", *SMALL)
    recognizer = build_recognizer(config["model"], tokenizer.size if tokenizer else 9)
    # Branches at full strength, or what is heard would depend on little but the stem.
    last = ("feed_in.4.weight", "feed_out.4.weight", "attention.project_out.weight", "convolution.project.weight")
    for name, parameter in recognizer.encoder.named_parameters():
        if name.endswith(last):
            parameter.data.div_(BRANCH_GAIN)
    for head in (recognizer.ctc, recognizer.decoder.project):
        torch.nn.init.normal_(head.weight, std=2.0)
    weights = (recognizer if tokenizer else recognizer.encoder).state_dict()
    parts = {"ear": config["frontend"], "model": config["model"], "tokenizer": tokenizer, "training": training}
    save_bundle(folder, weights=weights, **parts)
    return weights


@pytest.fixture(scope="session")
def corpus(rhyme_root, tmp_path_factory) -> Path:
    """SPOKEN as a user would have it: split/talker/clip.flac with clip.txt beside it."""
    folder, clips, words = tmp_path_factory.mktemp("corpus"), clip_names(), read_words()
    for split, names in SPOKEN.items():
        for name in names:
            talker, row, column = clips[name]
            home = folder / split / talker
            home.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(rhyme_root / "rhyme_test" / "audio" / f"{name}.flac", home / f"{name}.flac")
            (home / f"{name}.txt").write_text(f"please select the word {words[row - 1][column - 1]}\n")
    return folder
