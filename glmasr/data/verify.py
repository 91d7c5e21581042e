"""A recording in; UnreadableAudio, with the cause in a few words to count by, where it is not what it says it is."""

import io
import os
import struct
from dataclasses import replace

from glmasr.data.catalog import Skipped
from glmasr.frontend.audio import AudioInfo, UnreadableAudio

RATES_HZ = (4_000, 192_000)
"""What recordings of speech can be: anything else is a damaged header."""

MOST_CHANNELS = 64

STREAMED = (0, 0xFFFFFFFF)
"""Sizes that a program which writes WAV into a pipe leaves in its header: they promise nothing."""

OGG_PAGE_BYTES = 65_307
"""The longest page there is (RFC 3533)."""


def check_header(info: AudioInfo, name: str) -> None:
    """UnreadableAudio where a header that can be read says what no recording is."""
    if info.channels > MOST_CHANNELS:
        message = f"'{name}' claims {info.channels} channels; its header is damaged, encode it again or remove it"
        raise UnreadableAudio(message, f"more than {MOST_CHANNELS} channels")
    if not RATES_HZ[0] <= info.rate_hz <= RATES_HZ[1]:
        message = f"'{name}' claims {info.rate_hz:,} Hz; its header is damaged, encode it again or remove it"
        raise UnreadableAudio(message, "impossible sample rate")


def check_whole(audio: str | bytes, name: str) -> None:
    """UnreadableAudio where a WAV is shorter than its header says, or an Ogg ends in the middle of a page.

    Decoders read both without complaint. FLAC and MP3 show it when they are decoded.
    """
    if _ends_early(audio):
        raise UnreadableAudio(f"'{name}' ends in the middle; fetch it again", "truncated")


def name_cause(skipped: Skipped) -> Skipped:
    """What a reader could not open, with the cause named where the first bytes tell: a web page, or half a file."""
    if skipped.cause not in ("not audio", "no samples", "damaged") or not os.path.isfile(skipped.name):
        return skipped
    with open(skipped.name, "rb") as file:
        head = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return replace(skipped, cause="a web page", detail=f"'{skipped.name}' is HTML, not audio; fetch it again")
    return replace(skipped, cause="truncated") if _ends_early(skipped.name) else skipped


def _ends_early(audio: str | bytes) -> bool:
    with io.BytesIO(audio) if isinstance(audio, bytes) else open(audio, "rb") as file:
        head = file.read(12)
        size = file.seek(0, os.SEEK_END)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            return _wave_ends_early(file, size)
        return head[:4] == b"OggS" and _ogg_ends_early(file, size)


def _wave_ends_early(file, size: int) -> bool:
    place = 12
    while place + 8 <= size:
        file.seek(place)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind == b"data" and length in STREAMED:
            return False
        place += 8 + length
        if kind == b"data" or place > size:
            return place > size
        place += length % 2
    return True


def _ogg_ends_early(file, size: int) -> bool:
    file.seek(max(0, size - OGG_PAGE_BYTES))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page.startswith(b"OggS"):
        return True
    lengths = page[27 : 27 + page[26]]
    return len(lengths) < page[26] or len(page) != 27 + len(lengths) + sum(lengths)  # zeros behind it: a hole
