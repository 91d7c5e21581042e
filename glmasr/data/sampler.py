"""Durations in, batches of rows out, in an order that is a pure function of (seed, global batch index).

An order deals out endless batches on one or more lanes; global batch i is number i // lanes of lane i % lanes.
`ByLength` has one lane, `Windows` several, so that a loader process keeps to few places of a remote corpus at a time.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from glmasr.speech import InputError

Key = tuple[int, int]
"""(row of the catalog, global batch index): what a loader asks of `SpeechDataset`."""

PERIOD = 1000
"""Batches in which a mixture keeps its shares exactly."""

LONGEST_TICK = 65535
"""Lengths are compared in 10 ms as 16-bit numbers, which sort by radix: 10⁷ of them in less than a second."""


class Order(Protocol):
    """Endless batches on `lanes` lanes, each a pure function of its lane and number."""

    lanes: int

    def batch(self, number: int, lane: int = 0) -> list[int]:
        """The rows of a batch, whoever asks and whatever was asked before."""
        ...


class RankBatches:
    """The batches of an order that one rank takes, for `DataLoader(batch_sampler=…)`: lists of (row, global index).

    Rank r of `world` takes the global indices `start + step * world + r`, for `count` steps or without end; every rank
    thus takes the same number.
    """

    def __init__(self, order: Order, rank: int = 0, world: int = 1, start: int = 0, count: int | None = None):
        self.order, self.rank, self.world, self.start, self.count = order, rank, world, start, count

    def __iter__(self) -> Iterator[list[Key]]:
        step = 0
        while self.count is None or step < self.count:
            index = self.start + step * self.world + self.rank
            number, lane = divmod(index, self.order.lanes)
            yield [(row, index) for row in self.order.batch(number, lane)]
            step += 1

    def __len__(self) -> int:
        if self.count is None:
            raise TypeError("endless batches have no length")
        return self.count


class ByLength:
    """Batches of utterances alike in length, each utterance once an epoch.

    Lengths are sorted after each was drawn shorter by up to a `jitter` share, anew in every epoch. Padded to its
    longest, a batch stays within `batch_seconds`; a longer utterance is alone. An epoch's batches have the same sizes
    in every epoch, so a resumed run computes where it is and skips nothing. `seed` may be several numbers.
    """

    lanes = 1

    def __init__(self, durations: np.ndarray, batch_seconds: float, jitter: float, seed: int | Sequence[int]):
        self._seed, self._jitter = (seed,) if isinstance(seed, int) else tuple(seed), jitter
        durations = _checked(durations, jitter)
        self._ticks = np.minimum(np.ceil(durations * 100 - 0.01), LONGEST_TICK).astype(np.uint16)
        # The n-th longest of lengths drawn shorter is no longer than the n-th longest: so sizes hold in every epoch.
        self._starts = _cut(self._ticks, batch_seconds * 100 * (1 - jitter))
        self.batches_per_epoch = len(self._starts) - 1
        self._epoch, self._rows, self._turns = -1, np.empty(0, int), np.empty(0, int)

    def batch(self, number: int, lane: int = 0) -> list[int]:
        """The rows of batch `number`; `lane` is 0."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if epoch != self._epoch:
            self._plan(epoch)
        turn = self._turns[place]
        return self._rows[self._starts[turn] : self._starts[turn + 1]].tolist()

    def _plan(self, epoch: int) -> None:
        rng = np.random.default_rng((*self._seed, epoch))
        drawn = self._ticks * (1 - np.float32(self._jitter) * rng.random(len(self._ticks), dtype=np.float32))
        # Downwards, by radix: a share of a tick is not worth sorting for.
        self._rows = np.argsort(LONGEST_TICK - drawn.astype(np.uint16), kind="stable")
        self._turns = rng.permutation(self.batches_per_epoch)
        self._epoch = epoch


