"""Measured utterances in; a data report (report.json, report.md and its figures) out."""

import datetime
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glmasr.data.catalog import Skipped, write_whole
from glmasr.data.overlap import ALIKE_BITS, Row, duplicates, near_pairs, overlap, strange_characters
from glmasr.figures import draw_histogram
from glmasr.speech import InputError, Utterance
from glmasr.text.tokenizer import open_tokenizer

CLIPPED_SHARE = 1e-4
"""From this share of samples at full scale on an utterance is called clipped: 0.1 ms of every second."""

NARROW_HZ = 4500
"""Up to this bandwidth audio is called telephone audio: 4 kHz, and what codecs and resamplers leak above it."""

QUIET_DBFS, NOISY_DB = -45.0, 5.0

MEASURED: dict[str, Callable[[Row], float | None]] = {
    "duration_seconds": lambda row: row[0].duration_seconds,
    "level_dbfs": lambda row: row[1].level_dbfs,
    "snr_db": lambda row: row[1].snr_db,
    "bandwidth_hz": lambda row: row[1].bandwidth_hz,
    "silence_share": lambda row: row[1].silence_share,
    "clipped_share": lambda row: row[1].clipped_share,
}

FIGURES = {
    "durations": ("duration_seconds", "Durations", "seconds", None),
    "levels": ("level_dbfs", "Level", "dBFS (root mean square)", None),
    "snr": ("snr_db", "Estimated signal-to-noise ratio", "dB", None),
    "bandwidths": ("bandwidth_hz", "Bandwidth", "Hz", (0.0, 8000.0)),
}

ORDER = ("train", "dev", "test")

QUANTILES = {"min": 0, "p5": 5, "median": 50, "p95": 95, "max": 100}

EXTREMES = {
    "shortest": ("duration_seconds", 1),
    "longest": ("duration_seconds", -1),
    "quietest": ("level_dbfs", 1),
    "noisiest": ("snr_db", 1),
    "most clipped": ("clipped_share", -1),
}


def document(rows: Sequence[Row], skipped: Sequence[Skipped], tokenizer: str | None) -> dict[str, Any]:
    """Everything the report says, as JSON; `tokenizer` is a bundle's folder."""
    pairs = near_pairs(rows)
    utterances = [utterance for utterance, _ in rows]
    told = {
        "date": datetime.date.today().isoformat(),
        "utterances": len(rows),
        "hours": round(_hours(utterances), 4),
        "transcribed": sum(bool(utterance.text) for utterance in utterances),
        "speakers": len({utterance.speaker for utterance in utterances} - {""}),
        "skipped": dict(Counter(one.cause for one in skipped).most_common()),
        "splits": _by(utterances, lambda utterance: utterance.split),
        "languages": _by(utterances, lambda utterance: utterance.language),
        "rates_hz": _counted(measures.rate_hz for _, measures in rows),
        "channels": _counted(measures.channels for _, measures in rows),
        "measured": {name: _quantiles(_values(rows, name)) for name in MEASURED},
        "clipped": sum(measures.clipped_share >= CLIPPED_SHARE for _, measures in rows),
        "silent": sum(measures.snr_db is None for _, measures in rows),
        "quiet": sum(measures.level_dbfs < QUIET_DBFS for _, measures in rows),
        "noisy": sum(measures.snr_db is not None and measures.snr_db < NOISY_DB for _, measures in rows),
        "narrow": {
            "utterances": sum(map(_is_narrow, rows)),
            "in_wide_files": sum(_is_narrow(row) and row[1].rate_hz >= 16_000 for row in rows),
            "hours": round(_hours([row[0] for row in rows if _is_narrow(row)]), 4),
        },
        "duplicates": duplicates(rows, pairs),
        "overlap": overlap(rows, pairs),
        "characters": strange_characters(utterances, _tokenizer(tokenizer)) | {"tokenizer": tokenizer},
        "extremes": {name: _extreme(rows, *chosen) for name, chosen in EXTREMES.items()},
    }
    return told | {"remarks": remarks(told)}


