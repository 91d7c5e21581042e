"""A benchmark report in, its tables in Weights & Biases out, offline where no account is set up."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = {
    "results": ("test_set", "condition", "metric", "system", "value", "low", "high", "words", "rtf"),
    "comparisons": ("test_set", "condition", "metric", "a", "b", "delta", "p_value", "p_holm", "p_mapsswe"),
    "systems": ("name", "parameters", "size_bytes", "rtfx", "latency_seconds", "peak_bytes"),
    "errors": (
        *("test_set", "condition", "metric", "system", "substitutions", "deletions", "insertions", "hits"),
        *("utterances", "failures"),
    ),
}
"""Of the lists in report.json, which of their fields a table shows; rates are fractions."""


def rows_of(report: Mapping[str, Any], table: str) -> list[Any]:
    """One list of the report as rows of COLUMNS' fields; None where a row has no such field."""
    return [[row.get(column) for column in COLUMNS[table]] for row in report[table]]


def log_tables(report: Mapping[str, Any], name: str, folder: Path) -> Path:
    """Write every table, and each system's headline rates as a summary, to a run called `name`; its local folder."""
    import wandb  # takes a second

    mode = "online" if os.environ.get("WANDB_API_KEY") else "offline"
    provenance = report["provenance"]
    with wandb.init(project="glmasr", job_type="benchmark", name=name, dir=str(folder), mode=mode) as run:
        run.config.update({key: provenance.get(key) for key in ("command", "git_commit", "data", "seed")})
        run.log({table: wandb.Table(list(columns), rows_of(report, table)) for table, columns in COLUMNS.items()})
        for row in report["results"]:
            run.summary["/".join(row[key] for key in ("test_set", "condition", "metric", "system"))] = row["value"]
        return Path(run.dir).parent
