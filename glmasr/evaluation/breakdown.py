"""Runs in; where errors come from out: durations, speakers, languages, what is taken for what, what is made up."""

import bisect
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from glmasr.evaluation.benchmark import Heard, Outcome, Run
from glmasr.text.errors import ErrorCounts, align, tone_errors
from glmasr.text.normalize import CHINESE, base_language, units
from glmasr.text.syllables import is_syllable, syllables

Row = dict[str, Any]

EDGES_SECONDS = (1, 2, 5, 10, 20)
CLAIM = 0.85
"""GLM-ASR-Nano's published accuracy at 10 dB SNR is "above" this."""
CLAIM_SNR_DB = 10
ROMANIZATION = {"zh": "pinyin", "cmn": "pinyin", "yue": "jyutping"}


def places(runs: Iterable[Run]) -> dict[tuple[str, str], list[Run]]:
    """Runs by (test set, condition), in their order."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.test_set, run.condition), []).append(run)
    return found


def groups(outcome: Outcome) -> Iterator[Row]:
    """A row for each duration, speaker and language of a test set under its first condition, with every system's rate.

    Kinds with one group only say nothing and are left out.
    """
    kinds: dict[str, Callable[[Heard], Any]] = {"duration": _stretch, "speaker": _speaker, "language": _language}
    seen = set()
    for (test_set, condition), runs in places(outcome.runs).items():
        if test_set in seen or runs[0].is_silent:
            continue
        seen.add(test_set)
        metric = runs[0].metrics[0]
        for kind, key in kinds.items():
            members: dict[Any, list[int]] = {}
            for i, heard in enumerate(runs[0].heard):
                members.setdefault(key(heard), []).append(i)
            for name in sorted(members) if len(members) > 1 else ():
                sums = {run.system: _total(run, metric, members[name]) for run in runs}
                yield {
                    **{"test_set": test_set, "condition": condition, "metric": metric, "by": kind},
                    "group": name[1] if kind == "duration" else name or "unknown",
                    "utterances": len(members[name]),
                    "words": next(iter(sums.values())).words,
                    "rates": {system: one.rate for system, one in sums.items()},
                }


def confusions(run: Run, number: int = 10) -> list[Row]:
    """The units most often taken for others, with how often; `kind` says what the two share."""
    language = base_language(run.heard[0].language)
    found = Counter((said, heard) for operation, said, heard in _steps(run) if operation == "substitute")
    return [
        {"said": said, "heard": heard, "count": count, "kind": likeness(said, heard, language)}
        for (said, heard), count in found.most_common(number)
    ]


def tones(run: Run) -> Row | None:
    """Tones misheard where the rest of the syllable was heard right, and the most frequent pairs of them.

    Of romanized text as `tone_errors` counts them, of Chinese characters by their readings (`homophones` are then
    other characters of one sound and tone); None in other languages.
    """
    language = base_language(run.heard[0].language)
    romanized = run.metrics[0] == "ser"
    if not romanized and language not in CHINESE:
        return None
    steps = list(_steps(run, "ser" if romanized else "cer"))
    found: Row = {"errors": sum(operation != "equal" for operation, _, _ in steps)}
    if romanized:
        pairs = Counter(pair for heard in run.heard for pair in _misheard_tones(heard))
        counts = [tone_errors(h.reference, h.hypothesis, h.language) for h in run.heard]
        misheard, compared = (sum(column) for column in zip(*counts, strict=True))
        found |= {"misheard": misheard, "compared": compared, "rate": misheard / max(compared, 1)}
    else:
        alike = [(likeness(said, heard, language), said, heard) for op, said, heard in steps if op == "substitute"]
        readings = [[_reading(one, language)[-1] for one in both] for kind, *both in alike if kind == "tone"]
        pairs = Counter((said, heard) for said, heard in readings)
        found |= {"homophones": sum(kind == "homophone" for kind, _, _ in alike)}
    found["tone_only"] = sum(pairs.values())
    return found | {"pairs": [{"said": a, "heard": b, "count": n} for (a, b), n in pairs.most_common(12)]}


def likeness(said: str, heard: str, language: str) -> str:
    """ "homophone" (another character of one sound), "tone" (the tone alone differs), or "" for anything else."""
    a, b = (_reading(unit, language) for unit in (said, heard))
    if not (is_syllable(a) and is_syllable(b)):
        return ""
    return "homophone" if a == b and said != heard else "tone" if a[:-1] == b[:-1] and a != b else ""


def silence(runs: Iterable[Run]) -> list[Row]:
    """What each system wrote where nothing was said."""
    rows = []
    for run in runs:
        if run.is_silent:
            seconds, words = sum(h.audio_seconds for h in run.heard), sum(run.written)
            rows.append(
                {
                    **{"system": run.system, "test_set": run.test_set, "condition": run.condition},
                    **{"clips": len(run.heard), "clips_with_words": sum(bool(n) for n in run.written)},
                    **{"audio_seconds": round(seconds, 3), "words": words},
                    "words_per_minute": words / max(seconds / 60, 1e-9),
                    "examples": list(dict.fromkeys(h.hypothesis for h in run.heard if h.hypothesis.strip()))[:3],
                }
            )
    return rows


def accuracy_at_10_db(outcome: Outcome) -> list[Row]:
    """1 − WER, or 1 − CER of Chinese, for every system where nothing but noise of 10 dB was added.

    `above_claim` is None where the interval holds the claim.
    """
    details = conditions(outcome)
    rows = []
    for run in outcome.runs:
        detail = details.get((run.test_set, run.condition), {})
        if set(detail) - {"noise"} != {"snr_db"} or detail["snr_db"] != CLAIM_SNR_DB:
            continue
        for result in outcome.results:
            if (result.system, result.test_set, result.condition) == (run.system, run.test_set, run.condition):
                if result.metric != run.metrics[0]:
                    continue
                value, low, high = 1 - result.value, 1 - result.high, 1 - result.low
                above = True if low > CLAIM else False if high < CLAIM else None
                rows.append(
                    {
                        **{"system": run.system, "test_set": run.test_set, "condition": run.condition},
                        **{"metric": result.metric, "value": value, "low": low, "high": high, "above_claim": above},
                    }
                )
    return rows


def conditions(outcome: Outcome) -> dict[tuple[str, str], Row]:
    """What each (test set, condition) does to the speech."""
    return {(one.name, one.condition): one.damage.as_json() for one in outcome.test_sets}


def curves(outcome: Outcome, axis: str) -> Iterator[Row]:
    """Rates over a field of the conditions ("snr_db", "level_db"), one row for each test set and setting of the rest.

    `points` are by system [x, rate, low, high]; x is None where no noise was added, and 0 dB where no gain was.
    """
    details = conditions(outcome)
    found: dict[tuple, Row] = {}
    for result, run in itertools.product(outcome.results, outcome.runs):
        place = (run.test_set, run.condition)
        if (result.system, result.test_set, result.condition) != (run.system, *place) or place not in details:
            continue
        if result.metric != run.metrics[0]:
            continue
        rest = {key: value for key, value in details[place].items() if key not in (axis, "noise")}
        if axis != "snr_db" and "noise" in details[place]:
            rest["noise"] = details[place]["noise"]
        x = details[place].get(axis, 0.0 if axis == "level_db" else None)
        noises = [details[place].get("noise")]
        if axis == "snr_db" and x is None:  # without noise is one point of every noise's curve
            noises = list(dict.fromkeys(d.get("noise") for d in details.values() if axis in d))
        for noise in noises:
            key = (run.test_set, *sorted(map(str, rest.items())), noise if axis == "snr_db" else None)
            also = {"noise": noise} if axis == "snr_db" and noise else {}
            blank = {"test_set": run.test_set, "metric": result.metric, "axis": axis, "rest": rest | also, "points": {}}
            row = found.setdefault(key, blank)
            row["points"].setdefault(run.system, []).append([x, result.value, result.low, result.high])
    for row in found.values():
        for points in row["points"].values():
            points.sort(key=lambda point: float("inf") if point[0] is None else point[0])
        if any(len({point[0] for point in points}) > 1 for points in row["points"].values()):
            yield row


def total(run: Run, metric: str) -> ErrorCounts:
    """All edits of one system on one test set."""
    return sum(run.counts[metric], ErrorCounts())


def _total(run: Run, metric: str, chosen: Sequence[int]) -> ErrorCounts:
    return sum((run.counts[metric][i] for i in chosen), ErrorCounts())


def _steps(run: Run, metric: str = "") -> Iterator[tuple[str, str, str]]:
    for heard in run.heard:
        yield from align(heard.reference, heard.hypothesis, heard.language, metric or run.metrics[0])


def _misheard_tones(heard: Heard) -> Iterator[tuple[str, str]]:
    """(tone said, tone heard) of syllables aligned by their letters alone, as `tone_errors` aligns them."""
    said, written = (units(text, heard.language, "ser") for text in (heard.reference, heard.hypothesis))
    steps = align(_letters(said), _letters(written), "", "ser")
    left, right = iter(said), iter(written)
    for operation, a, b in steps:
        one, other = next(left, "") if a else "", next(right, "") if b else ""
        if operation == "equal" and is_syllable(one) and is_syllable(other) and one != other:
            yield one[-1], other[-1]


def _letters(syllables_said: Iterable[str]) -> str:
    return " ".join(unit[:-1] if is_syllable(unit) else unit for unit in syllables_said)


def _reading(unit: str, language: str) -> str:
    """A syllable as it is, a character as it is read alone."""
    if is_syllable(unit) or language not in ROMANIZATION or len(unit) != 1:
        return unit
    return next(iter(syllables(unit, ROMANIZATION[language])), unit)


def _stretch(heard: Heard) -> tuple[int, str]:
    place = bisect.bisect_right(EDGES_SECONDS, heard.audio_seconds)
    edges = (0, *EDGES_SECONDS)
    if place == len(EDGES_SECONDS):
        return place, f"over {edges[-1]}\u00a0s"
    return place, f"{edges[place]}–{EDGES_SECONDS[place]}\u00a0s"


def _speaker(heard: Heard) -> str:
    return heard.speaker


def _language(heard: Heard) -> str:
    return heard.language
