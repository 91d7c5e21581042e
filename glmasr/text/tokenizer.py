"""Text in, token ids out, and back: characters, pieces, both or syllables, learned from training text only."""

import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import sentencepiece

from glmasr.speech import InputError
from glmasr.text.characters import HAN
from glmasr.text.normalize import base_language
from glmasr.text.syllables import is_syllable, parts, syllables

BLANK, UNKNOWN, BOUNDARY = 0, 1, 2
"""CTC's blank; a character never seen in training; start and end of a sentence for the decoder."""
SPECIAL = 3
FILE = "tokenizer.json"
PIECES_FILE = "tokenizer.model"
STRETCH = re.compile(f"[{HAN}▁]|[^{HAN}▁]+")
"""A Han character, or all up to the next one. SentencePiece writes a space as ▁, so that mark itself stands alone."""
FIRST_LEAD_BYTE = b"\xe3"
"""UTF-8 of U+3000 and above begins with it or a higher one: what is written without spaces."""


def plain(text: str) -> str:
    """What models are taught to write: NFKC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


class Tokenizer(Protocol):
    """Ids 0-2 are blank, unknown and boundary; `decode` skips them, and the tags of languages where there are any."""

    size: int

    def encode(self, text: str, language: str = "") -> list[int]:
        """Ids of a text; before them the tag of its language, where the vocabulary has one."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of any ids in range, also of what no `encode` would give."""
        ...

    def language_of(self, tokens: Sequence[int]) -> str:
        """The language whose tag comes first among the ids; "" where there is none."""
        ...

    def reference(self, text: str) -> str:
        """A reference in what `decode` writes, to be compared with it: the text itself, or its syllables."""
        ...

    def starts_word(self, token: int) -> bool:
        """Whether a word of the text begins with this id."""
        ...

    def extended(self, texts: Iterable[str], languages: Iterable[str] = ()) -> "Extension":
        """The same with tokens for what these texts have and it has not; with tags for their languages if it has any.

        What it would spell in bytes needs no token, Han characters aside.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write what `open_tokenizer` reads."""
        ...


@dataclass(frozen=True)
class Extension:
    """A tokenizer that goes on from another: its token i was `origins[i]` there, or is new (-1)."""

    tokenizer: Tokenizer
    origins: tuple[int, ...]

    @property
    def added(self) -> int:
        """How many tokens are new."""
        return self.origins.count(-1)


class CharacterTokenizer:
    """One token per character, the space among them; Chinese characters count as words."""

    def __init__(self, characters: Sequence[str]):
        self.characters = list(characters)
        self.ids = {character: i + SPECIAL for i, character in enumerate(self.characters)}
        self.size = SPECIAL + len(self.characters)

    def encode(self, text: str, language: str = "") -> list[int]:
        return [self.ids.get(character, UNKNOWN) for character in plain(text)]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.characters[t - SPECIAL] for t in tokens if t >= SPECIAL)

    def language_of(self, tokens: Sequence[int]) -> str:
        return ""

    def reference(self, text: str) -> str:
        return text

    def starts_word(self, token: int) -> bool:
        """True for what stands alone: the space and every ideograph."""
        character = self.decode([token])
        return character == " " or character >= "\u2e80"

    def extended(self, texts: Iterable[str], languages: Iterable[str] = ()) -> Extension:
        new = unseen((character for text in texts for character in plain(text)), self.ids)
        return Extension(CharacterTokenizer([*self.characters, *new]), (*range(self.size), *[-1] * len(new)))

    def save(self, folder: Path) -> None:
        content = {"kind": "characters", "characters": self.characters}
        (folder / FILE).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


