"""Frames in, codes out: the Gumbel product quantizer of wav2vec 2.0 (Baevski et al. 2020, section 2)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Quantized:
    """`vectors` (S, D) as sums over codebooks, `codes` (S, G), `probabilities` (S, G, K) without Gumbel noise."""

    vectors: Float[Tensor, "S D"]
    codes: Int[Tensor, "S G"]
    probabilities: Float[Tensor, "S G K"]


class GumbelQuantizer(nn.Module):
    """Choose one of `codes` entries in each of `codebooks` groups, differentiably while training.

    `temperature` is a plain attribute that the training loop anneals. In evaluation the largest logit wins.
    """

    def __init__(self, width_in: int, codebooks: int, codes: int, width: int):
        super().__init__()
        if width % codebooks:
            raise ValueError(f"quantizer width {width} must be a multiple of its {codebooks} codebooks")
        self.codebooks, self.codes = codebooks, codes
        self.temperature = 2.0
        self.logits = nn.Linear(width_in, codebooks * codes)
        self.codevectors = nn.Parameter(torch.empty(codebooks, codes, width // codebooks).uniform_())
        # The published N(0, 1) is near certain of a few codes on log-mel frames, and collapses (docs/LOG.md).
        nn.init.normal_(self.logits.weight, std=width_in**-0.5)
        nn.init.zeros_(self.logits.bias)

    def forward(self, frames: Float[Tensor, "S D"]) -> Quantized:
        logits = self.logits(frames).view(-1, self.codebooks, self.codes).float()
        codes = logits.argmax(-1)
        hard = nn.functional.one_hot(codes, self.codes).to(logits.dtype)
        chosen = nn.functional.gumbel_softmax(logits, self.temperature, hard=True) if self.training else hard
        vectors = torch.einsum("sgk,gkd->sgd", chosen.to(frames.dtype), self.codevectors).flatten(1)
        return Quantized(vectors, codes, logits.softmax(-1))


def perplexity(probabilities: Float[Tensor, "S G K"]) -> Float[Tensor, " G"]:
    """Exponential of the entropy of the mean distribution: how many codes each codebook really uses, 1 … K."""
    mean = probabilities.mean(0)
    return torch.exp(-(mean * (mean + 1e-7).log()).sum(-1))


def code_perplexity(codes: Int[Tensor, "S G"], count: int) -> Float[Tensor, " G"]:
    """`perplexity` of the codes that were chosen."""
    return perplexity(nn.functional.one_hot(codes, count).float())
