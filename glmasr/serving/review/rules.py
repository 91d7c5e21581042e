"""A rule file (YAML) in; what to look for in calls out, each mistake in it one sentence."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from glmasr.serving.review.words import units_in
from glmasr.speech import InputError

MATCHES = ("exact", "sound", "accent", "fuzzy")
"""How a phrase may be found, the surest first: word for word; by the same syllables, whatever their tones; by syllables
that speakers of many regions do not tell apart (zh and z, n and l); by letters that are nearly all the same."""
SEVERITIES = ("low", "medium", "high")
RULES_BYTES = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """Phrases that stand for one thing. `speaker` says whose words count, None: everybody's.

    A required one is fulfilled by any of its phrases, said before `by_seconds`, None: anywhere.
    """

    name: str
    phrases: tuple[str, ...]
    match: tuple[str, ...] = ("exact",)
    least_score: float = 0.85
    speaker: str | None = None
    severity: str = "medium"
    by_seconds: float | None = None

    def __post_init__(self):
        unknown = [one for one in self.match if one not in MATCHES]
        if unknown or not self.match:
            raise InputError(f"match {', '.join(unknown) or '[]'} is unknown: choose among {', '.join(MATCHES)}")
        if self.severity not in SEVERITIES:
            raise InputError(f"severity '{self.severity}' is unknown: choose one of {', '.join(SEVERITIES)}")
        if not self.phrases:
            raise InputError("it has no phrase: write phrases: [one, another]")
        if not 0.5 <= self.least_score <= 1:
            raise InputError(f"least_score={self.least_score:g} is no share of letters: choose 0.5 to 1, say 0.85")
        if self.by_seconds is not None and not self.by_seconds > 0:
            raise InputError(f"by_seconds={self.by_seconds:g} is no deadline: choose more than 0, or leave it out")


@dataclass(frozen=True)
class Llm:
    """A chat endpoint as OpenAI's, at `url`, which the words of a call are sent to; its key is in an environment
    variable, if it asks for one. `prompt` says what is wanted of the call."""

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    timeout_seconds: float = 30.0
    prompt: str = "Summarize this call in at most three sentences, in its own language, and say what was agreed."

    def __post_init__(self):
        if not self.url.startswith(("http://", "https://")):
            raise InputError(f"llm.url '{self.url}' is no web address: write http://… or https://…/v1/chat/completions")
        if not self.timeout_seconds > 0:
            raise InputError(f"llm.timeout_seconds={self.timeout_seconds:g} waits for nothing: choose more than 0")


@dataclass(frozen=True)
class Rules:
    """What calls are reviewed for. `speakers` names the channels in their order, `language` what is spoken where the
    transcript does not say. Silences from `silence_seconds` on are listed, of all speakers together; overlaps from
    `overlap_seconds` on; words less than `pause_seconds` apart are one turn. `context_words` stand beside each hit.
    """

    sensitive: tuple[Rule, ...] = ()
    required: tuple[Rule, ...] = ()
    speakers: tuple[str, ...] = ()
    language: str = ""
    silence_seconds: float = 3.0
    overlap_seconds: float = 0.3
    pause_seconds: float = 0.6
    context_words: int = 8
    summary_sentences: int = 3
    llm: Llm | None = None


def read_rules(path: str | Path) -> Rules:
    """The rules of a YAML file; InputError where it is none, or a rule in it cannot be used."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(RULES_BYTES + 1)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}): give a YAML file with rules") from error
    if len(text) > RULES_BYTES:
        raise InputError(f"'{path}' is larger than {RULES_BYTES >> 20} MB: rules are a short YAML file")
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise InputError(f"'{path}' is no YAML ({reason}{_line_of(error)}): correct it there") from error
    try:
        return rules_of(found)
    except InputError as error:
        raise InputError(f"'{path}': {error}") from error


