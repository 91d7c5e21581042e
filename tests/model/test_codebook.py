"""Codes are those a plain loop finds; fitting is repeatable; whitening spreads them on real speech."""

import numpy as np
import pytest
import torch

from glmasr.frontend.pipeline import Ear
from glmasr.model.codebook import Codebook, MeanCepstra, StackedLogMel
from glmasr.model.subsampling import frame_lengths
from glmasr.speech import InputError


class Given(torch.nn.Module):
    """A source of vectors that are there already."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size


@pytest.fixture
def vectors() -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(600, 12, generator=rng) @ torch.randn(12, 12, generator=rng) + 3.0


def test_kmeans_codes_are_the_nearest_clusters(vectors):
    book = Codebook(Given(12), "kmeans", codebooks=2, codes=7, components=5)
    book.fit(vectors)
    from sklearn.cluster import MiniBatchKMeans

    x = vectors.double() - vectors.double().mean(0)
    values, axes = torch.linalg.eigh(x.T @ x / len(x))
    white = (x @ axes[:, -5:] / values[-5:].sqrt()).numpy()
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(5), atol=1e-8)
    for seed in (0, 1):
        means = MiniBatchKMeans(7, random_state=seed, batch_size=10_000, n_init=3, max_iter=100).fit(white)
        distances = ((white[:, None] - means.cluster_centers_[None]) ** 2).sum(-1)
        assert (
            book.codes_of(vectors)[:, seed].numpy() == distances.argmin(1)
        ).mean() > 0.995  # float32 against float64


def test_random_codes_are_the_nearest_directions_of_the_projection(vectors):
    book = Codebook(Given(12), "random", codebooks=2, codes=9, components=6, code_width=4, seed=5)
    book.fit(vectors)
    x = vectors.double() - vectors.double().mean(0)
    values, axes = torch.linalg.eigh(x.T @ x / len(x))
    white = x @ axes[:, -6:] / values[-6:].sqrt()
    for number in (0, 1):
        rng = torch.Generator().manual_seed(5 + number)
        projection = torch.randn(6, 4, generator=rng, dtype=torch.float64)
        codes = torch.randn(4, 9, generator=rng, dtype=torch.float64)
        projected = white @ projection
        nearest = []
        for row in projected:  # BEST-RQ, equation 1: both normalized, the least distance
            distances = [float((row / row.norm() - code / code.norm()).norm()) for code in codes.T]
            nearest.append(int(np.argmin(distances)))
        assert (book.codes_of(vectors)[:, number] == torch.tensor(nearest)).float().mean() > 0.995


def test_fitting_is_repeatable_and_seeds_differ(vectors):
    def codes(seed: int, method: str) -> torch.Tensor:
        book = Codebook(Given(12), method, codebooks=1, codes=8, seed=seed)
        assert not book.fitted
        book.fit(vectors)
        assert book.fitted
        return book.codes_of(vectors)

    for method in ("kmeans", "random"):
        assert torch.equal(codes(0, method), codes(0, method))
        assert not torch.equal(codes(0, method), codes(1, method))


def test_what_cannot_be_fitted_is_said():
    with pytest.raises(InputError, match="kmeans or random"):
        Codebook(Given(3), "kmean", 1, 8)
    with pytest.raises(InputError, match="5 frames are too few for 8 clusters"):
        Codebook(Given(3), "kmeans", 1, 8).fit(torch.randn(5, 3))


@pytest.mark.parametrize("source", [StackedLogMel(), MeanCepstra()], ids=["logmel", "cepstra"])
def test_padding_does_not_change_a_frame_within_an_utterance(spoken_batch, source):
    ear = Ear()
    features, lengths = ear(*spoken_batch)
    frames = frame_lengths(lengths)
    together = source(features, lengths, int(frames.max()))
    waveform, samples = spoken_batch
    short = int(samples.argmin())
    alone, its = ear(waveform[short : short + 1, : samples[short]], samples[[short]])
    size = int(frames[short])
    inside = slice(0, size - 2)  # differences reach four feature frames over the edge
    torch.testing.assert_close(
        together[short, :size][inside], source(alone, its, size)[0][inside], atol=1e-4, rtol=1e-4
    )


def test_whitening_spreads_the_codes_of_real_speech(spoken_batch):
    features, lengths = Ear()(*spoken_batch)
    frames = frame_lengths(lengths)
    vectors = StackedLogMel()(features, lengths, int(frames.max()))
    vectors = torch.cat([row[:size] for row, size in zip(vectors, frames.tolist(), strict=True)])

    def largest(components: int | None) -> float:
        book = Codebook(StackedLogMel(), "random", 1, 64, components=components)
        book.fit(vectors)
        return float(torch.bincount(book.codes_of(vectors)[:, 0], minlength=64).max()) / len(vectors)

    assert largest(16) < 0.5 * largest(None)
