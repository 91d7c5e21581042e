"""Classes of characters: what is Han, and what is a letter of another script."""

import re
import unicodedata

from glmasr.text.characters import HAN, LETTER


def test_han_is_every_ideograph_that_has_a_name_and_the_zero():
    named = [c for c in map(chr, range(0x20, 0x32400)) if unicodedata.name(c, "").startswith("CJK UNIFIED IDEOGRAPH")]
    assert len(named) > 90_000 and all(re.fullmatch(f"[{HAN}]", c) for c in named)
    assert re.fullmatch(f"[{HAN}]", "〇")


def test_a_letter_is_neither_han_nor_a_digit_nor_a_mark():
    assert all(re.fullmatch(LETTER, letter) for letter in "aéЯあ한")
    assert not any(re.fullmatch(LETTER, other) for other in "中7_ ,。")
