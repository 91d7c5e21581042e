"""Figures: the same numbers give the same bytes, every name and interval is drawn, the page shows through."""

import xml.etree.ElementTree as ElementTree

from glmasr.figures import COLORS, Bar, Line, draw_bars, draw_histogram, draw_lines

CURVES = {
    "scratch": Line([1, 10, 50], [60.0, 30.0, 20.0], [55.0, 28.0, 18.0], [66.0, 33.0, 22.0]),
    "pretrained": Line([1, 10, 50], [50.0, 25.0, 19.0]),
}
GROUPS = {
    "fsdd": {"scratch": Bar(16.5, 14.0, 19.0, (16.0, 17.0)), "kmeans": Bar(12.0)},
    "aishell": {"scratch": Bar(70.0, 66.0, 74.0)},
}


def curves(**changes) -> str:
    return draw_lines(CURVES, "Errors by budget", "minutes", "CER (%)", **changes)


def shapes(svg: str, color: str) -> int:
    """How many drawn things have a color."""
    return sum(color in (node.get("style") or "") for node in ElementTree.fromstring(svg).iter())


def test_the_same_numbers_give_the_same_bytes_and_other_numbers_others():
    assert curves() == curves() and draw_bars(GROUPS, "Bars", "WER") == draw_bars(GROUPS, "Bars", "WER")
    moved = {**CURVES, "pretrained": Line([1, 10, 50], [50.0, 26.0, 19.0])}
    assert draw_lines(moved, "Errors by budget", "minutes", "CER (%)") != curves()


def test_a_figure_names_what_it_shows_and_no_day():
    for svg, words in (
        (curves(), ["Errors by budget", "minutes", "CER (%)", "scratch", "pretrained"]),
        (draw_bars(GROUPS, "Arms", "WER (%)"), ["Arms", "WER (%)", "fsdd", "aishell", "scratch", "kmeans"]),
    ):
        shown = "".join(ElementTree.fromstring(svg).itertext())
        assert all(word in shown for word in words)
        assert "<dc:date>" not in svg


def test_only_a_line_with_an_interval_is_shaded():
    assert "fill-opacity: 0.15" in curves() or "opacity: 0.15" in curves()
    plain = {name: Line(line.x, line.y) for name, line in CURVES.items()}
    assert "0.15" not in draw_lines(plain, "Errors by budget", "minutes", "CER (%)")


def test_a_logarithmic_axis_is_marked_where_the_budgets_are():
    shown = [text.strip() for text in ElementTree.fromstring(curves(log_x=True)).itertext() if text.strip()]
    assert {"1", "10", "50"} <= set(shown) and "20" in shown  # 20 is on the other axis
    assert "$\\mathdefault{10^{1}}$" not in shown


def test_every_arm_has_its_bar_and_its_color():
    svg = draw_bars(GROUPS, "Arms", "WER (%)")
    assert shapes(svg, f"fill: {COLORS[0]}; opacity") == 3  # two corpora and the legend
    assert shapes(svg, f"fill: {COLORS[1]}; opacity") == 2


def test_seeds_are_dots_and_intervals_lines():
    whole, undotted, bare = (
        draw_bars({"fsdd": {"scratch": bar}, "taller": {"scratch": Bar(30.0)}}, "Arms", "WER (%)")
        for bar in (Bar(16.5, 14.0, 19.0, (16.0, 17.0)), Bar(16.5, 14.0, 19.0), Bar(16.5))
    )
    assert whole.count("<use ") == undotted.count("<use ") + 2
    assert shapes(undotted, f"stroke: {COLORS[0]}") == shapes(bare, f"stroke: {COLORS[0]}") + 1


def test_nothing_paints_the_page():
    for svg in (curves(), draw_bars(GROUPS, "Arms", "WER (%)")):
        assert "#ffffff" not in svg.lower() and "#000000" not in svg


def test_a_histogram_has_a_step_for_each_group_and_leaves_out_the_empty():
    svg = draw_histogram({"train": [1.0, 2.0, 2.0, 3.0], "dev": [2.0], "test": []}, "Durations", "seconds", bins=4)
    shown = "".join(ElementTree.fromstring(svg).itertext())
    assert all(word in shown for word in ("Durations", "seconds", "train (4)", "dev (1)", "share (%)"))
    assert "test" not in shown and COLORS[1] in svg and COLORS[2] not in svg
    assert draw_histogram({"train": []}, "None", "seconds") and draw_histogram({"a": [5.0, 5.0]}, "One", "seconds")
