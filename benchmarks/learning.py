"""How fast an encoder learns to name the k-means codes of speech, for controlled comparisons of one setting at a time.

python benchmarks/learning.py ../shared/corpora/librispeech_mini ../shared/corpora/fsdd --steps 300 \
    "" "mask_share=0.5" "branch_gain=1.0" "branch_gain=1.0,mask_share=0.5" "blocks=2" "learning_rate=3e-3"

Every variant sees the same batches from the same seed; a row is the mean of the last 50 steps. With a mask, hidden and
visible frames are both named. Nothing is held out: this measures optimization, not what is learned.
"""

import argparse

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from glmasr.data.catalog import prepare_catalog
from glmasr.data.corpora import Manifest
from glmasr.data.dataset import SpeechDataset, collate
from glmasr.data.sampler import ByLength, RankBatches
from glmasr.frontend.pipeline import Ear
from glmasr.model import conformer
from glmasr.model.codebook import Codebook, MeanCepstra
from glmasr.model.encoder import Encoder
from glmasr.objective.masking import draw_mask
from glmasr.training.clusters import gather

RECENT, SPAN_FRAMES, WARMUP = 50, 5, 100


def learn(
    batches: list,
    book: Codebook,
    learning_rate: float = 1e-3,
    blocks: int = 6,
    dropout: float = 0.1,
    mask_share: float = 0.0,
    branch_gain: float = conformer.BRANCH_GAIN,
) -> dict[str, float]:
    """Mean loss (nats) and accuracy of the last steps, of all frames and of hidden ones."""
    conformer.BRANCH_GAIN = branch_gain
    torch.manual_seed(0)
    ear, encoder, head = Ear(), Encoder(144, int(blocks), 4, dropout=dropout), torch.nn.Linear(144, book.codes)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), fused=True)
    seen: list[tuple[float, float, float]] = []
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / WARMUP)
        features, lengths = ear(batch.waveform, batch.lengths)
        frames, ends = encoder.subsample(features, lengths)
        size = frames.shape[1]
        rng = np.random.default_rng((0, batch.index))
        mask = draw_mask(ends.tolist(), size, mask_share, SPAN_FRAMES, rng) if mask_share else None
        real = torch.arange(size) < ends[:, None]
        codes = book.codes_of(book.vectors(features, lengths, size)[real])[:, 0]
        logits = head(encoder.contextualize(frames, ends, mask)[real])
        loss = cross_entropy(logits, codes)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        right = (logits.argmax(-1) == codes).float()
        hidden = cross_entropy(logits[mask[real]], codes[mask[real]]).item() if mask is not None else float("nan")
        seen.append((loss.item(), right.mean().item(), hidden))
    means = np.mean(seen[-RECENT:], axis=0)
    return dict(zip(("loss", "accuracy", "hidden_loss"), (round(float(mean), 3) for mean in means), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("given", nargs="+", metavar="CORPUS|VARIANT", help="manifests, then variants with a = or empty")
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_intermixed_args()
    corpora = [one for one in given.given if one and "=" not in one]
    catalog = prepare_catalog(Manifest(corpora), "data/corpora").subset("train", min_seconds=0.3, max_seconds=30.0)
    order = RankBatches(ByLength(catalog.durations, 15.0, 0.05, 0), count=given.steps)
    dataset = SpeechDataset(catalog)
    batches = [collate(dataset.__getitems__(keys)) for keys in order]
    book = Codebook(MeanCepstra(), "kmeans", codebooks=1, codes=100)
    book.fit(gather(catalog, Ear(), book, 100_000, 0))
    for variant in [one for one in given.given if not one or "=" in one]:
        settings = dict(pair.split("=") for pair in variant.split(",") if pair)
        print(variant or "defaults", learn(batches, book, **{name: float(value) for name, value in settings.items()}))


if __name__ == "__main__":
    main()
