"""The sentences of a call in, those that say most of it out; or what a chat model makes of them, if one is named.

Sentences are ranked as in LexRank (Erkan and Radev 2004, section 3.2, the continuous one): PageRank over the cosines of
their tf-idf vectors. Terms are words, and pairs of neighboring Han characters: no dictionary is needed, and nothing is
fetched.
"""

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from glmasr.serving.review.rules import Llm
from glmasr.text.characters import HAN

TERMS = re.compile(f"[{HAN}]+|[^\\W_{HAN}]+(?:['’][^\\W_{HAN}]+)*")
DAMPING, ROUNDS, TOLERANCE = 0.85, 200, 1e-9
ALIKE = 0.7
"""So high a cosine to a sentence that is told already says nothing new."""
SENTENCES = 2000
"""Of more, the longest: their cosines are held at once."""
ANSWER_BYTES, ASKED_CHARACTERS, TOLD_CHARACTERS = 1 << 20, 60_000, 4000


@dataclass(frozen=True)
class Summary:
    """A call in a few sentences; `by` is "sentences" (its own) or the chat model's name, `note` why it is not that."""

    sentences: tuple[str, ...]
    by: str = "sentences"
    note: str = ""


def summarize(sentences: Sequence[tuple[str, str]], count: int, llm: Llm | None = None) -> Summary:
    """A call's sentences, each with who said it, as at most `count` of them, or by a chat model.

    Whatever goes wrong there, the call's own sentences are taken, and the note says why.
    """
    own = tuple(f"{speaker}: {text}" if speaker else text for speaker, text in chosen(sentences, count))
    if llm is None or not sentences:
        return Summary(own)
    try:
        return Summary((_asked(sentences, llm),), by=llm.model)
    except Exception as error:  # httpx has many, and none of them may cost a review
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return Summary(own, note=f"{llm.model} gave no summary ({reason})")


def chosen(sentences: Sequence[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """The `count` sentences that say most and not the same, in their order."""
    longest = sorted(range(len(sentences)), key=lambda i: -len(sentences[i][1]))[:SENTENCES]
    kept = [sentences[i] for i in sorted(longest)]
    cosines = likeness([text for _, text in kept])
    ranks, taken = centrality(cosines), []
    for i in sorted(range(len(kept)), key=lambda i: (-ranks[i], i)):
        if len(taken) < count and cosines[i, i] > 0 and all(cosines[i, other] < ALIKE for other in taken):
            taken.append(i)
    return [kept[i] for i in sorted(taken)]


def terms(text: str) -> list[str]:
    """Words in small letters; of Han characters, each pair that stands together (one that stands alone)."""
    found: list[str] = []
    for run in TERMS.findall(text.lower()):
        is_han = re.match(f"[{HAN}]", run) and len(run) > 1
        found += [run[i : i + 2] for i in range(len(run) - 1)] if is_han else [run]
    return found


def likeness(texts: Sequence[str]) -> Float[np.ndarray, "S S"]:
    """Cosines of the texts' tf-idf vectors, idf = 1 + ln((1 + S) / (1 + texts with the term)); 0 for one without."""
    places: dict[str, int] = {}
    found = [[places.setdefault(term, len(places)) for term in terms(text)] for text in texts]
    counts = np.zeros((len(texts), max(len(places), 1)), np.float32)
    for row, columns in zip(counts, found, strict=True):
        np.add.at(row, columns, 1.0)
    counts *= 1 + np.log((1 + len(texts)) / (1 + np.count_nonzero(counts, axis=0)))
    lengths = np.linalg.norm(counts, axis=1, keepdims=True)
    counts /= np.where(lengths > 0, lengths, 1.0)
    return counts @ counts.T


def centrality(weights: Float[np.ndarray, "S S"]) -> Float[np.ndarray, " S"]:
    """PageRank of a graph with these weights, by power iteration; ranks add up to 1. That a sentence is like itself
    says nothing: what is like no other would keep an average rank by it."""
    size = len(weights)
    if not size:
        return np.zeros(0)
    weights = weights * (1 - np.eye(size))
    sums = weights.sum(axis=1, keepdims=True)
    steps = np.where(sums > 0, weights / np.where(sums > 0, sums, 1.0), 1 / size)
    ranks = np.full(size, 1 / size)
    for _ in range(ROUNDS):
        before, ranks = ranks, (1 - DAMPING) / size + DAMPING * ranks @ steps
        if np.abs(ranks - before).sum() < TOLERANCE:
            break
    return ranks


def _asked(sentences: Sequence[tuple[str, str]], llm: Llm) -> str:
    """What the chat model says; any error where it says nothing of use in time."""
    import httpx  # imported here: a review that asks nobody has no need of it

    said = "\n".join(f"{speaker or 'speaker'}: {text}" for speaker, text in sentences)[:ASKED_CHARACTERS]
    messages = [{"role": "system", "content": llm.prompt}, {"role": "user", "content": said}]
    key = os.environ.get(llm.key_variable)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    end, answer = time.monotonic() + llm.timeout_seconds, b""
    content = {"model": llm.model, "messages": messages, "temperature": 0}
    with (
        httpx.Client(timeout=llm.timeout_seconds) as client,
        client.stream("POST", llm.url, json=content, headers=headers) as response,
    ):
        for part in response.iter_bytes():
            answer += part
            if time.monotonic() > end or len(answer) > ANSWER_BYTES:
                raise ValueError("the answer takes too long" if len(answer) <= ANSWER_BYTES else "it is too long")
        if not response.is_success:
            raise ValueError(f"HTTP {response.status_code}")
    return _told(json.loads(answer))


def _told(answer: Any) -> str:
    text = answer["choices"][0]["message"]["content"]
    if not isinstance(text, str) or not text.strip():
        raise ValueError("its answer is empty")
    return text.strip()[:TOLD_CHARACTERS]
