"""Utterances in units in, a transcript file in the `trn` form of NIST's sclite out (SCTK, doc/infmts.htm)."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from glmasr.speech import InputError

SPELLED = str.maketrans("(){}/@\\;", "（）｛｝／＠＼；")
"""What sclite reads as syntax (optional words, alternatives, no word, comments) is written in full width."""


def write_trn(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """One line `text (speaker-utterance)` a row of (utterance id, speaker, units apart by spaces), whole or not at all.

    The name of a row depends on that row alone, so reference and hypothesis files of one test set agree. InputError
    where two rows have one utterance id and one speaker. To check with sclite: `sclite -r reference.trn trn
    -h system.trn trn -i spu_id -e utf-8 -s`. It weighs a substitution 4 and the others 3, so that of two
    alignments it may take one with more errors in all: its total is now and then above jiwer's, never below.
    """
    lines: dict[str, str] = {}
    for utterance, speaker, text in rows:
        name = trn_name(utterance, speaker)
        if name in lines:
            raise InputError(f"two utterances are named '{utterance}' (speaker '{speaker}'): make the ids differ")
        lines[name] = " ".join([*text.translate(SPELLED).split(), f"({name})"]) + "\n"
    aside = path.with_name(f".{path.name}")
    aside.write_text("".join(lines.values()), encoding="utf-8")
    os.replace(aside, path)


def trn_name(utterance: str, speaker: str) -> str:
    """`speaker-utterance` as sclite takes it apart, at the first hyphen; it tells no capitals from small letters.

    A name that had to be changed ends in a digest of what it was, which keeps it apart from its likes.
    """
    said = (speaker or "unknown", utterance)
    voice, rest = re.sub("[^a-z0-9_.]", "_", said[0].lower()), re.sub("[^a-z0-9_.-]", "_", utterance.lower())
    digest = "" if said == (voice, rest) else f"_{hashlib.sha256(repr(said).encode()).hexdigest()[:8]}"
    return f"{voice}-{rest}{digest}"
