"""A job of a real scheduler, started on this machine, is signaled, requeued, and ends as if it had been left alone."""

import os
import subprocess
import sys

import pytest

from tests.small import REPOSITORY


@pytest.mark.timeout(900)
def test_a_short_rehearsal(rhyme_root):
    if not os.environ.get("GLMASR_REHEARSE"):
        pytest.skip(
            "a scheduler is installed and started only where GLMASR_REHEARSE=1 allows it (make slurm-rehearsal)"
        )
    command = [sys.executable, str(REPOSITORY / "scripts" / "slurm_rehearsal.py"), "TERM", "failure", "steps=40"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    told = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=850)
    if told.returncode == 3:
        pytest.skip(told.stderr.strip().splitlines()[-1])
    assert told.returncode == 0, told.stdout + told.stderr
    assert "requeued, bit-identical" in told.stdout and "FAILED  " not in told.stdout
