"""A stretch of the program in, by how much the process grew at its peak out."""

import ctypes
import gc
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """A context; `peak_bytes` is then the highest resident memory in it less that at its start.

    Libraries that are loaded for the first time count, memory that was free in the process at the start does not.
    None where the system is no Linux that tells.
    """

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self._before: int | None = None

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        try:
            ctypes.CDLL(None).malloc_trim(0)  # or the next would fill what the last has freed, and seem to need less
            RESET.write_text("5")  # the peak starts anew at what is resident
            self._before = _resident("VmRSS")
        except (OSError, AttributeError, LookupError):
            self._before = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            self.peak_bytes = max(0, _resident("VmHWM") - self._before)


def _resident(field: str) -> int:
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(lines[field].split()[0]) * 1024
