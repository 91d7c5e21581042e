"""A bundle in, a folder that transformers opens without anybody's code or pickles out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glmasr.exporting.export import export
from glmasr.frontend.audio import read_audio
from glmasr.text.tokenizer import open_tokenizer

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("huggingface") / "out"
    export(bundle.folder, "transformers", folder)
    return folder


@torch.inference_mode()
def test_the_model_is_the_bundles(bundle, folder, speech):
    from glmasr.exporting.huggingface import GlmasrForCTC

    waveforms = [read_audio(str(file)) for file in speech[:2]]
    waveforms[1] = waveforms[1][:12000]
    extract = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extract(waveforms, sampling_rate=16000, padding=True, return_tensors="pt")
    for model in (
        GlmasrForCTC.from_pretrained(folder),
        transformers.AutoModelForCTC.from_pretrained(folder, trust_remote_code=False),
    ):
        logits = model.eval()(**inputs).logits
        for row, waveform in zip(logits, waveforms, strict=True):
            heard = bundle.recognizer()(*bundle.ear(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)])))
            frames = int(heard.lengths[0])
            assert torch.allclose(row[:frames], heard.ctc_log_probs[0], atol=1e-4)
            assert (row[frames:].argmax(-1) == 0).all()
    assert model.recognizer.decoder is not None


def test_the_tokenizer_of_wav2vec2_writes_the_same(folder):
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(folder)
    frames = [0, 4, 4, 0, 4, 3, 5, 0, 0, 6]
    collapsed = [token for i, token in enumerate(frames) if token and (i == 0 or frames[i - 1] != token)]
    assert tokenizer.decode(frames) == open_tokenizer(folder / "tokenizer").decode(collapsed) == "aa bc"


def test_the_model_card_is_not_lying(folder, speech):
    card = (folder / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    code = code.replace("speech.wav", str(speech[0]))
    code = f"import pathlib\nFOLDER = pathlib.Path({str(folder)!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_nothing_needs_unpickling(folder):
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".ckpt", ".py")]
    assert json.loads((folder / "config.json").read_text())["model_type"] == "glmasr"
