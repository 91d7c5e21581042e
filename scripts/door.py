"""The researcher's door: Hydra composes, one verb runs, and what goes wrong is one sentence."""

import difflib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# OpenMP threads that spin for ever cost 3-5x on a shared machine, threads that never spin 1.5x on a quiet one
# (docs/LOG.md, 2026-11-22). Must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import hydra
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

CONF = str(Path(__file__).resolve().parent.parent / "conf")


def open_door(verb: str, run: Callable[[dict[str, Any]], None]) -> None:
    """Compose conf/<verb>.yaml with the command line's overrides and give it to `run`, as plain containers."""
    check_overrides(verb)

    def task(config: DictConfig) -> None:
        try:
            run(plain(config))
        except Exception as error:
            stop(verb, error)

    hydra.main(config_path=CONF, config_name=verb, version_base="1.3")(task)()


def plain(config: DictConfig) -> dict[str, Any]:
    """Resolved containers; the first setting that is still `???` is asked for by name."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        from glmasr.speech import InputError

        raise InputError(f"{missing[0]} is not set: add {missing[0]}=… to the command")
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def check_overrides(verb: str) -> None:
    """Exit with one sentence where an override names what is not there; Hydra itself would print a page."""
    overrides = sys.argv[1:]
    if any(argument.startswith("-") for argument in overrides):
        return
    try:
        with initialize_config_dir(CONF, version_base="1.3"):
            compose(verb, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(f"glmasr: {explain(verb, overrides, error)}")


def explain(verb: str, overrides: list[str], error: Exception) -> str:
    """The override that Hydra stumbled over and the nearest name that exists."""
    for override in overrides:
        key = override.split("=")[0]
        names = names_beside(verb, [other for other in overrides if other != override])
        if f"'{key}'" in str(error) and key not in names and not key.startswith(("+", "~")):
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {near[0]}=…?" if near else f"`python scripts/{verb}.py --help` lists what there is"
            return f"the override '{override}' names nothing in conf/{verb}.yaml; {hint}"
    reason = " ".join(str(error).split("Config search path")[0].split())
    return f"'{error.override}': {reason}" if isinstance(error, OverrideParseException) else reason


def names_beside(verb: str, overrides: list[str]) -> list[str]:
    """Every address there is with these overrides, or without any where they fail too."""
    with initialize_config_dir(CONF, version_base="1.3"):
        try:
            config = compose(verb, overrides)
        except (HydraException, OmegaConfBaseException):
            config = compose(verb)
    return [name for name in leaves(OmegaConf.to_container(config, resolve=False)) if not name.endswith("_")]


def leaves(node: Any, path: str = "") -> list[str]:
    """Every address in a config, groups included."""
    if not isinstance(node, dict):
        return []
    found = []
    for key, value in node.items():
        address = f"{path}.{key}".lstrip(".")
        found += [address, *leaves(value, address)]
    return found


def stop(verb: str, error: Exception) -> None:
    """Leave with one sentence for what the user can mend, with the traceback for what we must."""
    from glmasr.speech import InputError

    if isinstance(error, InputError):
        sys.exit(f"glmasr {verb}: {str(error).splitlines()[-1]}")
    if type(error).__name__ == "Interrupted":
        sys.exit(f"glmasr {verb}: {error}")
    if isinstance(error, OSError) and error.strerror:
        place = error.filename or "the disk"
        sys.exit(
            f"glmasr {verb}: {place}: {error.strerror}; what was saved is intact, the same command goes on from there"
        )
    raise error
