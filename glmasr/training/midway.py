"""A pretraining that is under way in, its encoder as a bundle out: what has been learned so far can be fine-tuned."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from glmasr.bundle import save_bundle
from glmasr.speech import InputError
from glmasr.training.checkpoints import Damaged, check, found, readable, step_of
from glmasr.training.record import provenance

ENCODER = "encoder."


def bundle(config: Mapping[str, Any]) -> Path:
    """`make bundle`: the encoder of a checkpoint in `run_dir`, of `step` or the newest that is whole.

    The run may go on meanwhile; nothing of it is touched. The bundle is `bundle_<step>` beside its checkpoints' folder.
    InputError where there is no pretraining, no such checkpoint, or one that is damaged.
    """
    folder = Path(config["run_dir"])
    if not (folder / "config.yaml").is_file():
        raise InputError(f"there is no run in {folder}: name one with run_dir=runs/…")
    run = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    if "objective" not in run:
        raise InputError(f"{folder} is no pretraining: a fine-tuning writes its bundles when it is done")
    path = chosen(found(folder / "checkpoints"), config["step"], folder)
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    weights = {name.removeprefix(ENCODER): value for name, value in state.items() if name.startswith(ENCODER)}
    target = folder / f"bundle_{step_of(path)}"
    facts = {"step": step_of(path), "of_steps": run["trainer"]["max_steps"], "probe": None} | provenance()
    training = {"run": run["name"], "seed": run["seed"], **facts}
    save_bundle(target, ear=run["frontend"], model=run["model"], weights=weights, tokenizer=None, training=training)
    say(f"wrote {target}: what {folder} knew after {step_of(path)} of {run['trainer']['max_steps']} steps")
    return target


def chosen(checkpoints: list[Path], step: int | None, folder: Path) -> Path:
    """The checkpoint of a step, None: the newest that is whole."""
    if not checkpoints:
        raise InputError(f"{folder} has no checkpoint yet: checkpoints.every_steps says when one is written")
    if step is None:
        newest = readable(checkpoints, say)
        if newest is None:
            raise InputError(f"no checkpoint in {folder} can be read")
        return newest
    kept = {step_of(path): path for path in checkpoints}
    if step not in kept:
        steps = ", ".join(str(one) for one in sorted(kept))
        raise InputError(f"{folder} keeps no checkpoint of step {step}, but of {steps} (checkpoints.milestone_steps)")
    try:
        check(kept[step])
    except Damaged as error:
        raise InputError(f"checkpoint {kept[step]} cannot be read ({error})") from error
    return kept[step]


def say(message: str) -> None:
    """One line for the person who watches."""
    print(f"glmasr: {message}", file=sys.stderr, flush=True)
