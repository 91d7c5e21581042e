"""Fixtures every test may use: corpora of real speech, or a reason to do without.

Before anything imports them, the rooms that promise shapes are hooked, so that every annotated shape is checked.
"""

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # as many workers as cores

import jaxtyping
import pytest
import torch
from filelock import FileLock
from torch import Tensor

jaxtyping.install_import_hook(
    ["glmasr.model", "glmasr.objective", "glmasr.frontend.logmel", "glmasr.frontend.pipeline"], "beartype.beartype"
)
torch.set_num_threads(min(2, torch.get_num_threads()))

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same numbers alone and in company."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def rhyme_root() -> Path:
    """The repository's `data/corpora` with the rhyme test in it, fetched on the first use."""
    from glmasr.data.rhyme_test import NotFetched, RhymeTest

    root = REPOSITORY / "data" / "corpora"
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / "rhyme_test.lock"):  # pytest's workers share it
            RhymeTest(str(root)).fetch()
    except NotFetched as error:
        pytest.skip(str(error))
    return root


@pytest.fixture(scope="session")
def shared_corpora() -> Path:
    """The corpora that lie beside the repository on the machines it is developed on."""
    folder = REPOSITORY.parent / "shared" / "corpora"
    if not folder.is_dir():
        pytest.skip("the shared corpora are not on this machine")
    return folder


@pytest.fixture(scope="session")
def spoken(rhyme_root) -> list[Tensor]:
    """One real utterance of each talker of the rhyme test, no two of the same length."""
    from glmasr.frontend.audio import read_audio

    clips = ("F1_b10_w1", "F3_b2_w4", "M3_b7_w3", "M4_b50_w6")
    return [torch.from_numpy(read_audio(str(rhyme_root / "rhyme_test" / "audio" / f"{clip}.flac"))) for clip in clips]


@pytest.fixture(scope="session")
def spoken_batch(spoken) -> tuple[Tensor, Tensor]:
    """`spoken` as a batch, (B, N) with zeros behind each length, and the lengths."""
    lengths = torch.tensor([len(waveform) for waveform in spoken])
    return torch.nn.utils.rnn.pad_sequence(spoken, batch_first=True), lengths
