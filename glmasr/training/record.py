"""A run that begins in, all that it takes to do it again out: command, versions, commit, changes, data."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import torch

from glmasr.data.catalog import Catalog
from glmasr.speech import InputError
from glmasr.training.checkpoints import replace_file

SOURCE = Path(__file__).parents[2]
TOLD = (
    "OMP_",
    "MKL_",
    "CUDA_VISIBLE",
    "CUBLAS_",
    "NCCL_",
    "GLOO_",
    "SLURM_JOB",
    "SLURM_NNODES",
    "SLURM_NTASKS",
    "TORCH_",
)
"""Beginnings of the environment variables that are kept: those that change what is computed, or name the job."""

FINGERPRINTED = 10_000
"""Utterances whose names and texts are looked at: all of 10⁷ would take minutes."""


def git(*arguments: str) -> str | None:
    """What git says of the source that runs; None where it is no checkout of its own."""
    if not (SOURCE / ".git").exists():
        return None
    done = subprocess.run(["git", "-C", str(SOURCE), *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def command() -> str:
    """The command that was given, to be pasted into a shell where it was given."""
    return shlex.join(["python", *sys.argv])


def provenance() -> dict[str, Any]:
    """What a figure must name: commit, machine, versions."""
    packages = ("torch", "pytorch-lightning", "datasets")
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": (git("describe", "--always", "--dirty", "--abbrev=12") or "unknown").strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in packages},
    }


def record(folder: Path) -> None:
    """Write environment.json and changes.diff: what the run begins with, and in `starts` whenever it goes on."""
    path = folder / "environment.json"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    start = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": (git("rev-parse", "HEAD") or "unknown").strip(),
        "host": platform.node(),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "gpus": gpus,
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(TOLD)},
    }
    if path.exists():
        facts = json.loads(path.read_text())
        facts["starts"].append(start)
    else:
        packages = {found.metadata["Name"]: found.version for found in distributions()}
        told = {"command": command(), "folder": os.getcwd(), "python": platform.python_version()}
        facts = told | {"packages": dict(sorted(packages.items(), key=lambda one: one[0].lower())), "starts": [start]}
        changes = git("diff", "HEAD", "--binary")
        (folder / "changes.diff").write_text(changes or "")
    write(path, facts)


def record_data(folder: Path, **parts: Catalog) -> None:
    """Write data.json: of each part how much there is, and a fingerprint that changes with the utterances."""
    write(folder / "data.json", {name: fingerprint(catalog) for name, catalog in parts.items()})


def fingerprint(catalog: Catalog) -> dict[str, Any]:
    """Of a catalog's utterances, in their order: every length, and names and texts of at most 10,000 evenly drawn."""
    digest = hashlib.sha256(catalog.durations.tobytes())
    for row in range(0, len(catalog), max(1, len(catalog) // FINGERPRINTED)):
        utterance = catalog[row]
        digest.update(f"{utterance.id}\t{utterance.text}\n".encode())
    return {
        "utterances": len(catalog),
        "hours": round(float(catalog.durations.sum(dtype="float64")) / 3600, 4),
        "languages": list(catalog.languages),
        "sha256": digest.hexdigest(),
    }


def repeat_command(folder: Path) -> str:
    """Shell lines that do a run again elsewhere: its commit, its changes, its command; InputError without a record."""
    path = folder / "environment.json"
    try:
        facts = json.loads(path.read_text())
        commit, given, home = facts["starts"][0]["commit"], facts["command"], facts["folder"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} keeps no record of how it was made ({path} cannot be read)") from error
    lines = [f"cd {shlex.quote(home)}"]
    if commit != "unknown":
        lines.append(f"git checkout {commit}")
    changes = folder / "changes.diff"
    if changes.exists() and changes.stat().st_size:
        lines.append(f"git apply {shlex.quote(str(changes.resolve()))}")
    return "\n".join([*lines, f"{given} run_dir={shlex.quote(str(folder) + '_again')}"])


def write(path: Path, facts: dict[str, Any]) -> None:
    """Facts as JSON; the file appears whole or not at all."""
    staged = path.with_suffix(".tmp")
    staged.write_text(json.dumps(facts, indent=1, ensure_ascii=False))
    replace_file(staged, path)
