"""Reviews in, HTML pages that need nothing else and JSON out: one for each call, and one for all of them."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from glmasr.serving.review.call import Review
from glmasr.serving.review.rules import SEVERITIES


@dataclass(frozen=True)
class Entry:
    """A reviewed call in the list of all, and where its page is, from there; None where there is no page."""

    review: Review
    page: str | None

    @property
    def missing(self) -> list[str]:
        """Required rules that were not fulfilled in time."""
        return [answer.rule.name for answer in self.review.required if answer.state != "said"]

    @property
    def worst(self) -> int:
        """What calls are put in order by: the severity of the gravest thing in it, 0 for none."""
        broken = [answer.rule for answer in self.review.required if answer.state != "said"]
        return max(
            (SEVERITIES.index(rule.severity) + 1 for rule in (*broken, *(h.rule for h in self.review.sensitive))),
            default=0,
        )


def write_call(review: Review, stem: Path) -> None:
    """`stem`.review.html and .review.json, each whole or not at all."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    _write(stem.with_name(f"{stem.name}.review.html"), _page("call.html.jinja", review=review))
    _write(stem.with_name(f"{stem.name}.review.json"), as_text(review.as_json()))


def write_batch(entries: Sequence[Entry], failed: Sequence[tuple[str, str]], folder: Path) -> None:
    """review.html and review.json in a folder: every call in a line, the gravest first; `failed` are (name, why)."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = sorted(entries, key=lambda entry: (-entry.worst, entry.review.name))
    _write(folder / "review.html", _page("batch.html.jinja", entries=entries, failed=failed))
    calls = [
        {
            "name": entry.review.name,
            "page": entry.page,
            "duration": round(entry.review.transcript.duration_seconds, 3),
            "sensitive": len(entry.review.sensitive),
            "not_said_in_time": entry.missing,
            "worst": (None, *SEVERITIES)[entry.worst],
            "talk": {talk.speaker: talk.share for talk in entry.review.course.talk},
            "summary": entry.review.summary.sentences,
        }
        for entry in entries
    ]
    _write(folder / "review.json", as_text({"calls": calls, "failed": [{"name": n, "why": w} for n, w in failed]}))


def as_text(content: object) -> str:
    """JSON as people read it too."""
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def clock(seconds: float) -> str:
    """75.04 → 1:15.0."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def marked(text: str, phrases: Sequence[str]) -> Markup:
    """A text, escaped, with the first place of each phrase marked; none within another."""
    places: list[tuple[int, int]] = []
    for phrase in sorted(phrases, key=len, reverse=True):
        start = text.find(phrase) if phrase else -1
        if start >= 0 and all(start + len(phrase) <= one or start >= end for one, end in places):
            places.append((start, start + len(phrase)))
    parts, reached = [], 0
    for start, end in sorted(places):
        parts += [escape(text[reached:start]), Markup("<mark>{}</mark>").format(text[start:end])]
        reached = end
    return Markup("").join([*parts, escape(text[reached:])])


@cache
def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters |= {"clock": clock, "marked": marked}
    return templates


def _page(name: str, **content: object) -> str:
    return _templates().get_template(name).render(content)


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
