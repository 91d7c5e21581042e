"""How fast an encoder learns to name the k-means codes of speech, for controlled comparisons of one setting at a time.

python benchmarks/learning.py ../shared/corpora/librispeech_mini ../shared/corpora/fsdd --steps 300 \
    "" "mask_share=0.5" "branch_gain=1.0" "branch_gain=1.0,mask_share=0.5" "blocks=2" "learning_rate=3e-3"

Every variant sees the same batches; a row is the mean of the last 50 steps, and then of the dev splits, which are held
out (`dev_`). With a mask, hidden and visible frames are both named. What was made cheap, against what it is cheap for:

python benchmarks/learning.py CORPORA… --steps 600 mask_share=0.5 mask_share=0.5,seed=1 \
    mask_share=0.5,dropout=0 mask_share=0.5,inner_dropout=0 mask_share=0.5,plain_stem=1 mask_share=0.5,kernel=31
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from stem import PlainSubsampling
from torch import Tensor
from torch.nn.functional import cross_entropy

from glmasr.data.catalog import Catalog, prepare_catalog
from glmasr.data.corpora import Manifest
from glmasr.data.dataset import SpeechDataset, collate
from glmasr.data.sampler import ByLength, RankBatches
from glmasr.frontend.pipeline import Ear
from glmasr.model import conformer
from glmasr.model.codebook import Codebook, MeanCepstra
from glmasr.model.encoder import Encoder
from glmasr.objective.masking import draw_mask
from glmasr.speech import Batch
from glmasr.training.clusters import gather

RECENT, SPAN_FRAMES, WARMUP, HELD_OUT = 50, 5, 100, 40


def learn(
    batches: Sequence[Batch],
    held_out: Sequence[Batch],
    book: Codebook,
    learning_rate: float = 1e-3,
    blocks: float = 6,
    dropout: float = 0.1,
    inner_dropout: float | None = None,
    kernel: float = 15,
    stem_channels: float = 32,
    plain_stem: float = 0,
    mask_share: float = 0.0,
    branch_gain: float = conformer.BRANCH_GAIN,
    seed: float = 0,
) -> dict[str, float]:
    """Mean loss (nats) and accuracy of the last steps, of all frames and of hidden ones, then of what is held out."""
    conformer.BRANCH_GAIN = branch_gain
    torch.manual_seed(int(seed))
    encoder = Encoder(
        144,
        int(blocks),
        4,
        stem_channels=int(stem_channels),
        kernel=int(kernel),
        dropout=dropout,
        inner_dropout=inner_dropout,
    )
    if plain_stem:
        encoder.subsampling = PlainSubsampling(encoder.bins, 144, int(stem_channels))
    ear, head = Ear(), torch.nn.Linear(144, book.codes)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), fused=True)

    def name(batch: Batch) -> tuple[Tensor, list[float]]:
        features, lengths = ear(batch.waveform, batch.lengths)
        frames, ends = encoder.subsample(features, lengths)
        size = frames.shape[1]
        rng = np.random.default_rng((0, batch.index))
        mask = draw_mask(ends.tolist(), size, mask_share, SPAN_FRAMES, rng) if mask_share else None
        real = torch.arange(size) < ends[:, None]
        codes = book.codes_of(book.vectors(features, lengths, size)[real])[:, 0]
        logits = head(encoder.contextualize(frames, ends, mask)[real])
        loss = cross_entropy(logits, codes)
        right = (logits.argmax(-1) == codes).float()
        hidden = cross_entropy(logits[mask[real]], codes[mask[real]]).item() if mask is not None else float("nan")
        return loss, [loss.item(), right.mean().item(), hidden]

    seen = []
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / WARMUP)
        loss, found = name(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        seen.append(found)
    encoder.eval()
    with torch.inference_mode():
        judged = [name(batch)[1] for batch in held_out]
    means = [*np.mean(seen[-RECENT:], axis=0), *np.mean(judged, axis=0)]
    names = [prefix + name for prefix in ("", "dev_") for name in ("loss", "accuracy", "hidden_loss")]
    return dict(zip(names, (round(float(mean), 3) for mean in means), strict=True))


def batches_of(catalog: Catalog, count: int) -> list[Batch]:
    """So many batches of 15 s."""
    dataset, order = SpeechDataset(catalog), RankBatches(ByLength(catalog.durations, 15.0, 0.05, 0), count=count)
    return [collate(dataset.__getitems__(keys)) for keys in order]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("given", nargs="+", metavar="CORPUS|VARIANT", help="manifests, then variants with a = or empty")
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_intermixed_args()
    corpora = [one for one in given.given if one and "=" not in one]
    known = prepare_catalog(Manifest(corpora), "data/corpora")
    catalog, dev = (known.subset(split, min_seconds=0.3, max_seconds=30.0) for split in ("train", "dev"))
    batches, held_out = batches_of(catalog, given.steps), batches_of(dev, HELD_OUT)
    book = Codebook(MeanCepstra(), "kmeans", codebooks=1, codes=100)
    book.fit(gather(catalog, Ear(), book, 100_000, 0))
    for variant in [one for one in given.given if not one or "=" in one]:
        settings = dict(pair.split("=") for pair in variant.split(",") if pair)
        print(
            variant or "defaults",
            learn(batches, held_out, book, **{name: float(value) for name, value in settings.items()}),
            flush=True,
        )


if __name__ == "__main__":
    main()
