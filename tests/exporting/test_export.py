"""A bundle in, whole folders or none out."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from glmasr.exported import FACTS, session
from glmasr.exporting import export as room
from glmasr.exporting.export import export, speech
from glmasr.exporting.parity import Parity
from glmasr.frontend.audio import read_audio
from glmasr.speech import InputError


@pytest.fixture
def told():
    return []


def test_every_graph_says_what_the_bundle_does(bundle, speech, traced, told, tmp_path):
    facts = export(bundle.folder, "onnx", tmp_path / "out", streaming=True, audio=speech, say=told.append)
    parity = facts["parity"]
    assert all(parity[name]["difference"] <= 1e-4 for name in ("model", "decoder", "streaming")) and len(told) == 3
    assert json.loads((tmp_path / "out" / FACTS).read_text()) == facts
    there = {file.name for file in (tmp_path / "out").iterdir()}
    assert there == {"model.onnx", "decoder.onnx", "streaming.onnx", FACTS, "tokenizer.json", "tokens.txt", "README.md"}
    assert facts["parameters"] > 1000 and facts["training"] == {"language": "en"} and not facts["int8"]
    meta = session(tmp_path / "out" / "model.onnx").get_modelmeta().custom_metadata_map
    assert meta["from"] == bundle.digest() and meta["rate_hz"] == "16000"


def test_int8_is_smaller_and_says_nearly_the_same(bundle, speech, traced, told, tmp_path):
    export(bundle.folder, "onnx", tmp_path / "exact", audio=speech, say=told.append)
    facts = export(bundle.folder, "onnx", tmp_path / "int8", int8=True, audio=speech, say=told.append)
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("exact", "int8")]
    assert sizes[1] < sizes[0] and facts["int8"]
    assert facts["parity"]["model"]["difference"] <= 1e-4 < facts["parity"]["model int8"]["difference"]
    assert facts["parity"]["model int8"]["agreement"] > 0.8
    nodes = {node.op_type for node in onnx.load(tmp_path / "int8" / "model.onnx").graph.node}
    assert "MatMulInteger" in nodes and "ConvInteger" not in nodes and "MatMul" in nodes  # of log-mel


def test_sherpa_is_handed_a_stream_as_well(bundle, speech, traced, told, tmp_path):
    facts = export(bundle.folder, "sherpa", tmp_path / "out", int8=True, streaming=True, audio=speech, say=told.append)
    assert all(facts["parity"][name]["difference"] <= 1e-4 for name in ("model", "streaming")) and len(told) == 4
    assert facts["parity"]["left_chunks"] == 8 and 1e-4 < facts["parity"]["streaming int8"]["difference"] < 10
    there = {file.name for file in (tmp_path / "out").iterdir()}
    assert there == {"model.onnx", "streaming.onnx", FACTS, "tokens.txt", "README.md"}
    meta = session(tmp_path / "out" / "streaming.onnx").get_modelmeta().custom_metadata_map
    assert meta["from"] == bundle.digest() and meta["sample_rate"] == "8000" and meta["frame_length_ms"] == "300"


def test_what_is_off_is_not_published(bundle, speech, traced, told, tmp_path, monkeypatch):
    out = tmp_path / "out"
    export(bundle.folder, "sherpa", out, audio=speech, say=told.append)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    monkeypatch.setattr(room.parity, "sherpa_parity", lambda *given: Parity(2e-4, 1.0))
    with pytest.raises(InputError, match="off, more than 1e-04, so nothing was written"):
        export(bundle.folder, "sherpa", out, audio=speech, say=told.append)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    monkeypatch.setattr(room.parity, "sherpa_parity", lambda *given: Parity(float("nan"), 1.0))
    with pytest.raises(InputError, match="nothing was written"):
        export(bundle.folder, "sherpa", tmp_path / "new", audio=speech, say=told.append)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "format, more, message",
    [
        ("onyx", {}, "--format onyx is unknown: choose one of onnx, sherpa, transformers"),
        ("transformers", {"int8": True}, "transformers reads the weights themselves"),
        ("transformers", {"streaming": True}, "transformers reads the weights themselves"),
    ],
)
def test_what_cannot_be_is_refused(bundle, format, more, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export(bundle.folder, format, tmp_path / "out", **more)


def test_a_folder_of_somebody_elses_stays(bundle, tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match="is there and was not exported: name a new folder"):
        export(bundle.folder, "onnx", tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years"


def test_speech_is_what_is_named_or_what_is_at_hand(rhyme_root, tmp_path, monkeypatch, told):
    audio = rhyme_root / "rhyme_test" / "audio"
    found = speech([audio / "M4_b1_w1.flac"], told.append)
    assert len(found) == 1 and np.array_equal(found[0], read_audio(str(audio / "M4_b1_w1.flac")))
    assert len(speech([audio], told.append)) == 8
    monkeypatch.chdir(rhyme_root.parents[1])
    assert len({len(waveform) for waveform in speech([], told.append)}) > 4 and not told
    with pytest.raises(InputError, match=f"no audio file in {tmp_path}"):
        speech([tmp_path], told.append)

    def fetch(self):
        raise room.NotFetched("no network")

    monkeypatch.setattr(room.RhymeTest, "fetch", fetch)
    assert len(speech([], told.append)) == 4 and "compared on noise" in told[0]


def test_an_encoder_alone_is_refused(tmp_path):
    from tests.small import random_bundle

    random_bundle(tmp_path / "bundle")
    with pytest.raises(InputError, match="fine-tune it first"):
        export(tmp_path / "bundle", "onnx", Path(tmp_path / "out"))
