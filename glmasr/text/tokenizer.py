"""Text in, token ids out, and back: characters or SentencePiece pieces, learned from training text only."""

import io
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import sentencepiece

from glmasr.speech import InputError

BLANK, UNKNOWN, BOUNDARY = 0, 1, 2
"""CTC's blank; a character never seen in training; start and end of a sentence for the decoder."""
SPECIAL = 3
FILE = "tokenizer.json"
PIECES_FILE = "tokenizer.model"


def plain(text: str) -> str:
    """What models are taught to write: NFKC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


class Tokenizer(Protocol):
    """Ids 0-2 are blank, unknown and boundary; `decode` skips them."""

    size: int

    def encode(self, text: str) -> list[int]: ...
    def decode(self, tokens: Sequence[int]) -> str: ...
    def starts_word(self, token: int) -> bool: ...
    def save(self, folder: Path) -> None: ...


class CharacterTokenizer:
    """One token per character, the space among them; Chinese characters count as words."""

    def __init__(self, characters: Sequence[str]):
        self.characters = list(characters)
        self.ids = {character: i + SPECIAL for i, character in enumerate(self.characters)}
        self.size = SPECIAL + len(self.characters)

    def encode(self, text: str) -> list[int]:
        return [self.ids.get(character, UNKNOWN) for character in plain(text)]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.characters[t - SPECIAL] for t in tokens if t >= SPECIAL)

    def starts_word(self, token: int) -> bool:
        """True for what stands alone: the space and every ideograph."""
        character = self.decode([token])
        return character == " " or character >= "\u2e80"

    def save(self, folder: Path) -> None:
        content = {"kind": "characters", "characters": self.characters}
        (folder / FILE).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


class PieceTokenizer:
    """SentencePiece pieces (Kudo and Richardson 2018) with byte fallback, so nothing is unknown."""

    def __init__(self, model: bytes):
        self.model = model
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.size = SPECIAL - 1 + self.pieces.get_piece_size()  # piece 0 is SentencePiece's own unknown

    def encode(self, text: str) -> list[int]:
        return [i + SPECIAL - 1 if i else UNKNOWN for i in self.pieces.encode(plain(text))]

    def decode(self, tokens: Sequence[int]) -> str:
        return self.pieces.decode([t - SPECIAL + 1 for t in tokens if t >= SPECIAL])

    def starts_word(self, token: int) -> bool:
        return token >= SPECIAL and self.pieces.id_to_piece(token - SPECIAL + 1).startswith("▁")

    def save(self, folder: Path) -> None:
        (folder / PIECES_FILE).write_bytes(self.model)
        (folder / FILE).write_text(json.dumps({"kind": "pieces"}), encoding="utf-8")


def learn_characters(texts: Iterable[str], minimum_count: int = 1) -> CharacterTokenizer:
    """Every character that occurs at least `minimum_count` times, in code point order."""
    counts = Counter(character for text in texts for character in plain(text))
    return CharacterTokenizer(sorted(c for c, n in counts.items() if n >= minimum_count))


def learn_pieces(texts: Iterable[str], size: int = 500) -> PieceTokenizer:
    """A unigram model of at most `size` pieces; less where the text does not carry so many."""
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([plain(text) for text in texts]),
            model_writer=model,
            vocab_size=size,
            hard_vocab_limit=False,
            byte_fallback=True,
            character_coverage=0.9995,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(f"no SentencePiece model of {size} pieces can be learned from this text ({error})") from error
    return PieceTokenizer(model.getvalue())


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer a bundle carries."""
    content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    if content["kind"] == "characters":
        return CharacterTokenizer(content["characters"])
    return PieceTokenizer((folder / PIECES_FILE).read_bytes())
