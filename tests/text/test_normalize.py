"""The scoring protocol: what counts as the same word."""

import pytest

from glmasr.text.normalize import PROTOCOL, normalize, units


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Mr. Brown’s colour, um, can't be  TWENTY-one!", "en", "mister brown s color can not be 21"),
        ("Please select the word pin.", "en-US", "please select the word pin"),
        ("你好，世界！ＡＢＣ　１２", "zh", "你好 世界 abc 12"),
        ("Don't 佢哋「去」咗。", "yue-HK", "dont 佢哋 去 咗"),
        ("  L'été, déjà?  ", "fr", "l été déjà"),
        ("Hello, World", "", "hello world"),
        ("...", "zh", ""),
    ],
)
def test_normalize(text, language, expected):
    assert normalize(text, language) == expected


def test_normalizing_twice_changes_nothing():
    for text, language in [("Doctor Smith paid $20.", "en"), ("第３章：完。", "zh"), ("Ça va?", "fr")]:
        once = normalize(text, language)
        assert normalize(once, language) == once


def test_units_of_words_and_characters():
    assert units("A red, red rose", "en", "wer") == ["a", "red", "red", "rose"]
    assert units("A red", "en", "cer") == list("ared")
    assert units("我用iPhone 打电话𠮷。", "zh", "wer") == ["我", "用", "iphone", "打", "电", "话", "𠮷"]
    assert units("我 用 OK", "zh", "cer") == ["我", "用", "o", "k"]
    assert units(" ", "en", "wer") == units("", "yue", "cer") == []


def test_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="'mer'"):
        units("a", "en", "mer")


def test_protocol_names_its_version():
    assert PROTOCOL.startswith("glmasr scoring 1")
