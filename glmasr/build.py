"""A config in, the object it describes out; only targets on the allow-list are ever called."""

import difflib
import functools
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from glmasr.speech import InputError

ALLOWED = ("glmasr.",)
"""Addresses a config may name. One that arrives with someone's weights is code: nothing else is imported."""


def locate(address: str) -> Any:
    """Import `package.module.name`; an InputError where it is not allowed or not there."""
    if not address.startswith(ALLOWED):
        raise InputError(
            f"config target '{address}' is refused: only {', '.join(a + '*' for a in ALLOWED)} may be built"
        )
    module_name, _, name = address.rpartition(".")
    try:
        module = importlib.import_module(module_name)
        found = getattr(module, name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"config target '{address}' does not exist ({error})") from error
    if getattr(found, "__module__", "").split(".")[0] != "glmasr":
        raise InputError(f"config target '{address}' is refused: it is not defined in glmasr")
    return found


def check_names(function: Any, given: Mapping[str, Any], address: str) -> None:
    """An InputError that names the nearest right word where `given` has a name `function` does not take."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in given:
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, 1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; it takes {', '.join(parameters)}"
            raise InputError(f"{address} has no parameter '{name}'{hint}")


def build(config: Any, **more: Any) -> Any:
    """Build the object a config with `_target_` describes, its nested configs first.

    `more` adds keyword arguments at the top. `_partial_: true` gives a function that waits for the rest.
    Mappings without `_target_` become dicts, sequences lists. Pass plain containers
    (`OmegaConf.to_container(cfg, resolve=True)`) or OmegaConf nodes.
    """
    if isinstance(config, Mapping) or hasattr(config, "items"):
        items = {key: build(value) for key, value in config.items()}
        if "_target_" not in items:
            return items
        address = items.pop("_target_")
        partial = items.pop("_partial_", False)
        target = locate(address)
        arguments = {**items, **more}
        check_names(target, arguments, address)
        if partial:
            return functools.partial(target, **arguments)
        try:
            inspect.signature(target).bind(**arguments)
        except TypeError as error:
            raise InputError(f"{address}: {error}") from error
        try:
            return target(**arguments)
        except (TypeError, ValueError) as error:  # a width that heads do not divide, a dropout of 2
            plain = (f"{name}={value}" for name, value in arguments.items() if isinstance(value, (str, int, float)))
            raise InputError(f"{address} cannot be built from {', '.join(plain)}: {error}") from error
    if isinstance(config, (list, tuple)) or type(config).__name__ == "ListConfig":
        return [build(value) for value in config]
    return config
