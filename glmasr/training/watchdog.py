"""The time since the last step in; a process that will never end by itself ended, with its stack, out."""

import faulthandler
import os
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as lightning

from glmasr.training.guards import gathered

GRACE_SECONDS = 5.0
"""That a rank has to end by itself when another is dead, and that hanging ranks have to write down their stacks."""

STATES = {"T": "is stopped", "t": "is stopped", "D": "waits for a disk", "Z": "is dead", "X": "is dead"}


@dataclass(frozen=True)
class Peer:
    """One process of a run."""

    rank: int
    host: str
    pid: int

    def state(self) -> str:
        """What the system says of a process on this machine: "" where nothing is the matter."""
        try:
            return STATES.get(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0], "")
        except OSError:
            return "is dead" if Path("/proc/self").exists() else ""


class Watchdog(lightning.Callback):
    """Ends this rank when no batch was begun or ended for `hang_seconds`, or when another on this machine is dead.

    Stacks are in stacks/rank_<r>.txt of the run folder; the others on this machine, which can only be waiting or
    stopped, are killed, so nothing is left behind. From the last batch to the end it takes at most `hang_seconds` +
    7 s; after the death of a rank, 7 s. What a suspended machine or job sleeps does not count.
    """

    def __init__(self, folder: Path, hang_seconds: float):
        self.folder, self.hang_seconds = folder / "stacks", hang_seconds
        self.beat, self.step = 0.0, 0
        self.done = threading.Event()
        self.own, self.peers = Peer(0, "", 0), []

    def on_train_start(self, trainer, module) -> None:
        self.own = Peer(trainer.global_rank, socket.gethostname(), os.getpid())
        self.peers = [peer for peer in gathered(self.own) if peer.host == self.own.host and peer != self.own]
        self.beat, self.step = time.monotonic(), trainer.global_step
        self.done.clear()
        threading.Thread(target=self.watch, daemon=True, name="watchdog").start()

    def on_train_batch_start(self, trainer, module, batch, batch_index) -> None:
        self.beat, self.step = time.monotonic(), trainer.global_step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        self.beat = time.monotonic()

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self.beat = time.monotonic()

    def on_train_end(self, trainer, module) -> None:
        self.done.set()

    def on_exception(self, trainer, module, exception) -> None:
        self.done.set()

    def watch(self) -> None:
        """Look every second; a look that comes late was slept over."""
        period, before, died = min(1.0, self.hang_seconds / 5), time.monotonic(), 0.0
        while not self.done.wait(period):
            now = time.monotonic()
            if now - before > period + 2:
                self.beat += now - before - period
            before = now
            dead = next((peer for peer in self.peers if peer.state() == "is dead"), None)
            died = (died or now) if dead else 0.0
            if dead and now - died > GRACE_SECONDS:
                self.end(f"rank {dead.rank} (process {dead.pid}) is dead")
            if now - self.beat > self.hang_seconds:
                self.end(f"no step for {now - self.beat:.0f} s")

    def end(self, reason: str) -> None:
        """Write the stack, say where this rank and the others are, and leave nothing running on this machine."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"rank_{self.own.rank}.txt"
        with path.open("w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
        others = [f"rank {peer.rank} (process {peer.pid}) {peer.state()}" for peer in self.peers if peer.state()]
        told = "; ".join([f"rank {self.own.rank} is in {innermost()}", *others])
        print(
            f"glmasr: stopped after step {self.step}: {reason}; {told}; its stack is in {path}; the same command "
            "goes on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        if self.done.wait(GRACE_SECONDS / 2):
            return  # it ended after all
        for peer in self.peers:
            if peer.state() != "is dead":
                os.kill(peer.pid, signal.SIGKILL)
        os._exit(1)


def innermost() -> str:
    """Where the main thread is, the innermost of our lines or whatever there is."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    lines = traceback.extract_stack(frame)
    ours = [line for line in lines if "glmasr" in Path(line.filename).parts and "site-packages" not in line.filename]
    line = (ours or lines)[-1]
    return f"{line.name} ({Path(line.filename).name}:{line.lineno})"
