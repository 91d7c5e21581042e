"""A transcript as it was said in, as people write it out: Chinese script, numbers and dates in digits.

Nothing here restores punctuation.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from glmasr.speech import InputError, Segment, Transcript, Word
from glmasr.text.characters import HAN
from glmasr.text.normalize import CHINESE, base_language

SCRIPTS = ("traditional", "simplified")
NUMERALS = "零〇一二两兩三四五六七八九十百千"
RANGE = "~"
"""WeText makes 三五个 (a few) 3~5个, which nobody said."""


def joined(texts: list[str]) -> str:
    """Texts in a row: a space between them, but none between two that are written without."""
    whole = ""
    for text in texts:
        whole += f"{'' if not whole or (is_wide(whole[-1]) and is_wide(text[:1])) else ' '}{text}"
    return whole


def is_wide(character: str) -> bool:
    """Whether it is as wide as a Han character, and so of a script that is written without spaces."""
    return character != "" and unicodedata.east_asian_width(character) in "WF"


def written(transcript: Transcript, script: str | None = None, numerals: bool = False) -> Transcript:
    """The same in one of SCRIPTS, and with what it counts in digits; words keep their times.

    Numbers are found by WeTextProcessing's grammars of Chinese and English; Chinese dates and times of day keep the
    characters around their digits (3月5号下午3点半). A number of several words becomes one, as sure as the least sure.
    InputError for a script that is none of SCRIPTS.
    """
    if script is not None and script not in SCRIPTS:
        raise InputError(f"script '{script}' is unknown: choose one of {', '.join(SCRIPTS)}")
    if script is None and not numerals:
        return transcript
    segments = transcript.segments
    language = base_language(transcript.language)
    if numerals:
        segments = tuple(_counted(segment, language) for segment in segments)
    if script is not None:
        segments = tuple(_in_script(segment, script, language) for segment in segments)
    return replace(transcript, text=joined([segment.text for segment in segments]), segments=segments)


def _in_script(segment: Segment, script: str, language: str) -> Segment:
    convert = _converter({"simplified": "t2s", "traditional": "s2hk" if language == "yue" else "s2t"}[script])
    text = convert(segment.text)
    if len(text) != len(segment.text):  # a phrase grew or shrank, and no place in it can be trusted
        return replace(segment, text=text, words=tuple(replace(w, text=convert(w.text)) for w in segment.words))
    words, place = [], 0
    for word in segment.words:
        found = segment.text.find(word.text, place)
        place = found if found >= 0 else place
        after = text[place : place + len(word.text)] if found >= 0 else convert(word.text)
        words.append(replace(word, text=after))
        place += len(word.text)
    return replace(segment, text=text, words=tuple(words))


def _counted(segment: Segment, language: str) -> Segment:
    """Stretches of the text replaced, from the last to the first, and the words that they touch made one."""
    text, words = segment.text, list(segment.words)
    places = _places(text, words)
    for start, stop, digits in reversed(_numbers(text, language)):
        text = text[:start] + digits + text[stop:]
        touched = [i for i, (begin, end) in enumerate(places) if begin < stop and end > start]
        if touched:
            first, last = touched[0], touched[-1]
            before, behind = segment.text[places[first][0] : start], segment.text[stop : places[last][1]]
            merged = Word(
                f"{before}{digits}{behind}",
                words[first].start_seconds,
                words[last].end_seconds,
                min(word.confidence for word in words[first : last + 1]),
            )
            words[first : last + 1], places[first : last + 1] = [merged], [places[first]]
    return replace(segment, text=text, words=tuple(words))


def _places(text: str, words: list[Word]) -> list[tuple[int, int]]:
    places, place = [], 0
    for word in words:
        found = text.find(word.text, place)
        start = place if found < 0 else found
        place = start + len(word.text)
        places.append((start, place))
    return places


def _numbers(text: str, language: str) -> list[tuple[int, int, str]]:
    """(start, stop, digits) of all that is a number, in order, by the grammar of the script it is written in."""
    han = f"[{HAN}]+"
    if language in CHINESE or re.search(han, text):
        return [
            (run.start() + start, run.start() + stop, digits)
            for run in re.finditer(han, text)
            for start, stop, digits in _chinese_numbers(run[0])
        ]
    if language not in ("en", ""):
        return []
    found = _normalizer("en").normalize_with_mapping(text).mappings
    return [(m.input_start, m.input_end, m.output_text.replace(" %", "%")) for m in found if m.kind == "replace"]


def _chinese_numbers(text: str) -> list[tuple[int, int, str]]:
    simplified = _converter("t2s")(text).replace("〇", "零")
    if len(simplified) != len(text):
        return []
    found = []
    for mapping in _normalizer("zh").normalize_with_mapping(simplified).mappings:
        start, stop = mapping.input_start, mapping.input_end
        if mapping.kind != "replace" or RANGE in mapping.output_text:
            continue
        if mapping.token_type in ("date", "time"):  # 2026/03/05 and 03:30:00p.m. are not how a sentence is written
            digits = re.sub(f"[{NUMERALS}]+", _counted_up, text[start:stop])
        else:
            digits = mapping.output_text if text == simplified else _converter("s2t")(mapping.output_text)
        found.append((start, stop, digits))
    return found


def _counted_up(number: re.Match[str]) -> str:
    import cn2an  # takes longer than most else that a transcription imports

    said = number[0].replace("兩", "两").replace("〇", "零")
    try:
        digits = str(cn2an.cn2an(said, "smart"))
    except ValueError:
        return number[0]
    return f"0{digits}" if said.startswith("零") and len(said) == 2 else digits


@cache
def _converter(config: str) -> Callable[[str], str]:
    from opencc import OpenCC  # imported here, as it reads its dictionaries

    return OpenCC(config).convert


@cache
def _normalizer(language: str) -> Any:
    from wetext import Normalizer  # imported here, as few ask for it

    return Normalizer(lang=language, operator="itn")
