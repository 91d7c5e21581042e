"""Numbers in, an SVG out that is readable on light and dark pages; the same numbers give the same bytes."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

INK = "#7d8590"
"""Text and axes: enough contrast on white and on black, the page shows through behind them."""

COLORS = ("#e07b39", "#3b8eda", "#3fa56b", "#b06fd0", "#d64f6b", "#a38a1f", "#33a6a6", "#8a8f98")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "glmasr",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Line:
    """One curve: a y for each x, and the interval around it where `low` and `high` are given."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Bar:
    """One bar: its height, the interval around it, and what it is the mean of as dots (seeds)."""

    value: float
    low: float | None = None
    high: float | None = None
    dots: Sequence[float] = ()


def draw_lines(
    series: Mapping[str, Line], title: str, x_label: str, y_label: str, log_x: bool = False, from_zero: bool = True
) -> str:
    """Curves by name with their intervals shaded, as SVG text; `log_x` marks each x that occurs."""
    with rc_context(STYLE):
        figure, axes = _canvas(title, y_label)
        axes.set_xlabel(x_label)
        for index, (name, line) in enumerate(series.items()):
            color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
            axes.plot(line.x, line.y, color=color, marker=marker, markersize=4, linewidth=1.6, label=name)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.15, linewidth=0)
        if log_x:
            axes.set_xscale("log")
            places = sorted({x for line in series.values() for x in line.x})
            axes.set_xticks(places, [f"{x:g}" for x in places])
            axes.xaxis.set_minor_locator(NullLocator())
        if from_zero:
            axes.set_ylim(bottom=0)
        return _svg(figure, axes, len(series))


def draw_bars(groups: Mapping[str, Mapping[str, Bar]], title: str, y_label: str) -> str:
    """Groups side by side (corpora), in each a bar per name (arm) with its interval and its dots, as SVG text."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / max(len(names), 1)
    with rc_context(STYLE):
        figure, axes = _canvas(title, y_label)
        for index, name in enumerate(names):
            color = COLORS[index % len(COLORS)]
            present = [(place, group[name]) for place, group in enumerate(groups.values()) if name in group]
            centers = [place + (index - (len(names) - 1) / 2) * width for place, _ in present]
            bars = [bar for _, bar in present]
            axes.bar(centers, [bar.value for bar in bars], width * 0.9, color=color, alpha=0.4, label=name)
            for center, bar in zip(centers, bars, strict=True):
                if bar.low is not None and bar.high is not None:
                    axes.plot([center, center], [bar.low, bar.high], color=color, linewidth=1.8)
                axes.plot([center] * len(bar.dots), list(bar.dots), "o", color=color, markersize=3.5, zorder=3)
        axes.set_xticks(range(len(groups)), list(groups))
        axes.set_ylim(bottom=0)
        return _svg(figure, axes, len(names))


def draw_histogram(
    groups: Mapping[str, Sequence[float]],
    title: str,
    x_label: str,
    bins: int = 40,
    span: tuple[float, float] | None = None,
) -> str:
    """How the values of each group (split) are distributed, as the share of the group in each bin, as SVG text.

    The bins cover all values, or `span` with what lies outside left out.
    """
    present = {name: np.asarray(values, dtype=float) for name, values in groups.items() if len(values)}
    every = np.concatenate([*present.values(), np.zeros(0)])
    edges = np.histogram_bin_edges(every, bins, span)
    with rc_context(STYLE):
        figure, axes = _canvas(title, "share (%)")
        axes.set_xlabel(x_label)
        for index, (name, values) in enumerate(present.items()):
            color = COLORS[index % len(COLORS)]
            share = 100 * np.histogram(values, edges)[0] / len(values)
            axes.stairs(share, edges, color=color, alpha=0.25, fill=True)
            axes.stairs(share, edges, color=color, linewidth=1.6, label=f"{name} ({len(values)})")
        axes.set_ylim(bottom=0)
        return _svg(figure, axes, len(present))


def _canvas(title: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.set_ylabel(y_label)
    axes.grid(axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure, axes: Axes, entries: int) -> str:
    if entries > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return text.getvalue()
