"""Every ready config in conf/data composes, and its reader finds what is in a tiny made copy of the layout."""

from pathlib import Path

import datasets
import pytest
import yaml

from glmasr.build import build, locate
from glmasr.data.catalog import prepare_catalog
from glmasr.frontend.audio import read_audio
from glmasr.speech import InputError
from tests.data.made import MADE
from tests.small import CONF, composed

FILES = sorted((CONF / "data").glob("*.yaml"))


@pytest.fixture(autouse=True)
def no_hub(tmp_path, monkeypatch):
    """What `datasets` converts goes to the test's own folder, and nothing is looked up."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def configured(name: str, settings: dict) -> dict:
    """The option as the command line would set it; composing is test_configs' business."""
    return yaml.safe_load((CONF / "data" / f"{name}.yaml").read_text("utf-8")) | settings


def test_every_config_has_its_copy_and_the_other_way_round():
    assert {file.stem for file in FILES} - {"rhyme_test", "prepared"} == set(MADE), "those two are tested on themselves"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_config_says_what_it_is_and_names_every_parameter_in_order(file: Path):
    text = file.read_text("utf-8")
    assert text.startswith("# ") and len(text.splitlines()[0]) > 40
    config = yaml.safe_load(text)
    assert list(config) == ["_target_", *locate(config["_target_"]).__dataclass_fields__]


@pytest.mark.parametrize("name", MADE)
def test_a_reader_finds_what_is_in_its_layout(name, tmp_path):
    home = tmp_path / "corpus"
    home.mkdir()
    made = MADE[name](home)
    reader = build(configured(name, made.settings))
    catalog = prepare_catalog(reader, str(tmp_path / "catalogs"))
    found = {one.id: one for one in catalog}
    assert {one.id: (one.text, one.language, one.speaker, one.split) for one in catalog} == made.expected
    times = {
        one: (round(found[one].offset_seconds, 2), round(found[one].duration_seconds, 2)) for one in made.stretches
    }
    assert times == made.stretches
    for one in catalog:
        heard = read_audio(one.audio, one.offset_seconds, one.duration_seconds)
        assert len(heard) == pytest.approx(one.duration_seconds * 16_000, abs=2)
    assert build(configured(name, made.settings)).fingerprint() == reader.fingerprint()


@pytest.mark.parametrize("name", sorted({*MADE} - {"hub", "fleurs", "streamed_shards"}))
def test_a_corpus_that_is_not_there_is_one_sentence(name, tmp_path):
    config = configured(name, {"path": str(tmp_path / "nowhere"), "audio": str(tmp_path)})
    if "audio" not in yaml.safe_load((CONF / "data" / f"{name}.yaml").read_text("utf-8")):
        del config["audio"]
    with pytest.raises(InputError, match=r"nowhere.*(check|set) data\.path"):
        build(config).fingerprint()


def test_settings_reach_a_reader_from_the_command_line():
    config = composed("benchmark", "data=gigaspeech", "data.path=G.json", "data.subsets.train=XS")["data"]
    assert build(config).subsets == {"train": "XS", "dev": "DEV", "test": "TEST"}