class Windows:
    """`ByLength` within windows of a corpus whose blocks (row groups of shards, of any order) are fetched whole.

    `blocks` has the block of each row. The blocks are shuffled, put together to windows of about `window` batches, and
    the windows dealt to `lanes`; a lane goes through its windows in an order drawn anew each time. Lanes that are a
    multiple of world × workers let each loader process fetch only its own part of the corpus.
    """

    def __init__(
        self,
        durations: np.ndarray,
        blocks: np.ndarray,
        batch_seconds: float,
        jitter: float,
        seed: int,
        lanes: int,
        window: int,
    ):
        self._durations, self._settings, self._seed = _checked(durations, jitter), (batch_seconds, jitter), seed
        self._rows_by_block = np.argsort(blocks, kind="stable")
        _, first = np.unique(blocks[self._rows_by_block], return_index=True)
        self._ends = np.append(first, len(blocks))
        shuffled = np.random.default_rng((seed, 0)).permutation(len(first))
        whole = self._durations.sum(dtype=np.float64) / (window * batch_seconds)
        windows = np.array_split(shuffled, min(max(int(whole), lanes, 1), len(shuffled)))
        self.lanes = min(lanes, len(windows))
        self._windows = [windows[lane :: self.lanes] for lane in range(self.lanes)]
        self._counts: dict[int, np.ndarray] = {}
        self._open: dict[int, tuple[int, int, np.ndarray, ByLength]] = {}

    def batch(self, number: int, lane: int = 0) -> list[int]:
        """The rows of a lane's batch: all from one window."""
        counts = self._lane_counts(lane)
        epoch, place = divmod(number, int(counts.sum()))
        turns = np.random.default_rng((self._seed, 1, lane, epoch)).permutation(len(counts))
        ends = np.cumsum(counts[turns])
        turn = bisect_right(ends, place)
        window = int(turns[turn])
        rows, batches = self._opened(lane, window)
        within = place - (int(ends[turn]) - int(counts[window]))
        return rows[batches.batch(epoch * int(counts[window]) + within)].tolist()

    def _lane_counts(self, lane: int) -> np.ndarray:
        """Batches of each window of a lane, counted on the lane's first use: a rank counts its own lanes only."""
        if lane not in self._counts:
            windows = range(len(self._windows[lane]))
            self._counts[lane] = np.array([self._opened(lane, one)[1].batches_per_epoch for one in windows])
        return self._counts[lane]

    def _opened(self, lane: int, window: int) -> tuple[np.ndarray, ByLength]:
        if lane not in self._open or self._open[lane][1] != window:
            blocks = self._windows[lane][window]
            rows = np.concatenate([self._rows_by_block[self._ends[one] : self._ends[one + 1]] for one in blocks])
            seed = (self._seed, 2, lane, window)
            batches = ByLength(self._durations[rows], *self._settings, seed)
            self._open[lane] = lane, window, rows, batches
        return self._open[lane][2:]


class Mixture:
    """Several orders dealt out by `shares`: of every `PERIOD` batches of a lane, so many are each one's, shuffled.

    Order k's own rows are `rows[k]` of the catalog. All have the same number of lanes, or are mixed on the fewest.
    """

    def __init__(self, orders: Sequence[Order], rows: Sequence[np.ndarray], shares: np.ndarray, seed: int):
        self._orders, self._rows, self._seed = orders, rows, seed
        self.lanes = min(order.lanes for order in orders)
        self._quota = _rounded(shares)
        self._period: dict[int, tuple[int, np.ndarray, np.ndarray]] = {}

    def batch(self, number: int, lane: int = 0) -> list[int]:
        """The rows of a lane's batch: all from one order."""
        period, place = divmod(number, PERIOD)
        if lane not in self._period or self._period[lane][0] != period:
            self._period[lane] = period, *self._dealt(lane, period)
        _, chosen, before = self._period[lane]
        choice = int(chosen[place])
        own = period * int(self._quota[choice]) + int(before[place])
        # An order with more lanes than the mixture has its spare lanes taken in turn.
        order = self._orders[choice]
        extra = (order.lanes - 1 - lane) // self.lanes + 1
        turn, spare = divmod(own, extra)
        return self._rows[choice][order.batch(turn, lane + spare * self.lanes)].tolist()

    def _dealt(self, lane: int, period: int) -> tuple[np.ndarray, np.ndarray]:
        """Which order each batch of a period is taken from, and how many it has given before in the period."""
        dealt = np.repeat(np.arange(len(self._quota)), self._quota)
        chosen = np.random.default_rng((self._seed, 3, lane, period)).permutation(dealt)
        before = np.empty(PERIOD, dtype=int)
        for order in range(len(self._quota)):
            mine = chosen == order
            before[mine] = np.arange(mine.sum())
        return chosen, before


