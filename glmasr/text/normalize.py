"""What a person or a system wrote in, what is compared out: the protocol behind every error rate of the house."""

import functools
import re
import unicodedata
from collections.abc import Callable

PROTOCOL = (
    "glmasr scoring 1: English = Whisper's EnglishTextNormalizer; Chinese and Cantonese = NFKC, lower case, "
    "punctuation removed, script and numerals as written, every Han character a word; other languages = Whisper's "
    "BasicTextNormalizer; CER counts characters without spaces"
)
"""Printed in every report: a rate means nothing without the rules that made its words comparable."""

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
"""Han characters as the inside of a regular-expression class."""

CHINESE = ("zh", "yue", "cmn")


def base_language(language: str) -> str:
    """`en-US` → `en`: what the protocol looks at in a language tag."""
    return re.split("[-_]", language.strip().lower())[0]


@functools.lru_cache(maxsize=1 << 15)
def normalize(text: str, language: str) -> str:
    """`text` as the protocol compares it, words apart by single spaces; the same text twice is not computed twice."""
    return " ".join(_normalizer(base_language(language))(text).split())


def units(text: str, language: str, metric: str) -> list[str]:
    """What is counted in `text` after normalising it: words for "wer", characters without spaces for "cer"."""
    normalized = normalize(text, language)
    if metric == "cer":
        return [character for character in normalized if not character.isspace()]
    if metric != "wer":
        raise ValueError(f"metric must be 'wer' or 'cer', not '{metric}'")
    if base_language(language) in CHINESE:
        return re.findall(f"[{HAN}]|[^\\s{HAN}]+", normalized)
    return normalized.split()


@functools.cache
def _normalizer(language: str) -> Callable[[str], str]:
    if language in CHINESE:
        return _chinese
    from whisper_normalizer import basic, english  # imported here: its word tables take a while to load

    return english.EnglishTextNormalizer() if language == "en" else basic.BasicTextNormalizer()


def _chinese(text: str) -> str:
    """Apostrophes vanish (don't = dont), every other mark and symbol becomes a space."""
    text = re.sub("['’‘]", "", unicodedata.normalize("NFKC", text).lower())
    return "".join(" " if unicodedata.category(character)[0] in "PSZC" else character for character in text)