def remarks(told: dict[str, Any]) -> list[str]:
    """What a person should know before training on this, a sentence each."""
    shared, narrow, number = told["overlap"], told["narrow"], told["utterances"]
    held = sum(split["utterances"] for split in shared["splits"].values())
    strange = told["characters"]
    where = f"that {strange['tokenizer']} cannot write" if strange["tokenizer"] else "of dev and test that train lacks"
    found = {
        f"{shared['audio']} of {held} utterances of dev and test are in train too, sample for sample.": shared["audio"],
        f"{shared['near_audio']} of {held} utterances of dev and test sound like one of train.": shared["near_audio"],
        f"{shared['transcript']} of {held} utterances of dev and test say what train says too.": shared["transcript"],
        f"{shared['speaker']} of {told['speakers']} speakers are in train and in dev or test.": shared["speaker"],
        f"{told['duplicates']['exact']} utterances repeat the samples of another.": told["duplicates"]["exact"],
        f"{told['duplicates']['near_pairs']} pair(s) of utterances sound alike.": told["duplicates"]["near_pairs"],
        f"{narrow['utterances']} of {number} utterances have the bandwidth of a telephone (up to {NARROW_HZ} Hz), "
        f"{narrow['in_wide_files']} of them in files of 16 kHz or more.": narrow["utterances"],
        f"{told['clipped']} of {number} utterances are clipped.": told["clipped"],
        f"{told['silent']} of {number} utterances are silent.": told["silent"],
        f"{told['quiet']} of {number} utterances are under {QUIET_DBFS:.0f} dBFS.": told["quiet"],
        f"{told['noisy']} of {number} utterances have an estimated SNR under {NOISY_DB:.0f} dB.": told["noisy"],
        f"{len(strange['characters'])} characters {where}, in {strange['utterances']} utterances.": len(
            strange["characters"]
        ),
        f"{sum(told['skipped'].values())} files were skipped.": sum(told["skipped"].values()),
    }
    return [sentence for sentence, count in found.items() if count]