def order_of(
    durations: np.ndarray,
    batch_seconds: float,
    jitter: float,
    seed: int,
    blocks: np.ndarray | None = None,
    languages: np.ndarray | None = None,
    temperature: float = 1.0,
    lanes: int = 1,
    window: int = 64,
) -> Order:
    """The order of a corpus: `Windows` where it has `blocks`, else `ByLength`; of several languages a `Mixture`.

    A language with n seconds of audio has a share of the batches like n ** (1 / temperature): at 1 as much as it has,
    higher gives the rarer ones more (Conneau et al. 2020, section 3, α = 1 / temperature). InputError below 1.
    """

    def one(rows: np.ndarray | slice, seed: int) -> Order:
        if blocks is None:
            return ByLength(durations[rows], batch_seconds, jitter, seed)
        return Windows(durations[rows], blocks[rows], batch_seconds, jitter, seed, lanes, window)

    if temperature < 1:
        raise InputError(f"batches.temperature={temperature:g} would make rare languages rarer; give 1 or more")
    names = np.unique(languages) if languages is not None else ()
    if temperature == 1 or languages is None or len(names) < 2:
        return one(slice(None), seed)
    rows = [np.flatnonzero(languages == name) for name in names]
    seconds = np.array([durations[mine].sum(dtype=np.float64) for mine in rows])
    shares = seconds ** (1 / temperature)
    seeds = np.random.SeedSequence(seed).generate_state(len(rows))
    orders = [one(mine, int(own)) for mine, own in zip(rows, seeds, strict=True)]
    return Mixture(orders, rows, shares / shares.sum(), seed)


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


def _cut(ticks: np.ndarray, batch_ticks: float) -> np.ndarray:
    """Where each batch begins in lengths sorted downwards, and the end: as many as fit if all are like its first."""
    lengths, counts = np.unique(ticks, return_counts=True)
    starts, taken, behind = [np.zeros(0, int)], 0, 0  # rows in batches, rows of this length and longer
    for length, count in zip(lengths[::-1].tolist(), counts[::-1].tolist(), strict=True):
        behind += count
        size = max(1, int(batch_ticks * (1 + 1e-6) / max(length, 1)))
        batches = max(-(-(behind - taken) // size), 0)
        starts.append(taken + size * np.arange(batches))
        taken += size * batches
    return np.append(np.concatenate(starts), len(ticks))


def _rounded(shares: np.ndarray) -> np.ndarray:
    """Whole numbers like `shares` that make up a `PERIOD`, the largest remainders rounded up, none left out."""
    exact = np.maximum(shares * PERIOD, 1)
    exact *= PERIOD / exact.sum()
    whole = np.maximum(exact.astype(int), 1)
    for order in np.argsort(whole - exact)[: max(PERIOD - int(whole.sum()), 0)]:
        whole[order] += 1
    whole[np.argmax(whole)] += PERIOD - int(whole.sum())
    return whole


def _checked(durations: np.ndarray, jitter: float = 0.0) -> np.ndarray:
    durations = np.asarray(durations, dtype=np.float32)
    if not len(durations) or not (durations > 0).all():
        raise InputError("batches need at least one utterance, each of a positive duration; prepare the data again")
    if not 0 <= jitter < 1:
        raise InputError(
            f"batches.jitter={jitter:g} is a share of an utterance's length: give at least 0 and less than 1"
        )
    return durations
