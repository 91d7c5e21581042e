"""A transcript in, the answer of OpenAI's API in one of its formats out."""

import json
import math
import zlib
from collections.abc import Collection

from starlette.responses import JSONResponse, PlainTextResponse, Response

from glmasr.speech import Segment, Transcript
from glmasr.text.normalize import base_language
from glmasr.text.subtitles import write_srt, write_vtt

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
NAMES = {"en": "english", "zh": "chinese", "yue": "cantonese"}
"""Languages as OpenAI calls them; others keep their tags."""


def answer(transcript: Transcript, form: str = "json", granularities: Collection[str] = ()) -> Response:
    """The response in one of FORMATS; `granularities` ("segment", "word") are verbose_json's, segments by default."""
    if form == "text":
        return PlainTextResponse(f"{transcript.text}\n")
    if form == "srt":
        return PlainTextResponse(write_srt(transcript))
    if form == "vtt":
        return Response(write_vtt(transcript), media_type="text/vtt; charset=utf-8")
    if form == "json":
        return JSONResponse({"text": transcript.text, "usage": _usage(transcript)})
    return JSONResponse(verbose(transcript, granularities or ("segment",)))


def verbose(transcript: Transcript, granularities: Collection[str]) -> dict:
    """OpenAI's verbose_json. What this project does not know (`seek`, `no_speech_prob`) is 0, `tokens` are empty."""
    content = {
        "task": "transcribe",
        "language": NAMES.get(base_language(transcript.language), transcript.language),
        "duration": round(transcript.duration_seconds, 3),
        "text": transcript.text,
        "usage": _usage(transcript),
    }
    if "segment" in granularities:
        content["segments"] = [_segment(number, segment) for number, segment in enumerate(transcript.segments)]
    if "word" in granularities:
        words = [word for segment in transcript.segments for word in segment.words]
        content["words"] = [
            {"word": word.text, "start": round(word.start_seconds, 3), "end": round(word.end_seconds, 3)}
            for word in words
        ]
    return content


def event(content: dict) -> str:
    """One server-sent event; JSON on one line, so that no text can end it."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def delta(text: str) -> str:
    """The event that says what was heard since the last."""
    return event({"type": "transcript.text.delta", "delta": text})


def done(transcript: Transcript) -> str:
    """The event with the whole text, which ends the stream."""
    return event({"type": "transcript.text.done", "text": transcript.text, "usage": _usage(transcript)})


def _usage(transcript: Transcript) -> dict:
    return {"type": "duration", "seconds": round(transcript.duration_seconds, 3)}


def _segment(number: int, segment: Segment) -> dict:
    """`avg_logprob` is the mean over the words of the logarithm of their confidence."""
    logs = [math.log(max(word.confidence, 1e-6)) for word in segment.words]
    text = segment.text.encode()
    return {
        "id": number,
        "seek": 0,
        "start": round(segment.start_seconds, 3),
        "end": round(segment.end_seconds, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(sum(logs) / len(logs), 4) if logs else 0.0,
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 3),
        "no_speech_prob": 0.0,
        **({"speaker": segment.speaker} if segment.speaker else {}),
    }
