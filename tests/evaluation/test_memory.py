"""What is held for a moment is in the peak, what was freed before or is held since before is not."""

import numpy as np
import pytest

from glmasr.evaluation import memory
from glmasr.evaluation.memory import PeakMemory

MEGABYTE = 1 << 20


@pytest.fixture(autouse=True)
def _linux():
    if not memory.RESET.exists():
        pytest.skip("only Linux tells")


def test_the_peak_counts_what_is_freed_again():
    before = np.ones(64 * MEGABYTE, dtype=np.uint8)
    with PeakMemory() as small:
        pass
    with PeakMemory() as large:
        held = np.ones(48 * MEGABYTE, dtype=np.uint8)
        del held
    assert small.peak_bytes < 8 * MEGABYTE < 40 * MEGABYTE < large.peak_bytes < 64 * MEGABYTE
    assert before.any()


def test_a_peak_of_before_is_forgotten():
    held = np.ones(48 * MEGABYTE, dtype=np.uint8)
    del held
    with PeakMemory() as after:
        pass
    assert after.peak_bytes < 8 * MEGABYTE


def test_nothing_is_said_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "RESET", tmp_path / "no" / "file")
    with PeakMemory() as unknown:
        pass
    assert unknown.peak_bytes is None
