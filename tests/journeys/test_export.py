"""A bundle exported from the command line and transcribed with torch out of reach."""

import os
import subprocess
import sys

import pytest

from glmasr.text.tokenizer import learn_characters
from tests.small import random_bundle

WITHOUT_TORCH = """
import sys, runpy
sys.modules |= dict.fromkeys(("torch", "torchaudio"))  # who imports either fails
sys.argv = ["glmasr", *sys.argv[1:]]
runpy.run_module("glmasr.cli", run_name="__main__")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("export")
    random_bundle(home / "bundle", learn_characters(["abc de"]), language="en")
    return home


def glmasr(*words, code: str = "from glmasr.cli import main; main()") -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_what_was_exported_is_transcribed_without_torch(home, rhyme_root):
    clips = [rhyme_root / "rhyme_test" / "audio" / f"M4_b{row}_w1.flac" for row in (1, 2)]
    done = glmasr("export", "--bundle", home / "bundle", "--format", "onnx", home / "onnx", "--audio", clips[0])
    assert done.returncode == 0, done.stderr
    assert "model: log-probabilities within" in done.stdout and f"{home / 'onnx'}: " in done.stdout
    for options in (["--words"], ["decoding=ctc_beam", "--format", "srt"]):
        asked = ["transcribe", *clips, *options, "--bundle"]
        expected, found = glmasr(*asked, home / "bundle"), glmasr(*asked, home / "onnx", code=WITHOUT_TORCH)
        assert found.returncode == 0, found.stderr
        assert found.stdout == expected.stdout and len(found.stdout.splitlines()) >= 4
    denied = glmasr("transcribe", clips[0], "--bundle", home / "bundle", code=WITHOUT_TORCH)
    assert denied.returncode == 1 and "torch" in denied.stderr
    refused = glmasr("transcribe", clips[0], "--stream", "--bundle", home / "onnx")
    assert (
        refused.returncode == 1
        and "hears whole recordings only: export the bundle again with --streaming" in refused.stderr
    )


def test_a_stream_for_sherpa_is_one_command(home, rhyme_root):
    clip = rhyme_root / "rhyme_test" / "audio" / "M4_b1_w1.flac"
    asked = ["export", "--bundle", home / "bundle", "--format", "sherpa", "--streaming", home / "sherpa"]
    done = glmasr(*asked, "--audio", clip)
    assert done.returncode == 0, done.stderr
    assert "streaming: log-probabilities within" in done.stdout
    assert (home / "sherpa" / "streaming.onnx").is_file() and "from_t_one_ctc" in (
        home / "sherpa/README.md"
    ).read_text()
    refused = glmasr("transcribe", clip, "--bundle", home / "sherpa")
    assert refused.returncode == 1 and "was exported for sherpa: glmasr reads bundles" in refused.stderr


def test_what_export_needs_is_named(home):
    code = "import sys; sys.modules['onnx'] = None; from glmasr.cli import main; main()"
    denied = glmasr("export", "--bundle", home / "bundle", "--format", "onnx", home / "no", code=code)
    assert denied.returncode == 1 and "export needs onnx: pip install 'glmasr[export,eval]'" in denied.stderr
