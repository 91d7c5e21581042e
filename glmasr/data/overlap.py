"""Utterances with their fingerprints in; duplicates, and what dev and test share with train, out."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from glmasr.data.measure import Measures
from glmasr.speech import Utterance
from glmasr.text.normalize import normalize
from glmasr.text.tokenizer import UNKNOWN, Tokenizer, plain

Row = tuple[Utterance, Measures]

SKETCH_BITS, BAND_BITS = 256, 16
ALIKE_BITS = 48
"""Sketches that differ in at most so many of 256 bits are near duplicates.

No two of 3,600 words said by two speakers, nor of 2,500 digits said by five, come nearer than 62, the same digit twice
by the same speaker included. A recording and itself as Opus differ in 18 (median)
to 36 (nine of ten), as MP3 in 10 to 31, over the telephone's bandwidth in 0, 12 dB down in 0, with 0.4 s of silence
around it in 15 to 41, in noise at 30 dB in 15 to 31. In noise at 20 dB, or with 25 ms of its ends cut off, it is missed
more often than found, and a passage inside a longer recording always.
"""

NEIGHBORS = 16
"""With how many of those that share a band each sketch is compared: what keeps large corpora at n log n."""

EXAMPLES = 20

MOST_STRETCH = 0.7
"""How far the durations of near duplicates may be apart, as a logarithm: silence may have been cut off, half of it."""


def near_pairs(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Places of utterances that sound alike (or are the same samples), by locality-sensitive hashing of their sketches.

    Two are compared if one of 16 bands of 16 bits is equal. Were the differing bits independent, that would be so for
    96 of 100 pairs which differ in 26 bits, and for 43 of those that differ in 48.
    """
    places = np.array([place for place, (_, measures) in enumerate(rows) if measures.sketch], dtype=np.int64)
    if len(places) < 2:
        return []
    joined = bytes.fromhex("".join(rows[place][1].sketch for place in places))
    bits = np.frombuffer(joined, dtype=np.uint8).reshape(len(places), -1)
    bands = bits.view(">u2")
    words = bits.view("<u8")
    seconds = np.array([rows[place][1].seconds for place in places])
    found: set[tuple[int, int]] = set()
    for band in range(bands.shape[1]):
        order = np.lexsort(np.roll(bands, -band, axis=1).T[::-1])
        for step in range(1, min(NEIGHBORS, len(order) - 1) + 1):
            left, right = order[:-step], order[step:]
            same = bands[left, band] == bands[right, band]
            left, right = left[same], right[same]
            differing = np.bitwise_count(words[left] ^ words[right]).sum(1)
            alike = (differing <= ALIKE_BITS) & (np.abs(np.log(seconds[left] / seconds[right])) < MOST_STRETCH)
            low, high = np.minimum(left, right)[alike], np.maximum(left, right)[alike]
            found.update(zip(low.tolist(), high.tolist(), strict=True))
    return sorted((int(places[left]), int(places[right])) for left, right in found)


def duplicates(rows: Sequence[Row], pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """How many utterances repeat the samples of an earlier one, and how many pairs else sound alike, with examples."""
    groups = defaultdict(list)
    for utterance, measures in rows:
        groups[measures.digest].append(utterance.id)
    exact = [group for group in groups.values() if len(group) > 1]
    near = [(rows[a][0].id, rows[b][0].id) for a, b in pairs if rows[a][1].digest != rows[b][1].digest]
    return {
        "exact": sum(len(group) - 1 for group in exact),
        "near_pairs": len(near),
        "exact_examples": exact[:EXAMPLES],
        "near_examples": near[:EXAMPLES],
    }


def overlap(rows: Sequence[Row], pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """What every split but train shares with it: utterances by audio, near audio and transcript, and speakers.

    The counts over all held-out splits stand at the top, those of each split under `splits`.
    """
    held_out = sorted({utterance.split for utterance, _ in rows} - {"train"})
    shares = {split: _shared(rows, pairs, split) for split in held_out}
    kinds = ("audio", "near_audio", "transcript", "speaker")
    speakers = {name for share in shares.values() for name in share["speaker"]["all"]}
    told: dict[str, Any] = {kind: sum(share[kind]["count"] for share in shares.values()) for kind in kinds[:3]}
    told["speaker"] = len(speakers)
    for share in shares.values():
        del share["speaker"]["all"]
    return told | {"splits": shares}


def _shared(rows: Sequence[Row], pairs: Sequence[tuple[int, int]], split: str) -> dict[str, Any]:
    train = [row for row in rows if row[0].split == "train"]
    held = [row for row in rows if row[0].split == split]
    first_digest = {measures.digest: utterance.id for utterance, measures in reversed(train)}
    first_text = {_said(utterance): utterance.id for utterance, _ in reversed(train) if utterance.text}
    audio = [(first_digest[m.digest], u.id) for u, m in held if m.digest in first_digest]
    said = [(first_text[_said(u)], u.id, u.text) for u, _ in held if u.text and _said(u) in first_text]
    near = {}
    for pair in pairs:
        for one, other in (pair, pair[::-1]):
            (a, first), (b, second) = rows[one], rows[other]
            if (a.split, b.split) == ("train", split) and first.digest != second.digest:
                near.setdefault(b.id, a.id)
    speakers = sorted(({u.speaker for u, _ in held} & {u.speaker for u, _ in train}) - {""})
    spoken = sum(u.speaker in set(speakers) for u, _ in held)
    return {
        "utterances": len(held),
        "audio": {"count": len(audio), "examples": audio[:EXAMPLES]},
        "near_audio": {"count": len(near), "examples": [(a, b) for b, a in near.items()][:EXAMPLES]},
        "transcript": {"count": len(said), "examples": said[:EXAMPLES]},
        "speaker": {"count": len(speakers), "utterances": spoken, "examples": speakers[:EXAMPLES], "all": speakers},
    }


def _said(utterance: Utterance) -> str:
    return normalize(utterance.text or "", utterance.language)


def strange_characters(utterances: Iterable[Utterance], tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Characters a model could not write, with how often they occur and in how many utterances.

    With a tokenizer: what it does not know, anywhere. Without: what dev and test have and train never.
    """
    counts: Counter[str] = Counter()
    texts = [(utterance.split, plain(utterance.text)) for utterance in utterances if utterance.text]
    if tokenizer:
        strange = {one for one in {c for _, text in texts for c in text} if UNKNOWN in tokenizer.encode(one)}
    else:
        strange = {c for split, text in texts if split != "train" for c in text}
        strange -= {c for split, text in texts if split == "train" for c in text}
    affected = 0
    for _, text in texts:
        inside = [character for character in text if character in strange]
        counts.update(inside)
        affected += bool(inside)
    return {"characters": dict(counts.most_common()), "utterances": affected}
