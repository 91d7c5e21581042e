"""Datasets by id or folder: splits that are named wrongly, tables saved to disk, the hub out of reach."""

import datasets
import pytest

from glmasr.data.hub import Hub
from glmasr.speech import InputError, Utterance
from tests.data.made import hub, record


@pytest.fixture(autouse=True)
def no_hub(tmp_path, monkeypatch):
    """What `datasets` converts goes to the test's own folder, and nothing is looked up."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_splits_are_those_that_are_named_joined_or_all_there_are(tmp_path):
    settings = hub(tmp_path / "d").settings
    everything = Hub(**{**settings, "splits": None})
    assert sorted(one.split for one in everything.utterances()) == ["dev", "test", "train"]  # type: ignore[union-attr]
    both = Hub(**{**settings, "splits": {"train": "train.100+test"}})
    assert [(one.id, one.split) for one in both.utterances()] == [("19-1", "train"), ("121-1", "train")]  # type: ignore
    with pytest.raises(InputError, match=r"no split 'dev': set data\.splits from train\.100, validation, test"):
        Hub(**{**settings, "splits": {"dev": "dev"}}).fingerprint()
    assert Hub(**settings).name == "d-clean"


def test_a_saved_table_with_paths_is_read_in_place(tmp_path):
    record(tmp_path / "a.wav")
    table = datasets.Dataset.from_dict({"audio": [str(tmp_path / "a.wav")], "text": ["hello"]})
    table.save_to_disk(str(tmp_path / "saved"))
    [found] = Hub(str(tmp_path / "saved"), id=None, dev_share=0.0).utterances()
    assert isinstance(found, Utterance)
    assert (found.id, found.audio, found.text) == ("train/a", str(tmp_path / "a.wav"), "hello")
    with pytest.raises(InputError, match=r"no column 'words': set data\.text to one of audio, text"):
        list(Hub(str(tmp_path / "saved"), text="words").utterances())


def test_what_cannot_be_loaded_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no dataset is named"):
        Hub("").fingerprint()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"cannot be loaded .*check data\.path"):
        Hub(str(tmp_path / "empty")).fingerprint()
