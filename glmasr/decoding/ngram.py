"""Text in, an n-gram language model out as an ARPA file; such a file in, a guide for searches out (by KenLM).

The estimate is interpolated modified Kneser-Ney (Chen and Goodman 1999, section 3), as KenLM's own lmplz makes it.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from glmasr.speech import InputError
from glmasr.text.characters import HAN
from glmasr.text.tokenizer import Tokenizer, is_han, plain

UNITS = ("word", "character")
BEGIN, END, UNSEEN, SPACE = "<s>", "</s>", "<unk>", "▁"
LN_10 = math.log(10.0)
UNIT = re.compile(f"[{HAN}]|[^{HAN}\\s]+")
FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where a text is too small to tell its own, as lmplz has them."""

Grams = dict[tuple[str, ...], int]
State = tuple[Any, tuple[int, ...]]
"""KenLM's state, and the tokens of a word that has not ended."""


def units_of(text: str, unit: str) -> list[str]:
    """`word`: Han characters, and what stands between spaces; `character`: every character, a space as ▁."""
    if unit == "word":
        return UNIT.findall(text)
    return [SPACE if character.isspace() else character for character in text]


class LanguageModel:
    """A `Guide`: `weight` times the log-probability of each unit, when its last token is there.

    A word has ended when the next one begins, a Han character at once. The unit is read from the file beside the model
    that `build_language_model` writes; a model without one, made elsewhere, counts as one of words. InputError where
    KenLM cannot read the file.
    """

    def __init__(self, path: str | Path, weight: float, tokenizer: Tokenizer):
        try:
            import kenlm
        except ImportError as error:
            raise InputError("language models need KenLM: run pip install 'glmasr[lm]'") from error
        self.weight, self.ceiling, self.tokenizer = weight, 0.0, tokenizer
        if not Path(path).is_file():
            raise InputError(f"there is no language model {path}: build one (scripts/language_model.py)")
        try:
            quiet = kenlm.Config()
            quiet.show_progress, quiet.arpa_complain = False, kenlm.ARPALoadComplain.NONE
            self.model = kenlm.Model(str(path), quiet)
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{path} is not a language model KenLM reads ({reason}): build it again") from error
        self.unit = unit_of(Path(path))
        self.fresh = kenlm.State
        self.begins = [tokenizer.starts_word(token) for token in range(tokenizer.size)]
        self.texts = [tokenizer.decode([token]).strip() for token in range(tokenizer.size)]
        self.alone = [len(text) == 1 and is_han(text) for text in self.texts]

    def begin(self) -> State:
        state = self.fresh()
        self.model.BeginSentenceWrite(state)
        return state, ()

    def extend(self, state: State, token: int) -> tuple[State, float]:
        known, pending = state
        if self.unit == "character":
            return self.spelled(known, pending, token)
        gain = 0.0
        if self.begins[token]:
            known, gain = self.score(known, self.words(pending))
            pending = ()
        if self.alone[token]:
            known, more = self.score(known, [self.texts[token]])
            return (known, ()), gain + more
        return (known, (*pending, token)), gain

    def spelled(self, known: Any, pending: tuple[int, ...], token: int) -> tuple[State, float]:
        """Characters count at once; the first token is kept to know that no space stands before it."""
        space = [SPACE] if pending and self.begins[token] and not self.alone[token] else []
        known, gain = self.score(known, [*space, *units_of(self.texts[token], "character")])
        return (known, (token,)), gain

    def finish(self, state: State) -> float:
        known, pending = state
        known, gain = self.score(known, self.words(pending) if self.unit == "word" else [])
        return gain + self.score(known, [END])[1]

    def words(self, pending: Sequence[int]) -> list[str]:
        """The word, or several where the tokens spell Han characters in bytes."""
        return units_of(self.tokenizer.decode(pending), "word") if pending else []

    def score(self, known: Any, units: Iterable[str]) -> tuple[Any, float]:
        """The state behind them, and what they are worth."""
        total = 0.0
        for unit in units:
            after = self.fresh()
            total += self.model.BaseScore(known, unit, after)
            known = after
        return known, self.weight * LN_10 * total


def beside(path: Path) -> Path:
    """Where it is written what a model was made of."""
    return path.with_name(path.name + ".json")