class PieceTokenizer:
    """SentencePiece pieces (Kudo and Richardson 2018) with byte fallback, so nothing is unknown."""

    def __init__(self, model: bytes):
        self.model = model
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.size = SPECIAL - 1 + self.pieces.get_piece_size()  # piece 0 is SentencePiece's own unknown

    def encode(self, text: str, language: str = "") -> list[int]:
        return [i + SPECIAL - 1 if i else UNKNOWN for i in self.pieces.encode(plain(text))]

    def decode(self, tokens: Sequence[int]) -> str:
        return self.pieces.decode([t - SPECIAL + 1 for t in tokens if t >= SPECIAL])

    def language_of(self, tokens: Sequence[int]) -> str:
        return ""

    def reference(self, text: str) -> str:
        return text

    def starts_word(self, token: int) -> bool:
        return token >= SPECIAL and self.pieces.id_to_piece(token - SPECIAL + 1).startswith("▁")

    def extended(self, texts: Iterable[str], languages: Iterable[str] = ()) -> Extension:
        return Extension(self, tuple(range(self.size)))

    def save(self, folder: Path) -> None:
        (folder / PIECES_FILE).write_bytes(self.model)
        (folder / FILE).write_text(json.dumps({"kind": "pieces"}), encoding="utf-8")


class MixedTokenizer:
    """Tags, the 256 bytes, Han characters and pieces of all else in one vocabulary; nothing is unknown.

    A character no token has is spelled in its UTF-8 bytes. A space is part of the piece behind it, and only a text
    that begins with a Han character begins without one. Control characters are no text: they come back as U+FFFD.
    """

    def __init__(self, languages: Sequence[str], characters: Sequence[str], model: bytes | None):
        self.languages, self.characters, self.model = list(languages), list(characters), model
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model) if model else None
        count = self.pieces.get_piece_size() if self.pieces else 0
        # piece 0 is SentencePiece's own unknown
        pieces = [self.pieces.id_to_piece(i).replace("▁", " ") for i in range(1, count)] if self.pieces else []
        self.tags = {language: i for i, language in enumerate(self.languages, SPECIAL)}
        self.first_byte = SPECIAL + len(self.languages)
        self.ids = {unit: i for i, unit in enumerate([*self.characters, *pieces], self.first_byte + 256)}
        self.first_piece = self.first_byte + 256 + len(self.characters)
        units = [*(bytes([value]) for value in range(256)), *(unit.encode() for unit in self.ids)]
        self.spelling = [b""] * self.first_byte + units
        self.size = len(self.spelling)

    def encode(self, text: str, language: str = "") -> list[int]:
        tag = self.tags.get(base_language(language))
        tokens = [] if tag is None else [tag]
        for unit in self._units(spaced(plain(text))):
            known = self.ids.get(unit)
            tokens += [self.first_byte + value for value in unit.encode()] if known is None else [known]
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        text = b"".join(self.spelling[token] for token in tokens).decode(errors="replace").removeprefix(" ")
        return "".join("\ufffd" if unicodedata.category(character) == "Cc" else character for character in text)

    def language_of(self, tokens: Sequence[int]) -> str:
        return next((self.languages[t - SPECIAL] for t in tokens if SPECIAL <= t < self.first_byte), "")

    def reference(self, text: str) -> str:
        return text

    def starts_word(self, token: int) -> bool:
        """True for a space, a piece that begins with one, a Han character, and the first byte of one spelled."""
        start = self.spelling[token][:1]
        return start == b" " or (token < self.first_piece and start >= FIRST_LEAD_BYTE)

    def extended(self, texts: Iterable[str], languages: Iterable[str] = ()) -> Extension:
        tags = unseen(named(languages), self.tags) if self.tags else []
        new = unseen((one for text in texts for one in re.findall(f"[{HAN}]", plain(text))), self.ids)
        tokenizer = MixedTokenizer([*self.languages, *tags], [*self.characters, *new], self.model)
        below, behind = range(self.first_byte), range(self.first_piece, self.size)
        known = range(self.first_byte, self.first_piece)
        return Extension(tokenizer, (*below, *[-1] * len(tags), *known, *[-1] * len(new), *behind))

    def save(self, folder: Path) -> None:
        content = {"kind": "mixed", "languages": self.languages, "characters": "".join(self.characters)}
        content["pieces"] = self.model is not None
        (folder / FILE).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
        if self.model:
            (folder / PIECES_FILE).write_bytes(self.model)

    def _units(self, text: str) -> Iterator[str]:
        """Han characters, pieces, and stretches of which no piece is known."""
        for stretch in STRETCH.findall(text):
            if self.pieces and stretch != "▁" and not is_han(stretch):
                yield from (piece.replace("▁", " ") for piece in self.pieces.encode(stretch, out_type=str))
            else:
                yield stretch


