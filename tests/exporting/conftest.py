"""A bundle of random weights and real speech, and leave for graphs to be traced: shapes are no numbers then."""

from contextlib import contextmanager

import jaxtyping
import pytest

from glmasr.bundle import Bundle, open_bundle
from glmasr.text.tokenizer import learn_characters
from tests.small import random_bundle


@contextmanager
def untyped():
    """Shapes are not checked within."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def traced():
    """Shapes are not checked while this is in use."""
    with untyped():
        yield


@pytest.fixture(scope="package")
def bundle(tmp_path_factory) -> Bundle:
    """A recognizer of characters that was trained on nothing."""
    folder = tmp_path_factory.mktemp("exporting") / "bundle"
    random_bundle(folder, learn_characters(["abc de"]), language="en")
    return open_bundle(folder)


@pytest.fixture(scope="package")
def speech(rhyme_root):
    """The folder of the rhyme test, and its audio files."""
    return sorted((rhyme_root / "rhyme_test" / "audio").glob("M4_b[1-3]_w1.flac"))
