"""A benchmark report and a bundle in, the bundle's model card out: README.md with the hub's YAML header."""

import os
from pathlib import Path
from typing import Any

import yaml

from glmasr.bundle import read_config
from glmasr.evaluation.report import cell, count, percent
from glmasr.speech import InputError

NAME = "README.md"

Document = dict[str, Any]


def write_model_card(bundle: Path, system: str, report: Document) -> Path:
    """Write what `report` (report.json) says of `system` into its bundle; the card's path.

    An InputError where the report has no such system, or the folder cannot be written.
    """
    if system not in [one["name"] for one in report["systems"]]:
        raise InputError(f"the report knows no system '{system}': benchmark the bundle before its card is written")
    text = model_card(read_config(bundle), system, report)
    try:
        (bundle / f".{NAME}").write_text(text, encoding="utf-8")
        os.replace(bundle / f".{NAME}", bundle / NAME)
    except OSError as error:
        raise InputError(f"'{bundle}' cannot be written ({error.strerror}): choose a writable bundle") from error
    return bundle / NAME


def model_card(config: Document, system: str, report: Document) -> str:
    """Markdown of a bundle's `config` and its rows of the report."""
    results = [row for row in report["results"] if row["system"] == system]
    training, about = config["training"], next(one for one in report["systems"] if one["name"] == system)
    parts = [
        f"---\n{yaml.safe_dump(header(training, system, results), sort_keys=False, allow_unicode=True)}---",
        f"# {cell(system)}",
        f"A speech recognizer of {count(about['parameters'])} parameters ({count(about['size_bytes'])}B), trained with "
        "glmasr: `glmasr transcribe --bundle . speech.wav`.",
        "## Training data",
        "\n".join(f"- {cell(key)}: {cell(value)}" for key, value in training.items()) or "Not known.",
        "## Error rates",
        _table(results),
        f"{report['protocol']}. {' '.join(report['statistics'])}",
        "## Conditions",
        "\n".join(
            f"- {cell(one['test_set'])}, {cell(one['condition'])}: {one['utterances']} utterances, "
            f"{one['minutes']} min, {one['speakers'] or 'unknown'} speakers, texts {one['fingerprint'][:16]}"
            for one in report["test_sets"]
        ),
        "## Limits",
        "\n".join(f"- {sentence}" for sentence in limits(system, report)),
        f"Written from a report of {report['provenance']['date'][:10]}, commit {report['provenance']['git_commit']}, "
        f"by `{report['provenance']['command'].replace('`', chr(39))}`.",
    ]
    return "\n\n".join(parts) + "\n"


def header(training: Document, system: str, results: list[Document]) -> Document:
    """What a hub reads: task, language, and every rate in percent."""
    measured = [
        {
            "task": {"type": "automatic-speech-recognition"},
            "dataset": {"name": f"{row['test_set']} ({row['condition']})", "type": row["test_set"]},
            "metrics": [{"type": row["metric"], "value": round(100 * row["value"], 2)}],
        }
        for row in results
    ]
    language = {"language": training["language"]} if training.get("language") else {}
    return {
        **language,
        "library_name": "glmasr",
        "pipeline_tag": "automatic-speech-recognition",
        "metrics": sorted({row["metric"] for row in results}),
        "model-index": [{"name": system, "results": measured}],
    }


def limits(system: str, report: Document) -> list[str]:
    """What the report shows the model cannot do, and what it says nothing of."""
    speakers = max((one["speakers"] for one in report["test_sets"]), default=0)
    talkers = f"{speakers} talkers at most" if speakers else "talkers whose number is unknown"
    sentences = [f"Measured on {talkers} in each test set; other voices, rooms and topics may be heard worse."]
    for row in report["accuracy_at_10_db_snr"]:
        if row["system"] == system:
            rates = f"{percent(row['value'])} (95 % between {percent(row['low'])} and {percent(row['high'])})"
            sentences.append(
                f"Accuracy at 10 dB SNR (1 − {row['metric'].upper()}) on {cell(row['test_set'])}: {rates}."
            )
    for row in report["silence"]:
        if row["system"] == system:
            words = f"{row['words_per_minute']:.1f} words a minute"
            sentences.append(f"Where nothing was said ({cell(row['test_set'])}) it wrote {words}.")
    failed = sum(row["failures"] for row in report["errors"] if row["system"] == system)
    return [*sentences, *([f"It failed on {failed} files, which are scored as empty."] if failed else [])]


def _table(results: list[Document]) -> str:
    lines = ["| test set | condition | metric | rate | 95 % interval | units |", "|---|---|---|--:|:-:|--:|"]
    for row in results:
        where = [cell(row["test_set"]), cell(row["condition"]), row["metric"].upper()]
        rate = [percent(row["value"]), f"{percent(row['low'])} – {percent(row['high'])}", str(row["words"])]
        lines.append(f"| {' | '.join([*where, *rate])} |")
    return "\n".join(lines)
