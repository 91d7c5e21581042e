"""What a person or a system wrote in, what is compared out: the protocol behind every error rate of the house.

From version 1 to 2 English and the other alphabetic languages did not change by a letter. Chinese did: version 1
compared script and numerals as written and kept hesitations; version 2 folds the scripts, spells digits and removes
hesitations, and adds the metrics "mer" and "ser". Rates of Chinese under 1 and 2 are not comparable. Version 3 changes
"ser" alone: under a Chinese tag Han characters are read aloud, so that a system which writes them can be compared with
references in syllables.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence

from glmasr.text.characters import HAN, LETTER
from glmasr.text.syllables import syllables

PROTOCOL = (
    "glmasr scoring 3: English = Whisper's EnglishTextNormalizer; other languages = Whisper's BasicTextNormalizer; "
    "Chinese (zh, cmn, yue) = NFKC, lower case; script folded character by character by OpenCC hk2s, with 計畫 = 计划 "
    "and 两 = 二, 幺 = 一, 〇 = 零, 著 = 着, 妳 = 你, 牠 = 它, 瞭 = 了, 覆 = 复, 藉 = 借, 沈 = 沉, 鍊 = 链, 甦 = 苏, "
    "彷 = 仿, and written in Simplified (zh, cmn) or in one Hong Kong character for each Simplified one (yue, its own "
    "characters kept); digits that stand alone spelled in characters (years, a leading zero, 7 digits and more that "
    "have no commas and are no round ten thousands: one by one; else as a number; 5% = 百分之五; ° and °C = 度); "
    "hesitations removed (嗯, uh, um, mm, mmm, hmm, mhm; 呃 in zh and cmn only, it is a verb of Cantonese; "
    "啊 呀 喎 額 stay); apostrophes vanish, other punctuation and symbols are spaces. "
    "WER counts words, in Chinese every Han character and every other run of letters and digits; CER characters "
    "without spaces; MER the words of Chinese, under any language tag and after its rules, save the one for 呃; "
    "SER, under any tag, syllables with their tone digit (ü = v, tone 0 = 5); Han characters under zh and cmn in the "
    "Pinyin of pypinyin, under yue in the Jyutping of ToJyutping"
)
"""Printed in every report: a rate means nothing without the rules that made its words comparable."""

CHINESE = ("zh", "yue", "cmn")
METRICS = ("wer", "cer", "mer", "ser")

WORD = re.compile(f"[{HAN}]|[^\\s{HAN}]+")
SYLLABLES = re.compile(f"{LETTER}+[1-9](?![0-9])|{WORD.pattern}")
"""Syllables as they follow each other, `nei5hou2` being two; whatever else stands there as a word."""
ROMANIZED = re.compile(r"(?:[a-zü:]+[0-9][\s'’.,?!-]*)+", re.IGNORECASE)
LATIN_WORD = re.compile(r"[A-Za-zÀ-ɏ]{2}")
OWN_HAN = ("ja", "ko")
"""Languages with Han characters among their own letters: both in a line is no change of language."""

MIXED_SHARE, ROMANIZED_SHARE = 0.01, 0.95
"""Of the references: above which "mer" says something, and from which "ser" does."""

NUMBER = re.compile(
    f"(?<![^\\W_{HAN}])(?P<whole>[0-9]{{1,3}}(?:,[0-9]{{3}})+|[0-9]+)(?P<decimals>(?:\\.[0-9]+)*)(?![^\\W_{HAN}])"
    "(?P<sign>\\s*%|(?=\\s*年))?"
)
"""Digits that are no part of a Latin word (mp3, 4g, nei5), with a percent sign or before the character for year."""
DIGITS = "零一二三四五六七八九"
HESITATION = f"嗯|(?<![^\\W_{HAN}])(?:hmm|mm|mhm|mmm|uh|um)(?![^\\W_{HAN}])"
"""The Latin ones are those that Whisper's English rules remove."""

SAME = {"两": "二", "幺": "一", "〇": "零", "著": "着", "妳": "你", "牠": "它"}
SAME |= {"瞭": "了", "覆": "复", "藉": "借", "沈": "沉", "鍊": "链", "甦": "苏", "彷": "仿"}
"""Beyond OpenCC's characters: digits cannot tell 两 from 二; 著 is 着 of another place; 瞭解 is 了解, 回覆 is 回复."""
HONG_KONG = {"系": "係", "干": "乾", "晒": "晒"}
"""Where Cantonese mostly means another of the traditional characters than OpenCC's first."""


def base_language(language: str) -> str:
    """`en-US` → `en`: what the protocol looks at in a language tag."""
    return re.split("[-_]", language.strip().lower())[0]


@functools.lru_cache(maxsize=1 << 15)
def normalize(text: str, language: str) -> str:
    """`text` as the protocol compares it, words apart by single spaces; the same text twice is not computed twice."""
    return " ".join(_normalizer(base_language(language))(text).split())


def units(text: str, language: str, metric: str) -> list[str]:
    """What is counted in `text` after normalizing it, in order; ValueError for a metric that is none of METRICS.

    "wer": words; "cer": characters without spaces; "mer": Han characters and Latin words, by the same rules under
    every language tag; "ser": romanized syllables with their tone, again under every tag, and under a Chinese one
    the readings of Han characters.
    """
    if metric == "cer":
        return list("".join(normalize(text, language).split()))
    if metric == "mer":
        return WORD.findall(_mixed(text, base_language(language) == "yue"))
    if metric == "ser":
        return SYLLABLES.findall(_romanized(text, base_language(language)))
    if metric != "wer":
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, not '{metric}'")
    normalized = normalize(text, language)
    return WORD.findall(normalized) if base_language(language) in CHINESE else normalized.split()


