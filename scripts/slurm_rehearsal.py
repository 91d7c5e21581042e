"""make slurm-rehearsal: two nodes of a real scheduler on this machine in, each way a job can end tried, a table out.

make slurm-rehearsal [ARGS="USR1 USR2 TERM limit requeue cancel sweep failure steps=100"]
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from glmasr.training.ranks import begin

HERE = Path(__file__).resolve().parent.parent
HOME = HERE / "runs" / "slurm_rehearsal"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
NODES = ("n1", "n2")
SMALL = (
    *("model.encoder.width=48", "model.encoder.blocks=2", "model.encoder.heads=2", "model.encoder.stem_channels=8"),
    *("batches.batch_seconds=12", "batches.workers=1", "trainer.log_every_n_steps=1", "probe.every_steps=null"),
    *("checkpoints.every_steps=1000", "trainer.val_check_interval=50"),
)
LAUNCH = (
    *("hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1"),
    *("trainer=nodes", "trainer.accelerator=cpu", "trainer.precision=32-true"),
)
TWO_NODES = ("trainer.num_nodes=2", "trainer.devices=1")
SAVE_SECONDS = 10.0
"""From a signal until its step is saved, at most."""

PATIENCE_SECONDS = 600.0
STRIKE_ROWS = 8
"""Of metrics.csv there are when a job is struck: it is in the midst of training."""

UNAVAILABLE = 3
"""Exit code where there is no SLURM to rehearse with."""

CONFIGURATION = """\
ClusterName=rehearsal
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock,cred_expire=6
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.%n.log
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,sched_interval=1,batch_sched_delay=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobRequeue=1
KillWait=20
CommunicationParameters=NoInAddrAny
{nodes}
PartitionName=rehearsal Nodes={names} Default=YES MaxTime=24:00:00 State=UP OverSubscribe=YES
"""


class Failed(Exception):
    """A case did not end as it must."""


def unavailable() -> str | None:
    """Why there is no SLURM to rehearse with; None where there is, after installing it if that is allowed."""
    if not absent():
        return None
    wanted = f"{', '.join(absent())} not on this machine; on Debian: apt-get install {' '.join(PACKAGES)}"
    if os.getuid() or not shutil.which("apt-get"):
        return f"there is no SLURM to rehearse with: {wanted}"
    quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "capture_output": True, "check": False}
    subprocess.run(["apt-get", "update", "-qq"], **quiet)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], **quiet)
    return f"there is no SLURM to rehearse with, and it could not be installed: {wanted}" if absent() else None


def absent() -> list[str]:
    """Programs of SLURM that are not there."""
    os.environ["PATH"] += f"{os.pathsep}/usr/sbin"  # where Debian has daemons, and not everybody looks
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def scheduler() -> Iterator[None]:
    """A controller and two nodes on this machine, with a key of their own, and the environment to reach them."""
    root = Path(tempfile.mkdtemp(prefix="rehearsal-"))
    root.chmod(0o755)
    port = free_ports(len(NODES) + 1)
    names = [
        f"NodeName={node} NodeHostname={socket.gethostname().split('.')[0]} NodeAddr=127.0.0.1 Port={port[i + 1]} "
        "CPUs=4 Sockets=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN"
        for i, node in enumerate(NODES)
    ]
    for folder in ("state", *(f"spool.{node}" for node in NODES)):
        (root / folder).mkdir()
    configuration = root / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=socket.gethostname().split(".")[0],
            user=getpass.getuser(),
            root=root,
            port=port[0],
            nodes="\n".join(names),
            names=",".join(NODES),
        )
    )
    key = root / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    # MASTER_ADDR: the nodes' names need not be known to this machine's resolver.
    os.environ |= {"SLURM_CONF": str(configuration), "MASTER_ADDR": "127.0.0.1"}
    munge = {"key-file": key, "socket": root / "munge.sock", "pid-file": root / "munge.pid"}
    munge |= {"log-file": root / "munge.log", "seed-file": root / "munge.seed"}
    commands = [["munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in munge.items())]]
    commands += [["slurmctld", "-D"], *(["slurmd", "-D", "-N", node] for node in NODES)]
    daemons: list[subprocess.Popen] = []
    try:
        for command in commands:
            with (root / "daemons.log").open("a") as log:
                daemons.append(
                    subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, preexec_fn=begin)
                )
            time.sleep(0.5)
        until(lambda: ask("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").count("n") == len(NODES), 30, "idle nodes")
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):  # a second one would leave daemons behind
            signal.signal(number, signal.SIG_IGN)
        ask("scancel", "--signal=KILL", "--user", getpass.getuser())
        ask("scancel", "--user", getpass.getuser())
        with suppress(Failed):
            until(lambda: not ask("squeue", "-h"), 30, "the end of the jobs")
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
        shutil.rmtree(root, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def ask(*command: str) -> str:
    """What a command of SLURM prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def until(true, seconds: float, what: str) -> None:
    """Wait until `true()`; Failed after so many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not come in {seconds:.0f} s")
        time.sleep(0.2)


class Launched:
    """`make pretrain` of one case: what it printed, its job and its run folder."""

    def __init__(self, case: str, steps: int, *overrides: str):
        self.case, self.folder, self.jobs = case, HOME / case, HOME / "jobs" / case
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.jobs, ignore_errors=True)
        self.jobs.mkdir(parents=True)
        ours = (f"name=slurm_rehearsal/{case}", f"trainer.max_steps={steps}", f"hydra.sweep.dir={self.jobs}")
        arguments = " ".join([*LAUNCH, *TWO_NODES, *SMALL, *ours, *overrides])
        self.said = self.jobs / "make.log"
        with self.said.open("w") as log:
            command = ["make", "--no-print-directory", "-o", "setup", "pretrain", f"ARGS={arguments}"]
            options = {"start_new_session": True, "preexec_fn": begin}
            self.process = subprocess.Popen(command, cwd=HERE, stdout=log, stderr=log, **options)

    def job(self) -> str:
        """Its number, once it has one."""
        found: list[str] = []

        def is_there() -> bool:
            found[:] = [path.name for path in self.jobs.iterdir() if path.name[:1].isdigit()]
            return bool(found)

        until(is_there, PATIENCE_SECONDS, f"the job of {self.case}")
        return found[0]

    def rows(self) -> int:
        metrics = self.folder / "metrics.csv"
        return len(metrics.read_text().splitlines()) if metrics.exists() else 0

    def training(self) -> str:
        """Wait until it is in the midst of training; its job."""
        until(lambda: self.rows() > STRIKE_ROWS or self.process.poll() is not None, PATIENCE_SECONDS, "training")
        return self.job()

    def end(self) -> int:
        """Wait for the exit code."""
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise Failed(f"did not end in {PATIENCE_SECONDS:.0f} s; {self.said}") from None

    def succeed(self) -> None:
        if code := self.end():
            raise Failed(f"exit code {code}; {self.said}")

    def log(self) -> str:
        """What its first rank logged."""
        return "".join(path.read_text(errors="replace") for path in self.jobs.glob("*/*_0_log.out"))


def differences(ours: Path, other: Path) -> list[str]:
    """What of the weights, the optimizer and the metrics of two finished runs is not bit for bit the same."""
    from glmasr.training.chaos import compared

    return [part for part, is_equal in compared(ours, other).items() if not is_equal]


def restarts(job: str) -> int:
    """How often SLURM began a job again."""
    return int(ask("scontrol", "--oneliner", "show", "job", job).partition("Restarts=")[2].split(" ")[0] or 0)


def struck(case: str, steps: int) -> str:
    """A job signaled in the midst of training comes back by itself and ends like one that was not."""
    launched = Launched(case, steps)
    job = launched.training()
    if case == "limit":
        limit(job)
    elif case == "requeue":  # what preemption does
        ask("scontrol", "requeue", job)
    else:
        ask("scancel", f"--signal={case}", job)
    until(lambda: restarts(job) or launched.process.poll() is not None, PATIENCE_SECONDS, "the requeue")
    if case == "limit":
        ask("scontrol", "update", f"jobid={job}", "TimeLimit=30")
    launched.succeed()
    came = restarts(job)
    if came != 1:
        raise Failed(f"requeued {came} times")
    seconds = saved_after(launched.log())
    if seconds > SAVE_SECONDS:
        raise Failed(f"saved {seconds} s after the signal")
    differ = differences(launched.folder, HOME / "whole")
    if differ:
        raise Failed(f"other {', '.join(differ)} than the uninterrupted run")
    return f"saved after {seconds} s, requeued, bit-identical"


def limit(job: str) -> None:
    """Bring a running job's time limit so near that SLURM warns it at its next look, at most 30 s from now."""
    ask("scontrol", "update", f"jobid={job}", "TimeLimit=2")


