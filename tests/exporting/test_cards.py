"""The examples of an exported folder's README in, the text that the transcriber writes out."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from glmasr.decoding.ctc import greedy
from glmasr.exporting.export import export
from glmasr.frontend.audio import read_audio
from glmasr.transcriber import Transcriber


@pytest.mark.parametrize("format", ["onnx", "sherpa"])
def test_the_example_writes_what_the_transcriber_writes(bundle, speech, traced, format, tmp_path):
    export(bundle.folder, format, tmp_path / "out", audio=speech[:1], say=lambda text: None)
    waveform = read_audio(str(speech[1]))
    soundfile.write(tmp_path / "speech.wav", waveform, 16000, subtype="FLOAT")
    pytest.importorskip("sherpa_onnx" if format == "sherpa" else "onnxruntime")
    code = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0].replace("FOLDER", "out")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = Transcriber(str(bundle.folder), vad=False)([waveform])[0].text
    assert done.stdout.strip() == expected.strip() and expected


def test_the_example_of_a_stream_writes_what_ours_does(bundle, speech, traced, tmp_path):
    export(bundle.folder, "sherpa", tmp_path / "out", streaming=True, audio=speech[:1], say=lambda text: None)
    pytest.importorskip("sherpa_onnx")
    samples = (read_audio(str(speech[1])) * 32768).round().astype("int16")
    soundfile.write(tmp_path / "speech.wav", samples, 16000)
    code = (tmp_path / "out" / "README.md").read_text().split("```python\n")[2].split("```")[0]
    command = [sys.executable, "-c", code.replace("FOLDER", "out")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shown = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    heard = samples.astype(np.float32) / 32768
    scores = Transcriber(str(bundle.folder), vad=False).stream(16, 8).hear(heard, last=True)
    expected = bundle.tokenizer.decode(greedy(scores).tokens)
    assert shown[-1] == expected.strip() and len(set(shown)) > 2