def unit_of(path: Path) -> str:
    """The unit a model was built with; `word` where nothing says so."""
    if not beside(path).is_file():
        return "word"
    try:
        unit = json.loads(beside(path).read_text(encoding="utf-8"))["unit"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{beside(path)} does not name the model's unit: build the model again") from error
    if unit not in UNITS:
        raise InputError(
            f"{beside(path)} names the unit '{unit}': build the model again with one of {', '.join(UNITS)}"
        )
    return unit


def build_language_model(config: dict[str, Any]) -> Path:
    """`texts` (plain text, a sentence a line, or manifests with a "text" in each line), `order`, `unit` → `path`, an
    ARPA file, and beside it, in JSON, what it is made of. InputError for a text without words."""
    unit, order, path = config["unit"], config["order"], Path(config["path"])
    if unit not in UNITS:
        raise InputError(f"unit '{unit}' is unknown: choose one of {', '.join(UNITS)}")
    if not 2 <= order <= 6:
        raise InputError(f"order {order} is not one that KenLM reads: choose 2 to 6")
    given = [config["texts"]] if isinstance(config["texts"], str) else list(config["texts"])
    sentences = [units_of(plain(line), unit) for text in given for line in lines_of(Path(text))]
    sentences = [sentence for sentence in sentences if sentence]
    if not sentences:
        raise InputError(f"there is not a word in {', '.join(given)}: give text with one sentence a line")
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = write_arpa(sentences, order, path)
    told = {"unit": unit, "order": order, "sentences": len(sentences), "units": sum(map(len, sentences))}
    beside(path).write_text(json.dumps({**told, "ngrams": counts, "texts": given}, indent=1) + "\n", encoding="utf-8")
    return path


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text, or the texts of a manifest (.jsonl, .json); InputError where it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if path.suffix not in (".jsonl", ".json"):
                    yield line
                elif line.strip():
                    yield json.loads(line).get("text") or ""
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} cannot be read as text ({error}): give UTF-8 text or a manifest") from error


def write_arpa(sentences: Sequence[Sequence[str]], order: int, path: Path) -> list[int]:
    """Estimate and write; returns how many n-grams there are of each order."""
    levels = adjusted(count(sentences, order))
    probabilities: list[dict[tuple[str, ...], float]] = []
    backoffs: list[dict[tuple[str, ...], float]] = []
    for grams in levels:
        lower = probabilities[-1] if probabilities else None
        found, left = interpolated(grams, lower)
        probabilities.append(found)
        backoffs.append(left)
    with path.open("w", encoding="utf-8") as file:
        file.write("\\data\\\n")
        file.writelines(f"ngram {n}={len(found)}\n" for n, found in enumerate(probabilities, 1))
        for n, found in enumerate(probabilities, 1):
            file.write(f"\n\\{n}-grams:\n")
            left = backoffs[n] if n < order else {}
            for gram, probability in sorted(found.items()):
                value = math.log10(probability) if probability > 0 else -99.0
                tail = f"\t{math.log10(left[gram]):.7f}" if gram in left else ""
                file.write(f"{value:.7f}\t{' '.join(gram)}{tail}\n")
        file.write("\n\\end\\\n")
    return [len(found) for found in probabilities]


def count(sentences: Sequence[Sequence[str]], order: int) -> list[Grams]:
    """How often each n-gram of orders 1 … `order` stands in the text, between begin and end."""
    counts: list[Grams] = [Counter() for _ in range(order)]
    for sentence in sentences:
        marked = (BEGIN, *sentence, END)
        for n, grams in enumerate(counts, 1):
            for start in range(len(marked) - n + 1):
                gram = marked[start : start + n]
                grams[gram] = grams.get(gram, 0) + 1
    return counts


def adjusted(counts: list[Grams]) -> list[Grams]:
    """Below the highest order it counts how many different units stand before an n-gram, not how often it stands.

    Before the begin of a sentence stands nothing: n-grams from there keep their counts.
    """
    levels = []
    for n, grams in enumerate(counts):
        if n + 1 < len(counts):
            before = Counter(gram[1:] for gram in counts[n + 1])
            grams = {gram: number if gram[0] == BEGIN else before[gram] for gram, number in grams.items()}
        levels.append(grams)
    return levels


def discounts(grams: Grams) -> tuple[float, float, float]:
    """What is taken from counts of 1, 2, and 3 or more (Chen and Goodman 1999, equation 26)."""
    of = Counter(grams.values())
    if not (of[1] and of[2] and of[3] and of[4]):
        return FALLBACK
    share = of[1] / (of[1] + 2 * of[2])
    found = tuple(n - (n + 1) * share * of[n + 1] / of[n] for n in (1, 2, 3))
    return found if all(0 <= one <= n for n, one in enumerate(found, 1)) else FALLBACK  # type: ignore[return-value]


def interpolated(
    grams: Grams, lower: dict[tuple[str, ...], float] | None
) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
    """Probabilities of n-grams, and for each context of them the share that is left to the order below.

    Below unigrams (`lower` None) every unit is as likely, one never seen among them.
    """
    if lower is None:
        grams = {gram: number for gram, number in grams.items() if gram != (BEGIN,)}  # follows nothing
    taken = discounts(grams)
    totals: dict[tuple[str, ...], int] = defaultdict(int)
    freed: dict[tuple[str, ...], float] = defaultdict(float)
    for gram, number in grams.items():
        totals[gram[:-1]] += number
        freed[gram[:-1]] += taken[min(number, 3) - 1]
    left = {context: freed[context] / totals[context] for context in totals}
    uniform = 1 / (len(grams) + 1)
    found = {
        gram: (number - taken[min(number, 3) - 1]) / totals[gram[:-1]]
        + left[gram[:-1]] * (uniform if lower is None else lower[gram[1:]])
        for gram, number in grams.items()
    }
    if lower is None:
        found[UNSEEN,] = left[()] * uniform
        found[BEGIN,] = 0.0
    return found, left
