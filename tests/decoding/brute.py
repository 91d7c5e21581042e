"""Small scores in, what CTC says of every text out, by writing down every alignment."""

from collections import defaultdict
from itertools import groupby, product

import torch

from glmasr.text.tokenizer import BLANK


def scores(frames: int, size: int, seed: int, spread: float = 1.5) -> torch.Tensor:
    """Random log-probabilities (frames, size)."""
    return (spread * torch.randn(frames, size, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)


def texts(log_probs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """The probability of every text, summed over its alignments."""
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for path in product(range(log_probs.shape[1]), repeat=len(log_probs)):
        probability = 1.0
        for frame, token in enumerate(path):
            probability *= float(log_probs[frame, token].double().exp())
        found[tuple(token for token, _ in groupby(path) if token != BLANK)] += probability
    return found


def exact(log_probs: torch.Tensor, tokens: tuple[int, ...]) -> float:
    """The log-probability of one text, by torch's own CTC."""
    if not tokens:
        return log_probs[:, BLANK].double().sum().item()
    lengths = torch.tensor([len(log_probs)]), torch.tensor([len(tokens)])
    loss = torch.nn.functional.ctc_loss(
        log_probs.double()[:, None], torch.tensor([tokens]), *lengths, blank=BLANK, reduction="sum"
    )
    return -loss.item()
