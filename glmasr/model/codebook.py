"""Clean features in, codes out: fixed targets for masked prediction, by k-means or by random projection."""

import math
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glmasr.frontend.cepstra import Cepstra
from glmasr.model.subsampling import STRIDE, stack_features
from glmasr.speech import InputError


class Source(Protocol):
    """What a codebook quantizes: one vector of `size` numbers per encoder frame."""

    size: int

    def __call__(
        self, features: Float[Tensor, "B F M"], lengths: Int[Tensor, " B"], frames: int
    ) -> Float[Tensor, "B T S"]: ...


class StackedLogMel(nn.Module):
    """The feature frames under an encoder frame, side by side, as BEST-RQ quantizes (Chiu et al. 2022)."""

    def __init__(self, bins: int = 80):
        super().__init__()
        self.size = STRIDE * bins

    @torch.no_grad()
    def forward(
        self, features: Float[Tensor, "B F M"], lengths: Int[Tensor, " B"], frames: int
    ) -> Float[Tensor, "B T S"]:
        return stack_features(features, frames)


class MeanCepstra(nn.Module):
    """Cepstra and their differences, the mean over an encoder frame; after HuBERT's first codes (Hsu et al. 2021)."""

    def __init__(self, bins: int = 80, coefficients: int = 13):
        super().__init__()
        self.cepstra = Cepstra(bins, coefficients)
        self.size = self.cepstra.size

    @torch.no_grad()
    def forward(
        self, features: Float[Tensor, "B F M"], lengths: Int[Tensor, " B"], frames: int
    ) -> Float[Tensor, "B T S"]:
        return stack_features(self.cepstra(features), frames).unflatten(-1, (STRIDE, -1)).mean(-2)


class Codebook(nn.Module):
    """`codebooks` × `codes` centers, fitted once to a sample of frames and never trained.

    Frames are centered and whitened to their first `components` principal components (`None`: each dimension is
    scaled to unit variance), since one component of stacked log-mel holds most of its variance and a code of raw
    log-mel little more than loudness. With `method` kmeans the centers are k-means clusters, one book per seed;
    with random they are random directions after a random projection to `code_width` dimensions, and the code is the
    nearest direction. Both come down to the largest of `x @ centers + bias`, so a frame costs one matrix product.
    """

    shift: Tensor
    centers: Tensor
    bias: Tensor
    fitted: Tensor

    def __init__(
        self,
        source: nn.Module,
        method: str,
        codebooks: int,
        codes: int,
        components: int | None = None,
        code_width: int = 16,
        seed: int = 0,
    ):
        super().__init__()
        if method not in ("kmeans", "random"):
            raise InputError(f"a codebook's method is kmeans or random, not '{method}'")
        self.source, self.method, self.codebooks, self.codes = source, method, codebooks, codes
        self.components, self.code_width, self.seed = components, code_width, seed
        size: int = source.size  # type: ignore[assignment]
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("centers", torch.zeros(size, codebooks * codes))
        self.register_buffer("bias", torch.zeros(codebooks * codes))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def vectors(
        self, features: Float[Tensor, "B F M"], lengths: Int[Tensor, " B"], frames: int
    ) -> Float[Tensor, "B T S"]:
        """What the source makes of clean features."""
        return self.source(features, lengths, frames)

    @torch.no_grad()
    def codes_of(self, vectors: Float[Tensor, "S D"]) -> Int[Tensor, "S G"]:
        """The code of each vector in each codebook."""
        scores = (vectors.float() - self.shift) @ self.centers + self.bias
        return scores.unflatten(-1, (self.codebooks, self.codes)).argmax(-1)

    @torch.no_grad()
    def fit(self, vectors: Float[Tensor, "S D"]) -> None:
        """Whiten and place the centers; the same sample and seed give the same codebook."""
        x = vectors.double().cpu()
        mean = x.mean(0)
        x = x - mean
        if self.components is None:
            whitening = torch.diag(1 / x.std(0).clamp(min=1e-5))
        else:
            values, axes = torch.linalg.eigh(x.T @ x / len(x))
            kept = slice(-self.components, None)
            whitening = axes[:, kept] / values[kept].clamp(min=1e-10).sqrt()
        white = x @ whitening
        books = [self._book(white, self.seed + book) for book in range(self.codebooks)]
        device = self.shift.device
        self.shift.copy_(mean.to(device))
        self.centers.copy_((whitening @ torch.cat([centers for centers, _ in books], dim=1)).to(device))
        self.bias.copy_(torch.cat([bias for _, bias in books]).to(device))
        self.fitted.fill_(True)

    def _book(self, white: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Directions (P, K) and biases (K) whose largest sum is a whitened vector's code."""
        if self.method == "kmeans":
            from sklearn.cluster import MiniBatchKMeans

            if len(white) < self.codes:
                raise InputError(f"{len(white)} frames are too few for {self.codes} clusters: give more audio")
            tries: Any = 3  # the stubs know only "auto"
            means = MiniBatchKMeans(self.codes, random_state=seed, batch_size=10_000, n_init=tries, max_iter=100)
            centers = torch.from_numpy(means.fit(white.numpy()).cluster_centers_)
            # |x - c|² is least where x·c - |c|²/2 is largest.
            return centers.T, -centers.square().sum(1) / 2
        rng = torch.Generator().manual_seed(seed)
        size = white.shape[1]
        projection = torch.randn(size, self.code_width, generator=rng, dtype=torch.float64) / math.sqrt(size)
        codes = torch.randn(self.code_width, self.codes, generator=rng, dtype=torch.float64)
        return projection @ nn.functional.normalize(codes, dim=0), torch.zeros(self.codes, dtype=torch.float64)
