"""A bundle in, the text that the real sherpa-onnx runtime makes of real speech out, whole or live."""

from difflib import SequenceMatcher

import numpy as np
import pytest
import torch

from glmasr.bundle import open_bundle
from glmasr.decoding.ctc import greedy
from glmasr.exporting.export import export
from glmasr.exporting.symbols import table
from glmasr.frontend.audio import read_audio
from glmasr.speech import RATE_HZ
from glmasr.text.tokenizer import learn_characters, learn_mixed, learn_syllables
from glmasr.transcriber import Transcriber
from tests.exporting.conftest import untyped
from tests.small import random_bundle

sherpa_onnx = pytest.importorskip("sherpa_onnx")
TEXTS = ["please select the word went", "北京 的 天氣", "call Anna", "hold the line"]
LANGUAGES = ["en", "zh", "en", "en"]


def shown(symbol: str) -> str:
    """A symbol as the runtime lists it: printable bytes as themselves."""
    byte = int(symbol[3:5], 16) if symbol.startswith("<0x") else 0
    return chr(byte).replace(" ", "▁") if 0x20 <= byte <= 0x7E else symbol


@pytest.fixture(
    scope="module",
    params=[
        learn_characters(TEXTS),
        learn_mixed(TEXTS, 40, 1, True, LANGUAGES),
        learn_syllables(TEXTS, "pinyin", True, 1, True, LANGUAGES),
    ],
    ids=["characters", "mixed", "syllables"],
)
def home(request, rhyme_root, tmp_path_factory):
    """A bundle and its export for sherpa-onnx, live as well."""
    home = tmp_path_factory.mktemp("sherpa")
    random_bundle(home / "bundle", request.param)
    clip = next((rhyme_root / "rhyme_test" / "audio").glob("*_b1*_w1.flac"))
    with untyped():
        export(home / "bundle", "sherpa", home / "out", streaming=True, audio=[clip], say=lambda text: None)
    return home


@pytest.fixture(scope="module")
def waveforms(rhyme_root):
    """Real speech, of 16 bits."""
    clips = sorted((rhyme_root / "rhyme_test" / "audio").glob("*_b1*_w1.flac"))
    return [(read_audio(str(clip)) * 32768).round() / 32768 for clip in clips]


def agreed(home, heard) -> tuple[int, int, int]:
    """How many symbols are the same, how many there are, and how many come at another time than ours.

    `heard` are pairs of our hypothesis of a waveform, and the symbols and times that the runtime found.
    """
    symbols, same, total, late = table(open_bundle(home / "bundle").tokenizer), 0, 0, 0
    place = {token: i for i, token in enumerate(symbols.columns)}
    for ours, (tokens, times) in heard:
        spoken = [(t, start) for t, start in zip(ours.tokens, ours.starts, strict=True) if t in place]
        expected = [shown(symbols.symbols[place[token]]) for token, _ in spoken]
        found = [token.replace(" ", "▁") for token in tokens]
        blocks = SequenceMatcher(None, expected, found, autojunk=False).get_matching_blocks()
        same, total = same + sum(block.size for block in blocks), total + max(len(expected), len(found))
        if found == expected:
            late += sum(not -1e-3 < time - 0.04 * start < 0.031 for time, (_, start) in zip(times, spoken, strict=True))
    return same, total, late


@torch.inference_mode()
def test_the_runtime_writes_what_we_write(home, waveforms):
    bundle, heard = open_bundle(home / "bundle"), []
    files = {"model": str(home / "out" / "model.onnx"), "tokens": str(home / "out" / "tokens.txt")}
    runtime = sherpa_onnx.OfflineRecognizer.from_omnilingual_asr_ctc(**files)
    for waveform in waveforms:
        features = bundle.ear(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
        stream = runtime.create_stream()
        stream.accept_waveform(RATE_HZ, waveform)
        runtime.decode_stream(stream)
        ours = greedy(bundle.recognizer()(*features).ctc_log_probs[0])
        heard.append((ours, (stream.result.tokens, stream.result.timestamps)))
    same, total, late = agreed(home, heard)
    assert total > 50 and same / total >= 0.99 and late / total < 0.05


def test_the_runtime_streams_what_we_stream(home, waveforms):
    """Everything of it, in blocks of any size, as the card says."""
    transcriber, heard = Transcriber(str(home / "bundle"), vad=False), []
    files = {"model": str(home / "out" / "streaming.onnx"), "tokens": str(home / "out" / "tokens.txt")}
    runtime = sherpa_onnx.OnlineRecognizer.from_t_one_ctc(**files)
    for i, waveform in enumerate(waveforms[::2]):
        samples = np.append(waveform * 32768, np.full(RATE_HZ, 32767))
        stream, block = runtime.create_stream(), 700 + 1000 * i
        for start in range(0, len(samples), block):
            stream.accept_waveform(8000, samples[start : start + block] / 32767)
            while runtime.is_ready(stream):
                runtime.decode_stream(stream)
        ours = greedy(transcriber.stream(16, 8).hear(waveform, last=True))
        heard.append((ours, (runtime.tokens(stream), runtime.timestamps(stream))))
    same, total, late = agreed(home, heard)
    assert total >= 40 and same / total >= 0.99 and late == 0
