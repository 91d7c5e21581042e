"""A pretraining run's health.json and metrics.csv in, report.html with its curves out."""

import csv
import html
import json
import math
import sys
from collections import defaultdict
from pathlib import Path

from glmasr.training.callbacks import replace_file

CHARTS = {
    "Loss": ("loss", "contrast", "masked", "visible", "cluster", "trivial"),
    "Accuracy": ("accuracy",),
    "Perplexity of the codes": ("code_perplexity", "probability_perplexity"),
    "Share of codes never used": ("unused",),
    "Temperature": ("temperature",),
    "Effective rank of the context frames": ("rank",),
    "Gradient norm": ("gradient_norm",),
    "Change of the weights in one step": ("update",),
    "Size of the features": ("size",),
}
"""What the report draws, by the last part of a column; columns under `probe/` get a chart of their own each."""

POINTS = 100
"""A curve is drawn through the means of at most so many stretches."""


def write_health_report(folder: Path) -> bool:
    """`report.html` from a run folder's health.json and metrics.csv; False, with a line, without matplotlib."""
    try:
        from glmasr.figures import draw_lines
    except ImportError:
        print("glmasr: no report.html, which needs matplotlib (pip install 'glmasr[eval]')", file=sys.stderr)
        return False
    facts = json.loads((folder / "health.json").read_text())
    curves = read_curves(folder / "metrics.csv")
    charts = {title: [c for c in curves if c.split("/")[-1] in names] for title, names in CHARTS.items()}
    charts |= {column: [column] for column in curves if "probe/" in column}
    drawn = [
        draw_lines({column: curves[column] for column in columns}, title, "step", "", from_zero=title != "Loss")
        for title, columns in charts.items()
        if columns
    ]
    svgs = [text[text.index("<svg") :] for text in drawn]
    verdict = "Healthy" if facts["healthy"] else "Collapsed"
    rows = "".join(f"<tr><td>{html.escape(r['name'])}<td>{html.escape(r['floor'])}" for r in facts["rules"])
    page = (
        f"<!doctype html><meta charset=utf-8><title>{verdict}</title>"
        "<style>:root{color-scheme:light dark}body{font:16px sans-serif;max-width:48em;margin:2em auto;padding:0 1em}"
        "svg{max-width:100%;height:auto}td{padding-right:2em}</style>"
        f"<h1>{verdict}</h1><p>{html.escape(facts['verdict'])}</p><p>{facts['step']} steps, {facts['judgements']} "
        f"judgements.</p>{''.join(svgs)}<h2>What healthy is</h2><table>{rows}</table>"
    )
    staged = folder / "report.tmp"
    staged.write_text(page, encoding="utf-8")
    replace_file(staged, folder / "report.html")
    return True


def read_curves(metrics: Path) -> dict:
    """A `Line` for each column of a metrics.csv, thinned to `POINTS`."""
    from glmasr.figures import Line

    columns: dict[str, list[tuple[float, float]]] = defaultdict(list)
    if metrics.exists():
        with metrics.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if name != "step" and value and math.isfinite(float(value)):
                        columns[name].append((float(row["step"]), float(value)))
    curves = {}
    for name, points in columns.items():
        size = -(-len(points) // POINTS)
        stretches = [points[start : start + size] for start in range(0, len(points), size)]
        means = [[sum(axis) / len(stretch) for axis in zip(*stretch, strict=True)] for stretch in stretches]
        curves[name] = Line(x=[x for x, _ in means], y=[y for _, y in means])
    return curves