def metrics_for(language: str, references: Sequence[str]) -> tuple[str, ...]:
    """The metrics that say something about a test set, the one it is known by first.

    References in syllables are known by "ser", Chinese ones by "cer" (with "ser" beside it: what was heard, whatever
    the character), all others by "wer". "mer" where more than one reference in a hundred holds Han characters and a
    Latin word, save in languages that write Han characters themselves.
    """
    count, base = max(len(references), 1), base_language(language)
    mixed = sum(bool(LATIN_WORD.search(text) and re.search(f"[{HAN}]", text)) for text in references)
    romanized = sum(bool(ROMANIZED.fullmatch(text.strip())) for text in references)
    mer = ("mer",) if mixed / count > MIXED_SHARE and base not in OWN_HAN else ()
    if romanized / count >= ROMANIZED_SHARE:
        return ("ser", "wer", "cer", *mer)
    return ("cer", "wer", *mer, "ser") if base in CHINESE else ("wer", "cer", *mer)


@functools.cache
def _normalizer(language: str) -> Callable[[str], str]:
    if language in CHINESE:
        return functools.partial(_chinese, hong_kong=language == "yue", hesitation=_hesitation(language != "yue"))
    from whisper_normalizer import basic, english  # imported here: its word tables take a while to load

    return english.EnglishTextNormalizer() if language == "en" else basic.BasicTextNormalizer()


@functools.lru_cache(maxsize=1 << 15)
def _mixed(text: str, hong_kong: bool) -> str:
    """The rules of Chinese for all of a text; which script it is shown in changes no count."""
    return _chinese(text, hong_kong, _hesitation(mandarin=False))


@functools.lru_cache(maxsize=1 << 15)
def _romanized(text: str, language: str) -> str:
    text = _marks_to_spaces(_plain(text).replace("u:", "v").replace("ü", "v"))
    if language in CHINESE:
        text = re.sub(f"[{HAN}]+", lambda run: f" {_read(run[0], language)} ", text)
    return re.sub(f"(?<={LETTER})0(?![0-9])", "5", text)


def _read(characters: str, language: str) -> str:
    """Their syllables, in the script whose phrases the dictionaries of readings know best."""
    if language == "yue":
        return " ".join(syllables("".join(map(_in_hong_kong, characters)), "jyutping"))
    return " ".join(syllables("".join(map(_simplified, characters)), "pinyin"))


def _chinese(text: str, hong_kong: bool, hesitation: re.Pattern[str]) -> str:
    spelled = _marks_to_spaces(_spell_numbers(_plain(text))).replace("計畫", "计划")
    return hesitation.sub(" ", "".join(map(_in_hong_kong if hong_kong else _simplified, spelled)))


@functools.cache
def _hesitation(mandarin: bool) -> re.Pattern[str]:
    return re.compile(HESITATION + "|呃" * mandarin)


def _plain(text: str) -> str:
    """Full width is half width, capitals are small, apostrophes vanish (don't = dont)."""
    text = re.sub("['’‘]", "", unicodedata.normalize("NFKC", text).lower())
    return unicodedata.normalize("NFKC", text)  # again: a small letter may have a form with its accent in one


def _marks_to_spaces(text: str) -> str:
    return "".join(" " if unicodedata.category(character)[0] in "PSZC" else character for character in text)


def _spell_numbers(text: str) -> str:
    """Digits → the characters they are read as, never the other way.

    Chinese numerals are parts of words (一起, 一些, 万一, 十分, 四川), digits are not: spelling digits touches no word
    and leaves a reference in characters, which is what published test sets hold, counted as its authors count it.
    The price: a number that can be read in two ways (110: 一百一十, 一一零) is compared in one of them. Clock times
    and fractions are read as two numbers; a number that sticks to Latin letters (20kg) stays.
    """
    text = re.sub("°c?", "度", text)
    text = re.sub(f"(?<=[{DIGITS}〇])○+", lambda circles: "零" * len(circles[0]), text)
    return NUMBER.sub(_read_aloud, text)


def _read_aloud(number: re.Match[str]) -> str:
    written, decimals, sign = number["whole"], number["decimals"], number["sign"]
    whole = written.replace(",", "")
    year = sign == "" and re.fullmatch("(?:1[1-9]|20)[0-9]{2}", whole)
    long = len(whole) > 6 and whole == written and not whole.endswith("0000")
    code = (whole[0] == "0" and len(whole) > 1) or len(whole) > 16  # 16: as far as cn2an goes
    said = _one_by_one(whole) if year or long or code else _cardinal(whole)
    said += "".join(f"点{_one_by_one(group)}" for group in decimals.split(".")[1:])
    return f"百分之{said}" if sign else said


def _one_by_one(digits: str) -> str:
    return "".join(DIGITS[int(digit)] for digit in digits)


def _cardinal(digits: str) -> str:
    import cn2an

    return cn2an.an2cn(digits)


@functools.cache
def _converter(config: str) -> Callable[[str], str]:
    from opencc import OpenCC  # imported here, as it reads its dictionaries

    return OpenCC(config).convert


@functools.cache
def _simplified(character: str) -> str:
    """Alone, so that a wrong neighbor cannot change what a character is compared as."""
    if not re.match(f"[{HAN}]", character):
        return character
    convert = _converter("hk2s")
    simple = SAME.get(character) or convert(convert(character))  # 薴 needs two steps
    return SAME.get(simple, simple)


@functools.cache
def _in_hong_kong(character: str) -> str:
    """One of the traditional characters that `_simplified` makes one: zh and yue tell the same characters apart."""
    simple = _simplified(character)
    traditional = HONG_KONG.get(simple) or _converter("s2hk")(simple)
    return traditional if _simplified(traditional) == simple else simple
