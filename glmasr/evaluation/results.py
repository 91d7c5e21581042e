"""Results as JSON in; the figures, and the tables of the READMEs, that show nothing but them out.

`python -m glmasr.evaluation.results` draws docs/results/*.json anew and writes the READMEs' tables from them.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from glmasr.figures import Bar, Line, draw_bars, draw_lines
from glmasr.speech import InputError

Document = dict[str, Any]
"""What label_efficiency.document makes: provenance, `summary` (arms over seeds) and `rows` (runs)."""

RESULTS = "docs/results"
READMES = ("README.md", "README.zh-CN.md")
MARKED = re.compile(r"(<!-- results:begin -->\n).*?(<!-- results:end -->)", re.DOTALL)
WORDS = {
    "en": {
        "where": "corpus, labels",
        "condition": "condition",
        "steps": "steps",
        "note": "Error rates in %, the mean over fine-tuning seeds {seeds}, with (a 95 % interval over utterances) "
        "and [the least and most of the seeds]; p: paired test against {baseline} on the same utterances, not "
        "corrected for the number of tests. "
        "`{command}`, commit {commit}, {date}.",
    },
    "zh": {
        "where": "语料,标注",
        "condition": "条件",
        "steps": "步数",
        "note": "错误率(%),对微调种子 {seeds} 取平均,附(按语句的 95 % 区间)和[各种子的最小值–最大值];"
        "p:在相同语句上与 {baseline} 的配对检验,未做多重比较校正。`{command}`,提交 {commit},{date}。",
    },
}


def publish(document: Document, name: str, folder: Path, readmes: Iterable[str] = READMES) -> None:
    """Write `folder`/`name`.json, draw it, and renew the READMEs' tables."""
    write_json(folder / f"{name}.json", document)
    redraw(folder, readmes)


def redraw(folder: Path, readmes: Iterable[str] = READMES) -> None:
    """Every document's figures, and the tables between the READMEs' markers."""
    documents = read_results(folder)
    for name, document in documents.items():
        for stem, svg in figures(document).items():
            write_whole(folder / f"{name}{stem}.svg", svg)
    for readme in map(Path, readmes):
        if readme.exists():
            text = readme.read_text(encoding="utf-8")
            changed = with_results(text, documents, "zh" if "zh" in readme.name else "en")
            if changed != text:
                write_whole(readme, changed)


