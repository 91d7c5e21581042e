"""The examples of an exported folder's README in, the text that the transcriber writes out."""

import subprocess
import sys

import pytest
import soundfile

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
