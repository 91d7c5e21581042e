"""Transcripts and waveforms in, the HTML that shows them out: all that anybody said or named in it is escaped."""

import base64
from html import escape

import numpy as np

from glmasr.speech import RATE_HZ, Transcript
from glmasr.text.subtitles import FORMATS

DOWNLOADS = {"srt": "application/x-subrip", "vtt": "text/vtt", "txt": "text/plain", "json": "application/json"}
"""What is offered beside a transcript, and its media type."""
COLUMNS, HEIGHT = 480, 36
"""Of the picture of a waveform, in the units of its view box; the height is half of one curve's."""
LANGUAGES = {"en": "English", "zh": "中文", "yue": "粵語"}


def shown(name: str, transcript: Transcript, picture: str = "", is_whole: bool = True) -> str:
    """A recording's card: its name, its text with times, and once it is whole the downloads, which are in the page
    itself, so that nothing is left on the server.
    """
    rows = "".join(
        f"<li><time>{_clock(segment.start_seconds)}</time><span>{escape(segment.text)}</span></li>"
        for segment in transcript.segments
        if segment.text
    )
    silence = "<p class='note'>No speech was heard · 没有听到说话声</p>"
    waiting = "<p class='note wait'>Listening … 正在听</p>"
    body = f"<ol class='lines'>{rows}</ol>" if rows else silence if is_whole else waiting
    facts = [f"{transcript.duration_seconds:.1f} s"]
    facts += [LANGUAGES.get(transcript.language, transcript.language)] if transcript.language else []
    links = "".join(_link(name, form, transcript) for form in DOWNLOADS) if is_whole and rows else ""
    return _card(name, " · ".join(facts), f"{body}{picture}" + (f"<nav>{links}</nav>" if links else ""))


def failed(name: str, message: str) -> str:
    """The card of a recording that could not be heard, and why."""
    return _card(name, "", f"<p class='note bad'>{escape(message)}</p>")


def waveforms(before: np.ndarray, after: np.ndarray | None) -> str:
    """The waveform (N) as recorded, and as the gain has it where there is one, drawn at one scale."""
    seconds = f"0 – {len(before) / RATE_HZ:.1f} s"
    curves = [("recorded 原声", "was", before)]
    if after is not None:
        curves.append(("as the voice detector hears it 增益后", "is", after))
    scale = max([float(np.abs(curve).max(initial=0.0)) for *_, curve in curves] + [1e-4])
    drawn = "".join(
        f"<figcaption>{label}</figcaption>"
        f"<svg viewBox='0 {-HEIGHT} {COLUMNS} {2 * HEIGHT}' preserveAspectRatio='none' role='img' aria-label='{label}'>"
        f"<path class='{kind}' d='{_path(curve / scale)}'/></svg>"
        for label, kind, curve in curves
    )
    return f"<figure class='waves'>{drawn}<small>{seconds}</small></figure>"


def _path(waveform: np.ndarray) -> str:
    """The envelope of samples in -1 … 1, a vertical stroke for each column; what is silent stays visible as a line."""
    columns = np.array_split(waveform, min(COLUMNS, max(len(waveform), 1)))
    bounds = [(float(part.min(initial=0.0)), float(part.max(initial=0.0))) for part in columns]
    step = COLUMNS / len(columns)
    return "".join(
        f"M{i * step:.0f} {-HEIGHT * high - 0.4:.1f}V{-HEIGHT * low + 0.4:.1f}" for i, (low, high) in enumerate(bounds)
    )


def _link(name: str, form: str, transcript: Transcript) -> str:
    content = base64.b64encode(FORMATS[form](transcript).encode()).decode()
    stem = name.rpartition(".")[0] or name
    address = f"data:{DOWNLOADS[form]};charset=utf-8;base64,{content}"
    return f"<a download='{escape(stem)}.{form}' href='{address}'>{form.upper()}</a>"


def _card(name: str, facts: str, body: str) -> str:
    return (
        f"<article class='take'><header><h3>{escape(name)}</h3><small>{escape(facts)}</small></header>{body}</article>"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0.0) * 10), 600)
    return f"{minutes}:{rest / 10:04.1f}"
