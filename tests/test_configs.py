"""Every choice in conf/ composes, resolves, names real parameters and builds; models have their published size."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from glmasr.build import build, check_names, locate
from glmasr.bundle import build_recognizer
from glmasr.model.recognizer import parameter_count
from tests.small import CONF, REPOSITORY, composed

GROUPS = {
    "prepare": ["data@source"],
    "pretrain": ["data", "frontend", "model", "objective", "augment", "optimizer", "schedule", "trainer", "logger"],
    "finetune": [
        *("data", "frontend", "model", "tokenizer", "augment", "optimizer", "schedule", "trainer", "logger"),
        "decoding",
    ],
    "clusters": ["data", "frontend", "codebook"],
    "shards": ["data"],
    "benchmark": ["data", "decoding"],
    "language_model": [],
    "plan": ["model", "gpu"],
    "bundle": [],
    "chaos": [],
    "label_efficiency": [],
}
NO_VERBS = {"door", "slurm_rehearsal"}
"""Scripts without a config of their own."""
PLAIN = {"label_efficiency"}
"""Verbs whose experiments are options of the group `experiment`."""
OTHERS = {
    "pretrain": {"augment=finetune", "augment=noisy_finetune", "augment=robust_finetune"},
    "finetune": {"augment=pretrain", "augment=robust"},
}
"""A verb's own augmentations are no choice of the other's."""

ONE_SOURCE = "manifest"
"""A corpus is the same to every verb: all of them are composed for `pretrain`, this one for the others."""


def options(verb: str) -> list[str]:
    files = [(group, file) for group in GROUPS[verb] for file in sorted((CONF / group.split("@")[0]).glob("*.yaml"))]
    everything = verb == "pretrain"
    files = [(group, file) for group, file in files if everything or group[:4] != "data" or file.stem == ONE_SOURCE]
    found = [f"{group}={file.stem}" for group, file in files]
    stems = [file.stem for file in sorted((CONF / "experiment" / verb).glob("*.yaml"))]
    found += [f"experiment={verb}/{stem}" if verb in PLAIN else f"experiment/{verb}={stem}" for stem in stems]
    return [option for option in found if option not in OTHERS.get(verb, ())]


CASES = [(verb, option) for verb in GROUPS for option in ["", *options(verb)]]
SIZES = {
    "conformer_tiny": (2.7e6, 3.5e6),
    "conformer_small": (25e6, 35e6),
    "conformer_base": (85e6, 115e6),
    "conformer_large": (300e6, 600e6),
    "nano": (1.5e9 * 0.98, 1.5e9 * 1.02),
}
VOCABULARY = {"conformer_tiny": 40, "nano": 8000}
"""Characters for the model of a laptop, pieces for the others: 1000 unless named."""


def nodes(config: Any) -> Iterator[dict]:
    """Every mapping in a config that names a target."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield config
        config = list(config.values())
    for value in config if isinstance(config, list) else ():
        yield from nodes(value)


def values(config: Any) -> Iterator[Any]:
    inner = config.values() if isinstance(config, dict) else config if isinstance(config, list) else None
    if inner is None:
        yield config
    for value in inner or ():
        yield from values(value)


def test_every_verb_has_its_config_and_script_and_every_group_its_verb():
    assert sorted(GROUPS) == sorted({path.stem for path in CONF.glob("*.yaml")} - {"door"})
    assert sorted(GROUPS) == sorted({path.stem for path in (REPOSITORY / "scripts").glob("*.py")} - NO_VERBS)
    groups = {path.name for path in CONF.iterdir() if path.is_dir()} - {
        "experiment",
        "hydra",
        "review",
    }  # review: rules of glmasr review
    assert groups == {group.split("@")[0] for verb in GROUPS for group in GROUPS[verb]}


@pytest.mark.parametrize(("verb", "option"), CASES)
def test_an_option_composes_and_names_what_exists(verb, option):
    config = composed(verb, *filter(None, [option]))
    assert not [value for value in values(config) if isinstance(value, str) and "${" in value]
    for node in nodes(config):
        target = locate(node["_target_"])
        check_names(target, [name for name in node if not name.startswith("_")], node["_target_"])
        given = {name: value for name, value in node.items() if not name.startswith("_")}
        late = {"texts": [], "vocabulary_size": 9, "groups": [], "recognizer": None, "tokenizer": None}
        more = {name: value for name, value in late.items() if name in inspect.signature(target).parameters}
        inspect.signature(target).bind(**given, **more)


NEEDS_A_BUNDLE = "experiment/pretrain=units"
"""Built in tests/training/test_clusters.py."""
BUILT = [option for option in options("pretrain") if not option.startswith("data=") and option != NEEDS_A_BUNDLE]


@pytest.mark.parametrize("option", BUILT)
def test_the_parts_of_a_pretraining_build(option):
    config = composed("pretrain", option)
    with torch.device("meta"):
        encoder, objective = build(config["model"]["encoder"]), build(config["objective"])
    assert all(p.is_meta for module in (encoder, objective) for p in module.parameters())
    assert build(config["frontend"]).bins == encoder.bins
    assert set(build(config["augment"])) <= {"augmentations", "noise", "talker"}
    assert 0 < build(config["schedule"])(0) <= 1 and callable(build(config["optimizer"]))


@pytest.mark.parametrize("option", [option for option in options("finetune") if not option.startswith("data=")])
def test_the_parts_of_a_fine_tuning_build(option):
    config = composed("finetune", option)
    tokenizer = build(config["tokenizer"], texts=["please select the word went", "a kit"] * 20)
    with torch.device("meta"):
        recognizer = build_recognizer(config["model"], tokenizer.size)
    assert recognizer.ctc.out_features == tokenizer.size == recognizer.decoder.project.out_features
    assert build(config["recognition"]).ctc_weight > 0 and build(config["specaugment"]) is not None
    assert set(build(config["augment"])) <= {"augmentations", "wordless"}
    assert 0 < build(config["schedule"])(0) <= 1 and callable(build(config["optimizer"]))


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
def test_a_model_has_its_published_size(name):
    with torch.device("meta"):
        model = build_recognizer(composed("finetune", f"model={name}")["model"], VOCABULARY.get(name, 1000))
    low, high = SIZES[name]
    assert low <= parameter_count(model) <= high
    assert sum(p.numel() for p in model.encoder.parameters()) > 0.65 * parameter_count(model)


def test_nano_fits_its_file():
    with torch.device("meta"):
        model = build_recognizer(composed("finetune", "model=nano")["model"], 8000).to(torch.bfloat16)
    assert sum(value.numel() * value.element_size() for value in model.state_dict().values()) < 4.5e9