def read_results(folder: Path) -> dict[str, Document]:
    """Every document of `folder` by name; other JSON there is left alone."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    return {name: each for name, each in found.items() if isinstance(each, dict) and {"summary", "rows"} <= set(each)}


def with_results(readme: str, documents: dict[str, Document], language: str) -> str:
    """The README with what stands between its markers made from the documents."""
    parts = [section(name, document, language) for name, document in documents.items()]
    return MARKED.sub(lambda found: found[1] + "\n".join(parts) + found[2], readme)


def section(name: str, document: Document, language: str) -> str:
    """Figure, table and provenance of one document, as Markdown that is folded under its question."""
    pictures = [f"![{name}]({RESULTS}/{name}{stem}.svg)" for stem in figures(document)]
    seeds = sorted({seed for row in document["summary"] for seed in row["seeds"]})
    facts = {key: document[key] for key in ("baseline", "command", "commit")} | {"date": document["date"][:10]}
    facts |= {"seeds": ", ".join(map(str, seeds)), "commit": str(document["commit"])[:12]}
    note = WORDS[language]["note"].format(**facts)
    head = ["<details>", f"<summary><b>{name}</b>: {document['question']}</summary>", ""]
    return "\n".join([*head, *pictures, "", *table(document, language), "", note, "", "</details>", ""])


def table(document: Document, language: str = "en") -> list[str]:
    """A line for each corpus, budget and condition, a column for each arm."""
    rows, words = document["summary"], WORDS[language]
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    shows_condition = any(row["condition"] != "clean" for row in rows)
    head = [words["where"], *([words["condition"]] if shows_condition else []), *arms, words["steps"]]
    lines = [head, ["---"] * len(head)]
    for corpus, budget, condition in dict.fromkeys((row["corpus"], row["budget"], row["condition"]) for row in rows):
        where = {"corpus": corpus, "budget": budget, "condition": condition}
        cells = {row["arm"]: row for row in rows if where.items() <= row.items()}
        metric = next(iter(cells.values()))["metric"].upper()
        steps = sorted({step for row in cells.values() for step in row["steps"]})
        line = [f"{corpus} {metric}, {budget}", *([condition] if shows_condition else [])]
        lines.append([*line, *(cell(cells[arm]) if arm in cells else "" for arm in arms), ", ".join(map(str, steps))])
    return [f"| {' | '.join(line)} |" for line in lines]


def cell(row: Document) -> str:
    """16.5 (14.0–19.0) [16.0–17.0], p 0.012: the mean, its interval, the least and most of the seeds, the test."""
    keys = ("value", "low", "high", "seed_min", "seed_max")
    value, low, high, least, most = (f"{row[key] * 100:.1f}" for key in keys)
    spread = f" [{least}–{most}]" if len(row["seeds"]) > 1 else ""
    return f"{value} ({low}–{high}){spread}" + (f", p {row['p_value']:.2g}" if "p_value" in row else "")


def figures(document: Document) -> dict[str, str]:
    """SVGs by what to add to the document's name: curves over budgets, bars over conditions, or bars over corpora."""
    rows = document["summary"]
    drawn, flat = {}, {}
    for corpus in dict.fromkeys(row["corpus"] for row in rows):
        ours = [row for row in rows if row["corpus"] == corpus]
        label = f"{ours[0]['metric'].upper()} (%)"
        clean = [row for row in ours if row["condition"] == ours[0]["condition"]]
        if len({row["budget"] for row in clean}) > 1:
            unit = "clips of each transcript" if "per text" in clean[0]["budget"] else "minutes of labels"
            drawn[f"_{corpus}"] = draw_lines(curves(clean, document["rows"]), corpus, unit, label, log_x=True)
        else:
            flat |= {f"{corpus}\n{label}, {clean[0]['budget']}": bars(clean, document["rows"])}
        conditions = list(dict.fromkeys(row["condition"] for row in ours))
        if len(conditions) > 1:
            budget = ours[-1]["budget"]
            groups = {c: [row for row in ours if row["condition"] == c and row["budget"] == budget] for c in conditions}
            shown = {name: bars(group, document["rows"]) for name, group in groups.items()}
            drawn[f"_{corpus}_conditions"] = draw_bars(shown, f"{corpus}, {budget}", label)
    return drawn | ({"": draw_bars(flat, document["experiment"], "error rate (%)")} if flat else {})


def curves(summary: Sequence[Document], rows: Sequence[Document]) -> dict[str, Line]:
    """Each arm over its budgets."""
    lines = {}
    for arm in dict.fromkeys(row["arm"] for row in summary):
        points = sorted((amount(row, rows), row) for row in summary if row["arm"] == arm)
        values = [[row[key] * 100 for _, row in points] for key in ("value", "low", "high")]
        lines[arm] = Line([x for x, _ in points], *values)
    return lines


def bars(summary: Sequence[Document], rows: Sequence[Document]) -> dict[str, Bar]:
    """Each arm with its seeds as dots."""
    keys = ("corpus", "budget", "condition", "arm")
    found = {}
    for row in summary:
        dots = [one["value"] * 100 for one in rows if all(one[key] == row[key] for key in keys)]
        found[row["arm"]] = Bar(row["value"] * 100, row["low"] * 100, row["high"] * 100, dots)
    return found


def amount(row: Document, rows: Sequence[Document]) -> float:
    """How large a budget is: the number in its name, or the minutes there were where it is all."""
    if row["budget"] != "all":
        return float(row["budget"].split()[0])
    return round(max(one["labelled_minutes"] for one in rows if one["corpus"] == row["corpus"]), 1)


def write_json(path: Path, document: Document) -> None:
    """One line for each row, so that a diff shows which run changed."""
    parts = []
    for key, value in document.items():
        many = isinstance(value, list) and value and isinstance(value[0], dict)
        text = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in value) if many else ""
        parts.append(f"{json.dumps(key)}: " + (f"[\n  {text}\n ]" if many else json.dumps(value, ensure_ascii=False)))
    write_whole(path, "{\n " + ",\n ".join(parts) + "\n}\n")


def write_whole(path: Path, text: str) -> None:
    """The file appears whole or not at all; InputError where it cannot be written."""
    staged = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(text, encoding="utf-8")
        os.replace(staged, path)
    except OSError as error:
        raise InputError(f"'{path}' cannot be written ({error.strerror}): choose a writable folder") from error


if __name__ == "__main__":
    redraw(Path(RESULTS))
    print(f"drew {', '.join(read_results(Path(RESULTS))) or 'nothing'} in {RESULTS}", file=sys.stderr)