def saved_after(log: str) -> float:
    """Seconds from the signal until the step was saved, as the run says them."""
    said = [line for line in log.splitlines() if line.startswith("glmasr: SIG") and " saved " in line]
    if len(said) != 1:
        raise Failed(f"{len(said)} lines say that a step was saved")
    return float(said[0].split(" saved ")[1].split()[0])


def canceled(case: str, steps: int) -> str:
    """A canceled job saves its step and stays away; the same command goes on from there."""
    launched = Launched(case, steps)
    job = launched.training()
    ask("scancel", job)
    if not launched.end():
        raise Failed("exit code 0 of a job that was canceled")
    if restarts(job):
        raise Failed("canceled, it came back")
    if not any((launched.folder / "checkpoints").glob("step_*.ckpt")):
        raise Failed("left no checkpoint")
    return "step saved, not requeued"


def sweep(case: str, steps: int) -> str:
    """Two experiments, an array of two jobs, two processes in each."""
    launched = Launched(case, max(steps // 10, 2), "trainer.num_nodes=1", "trainer.devices=2", "-m", "seed=1,2")
    launched.succeed()
    written = sorted(path.parent.name for path in launched.folder.glob("*/finished.json"))
    if written != ["seed=1", "seed=2"]:
        raise Failed(f"finished: {written}")
    if not differences(launched.folder / "seed=1", launched.folder / "seed=2"):
        raise Failed("both jobs trained the same")
    return "an array of two jobs of two processes, each in its folder"


def failure(case: str, steps: int) -> str:
    """A job that fails says why where it was launched, and fails for SLURM too."""
    launched = Launched(case, steps, "utterances.min_seconds=1000")
    code, said = launched.end(), launched.said.read_text()
    if not code or "no utterance is left" not in said or "_log.out" not in said:
        raise Failed(f"exit code {code}; {launched.said}")
    state = ask("scontrol", "--oneliner", "show", "job", launched.job()).partition("JobState=")[2].split(" ")[0]
    if state not in ("FAILED", "COMPLETING"):
        raise Failed(f"SLURM calls it {state}")
    return f"exit code {code}, last lines shown, {state}"


def whole(case: str, steps: int) -> str:
    """What the others are compared with."""
    Launched(case, steps).succeed()
    return f"{steps} steps on two nodes"


CASES = {"USR1": struck, "USR2": struck, "TERM": struck, "limit": struck, "requeue": struck}
CASES |= {"cancel": canceled, "sweep": sweep, "failure": failure}


def rehearse(names: Sequence[str], steps: int) -> bool:
    """Run the cases one after the other and print how each ended; whether all ended well."""
    compared = any(CASES[name] is struck for name in names)
    table, well = [], True
    for name, case in [*([("whole", whole)] if compared else []), *((name, CASES[name]) for name in names)]:
        began = time.monotonic()
        try:
            result = "ok      " + case(name, steps)
        except Failed as error:
            result, well = f"FAILED  {error}", False
        table.append(f"{name:<8} {time.monotonic() - began:5.0f} s  {result}")
        print(f"rehearsal: {table[-1]}", flush=True)
    print("", "case       time  result", *table, sep="\n")
    return well


def main() -> None:
    steps = next((int(one.partition("=")[2]) for one in sys.argv[1:] if one.startswith("steps=")), 100)
    names = [one for one in sys.argv[1:] if not one.startswith("steps=")] or list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        sys.exit(f"slurm-rehearsal: no case '{unknown[0]}'; there are {', '.join(CASES)} and steps=N")
    if reason := unavailable():
        print(f"slurm-rehearsal: {reason}", file=sys.stderr)
        sys.exit(UNAVAILABLE)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("slurm-rehearsal: stopped"))
    with scheduler():
        sys.exit(not rehearse(names, steps))


if __name__ == "__main__":
    main()