def write_report(folder: Path, told: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write the figures, report.md and, last, report.json: where that is, the rest is."""
    (folder / "figures").mkdir(exist_ok=True)
    for stem, (name, title, label, span) in FIGURES.items():
        values = {
            split: [value for row in rows if row[0].split == split and (value := MEASURED[name](row)) is not None]
            for split in told["splits"]
        }
        write_whole(folder / "figures" / f"{stem}.svg", draw_histogram(values, title, label, span=span))
    write_whole(folder / "report.md", markdown(told))
    write_whole(folder / "report.json", json.dumps(told, ensure_ascii=False, indent=1) + "\n")


def markdown(told: dict[str, Any]) -> str:
    """The report as a page; figures are beside it."""
    shared, strange, repeated = told["overlap"], told["characters"], told["duplicates"]
    parts = [
        f"# {cell(told['name'])}",
        f"{told['hours']:.2f} hours, {told['utterances']} utterances, {told['transcribed']} with a transcript, "
        f"{told['speakers']} speakers. Read {told['date']} from `{json.dumps(told['source'], ensure_ascii=False)}`.",
        *([_items(told["remarks"])] if told["remarks"] else ["Nothing remarkable."]),
        "## What there is",
        _split_table(told["splits"], "split"),
        _split_table(told["languages"], "language"),
        _table(
            ["file", "utterances"],
            [[f"{rate} Hz", count] for rate, count in told["rates_hz"].items()]
            + [[f"{channels} channels", count] for channels, count in told["channels"].items()],
        ),
        "## How it sounds",
        _table(
            ["", *QUANTILES],
            [[name.replace("_", " "), *map(_number, values.values())] for name, values in told["measured"].items()],
        ),
        *(f"![{title}](figures/{stem}.svg)" for stem, (_, title, *_) in FIGURES.items()),
        _table(["", "worth a listen"], [[name, ", ".join(ids)] for name, ids in told["extremes"].items() if ids]),
        "## Train and test",
        shared["splits"]
        and "How many utterances of a split have their audio, audio that sounds alike, or their transcript in train "
        "too, and how many speakers it shares with train.",
        _table(
            ["split", "utterances", "same audio", "alike", "same transcript", "same speaker"],
            [
                [split, share["utterances"], *(share[kind]["count"] for kind in list(share)[1:])]
                for split, share in shared["splits"].items()
            ],
        )
        or "There is no split but train.",
        *_shared_examples(shared["splits"]),
        "## Duplicates",
        f"{repeated['exact']} utterances have the samples of an earlier one; {repeated['near_pairs']} other pairs "
        "sound alike.",
        _items([" = ".join(map(cell, group)) for group in repeated["exact_examples"]]),
        _items([" ≈ ".join(map(cell, pair)) for pair in repeated["near_examples"]]),
        "## Characters",
        f"Outside the tokenizer of {strange['tokenizer']}:"
        if strange["tokenizer"]
        else "In transcripts of dev or test, but of none of train:",
        ", ".join(f"{cell(repr(one))} {count}" for one, count in list(strange["characters"].items())[:100]) or "none.",
        "## Skipped",
        _table(["cause", "files"], [[cause, count] for cause, count in told["skipped"].items()]),
        "All of them are listed in skipped.tsv." if told["skipped"] else "Nothing was skipped.",
        "## How this was measured",
        NOTES,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


NOTES = f"""\
- Every recording was decoded to its end. Level, clipping and digests are of the samples as they are in the file, \
channels averaged; the rest is of 16 kHz audio, frames of 25 ms.
- Clipped: at least {CLIPPED_SHARE:.2%} of the samples within 0.1 % of full scale.
- SNR: the mean power over that of the 10th percentile of the frames, less one. It takes the quietest tenth for noise: \
where nobody pauses it says too little (13 dB for digits in noise at 20 dB), where pauses are digital silence 60 dB.
- Bandwidth: the upper edge of the highest 250 Hz band that comes within 65 dB of the loudest one in its loud moments.
- Silence: frames 40 dB below the loud ones.
- Alike: sketches of 256 bits (rises and falls of nine bands between 250 and 3,720 Hz, after Haitsma and Kalker 2002) \
that differ in at most {ALIKE_BITS} bits; glmasr/data/overlap.py says how often that errs.
- Same transcript: after the scoring rules' normalization. Characters: after NFKC and lower case.
"""


def cell(text: object) -> str:
    """Text that cannot break out of a cell of a Markdown table, nor be taken for markup."""
    flat = " ".join(str(text).split())
    return "".join(f"\\{character}" if character in "\\`*_[]<>|~" else character for character in flat)


def _table(head: Sequence[object], lines: Sequence[Sequence[object]]) -> str:
    if not lines:
        return ""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in (head, rule, *lines))


def _split_table(splits: dict[str, dict[str, Any]], name: str) -> str:
    lines = [[one or "(none)", *map(_number, facts.values())] for one, facts in splits.items()]
    return _table([name, *next(iter(splits.values()))], lines)


def _items(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _shared_examples(splits: dict[str, dict[str, Any]]) -> list[str]:
    parts = []
    for split, share in splits.items():
        for kind in list(share)[1:]:
            examples = share[kind]["examples"]
            if examples:
                shown = [" / ".join(map(cell, one)) if isinstance(one, tuple | list) else cell(one) for one in examples]
                parts += [
                    f"In train and {cell(split)}, {kind.replace('_', ' ')} (the first {len(examples)}):",
                    _items(shown),
                ]
    return parts


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_narrow(row: Row) -> bool:
    return 0 < row[1].bandwidth_hz <= NARROW_HZ


def _hours(utterances: Sequence[Utterance]) -> float:
    return sum(utterance.duration_seconds for utterance in utterances) / 3600


def _by(utterances: Sequence[Utterance], key: Callable[[Utterance], str]) -> dict[str, dict[str, Any]]:
    groups = defaultdict(list)
    for utterance in utterances:
        groups[key(utterance)].append(utterance)
    return {
        name: {
            "utterances": len(group),
            "hours": round(_hours(group), 4),
            "transcribed": sum(bool(utterance.text) for utterance in group),
            "speakers": len({utterance.speaker for utterance in group} - {""}),
        }
        for name, group in sorted(groups.items(), key=_place)
    }


def _place(item: tuple[str, Any]) -> tuple[int, str]:
    """Train, dev and test in this order, anything else behind them by name."""
    return (ORDER.index(item[0]) if item[0] in ORDER else len(ORDER), item[0])


def _counted(values) -> dict[str, int]:
    return {str(value): count for value, count in Counter(values).most_common()}


def _values(rows: Sequence[Row], name: str) -> list[float]:
    return [value for row in rows if (value := MEASURED[name](row)) is not None]


def _quantiles(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return dict.fromkeys(QUANTILES)
    found = np.percentile(np.asarray(values), list(QUANTILES.values()))
    return {name: round(float(value), 5) for name, value in zip(QUANTILES, found, strict=True)}


def _extreme(rows: Sequence[Row], name: str, sign: int, number: int = 5) -> list[str]:
    known = [(sign * value, row[0].id) for row in rows if (value := MEASURED[name](row)) is not None]
    if name == "clipped_share":
        known = [(value, one) for value, one in known if value <= -CLIPPED_SHARE]
    return [one for _, one in sorted(known)[:number]]


def _tokenizer(folder: str | None):
    if not folder:
        return None
    try:
        return open_tokenizer(Path(folder))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"'{folder}' holds no tokenizer ({error}); name the folder of a fine-tuned bundle") from error
