"""The small corpus, and the real scripts as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small import REPOSITORY, corpus, small

__all__ = ["corpus"]


class Desk:
    """A folder to work in, with everything that scripts leave there."""

    def __init__(self, home: Path, corpus: Path):
        self.home, self.corpus = home, corpus

    def start(self, verb: str, *overrides: str, module: bool = False) -> subprocess.Popen:
        """Start scripts/<verb>.py, small; stdout and stderr come together."""
        options = small(self.corpus, self.home, *overrides) if verb in ("pretrain", "finetune") else overrides
        command = [sys.executable, str(REPOSITORY / "scripts" / f"{verb}.py"), *options]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=self.home, env=environment, **pipe)

    def say(self, verb: str, *overrides: str) -> tuple[int, str]:
        """Exit code and everything printed."""
        process = self.start(verb, *overrides)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def do(self, verb: str, *overrides: str) -> str:
        """Everything printed by a run that must succeed."""
        code, said = self.say(verb, *overrides)
        assert code == 0, said
        return said


@pytest.fixture(scope="module")
def desk(corpus, tmp_path_factory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"), corpus)
