"""Unlabelled audio in, a fitted codebook out, in bounded memory: at most so many frames, drawn over all speakers."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from glmasr.build import build
from glmasr.bundle import encoder_of, load_weights, open_bundle, save_weights
from glmasr.data.catalog import Catalog, prepare_catalog, take_turns
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

    def __init__(self, bundle: str | None, block: int):
        super().__init__()
        if bundle is None:  # experiment/pretrain=units takes what pretraining goes on from
            raise InputError("units are clusters of what an encoder makes of audio, and none is named: pass bundle=DIR")
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


def fit_codebooks(
    objective: nn.Module, ear: nn.Module, catalog: Catalog, frames: int, seed: int, path: str | None = None
) -> Iterator[dict[str, Any]]:
    """Fit every codebook in `objective` that is not yet, or fill it in from `path`; facts about each one fitted."""
    for book in objective.modules():
        if isinstance(book, Codebook) and not book.fitted:
            if path is not None:
                fill(book, path)
                continue
            vectors = gather(catalog, ear, book, frames, seed)
            book.fit(vectors)
            yield describe(book, vectors)


def fill(book: Codebook, path: str) -> None:
    """Take the centers that `make clusters` wrote; an InputError where they are of another shape or not there."""
    try:
        book.load_state_dict(load_weights(Path(path)))
    except RuntimeError as error:
        raise InputError(
            f"{path} was made for another codebook ({str(error).splitlines()[-1].strip()}): make clusters with the "
            "same codebook=… settings"
        ) from error


def make_clusters(config: dict[str, Any]) -> None:
    """`make clusters`: fit one codebook and write it, with how evenly its codes are used."""
    folder = Path(config["run_dir"])
    target = folder / "codebook.safetensors"
    catalog = prepare_catalog(build(config["data"]), config["catalogs"])
    train = catalog.subset(split=config["splits"]["train"], **config["utterances"])
    book, ear = build(config["codebook"]), build(config["frontend"])
    [facts] = fit_codebooks(book, ear, train, config["frames"], config["seed"])
    save_weights(target, book.state_dict())
    (folder / "codebook.json").write_text(json.dumps(facts | {"config": config}, indent=1, ensure_ascii=False))
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
    print(f"glmasr: wrote {target}: {told}", file=sys.stderr)


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
