"""What ends a training from outside in, one sentence that says what happened and what to do out."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOST_PEER = re.compile(
    r"connection (closed|reset) by peer|connection was closed|timed out waiting|socket closed|broken pipe|"
    r"connection refused|NCCL.*(abort|remote)|Application timeout",
    re.IGNORECASE,
)
DEAD_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) (.*)")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, then what it came of or was raised while handling."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def explained(error: BaseException, folder: Path, rank: int, world: int) -> str | None:
    """One sentence for a full or lost disk, a dead loader process or a lost rank; None for what is ours to mend."""
    if isinstance(error, OSError) and error.errno:
        place = error.filename or folder
        if error.errno in NO_ROOM:
            free = f"free some on the disk of {folder}, or keep less with checkpoints.keep"
            return f"no room to write {place} ({os.strerror(error.errno)}): {free}; {GOES_ON}"
        if not isinstance(error, ConnectionError | TimeoutError):
            return f"{place} cannot be used ({os.strerror(error.errno)}): see to it, or choose run_dir=…; {GOES_ON}"
    reason = "most often memory ran out: take fewer batches.workers, or find in the system's log who killed it"
    # Its signal is heard wherever the main process is: amid a checkpoint, torch raises about positions after it.
    dead = next(filter(None, (DEAD_WORKER.search(str(one)) for one in chain(error))), None)
    if dead:
        return f"a process that loads data ({dead[1]}) {dead[2].rstrip('. ').split('. ')[0]}; {reason}; {GOES_ON}"
    if world == 1 and isinstance(error, ConnectionError | EOFError):  # torch has not seen yet that it is dead
        return f"a process that loads data ended in the midst of a batch; {reason}; {GOES_ON}"
    if world > 1 and LOST_PEER.search(str(error)):
        return f"rank {rank} lost another process of this run, whose own last message says why; {GOES_ON}"
    return None


GOES_ON = "what was saved is intact, the same command goes on from the last checkpoint"
