"""Durations in, batches of rows out, in an order that is a pure function of (seed, global batch index)."""

from collections.abc import Iterator

import numpy as np

from glmasr.speech import InputError

Key = tuple[int, int]
"""(row of the catalog, global batch index): what a loader asks of `SpeechDataset`."""


class BucketBatches:
    """Batches of utterances alike in length, for `DataLoader(batch_sampler=…)`: each a list of (row, global index).

    Batch size × longest utterance of the bucket stays within `batch_seconds`; one that is longer than that has a batch
    of its own. The number of batches of an epoch is a constant, so a resumed run computes where it is and skips
    nothing. Rank r of `world` takes the global indices `start + step * world + r`, for `count` steps or without end;
    every rank thus takes the same number.
    """

    def __init__(
        self,
        durations: np.ndarray,
        batch_seconds: float,
        buckets: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        count: int | None = None,
    ):
        durations = _checked(durations)
        self.seed, self.rank, self.world, self.start, self.count = seed, rank, world, start, count
        order = np.argsort(durations, kind="stable")
        self._buckets = [bucket for bucket in np.array_split(order, max(buckets, 1)) if len(bucket)]
        self._sizes = [_batch_size(durations[bucket], batch_seconds) for bucket in self._buckets]
        self.batches_per_epoch = sum(-(-len(b) // size) for b, size in zip(self._buckets, self._sizes, strict=True))
        self._epoch, self._plan = -1, []

    def batch(self, index: int) -> list[int]:
        """The rows of global batch `index`, whoever asks and whatever was asked before."""
        epoch, place = divmod(index, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._plan_of(epoch)
        return self._plan[place].tolist()

    def __iter__(self) -> Iterator[list[Key]]:
        step = 0
        while self.count is None or step < self.count:
            index = self.start + step * self.world + self.rank
            yield [(row, index) for row in self.batch(index)]
            step += 1

    def __len__(self) -> int:
        if self.count is None:
            raise TypeError("endless batches have no length")
        return self.count

    def _plan_of(self, epoch: int) -> list[np.ndarray]:
        """All batches of an epoch, shuffled: each bucket permuted and cut, its last batch filled from its beginning."""
        batches = []
        for number, (bucket, size) in enumerate(zip(self._buckets, self._sizes, strict=True), 1):
            permuted = np.random.default_rng((self.seed, epoch, number)).permutation(bucket)
            filled = np.resize(permuted, -(-len(bucket) // size) * size)
            batches += list(filled.reshape(-1, size))
        # number 0 is no bucket's, so this draw is independent of theirs
        order = np.random.default_rng((self.seed, epoch, 0)).permutation(len(batches))
        return [batches[place] for place in order]


def in_order(durations: np.ndarray, batch_seconds: float) -> list[list[Key]]:
    """Batches for evaluation, the longest first: each row exactly once, one longer than `batch_seconds` alone."""
    durations = _checked(durations)
    batches: list[list[Key]] = []
    longest = 0.0
    for row in np.argsort(-durations, kind="stable").tolist():
        if not batches or (len(batches[-1]) + 1) * longest > batch_seconds:
            batches.append([])
            longest = float(durations[row])
        batches[-1].append((row, len(batches) - 1))
    return batches


def _batch_size(durations: np.ndarray, batch_seconds: float) -> int:
    """Never more than the bucket holds: a batch has no use for the same utterance twice."""
    return min(len(durations), max(1, int(batch_seconds * (1 + 1e-6) / durations.max())))


def _checked(durations: np.ndarray) -> np.ndarray:
    durations = np.asarray(durations, dtype=np.float64)
    if not len(durations) or not (durations > 0).all():
        raise InputError("batches need at least one utterance, each of a positive duration; prepare the data again")
    return durations
