"""Duplicates and what splits share: found where they were made, by every kind, and counted once."""

from dataclasses import replace

import numpy as np
import pytest

from glmasr.data.measure import Measures
from glmasr.data.overlap import ALIKE_BITS, duplicates, near_pairs, overlap, strange_characters
from glmasr.speech import Utterance
from glmasr.text.tokenizer import learn_characters, learn_pieces


def row(
    name: str, split: str = "train", text: str | None = None, speaker: str = "", sketch: str = "", digest: str = ""
):
    measured = Measures(16_000, 1, 1.0, -20.0, 0.0, 20.0, 8000, 0.1, digest or name, sketch)
    return Utterance(name, f"{name}.wav", 1.0, text=text, language="en", speaker=speaker, split=split), measured


def drawn(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


def flipped(bits: np.ndarray, number: int, seed: int = 1) -> np.ndarray:
    loose = np.unpackbits(bits)
    loose[np.random.default_rng(seed).permutation(256)[:number]] ^= 1
    return np.packbits(loose)


def test_what_sounds_alike_is_found_among_thousands():
    sketches = drawn(3000)
    rows = [row(f"u{n}", sketch=one.tobytes().hex()) for n, one in enumerate(sketches)]
    rows += [row(f"copy{n}", sketch=flipped(sketches[n], 10, n).tobytes().hex()) for n in range(0, 3000, 100)]
    assert near_pairs(rows) == [(n * 100, 3000 + n) for n in range(30)]


def test_what_differs_too_much_or_is_far_longer_or_silent_is_not_alike():
    sketch = drawn(1)[0]
    rows = [row("a", sketch=sketch.tobytes().hex()), row("silent"), row("silent too")]
    far = flipped(sketch, ALIKE_BITS + 17)
    far[:2] = sketch[:2]  # so that the two are compared; at most 16 of the bits
    assert near_pairs([*rows, row("b", sketch=far.tobytes().hex())]) == []
    utterance, measured = row("c", sketch=sketch.tobytes().hex())
    assert near_pairs([*rows, (utterance, replace(measured, seconds=3.0))]) == []
    assert near_pairs([*rows, (utterance, measured)]) == [(0, 3)]


def test_duplicates_are_counted_beyond_the_first():
    rows = [row("a", digest="x"), row("b", digest="x"), row("c", digest="x"), row("d"), row("e")]
    told = duplicates(rows, [(0, 1), (3, 4)])
    assert (told["exact"], told["near_pairs"]) == (2, 1)
    assert told["exact_examples"] == [["a", "b", "c"]] and told["near_examples"] == [("d", "e")]


def test_every_kind_of_overlap_is_found():
    rows = [
        row("t1", text="Hello, there!", speaker="anna", digest="x"),
        row("t2", text="other words", speaker="ben"),
        row("d1", "dev", text="hello there", speaker="carl"),
        row("d2", "dev", text="fresh", speaker="anna", digest="x"),
        row("e1", "test", text="new", speaker="anna"),
        row("e2", "test", speaker="ben"),
        row("e3", "test"),
    ]
    told = overlap(rows, [(1, 4), (0, 3), (2, 5)])
    assert {kind: told[kind] for kind in ("audio", "near_audio", "transcript", "speaker")} == {
        "audio": 1,
        "near_audio": 1,
        "transcript": 1,
        "speaker": 2,
    }
    dev, test = told["splits"]["dev"], told["splits"]["test"]
    assert dev["audio"]["examples"] == [("t1", "d2")] and dev["transcript"]["examples"] == [("t1", "d1", "hello there")]
    assert test["near_audio"]["examples"] == [("t2", "e1")] and test["speaker"]["examples"] == ["anna", "ben"]
    assert (test["speaker"]["count"], test["speaker"]["utterances"], dev["near_audio"]["count"]) == (2, 2, 0)


def test_a_corpus_without_held_out_splits_overlaps_with_nothing():
    assert overlap([row("a")], []) == {"audio": 0, "near_audio": 0, "transcript": 0, "speaker": 0, "splits": {}}


@pytest.mark.parametrize("tokenizer", [None, learn_characters(["abc de"])])
def test_characters_a_model_cannot_write(tokenizer):
    texts = [("train", "abc dé"), ("dev", "ABC xx"), ("test", "x e"), ("dev", None)]
    utterances = [row(f"{n}", split, text)[0] for n, (split, text) in enumerate(texts)]
    told = strange_characters(utterances, tokenizer)
    if tokenizer is None:
        assert told == {"characters": {"x": 3, "e": 1}, "utterances": 2}
    else:
        assert told == {"characters": {"x": 3, "é": 1}, "utterances": 3}


def test_pieces_write_everything():
    pieces = learn_pieces(["please select the word went"] * 9, 300)
    assert strange_characters([row("a", text="über 你好")[0]], pieces)["characters"] == {}
