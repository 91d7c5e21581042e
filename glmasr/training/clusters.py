"""Unlabelled audio in, a fitted codebook out, in bounded memory: at most so many frames, drawn over all speakers."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from glmasr.bundle import encoder_of, open_bundle
from glmasr.data.catalog import Catalog, take_turns
from glmasr.data.dataset import SpeechDataset, collate
from glmasr.model.codebook import Codebook
from glmasr.model.subsampling import frame_lengths
from glmasr.objective.cluster import counted
from glmasr.speech import InputError


class Block(nn.Module):
    """A codebook's source: what block `block` (1 is the lowest) of an earlier bundle's encoder makes of clean speech.

    HuBERT's later iterations cluster such vectors (Hsu et al. 2021, section II-B). The encoder is copied, stands
    still, and must have been trained on the same features.
    """

    def __init__(self, bundle: str, block: int):
        super().__init__()
        opened = open_bundle(bundle)
        self.encoder = encoder_of(opened)
        blocks = len(self.encoder.blocks)
        if not 1 <= block <= blocks:
            raise InputError(f"the encoder of {bundle} has blocks 1 to {blocks}, not {block}")
        self.block = block
        self.size = self.encoder.width
        self.encoder.requires_grad_(False)

    @torch.no_grad()
    def forward(
        self, features: Float[Tensor, "B F M"], lengths: Int[Tensor, " B"], frames: int
    ) -> Float[Tensor, "B T S"]:
        self.encoder.eval()
        heard, heard_lengths = self.encoder.subsample(features, lengths)
        return self.encoder.layers(heard, heard_lengths)[self.block - 1]


def fit_codebooks(objective: nn.Module, ear: nn.Module, catalog: Catalog, frames: int, seed: int) -> dict[str, Any]:
    """Fit every codebook in `objective` that is not yet; facts about the last one, {} where there was none to fit."""
    facts = {}
    for book in objective.modules():
        if isinstance(book, Codebook) and not book.fitted:
            vectors = gather(catalog, ear, book, frames, seed)
            book.fit(vectors)
            facts = describe(book, vectors)
    return facts


@torch.no_grad()
def gather(catalog: Catalog, ear: nn.Module, book: Codebook, frames: int, seed: int) -> Float[Tensor, "S D"]:
    """The source's vectors of utterances drawn speaker by speaker until there are `frames`."""
    order = take_turns(catalog.speakers, np.random.default_rng(seed))
    dataset = SpeechDataset(catalog)
    found, count = [], 0
    with tqdm(total=frames, desc="codebook", unit=" frames", disable=None) as bar:
        for row in order.tolist():
            batch = collate(dataset.__getitems__([(row, 0)]))
            features, lengths = ear(batch.waveform, batch.lengths)
            length = int(frame_lengths(lengths)[0])
            found.append(book.vectors(features, lengths, length)[0])
            count += length
            bar.update(length)
            if count >= frames:
                break
    return torch.cat(found)[:frames]


@torch.no_grad()
def describe(book: Codebook, vectors: Float[Tensor, "S D"]) -> dict[str, Any]:
    """How evenly a codebook's codes are used: perplexity and the largest code's share, the mean over books."""
    share = counted(book.codes_of(vectors), book.codes) / len(vectors)
    perplexity = torch.exp(-(share * share.clamp(min=1e-12).log()).sum(1))
    return {
        "frames": len(vectors),
        "codebooks": book.codebooks,
        "codes": book.codes,
        "perplexity": round(float(perplexity.mean()), 1),
        "largest_share": round(float(share.max(1).values.mean()), 4),
        "unused": int((share == 0).sum()),
    }