def rules_of(found: Any) -> Rules:
    """Rules from what YAML gives; InputError for a name that is none, or a value of another kind."""
    settings = _mapping(found, "the file")
    rules = {
        kind: tuple(_rule(one, kind, number) for number, one in enumerate(_list(settings.get(kind), kind), 1))
        for kind in ("sensitive", "required")
    }
    llm = _made(Llm, _mapping(settings["llm"], "llm"), "llm") if settings.get("llm") is not None else None
    made = _made(Rules, {**settings, **rules, "llm": llm}, "the file")
    _check_names([rule.name for rule in (*made.sensitive, *made.required)])
    silent = [phrase for rule in (*made.sensitive, *made.required) for phrase in rule.phrases]
    silent = [phrase for phrase in silent if not units_in(phrase, made.language)]
    if silent:
        raise InputError(f"phrase '{silent[0]}' holds no word that would be compared: write it in words")
    wanted = {rule.speaker for rule in (*made.sensitive, *made.required)} - {None, *made.speakers}
    if wanted:
        raise InputError(
            f"speaker '{min(map(str, wanted))}' is nobody's name: name the channels, say speakers: [agent, customer]"
        )
    return made


def _rule(found: Any, kind: str, number: int) -> Rule:
    settings = _mapping(found, f"{kind} rule {number}")
    where = f"{kind} rule '{settings.get('name', number)}'"
    if kind == "sensitive" and settings.get("by_seconds") is not None:
        raise InputError(f"{where}: only a required rule has by_seconds")
    for name in ("phrases", "match"):
        if isinstance(settings.get(name), str):
            settings[name] = [settings[name]]
    try:
        return _made(Rule, settings, where)
    except InputError as error:
        message = str(error)
        raise InputError(message if message.startswith(where) else f"{where}: {message}") from error


def _made(target: type[T], settings: Mapping[str, Any], where: str) -> T:
    """The dataclass of settings, each of the type that its field has."""
    known = {field.name: field for field in fields(target)}  # type: ignore[arg-type]
    for name in settings:
        if name not in known:
            raise InputError(f"{where} has '{name}', which is none of {', '.join(known)}")
    missing = [name for name in ("name", "phrases", "url", "model") if name in known and name not in settings]
    if missing:
        raise InputError(f"{where} has no {missing[0]}: add it")
    return target(**{name: _typed(value, known[name].type, f"{where}: {name}") for name, value in settings.items()})


def _typed(value: Any, kind: Any, where: str) -> Any:
    """A value as its field asks for it; InputError where it is of another type."""
    if value is None and kind in (str | None, float | None):
        return None
    if kind == tuple[str, ...]:
        texts = _list(value, where)
        if not all(isinstance(one, str) for one in texts):
            raise InputError(f"{where} is a list of texts: put numbers and yes or no in quotes")
        return tuple(texts)
    if kind in (int, float, float | None):
        whole = kind is not int or isinstance(value, int)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9 or not whole:
            raise InputError(f"{where} is a {'whole ' if kind is int else ''}number from 0 on, not {_shown(value)}")
        return value
    if kind in (str, str | None) and not isinstance(value, str):
        raise InputError(f"{where} is a text, not {_shown(value)}: put it in quotes")
    return value


def _shown(value: Any) -> str:
    """Never what holds others: aliases in YAML can make a line of it as long as memory is."""
    return f"'{value}'" if isinstance(value, str | int | float | bool) else "a list or a block"


def _mapping(found: Any, where: str) -> dict[str, Any]:
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise InputError(f"{where} is no list of 'name: value' lines: see conf/review/ for examples")
    return dict(found)


def _list(found: Any, where: str) -> list[Any]:
    if found is None:
        return []
    if not isinstance(found, list | tuple):
        raise InputError(f"{where} is no list: begin each entry on a line of its own with '- '")
    return list(found)


def _check_names(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two rules are named '{twice[0]}': give each its own name")


def _line_of(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" in line {mark.line + 1}" if mark is not None else ""
