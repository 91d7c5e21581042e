"""Tokenizers of every kind in, the symbols that runtimes write out."""

import pytest

from glmasr.exporting.symbols import FIRST_ROWS, listed, table
from glmasr.text.tokenizer import (
    SPECIAL,
    learn_characters,
    learn_mixed,
    learn_pieces,
    learn_syllables,
)

TEXTS = ["please select the word went", "北京 的 天氣 很好", "call Anna", "please hold the line"]
LANGUAGES = ["en", "zh", "en", "en"]


def spoken(symbols, tokens) -> str:
    """Text as sherpa-onnx makes it of symbols."""
    found = b""
    for token in tokens:
        symbol = symbols[token]
        byte = symbol.startswith("<0x") and symbol.endswith(">")
        found += bytes([int(symbol[3:5], 16)]) if byte else symbol.replace("▁", " ").encode()
    return found.decode()


@pytest.mark.parametrize(
    "tokenizer",
    [
        learn_characters(TEXTS),
        learn_pieces(TEXTS, 300),
        learn_mixed(TEXTS, 40, 1, False, LANGUAGES),
        learn_mixed(TEXTS, 40, 1, True, LANGUAGES),
        learn_syllables(TEXTS, "pinyin", True, 1, True, LANGUAGES),
    ],
    ids=["characters", "pieces", "mixed", "tagged", "syllables"],
)
def test_symbols_spell_what_tokens_do(tokenizer):
    found = table(tokenizer)
    rows = {int(line.rsplit(" ", 1)[1]): line.rsplit(" ", 1)[0] for line in found.text().splitlines()}
    assert [rows[i] for i in range(3)] == list(FIRST_ROWS) and len(rows) == 3 + len(found.columns)
    assert sorted((*found.columns, *found.silent)) == list(range(tokenizer.size))
    place = {token: i for i, token in enumerate(found.columns, SPECIAL)}
    for text, language in zip([*TEXTS, "ein Ü"], [*LANGUAGES, "de"], strict=True):
        tokens = tokenizer.encode(text, language)
        assert spoken(rows, [place[t] for t in tokens if t in place]).strip() == tokenizer.decode(tokens).strip()
    if rows.get(68, "").startswith("<0x"):
        assert rows[68] == "<0x41>"
    assert [tokenizer.decode([token]) for token in found.silent] == [""] * len(found.silent)
    own = [line.rsplit(" ", 1) for line in listed(tokenizer).splitlines()]
    assert [int(number) for _, number in own] == list(range(tokenizer.size))
    assert [own[token][0] for token in found.columns] == list(found.symbols)
    assert all(own[token][0] == f"<{tokenizer.language_of([token])}>" for token in found.silent[3:])
