"""A tokenizer in, the table of symbols that sherpa-onnx and its like turn tokens into text with out."""

from dataclasses import dataclass

from glmasr.speech import InputError
from glmasr.text.tokenizer import (
    SPECIAL,
    CharacterTokenizer,
    MixedTokenizer,
    PieceTokenizer,
    SyllableTokenizer,
    Tokenizer,
)

FIRST_ROWS = ("<blk>", "<unk>", "<sos/eos>")
SPACE = "▁"
"""Stands for a space, as SentencePiece writes it."""


@dataclass(frozen=True)
class Table:
    """What a runtime writes: FIRST_ROWS, then a symbol for each of `columns`, tokens of the vocabulary.

    `silent` are the tokens that `Tokenizer.decode` writes nothing for, tags of languages among them: to a runtime that
    knows no such thing they are the blank.
    """

    columns: tuple[int, ...]
    silent: tuple[int, ...]
    symbols: tuple[str, ...]

    def text(self) -> str:
        """tokens.txt: a symbol and its number on each line."""
        return "".join(f"{symbol} {i}\n" for i, symbol in enumerate((*FIRST_ROWS, *self.symbols)))


def table(tokenizer: Tokenizer) -> Table:
    """Bytes come first where there are any, since runtimes know <0x41> at its own place, 3 + 65, alone."""
    written = {token: _symbol(tokenizer, token) for token in range(SPECIAL, tokenizer.size)}
    columns = tuple(token for token, symbol in written.items() if symbol)
    silent = tuple(token for token in range(tokenizer.size) if token not in columns)
    return Table(columns, silent, tuple(written[token] for token in columns))


def listed(tokenizer: Tokenizer) -> str:
    """tokens.txt of graphs whose columns are the vocabulary's own; the tag of a language is <zh>."""
    names = [
        *FIRST_ROWS,
        *(_symbol(tokenizer, t) or f"<{tokenizer.language_of([t])}>" for t in range(SPECIAL, tokenizer.size)),
    ]
    return "".join(f"{name} {i}\n" for i, name in enumerate(names))


def _symbol(tokenizer: Tokenizer, token: int) -> str:
    """What a token stands for; "" for the tag of a language."""
    if isinstance(tokenizer, CharacterTokenizer):
        symbol = tokenizer.characters[token - SPECIAL]
    elif isinstance(tokenizer, PieceTokenizer):
        symbol = tokenizer.pieces.id_to_piece(token - SPECIAL + 1)
    elif isinstance(tokenizer, SyllableTokenizer):
        symbol = tokenizer.units[token - tokenizer.first_unit] if token >= tokenizer.first_unit else ""
    elif isinstance(tokenizer, MixedTokenizer):
        byte = token - tokenizer.first_byte
        symbol = tokenizer.spelling[token].decode() if byte >= 256 else f"<0x{byte:02X}>" if byte >= 0 else ""
    else:
        raise InputError(f"a {type(tokenizer).__name__} has no table of symbols: export with --format onnx")
    return symbol.replace(" ", SPACE)
