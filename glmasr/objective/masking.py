"""Lengths in, span masks out (True = hidden from the encoder); and how far attention may see."""

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

NO_CHUNKS = {"probability": 0.0, "low_frames": 1, "high_frames": 1}
"""Full context always."""


def draw_mask(
    lengths: list[int], size: int, share: float, span_frames: int, rng: np.random.Generator
) -> Bool[Tensor, "B T"]:
    """Hide `share` of each utterance's frames in spans of `span_frames`, drawn without overlap.

    The share holds at every length (to the nearest frame, at least one), and no utterance's mask depends on
    another's length: the hidden spans and the visible frames are shuffled like beads on a string. wav2vec 2.0 draws
    starts with replacement instead, so its share varies and is smaller than its p × length suggests.
    """
    mask = torch.zeros(len(lengths), size, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, :length] = torch.from_numpy(span_mask(length, share, span_frames, rng))
    return mask


def draw_chunk(probability: float, low_frames: int, high_frames: int, rng: np.random.Generator) -> int | None:
    """Limited attention for one batch with `probability`: how many frames a chunk has; None is full context.

    One encoder so learns to hear whole utterances and streams (Zhang et al. 2020, "U2", section 3.2). A probability of
    0 draws nothing, so what else `rng` gives is as without it.
    """
    if not probability or rng.random() >= probability:
        return None
    return int(rng.integers(low_frames, high_frames + 1))


def span_mask(length: int, share: float, span_frames: int, rng: np.random.Generator) -> np.ndarray:
    """One utterance's mask, (length) booleans."""
    hidden = min(length, max(1, round(share * length)))
    spans = -(-hidden // span_frames)
    sizes = np.full(spans, span_frames)
    sizes[-1] = hidden - span_frames * (spans - 1)
    beads = np.concatenate([rng.permutation(sizes), np.zeros(length - hidden, dtype=int)])
    beads = rng.permutation(beads)
    return np.concatenate([np.ones(size, bool) if size else np.zeros(1, bool) for size in beads])
