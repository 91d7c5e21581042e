"""A bundle in, the text that the real sherpa-onnx runtime makes of real speech out."""

from difflib import SequenceMatcher

import pytest
import torch

from glmasr.bundle import open_bundle
from glmasr.decoding.ctc import greedy
from glmasr.exporting.export import export
from glmasr.exporting.symbols import table
from glmasr.frontend.audio import read_audio
from glmasr.speech import RATE_HZ
from glmasr.text.tokenizer import learn_characters, learn_mixed, learn_syllables
from tests.small import random_bundle

sherpa_onnx = pytest.importorskip("sherpa_onnx")
TEXTS = ["please select the word went", "北京 的 天氣", "call Anna", "hold the line"]
LANGUAGES = ["en", "zh", "en", "en"]


def shown(symbol: str) -> str:
    """A symbol as the runtime lists it: printable bytes as themselves."""
    byte = int(symbol[3:5], 16) if symbol.startswith("<0x") else 0
    return chr(byte).replace(" ", "▁") if 0x20 <= byte <= 0x7E else symbol


@pytest.mark.parametrize(
    "tokenizer",
    [
        learn_characters(TEXTS),
        learn_mixed(TEXTS, 40, 1, True, LANGUAGES),
        learn_syllables(TEXTS, "pinyin", True, 1, True, LANGUAGES),
    ],
    ids=["characters", "mixed", "syllables"],
)
@torch.inference_mode()
def test_the_runtime_writes_what_we_write(tokenizer, rhyme_root, traced, tmp_path):
    random_bundle(tmp_path / "bundle", tokenizer)
    clips = sorted((rhyme_root / "rhyme_test" / "audio").glob("*_b1*_w1.flac"))
    export(tmp_path / "bundle", "sherpa", tmp_path / "out", audio=clips[:1], say=lambda text: None)
    bundle, symbols = open_bundle(tmp_path / "bundle"), table(tokenizer)
    place = {token: i for i, token in enumerate(symbols.columns)}
    files = {"model": str(tmp_path / "out" / "model.onnx"), "tokens": str(tmp_path / "out" / "tokens.txt")}
    runtime = sherpa_onnx.OfflineRecognizer.from_omnilingual_asr_ctc(**files)
    same = total = late = 0
    for clip in clips:
        waveform = read_audio(str(clip))
        features = bundle.ear(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
        ours = greedy(bundle.recognizer()(*features).ctc_log_probs[0])
        stream = runtime.create_stream()
        stream.accept_waveform(RATE_HZ, waveform)
        runtime.decode_stream(stream)
        spoken = [(t, start) for t, start in zip(ours.tokens, ours.starts, strict=True) if t in place]
        expected = [shown(symbols.symbols[place[token]]) for token, _ in spoken]
        found = [token.replace(" ", "▁") for token in stream.result.tokens]
        blocks = SequenceMatcher(None, expected, found, autojunk=False).get_matching_blocks()
        same, total = same + sum(block.size for block in blocks), total + max(len(expected), len(found))
        if found == expected:
            times = zip(stream.result.timestamps, spoken, strict=True)
            late += sum(abs(time - 0.04 * start) > 1e-3 for time, (_, start) in times)
    assert total > 50 and same / total >= 0.99 and late / total < 0.05
