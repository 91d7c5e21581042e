"""The researcher's door: Hydra composes, one verb runs, here or in jobs, and what goes wrong is one sentence."""

import atexit
import difflib
import os
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# OpenMP threads that spin for ever cost 3-5x on a shared machine, threads that never spin 1.5x on a quiet one
# (docs/LOG.md, 2026-11-22). Must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

SCRIPTS = Path(__file__).resolve().parent
CONF = str(SCRIPTS.parent / "conf")
SWEEP = ("-m", "--multirun")

LOG_LINES = 15
"""Of a failed job's logs that are shown where it was launched."""


class JobFailed(Exception):
    """A launched job's last sentence, and the folder of its logs."""


def open_door(verb: str, run: Callable[[dict[str, Any]], None]) -> None:
    """Compose conf/<verb>.yaml with the command line's overrides and give it to `run`, as plain containers.

    For a sweep (-m) once for each choice; in jobs for which this process waits, with hydra/launcher=slurm or desk.
    """
    check_overrides(verb, sys.argv[1:])
    sys.argv[1:] = arguments(verb, sys.argv[1:])
    launcher = launcher_in(sys.argv[1:])
    if launcher:
        prepare_launch(verb, launcher)

    def task(config: DictConfig) -> None:
        try:
            run_here(verb, run, plain(config))
        except (Exception, SystemExit) as error:
            if "SUBMITIT_EXECUTOR" in os.environ:
                end_job(verb, error)
            stop(verb, error)

    try:
        hydra.main(config_path=CONF, config_name=verb, version_base="1.3")(task)()
    except (Exception, KeyboardInterrupt) as error:
        if launcher:
            tell(verb, error)
        raise


def run_here(verb: str, run: Callable[[dict[str, Any]], None], config: dict[str, Any]) -> None:
    """In this process; or, where several devices of this machine train, in one for each that this one starts.

    Lightning would start them with this process' own command line, which in a sweep is that of every job.
    """
    from glmasr.training.ranks import ranks_to_start, spread

    ranks = ranks_to_start(config["trainer"]) if "trainer" in config else 1
    if ranks == 1:
        return run(config)
    overrides = [one for one in HydraConfig.get().overrides.task if not one.startswith("name=")]
    name = config["name"].replace("\\", "\\\\").replace("'", "\\'")
    code = spread([sys.executable, str(SCRIPTS / f"{verb}.py"), *overrides, f"name='{name}'"], ranks)
    if code:
        sys.exit(code)


def arguments(verb: str, given: list[str]) -> list[str]:
    """The command line for Hydra: a launcher takes even a single run as a sweep; each job of a sweep has its own name.

    The name, and so the run folder, ends with what was chosen for the job, unless the sweep is over names itself.
    """
    if any(one.startswith("-") and one not in SWEEP for one in given):
        return given
    overrides = [one for one in given if one not in SWEEP]
    if overrides == given and not launcher_in(given):
        return given
    parsed = OverridesParser.create().parse_overrides(overrides)
    swept = [one for one in parsed if one.is_sweep_override()]
    if not swept or {one.key_or_group for one in swept} & {"name", "run_dir"}:
        return ["--multirun", *overrides]
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose(verb, first_choices(parsed))
    if "name" not in config:
        return ["--multirun", *overrides]
    kept = [one.input_line or "" for one in parsed if one.key_or_group != "name"]
    same = ",".join(f"'{key}'" for key in ("name", *(one.key_or_group for one in parsed if one not in swept)))
    name = f"name='{config.name}/${{hydra:job.override_dirname}}'"
    return ["--multirun", *kept, name, f"hydra.job.config.override_dirname.exclude_keys=[{same}]"]


def launcher_in(given: Sequence[str]) -> str:
    """The launcher that the command line names, "" where it names none."""
    return next((one.partition("=")[2] for one in reversed(given) if one.startswith("hydra/launcher=")), "")


def first_choices(parsed: Sequence[Override]) -> list[str]:
    """Overrides without a sweep: each with the first of its choices."""
    return [
        f"{one.get_key_element()}={next(iter(one.sweep_string_iterator()))}"
        if one.is_sweep_override() and one.is_discrete_sweep()
        else one.input_line or ""
        for one in parsed
    ]