class SyllableTokenizer:
    """One token per syllable with its tone, or two (`in_parts`: initial, final with tone); a letter each for words.

    What begins either is kept with a space before it. `romanize` is "pinyin", "jyutping" or None, as in `syllables`.
    `languages` have a tag each, as in `MixedTokenizer`.
    """

    def __init__(self, units: Sequence[str], romanize: str | None, in_parts: bool, languages: Sequence[str] = ()):
        self.units, self.romanize, self.in_parts = list(units), romanize, in_parts
        self.languages = list(languages)
        self.first_unit = SPECIAL + len(self.languages)
        self.tags = {language: i for i, language in enumerate(self.languages, SPECIAL)}
        self.ids = {unit: i for i, unit in enumerate(self.units, self.first_unit)}
        self.size = self.first_unit + len(self.units)

    def encode(self, text: str, language: str = "") -> list[int]:
        tag = self.tags.get(base_language(language))
        tokens = [self.ids.get(unit, UNKNOWN) for unit in spelled(text, self.romanize, self.in_parts)]
        return tokens if tag is None else [tag, *tokens]

    def decode(self, tokens: Sequence[int]) -> str:
        spoken = (token - self.first_unit for token in tokens if token >= self.first_unit)
        return "".join(self.units[i] for i in spoken).removeprefix(" ")

    def language_of(self, tokens: Sequence[int]) -> str:
        return next((self.languages[t - SPECIAL] for t in tokens if SPECIAL <= t < self.first_unit), "")

    def reference(self, text: str) -> str:
        """Its syllables and words, also those never seen in training: not to know one is an error."""
        return " ".join(syllables(plain(text), self.romanize))

    def starts_word(self, token: int) -> bool:
        return token >= self.first_unit and self.units[token - self.first_unit].startswith(" ")

    def extended(self, texts: Iterable[str], languages: Iterable[str] = ()) -> Extension:
        tags = unseen(named(languages), self.tags) if self.tags else []
        new = unseen((one for text in texts for one in spelled(text, self.romanize, self.in_parts)), self.ids)
        tokenizer = SyllableTokenizer([*self.units, *new], self.romanize, self.in_parts, [*self.languages, *tags])
        below, known = range(self.first_unit), range(self.first_unit, self.size)
        return Extension(tokenizer, (*below, *[-1] * len(tags), *known, *[-1] * len(new)))

    def save(self, folder: Path) -> None:
        content = {"kind": "syllables", "romanize": self.romanize, "parts": self.in_parts, "units": self.units}
        content |= {"languages": self.languages} if self.languages else {}
        (folder / FILE).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def is_han(stretch: str) -> bool:
    """Whether the first character is a Han character."""
    return re.match(f"[{HAN}]", stretch) is not None


def spaced(text: str) -> str:
    """A space before a text whose first word is written with spaces, so that it is as any other word."""
    return text if not text or is_han(text) else f" {text}"


def spelled(text: str, romanize: str | None, in_parts: bool) -> list[str]:
    """The syllables of a text, or their parts, and the letters of its words; a space marks what begins either."""
    units = []
    for unit in syllables(plain(text), romanize):
        first, *rest = (parts(unit) if in_parts else [unit]) if is_syllable(unit) else unit
        units += [f" {first}", *rest]
    return units


def learn_characters(texts: Iterable[str], minimum_count: int = 1, languages: Iterable[str] = ()) -> CharacterTokenizer:
    """Every character that occurs at least `minimum_count` times, in code point order; whatever the languages."""
    return CharacterTokenizer(frequent((character for text in texts for character in plain(text)), minimum_count))


