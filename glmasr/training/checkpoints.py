"""A state in, a file that appears whole or not at all out; and of the files there are, the newest that is undamaged."""

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from glmasr.speech import InputError

FORMAT = 1
"""Raised when an older glmasr could no longer resume from what is written."""

MARK = "glmasr_format"


def replace_file(staged: Path, target: Path) -> None:
    """Flush `staged` to the disk, then put it in `target`'s place: a kill leaves the old file or the new one."""
    with staged.open("rb") as written:
        os.fsync(written.fileno())
    staged.replace(target)


class Damaged(Exception):
    """A checkpoint cannot be resumed from; the message says what is wrong with it."""


class Written(TorchCheckpointIO):
    """Writes checkpoints straight to their file, without the copy in memory that Lightning makes of them.

    OSError where the disk is full; torch reports it as a RuntimeError about positions.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path, storage_options=None) -> None:
        try:
            with open(path, "wb") as file:
                torch.save(checkpoint | {MARK: FORMAT}, file)
        except (OSError, RuntimeError) as error:
            cause = error if isinstance(error, OSError) else error.__context__
            Path(path).unlink(missing_ok=True)
            if isinstance(cause, OSError):
                raise OSError(cause.errno, os.strerror(cause.errno or 0), str(path)) from error
            raise


def check(path: Path) -> None:
    """`Damaged` where the file is not every bit as it was written, or by a glmasr newer than this one.

    torch's files are ZIP archives with a CRC-32 of each tensor, which torch itself does not look at when it reads.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # The one field outside of the checksums that torch reads otherwise than Python.
            broken = archive.testzip() or next((one.filename for one in archive.infolist() if one.external_attr), "")
        if broken:
            raise Damaged(f"{broken} in it is not what was written")
        written = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get(MARK, FORMAT)
    except Damaged:
        raise
    except Exception as error:  # whatever a damaged file makes zipfile or the unpickler raise
        raise Damaged(f"{type(error).__name__}: {' '.join(str(error).split())[:80]}") from error
    if written > FORMAT:
        raise Damaged(f"it is of format {written}, this glmasr reads {FORMAT}: update glmasr")


def found(folder: Path) -> list[Path]:
    """Checkpoints in a folder, the newest first; what was not finished has another ending."""
    return sorted(folder.glob("step_*.ckpt"), reverse=True)


def step_of(path: Path) -> int:
    """The optimizer step a checkpoint was saved after."""
    return int(path.stem.removeprefix("step_"))


def readable(checkpoints: Iterable[Path], say=print) -> Path | None:
    """The first checkpoint that is undamaged; of the others `say` tells what is wrong."""
    for path in checkpoints:
        try:
            check(path)
            return path
        except Damaged as error:
            say(f"checkpoint {path} cannot be read ({error}); trying the one before it")
    return None


def origin_of(resume: str, folder: Path | None, say=print) -> Path | None:
    """The checkpoint a run goes on from, None where it begins: `resume` is auto, never, or another run's checkpoint.

    A run with checkpoints of its own in `folder` goes on from those, so that the same command may be given again after
    a kill; None: they do not count.
    InputError where `never` meets one, or where a path cannot be resumed from.
    """
    own = found(folder) if folder else []
    if folder and own and resume == "never":
        raise InputError(
            f"resume=never, but {folder.parent} was begun already and is at step {step_of(own[0])}: choose another "
            "name=…, resume=auto to go on, or overwrite=true to discard it"
        )
    if own or resume in ("auto", "never"):
        usable = readable(own, say)
        if own and usable is None:
            say(f"no checkpoint in {folder} can be read: beginning again at step 0")
        return usable
    try:
        check(Path(resume))
    except Damaged as error:
        raise InputError(
            f"resume={resume} is neither auto, never nor a checkpoint that can be read ({error})"
        ) from error
    return Path(resume)
