"""The small corpus for everything that trains."""

import pytest

from glmasr.data.catalog import Catalog, prepare_catalog
from glmasr.data.corpora import AudioFolder
from tests.small import corpus

__all__ = ["corpus"]


@pytest.fixture(scope="session")
def catalog(corpus, tmp_path_factory) -> Catalog:
    return prepare_catalog(AudioFolder(str(corpus), "en"), str(tmp_path_factory.mktemp("catalogs")))
