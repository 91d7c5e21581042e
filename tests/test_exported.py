"""A folder that export wrote and speech in, log-probabilities out; without torch, whatever is wrong named."""

import json

import numpy as np
import pytest
import torch

from glmasr.bundle import open_bundle
from glmasr.exported import FACTS, Exported, is_exported, read_facts, session, together, without
from glmasr.exporting.export import export
from glmasr.frontend.audio import read_audio
from glmasr.speech import InputError
from glmasr.text.tokenizer import learn_characters
from tests.exporting.conftest import traced
from tests.small import random_bundle

__all__ = ["traced"]


@pytest.fixture
def folders(traced, rhyme_root, tmp_path):
    """A bundle, and what was exported of it."""
    random_bundle(tmp_path / "bundle", learn_characters(["abc de"]), language="en", utterances=7)
    audio = rhyme_root / "rhyme_test" / "audio" / "M4_b1_w1.flac"
    export(tmp_path / "bundle", "onnx", tmp_path / "out", audio=[audio], say=lambda text: None)
    return tmp_path / "bundle", tmp_path / "out"


def test_it_hears_what_the_bundle_hears(folders, rhyme_root):
    bundle, out = open_bundle(folders[0]), Exported(folders[1])
    waveform = read_audio(str(rhyme_root / "rhyme_test" / "audio" / "M4_b2_w1.flac"))
    waveforms = [waveform, waveform[:9000], waveform[:10]]
    for found, one in zip(out.log_probs(waveforms), waveforms, strict=True):
        with torch.inference_mode():
            heard = bundle.recognizer()(*bundle.ear(torch.from_numpy(one)[None], torch.tensor([len(one)])))
        assert found.shape == heard.ctc_log_probs[0].shape
        assert np.abs(found - heard.ctc_log_probs[0].numpy()).max() < 2e-3
    assert out.training == {"language": "en", "utterances": 7}
    assert out.parameters == sum(p.numel() for p in bundle.model.parameters())
    assert out.tokenizer.size == bundle.tokenizer.size and out.size_bytes > 1e5
    before = out.digest()
    (folders[1] / "model.onnx").open("ab").write(b"x")
    assert out.digest() != before


def test_what_is_wrong_is_named(folders):
    bundle, out = folders
    assert is_exported(out) and not is_exported(bundle)
    facts = json.loads((out / FACTS).read_text())
    (out / FACTS).write_text(json.dumps(facts | {"kind": "sherpa"}))
    with pytest.raises(InputError, match="was exported for sherpa: glmasr reads bundles and --format onnx"):
        read_facts(out)
    (out / FACTS).write_text(json.dumps(facts | {"format": 2}))
    with pytest.raises(InputError, match="not an export of format 1"):
        read_facts(out)
    (out / FACTS).write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        Exported(out)
    (out / FACTS).write_text(json.dumps(facts))
    (out / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="is damaged"):
        Exported(out)
    (out / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match="no graph ONNX Runtime can run"):
        session(out / "model.onnx")


def test_waveforms_go_together_padded():
    found = together([np.ones(3, np.float32), np.ones(5, np.float32)])
    assert found["lengths"].tolist() == [3, 5] and found["waveform"].sum(1).tolist() == [3.0, 5.0]
    assert found["waveform"].dtype == np.float32 and found["lengths"].dtype == np.int64


def test_what_may_not_be_named_leaves_its_share_to_the_others():
    rows = np.log(np.array([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25]], np.float32))
    found = np.exp(without(rows, [1]))
    assert found[:, [0, 2]] == pytest.approx(np.array([[0.25, 0.75], [2 / 3, 1 / 3]]), abs=1e-6)
    assert (found[:, 1] == 0).all() and np.exp(rows[0, 1]) == pytest.approx(0.6)
    assert without(rows, []) is rows
