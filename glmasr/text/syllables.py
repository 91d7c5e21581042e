"""Text in characters or already romanized in, syllables with their tones (Pinyin `hao3`, Jyutping `nei5`) out."""

import functools
import re

from glmasr.speech import InputError
from glmasr.text.characters import HAN, LETTER

UNIT = re.compile(f"{LETTER}+[1-9](?!\\d)|[{HAN}]|[^\\W_{HAN}]+(?:['’]{LETTER}+)*")
"""A syllable with its tone (`nei5hou2` is two), a character left as it is, or a word; punctuation is none of them."""
SYLLABLE = re.compile(f"{LETTER}+[1-9]")
INITIAL = re.compile(r"(?:zh|ch|sh|ng|gw|kw|[bpmfdtnlgkhjqxrzcsyw])(?=[aeiouyvüê])")
"""Initials of Pinyin and of Jyutping, w and y among them; a y behind one begins a final of Jyutping (zyut6)."""


def syllables(text: str, romanize: str | None) -> list[str]:
    """The units of `text`, its characters first turned into "pinyin" or "jyutping" by the library's phrases.

    Latin words, numbers and characters the library does not know stay as units without a tone. InputError where
    `romanize` is none of the two, or None for a text that holds Han characters.
    """
    if romanize == "pinyin":
        text = _pinyin(text)
    elif romanize == "jyutping":
        text = _jyutping(text)
    elif romanize is not None:
        raise InputError(f"romanize={romanize} is unknown: choose pinyin, jyutping, or null for texts in syllables")
    elif re.search(f"[{HAN}]", text):
        raise InputError(
            f"'{text[:30]}' is in characters, not in syllables: add tokenizer.romanize=pinyin for Mandarin or "
            "tokenizer.romanize=jyutping for Cantonese"
        )
    return UNIT.findall(text)


def is_syllable(unit: str) -> bool:
    """True for letters and one tone digit; the tone is what tells a syllable from a word."""
    return SYLLABLE.fullmatch(unit) is not None


def parts(syllable: str) -> list[str]:
    """Initial, and final with tone: `gwong2` → gw, ong2; a syllable that is all final (`aa1`, `m4`, `ng5`) is one."""
    initial = INITIAL.match(syllable)
    return [initial[0], syllable[initial.end() :]] if initial else [syllable]


@functools.lru_cache(maxsize=1 << 15)
def _pinyin(text: str) -> str:
    """Tone digits behind, the neutral tone as 5, ü as v; imported here, as it takes a third of a second."""
    from pypinyin import Style, lazy_pinyin

    read = " ".join(lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True))
    return re.sub(f"([{HAN}])5", r"\1 ", read)  # it gives the neutral tone to characters that it cannot read, too


@functools.lru_cache(maxsize=1 << 15)
def _jyutping(text: str) -> str:
    """Every character's reading set apart by spaces, the rest as it is; imported here, as it takes 1.6 seconds."""
    import ToJyutping

    readings = ToJyutping.get_jyutping_list(text)
    return "".join(character if reading is None else f" {reading} " for character, reading in readings)
