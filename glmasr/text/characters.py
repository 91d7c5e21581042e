"""Classes of characters, for regular expressions."""

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
"""Han characters as the inside of a class."""

LETTER = f"[^\\W\\d_{HAN}]"
"""A letter of any other script."""
