"""What tests of serving share: one process that reads audio, a bundle of random weights, a real recording."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from glmasr.serving.intake import Intake
from glmasr.text.tokenizer import learn_characters
from glmasr.transcriber import Transcriber
from tests.small import random_bundle


@pytest.fixture(scope="session")
def intake() -> Iterator[Intake]:
    started = Intake()
    yield started
    started.close()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "mine" / "bundle"
    random_bundle(folder, learn_characters(["abc de 北京"]), language="zh")
    return folder


@pytest.fixture(scope="session")
def transcriber(bundle) -> Transcriber:
    return Transcriber(str(bundle))


@pytest.fixture(scope="session")
def clips(rhyme_root) -> list[Path]:
    """Six short recordings of one talker."""
    return [rhyme_root / "rhyme_test" / "audio" / f"M4_b{row}_w1.flac" for row in range(1, 7)]
