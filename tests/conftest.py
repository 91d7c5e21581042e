"""Fixtures every test may use: corpora of real speech, or a reason to do without."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def rhyme_root() -> Path:
    """The repository's `data/corpora` with the rhyme test in it, fetched on the first use."""
    from glmasr.data.rhyme_test import NotFetched, RhymeTest

    root = REPOSITORY / "data" / "corpora"
    try:
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