def prepare_launch(verb: str, launcher: str) -> None:
    """See that jobs can be launched, will find these files, and that their failures come back to this process."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # the exceptions themselves, not Hydra's account of them
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")]))
    if launcher == "slurm":
        if not shutil.which("sbatch"):
            sys.exit(
                f"glmasr {verb}: hydra/launcher=slurm needs sbatch, which is not on this machine: use the cluster's "
                "login node, or rehearse with hydra/launcher=desk"
            )
        if subprocess.run(["sacct"], capture_output=True, check=False).returncode:
            os.environ["PATH"] = f"{SCRIPTS / 'without_accounting'}{os.pathsep}{os.environ['PATH']}"
    print(
        f"glmasr {verb}: over to {launcher}, waiting; logs are in hydra.sweep.dir, runs/jobs/JOB/",
        file=sys.stderr,
        flush=True,
    )


def end_job(verb: str, error: BaseException) -> None:
    """End a launched job: its log and its result say why, and its exit code says it to the scheduler."""
    if isinstance(error, SystemExit):
        if not error.code:
            return
        said = error.code if isinstance(error.code, str) else f"glmasr {verb}: a rank ended with code {error.code}"
    else:
        said = sentence(verb, error)
        if said is None:
            traceback.print_exception(error)
            said = f"glmasr {verb}: {type(error).__name__}: {error}"
    print(said, file=sys.stderr, flush=True)
    # Hydra takes an exception for the job's result and comes to an orderly end, which SLURM would call a success.
    atexit.register(os._exit, 1)
    raise JobFailed(said, os.environ["SUBMITIT_FOLDER"].replace("%j", HydraConfig.get().job.id))


def tell(verb: str, error: BaseException) -> None:
    """Exit with what a launched job said last: of the rank that fell silent first, and of the first rank."""
    if isinstance(error, KeyboardInterrupt):
        sys.exit(f"glmasr {verb}: no longer waiting; jobs of SLURM go on (squeue lists, scancel ends them)")
    if isinstance(error, HydraException | OmegaConfBaseException):
        sys.exit(f"glmasr: {explain(verb, sys.argv[2:], error)}")
    said, folder = error.args if isinstance(error, JobFailed) else (f"glmasr {verb}: a job left no result", None)
    named = re.search(r"(/[^\n]*)/[^/\n]+_(result\.pkl|log\.out)", str(error))
    if folder is None and named is None:
        return
    logs = sorted(Path(folder or named[1]).glob("*_log.out"), key=lambda log: log.stat().st_mtime)  # type: ignore[index]
    for log in dict.fromkeys([*logs[:1], *(log for log in logs if log.name.endswith("_0_log.out"))]):
        print(f"--- {log}", *log.read_text(errors="replace").splitlines()[-LOG_LINES:], sep="\n", file=sys.stderr)
    sys.exit(said)


def plain(config: DictConfig) -> dict[str, Any]:
    """Resolved containers; the first setting that is still `???` is asked for by name."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        from glmasr.speech import InputError

        raise InputError(f"{missing[0]} is not set: add {missing[0]}=… to the command")
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def check_overrides(verb: str, given: Sequence[str]) -> None:
    """Exit with one sentence where an override names what is not there; Hydra itself would print a page."""
    overrides = [argument for argument in given if argument not in SWEEP]
    if any(argument.startswith("-") for argument in overrides):
        return
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        with initialize_config_dir(CONF, version_base="1.3"):
            compose(verb, first_choices(parsed) if sweeps(given) else overrides)
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(f"glmasr: {explain(verb, overrides, error)}")


def sweeps(given: Sequence[str]) -> bool:
    """Whether choices with commas are meant as such."""
    return bool(launcher_in(given)) or any(one in SWEEP for one in given)


def explain(verb: str, overrides: Sequence[str], error: Exception) -> str:
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


def stop(verb: str, error: BaseException) -> None:
    """Leave with one sentence for what the user can mend, with the traceback for what we must."""
    said = sentence(verb, error)
    if said is None:
        raise error
    sys.exit(said)


def sentence(verb: str, error: BaseException) -> str | None:
    """What happened and what to do, None where it is not for the user to do."""
    from glmasr.speech import InputError, Interrupted

    if isinstance(error, InputError):
        return f"glmasr {verb}: {str(error).splitlines()[-1]}"
    if isinstance(error, Interrupted):
        return f"glmasr {verb}: {error}"
    if isinstance(error, OSError) and error.strerror:
        place = error.filename or "the disk"
        return (
            f"glmasr {verb}: {place}: {error.strerror}; what was saved is intact, the same command goes on from there"
        )
    return None


if __name__ == "__main__":  # python scripts/door.py VERB setting=value …: only whether a command would be understood
    check_overrides(sys.argv[1], sys.argv[2:])
