"""A job of a real scheduler, started on this machine, is signaled, requeued, and ends as if it had been left alone."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.small import REPOSITORY


@pytest.mark.timeout(900)
def test_a_short_rehearsal(rhyme_root):
    where = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])  # where Debian has daemons, and not everybody looks
    if not (shutil.which("slurmctld", path=where) or os.environ.get("GLMASR_REHEARSE")):
        pytest.skip("no slurmctld on this machine: GLMASR_REHEARSE=1, or make slurm-rehearsal, installs it on Debian")
    command = [sys.executable, str(REPOSITORY / "scripts" / "slurm_rehearsal.py"), "TERM", "steps=40"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    told = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=850)
    if told.returncode == 3:
        pytest.skip(told.stderr.strip().splitlines()[-1])
    assert told.returncode == 0, told.stdout + told.stderr
    assert "requeued, bit-identical" in told.stdout and "FAILED  " not in told.stdout