def learn_pieces(texts: Iterable[str], size: int = 500, languages: Iterable[str] = ()) -> PieceTokenizer:
    """A unigram model of at most `size` pieces, whatever the languages; less where the text does not carry so many.

    InputError where the size does not even hold the text's characters.
    """
    try:
        model = unigram([plain(text) for text in texts], size, byte_fallback=True)
    except RuntimeError as error:
        raise InputError(too_few_pieces(size, error)) from error
    return PieceTokenizer(model)


def learn_mixed(
    texts: Iterable[str], size: int, minimum_count: int, tags: bool, languages: Iterable[str] = ()
) -> MixedTokenizer:
    """Han characters that occur at least `minimum_count` times, and at most `size` pieces of all that is not Han.

    The size gives way where it does not hold the letters. `languages` get a tag each, if `tags`; "" gets none.
    """
    texts = [spaced(plain(text)) for text in texts]
    characters = frequent((one for text in texts for one in re.findall(f"[{HAN}]", text)), minimum_count)
    others = [stretch for text in texts for stretch in re.findall(f"[^{HAN}▁]+", text)]
    letters = len({letter for stretch in others for letter in stretch})
    as_it_is = {"normalization_rule_name": "identity", "add_dummy_prefix": False, "remove_extra_whitespaces": False}
    # Beside the letters it asks for its unknown piece.
    model = unigram(others, max(size, letters + 1), **as_it_is) if others else None
    return MixedTokenizer(named(languages) if tags else [], characters, model)


def learn_syllables(
    texts: Iterable[str],
    romanize: str | None,
    parts: bool,
    minimum_count: int,
    tags: bool = False,
    languages: Iterable[str] = (),
) -> SyllableTokenizer:
    """Every syllable, or part of one, that occurs at least `minimum_count` times; if `tags`, one for each language."""
    units = frequent((unit for text in texts for unit in spelled(text, romanize, parts)), minimum_count)
    return SyllableTokenizer(units, romanize, parts, named(languages) if tags else ())


def named(languages: Iterable[str]) -> list[str]:
    """The base of each language tag, once, in order."""
    return sorted({base_language(language) for language in languages} - {""})


def unseen(units: Iterable[str], known: Container[str]) -> list[str]:
    """What is not known, once, in code point order."""
    return sorted({unit for unit in units if unit not in known})


def frequent(units: Iterable[str], minimum_count: int) -> list[str]:
    """What occurs at least `minimum_count` times, in code point order."""
    return sorted(unit for unit, count in Counter(units).items() if count >= minimum_count)


def unigram(texts: Iterable[str], size: int, **options) -> bytes:
    """A SentencePiece model without sentence marks; RuntimeError where the text does not fit."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=size,
        hard_vocab_limit=False,
        bos_id=-1,
        eos_id=-1,
        character_coverage=0.9995,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def too_few_pieces(size: int, error: RuntimeError) -> str:
    """What SentencePiece's complaint means, and how many pieces would do where it says so."""
    needed = re.search(rf"{size} vs (\d+)", str(error))
    if needed is None:
        return f"no SentencePiece model of {size} pieces can be learned from this text ({error})"
    return (
        f"{size} pieces do not hold the characters of this text: set tokenizer.size to {needed[1]} or more, or take "
        "tokenizer=mixed (made for Chinese) or tokenizer=characters"
    )


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer a bundle carries; ValueError for a kind of a later version."""
    content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    kind = content["kind"]
    if kind == "characters":
        return CharacterTokenizer(content["characters"])
    if kind == "syllables":
        return SyllableTokenizer(content["units"], content["romanize"], content["parts"], content.get("languages", ()))
    if kind == "pieces":
        return PieceTokenizer((folder / PIECES_FILE).read_bytes())
    if kind == "mixed":
        model = (folder / PIECES_FILE).read_bytes() if content["pieces"] else None
        return MixedTokenizer(content["languages"], content["characters"], model)
    raise ValueError(f"its tokenizer is of a kind '{kind}' that this version does not know")
