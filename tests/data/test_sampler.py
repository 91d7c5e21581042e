"""The order of batches: pure, complete, within budget, the same for every rank and after every restart."""

import time
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from glmasr.data.sampler import PERIOD, ByLength, Mixture, RankBatches, Windows, in_order, order_of
from glmasr.speech import InputError

RNG = np.random.default_rng(0)
DURATIONS = RNG.uniform(1.0, 15.0, 503).astype(np.float32)
BLOCKS = np.arange(503) // 20
LANGUAGES = np.array(["en"] * 400 + ["yue"] * 53 + ["zh"] * 50)

ORDERS = {
    "by length": lambda seed=5: ByLength(DURATIONS, 60.0, 0.05, seed),
    "windows": lambda seed=5: Windows(DURATIONS, BLOCKS, 30.0, 0.05, seed, lanes=4, window=8),
    "mixture": lambda seed=5: order_of(DURATIONS, 60.0, 0.05, seed, languages=LANGUAGES, temperature=2.0),
    "mixture of windows": lambda seed=5: order_of(
        DURATIONS, 30.0, 0.05, seed, BLOCKS, LANGUAGES, temperature=2.0, lanes=4, window=8
    ),
}


@pytest.fixture(params=ORDERS, ids=lambda name: name.replace(" ", "-"))
def order(request):
    """A function of the seed that makes each kind of order."""
    return ORDERS[request.param]


def dealt(order, count: int, start: int = 0) -> list[list[int]]:
    """The rows of `count` global batches."""
    return [[row for row, _ in keys] for keys in RankBatches(order, start=start, count=count)]


def rows_of(plan) -> list[int]:
    """All rows of some batches, in order."""
    return [row for rows in plan for row in rows]


def of(name: str) -> np.ndarray:
    """Which rows are of a language."""
    return np.array([one == name for one in LANGUAGES])


def padding(plan: list[list[int]], durations: np.ndarray = DURATIONS) -> float:
    return 1 - sum(durations[rows].sum() for rows in plan) / sum(len(rows) * durations[rows].max() for rows in plan)


def test_a_batch_depends_on_seed_and_index_alone(order):
    in_turn = dealt(order(), 400)
    for index in (7, 0, 391, 202, 11):
        assert dealt(order(), 1, start=index) == [in_turn[index]]
    assert dealt(order(seed=6), 400) != in_turn


def test_ranks_share_the_global_sequence_without_overlap_and_step_in_time(order):
    ranks = [list(RankBatches(order(), rank=rank, world=3, start=6, count=10)) for rank in range(3)]
    assert [len(batch) for batch in ranks] == [10, 10, 10]
    merged = [batch for step in zip(*ranks, strict=True) for batch in step]
    assert merged == list(RankBatches(order(), start=6, count=30))
    assert [batch[0][1] for batch in merged] == list(range(6, 36))


def test_a_restart_goes_on_where_the_run_was_cut(order):
    whole = list(islice(iter(RankBatches(order())), 100))
    assert list(islice(iter(RankBatches(order(), start=37)), 63)) == whole[37:]


def test_padded_seconds_stay_within_the_budget(order):
    budget = 60.0 if order().lanes == 1 else 30.0
    plan = dealt(order(), 300)
    assert max(len(rows) * DURATIONS[rows].max() for rows in plan) <= budget
    assert all(len(set(rows)) == len(rows) > 0 for rows in plan)


@pytest.mark.parametrize("epoch", [0, 1, 4])
def test_an_epoch_has_every_utterance_once(epoch):
    order = ORDERS["by length"]()
    size = order.batches_per_epoch
    rows = Counter(row for number in range(epoch * size, (epoch + 1) * size) for row in order.batch(number))
    assert set(rows) == set(range(len(DURATIONS))) and max(rows.values()) == 1


def test_epochs_differ_in_batches_and_in_their_order():
    order = ORDERS["by length"]()
    size = order.batches_per_epoch
    first, second = (dealt(order, size, start=epoch * size) for epoch in (0, 1))
    assert {frozenset(rows) for rows in first} != {frozenset(rows) for rows in second}
    lengths = [[DURATIONS[rows].max() for rows in epoch] for epoch in (first, second)]
    assert lengths[0] != lengths[1] and lengths[0] != sorted(lengths[0])


@pytest.mark.parametrize(("jitter", "most"), [(0.0, 0.02), (0.05, 0.05), (0.3, 0.15)])
def test_padding_grows_with_the_jitter_and_is_small(jitter, most):
    durations = RNG.gamma(4.0, 2.0, 5000).astype(np.float32) + 1
    order = ByLength(durations, 60.0, jitter, 0)
    assert jitter / 5 < padding(dealt(order, order.batches_per_epoch), durations) + 0.001 < most


def test_without_jitter_batches_are_those_of_sorting():
    order = ByLength(np.array([4.0, 1.0, 3.0, 2.0, 2.0]), 6.0, 0.0, 0)
    assert sorted(sorted(rows) for rows in dealt(order, 4)) == [[0], [1], [2, 3], [4]] or order.batches_per_epoch == 3
    assert {frozenset(rows) for rows in dealt(order, 3)} == {frozenset({0}), frozenset({2, 3}), frozenset({1, 4})}


def test_budgets_hold_for_lengths_of_ten_minutes_and_for_hundredths():
    durations = np.array([700.0, 699.0, 656.0, 0.004, 0.3, 0.301])
    order = ByLength(durations, 1400.0, 0.0, 0)
    plan = dealt(order, order.batches_per_epoch)
    assert max(len(rows) * durations[rows].max() for rows in plan) <= 1400.0
    assert sorted(rows_of(plan)) == [0, 1, 2, 3, 4, 5]
    assert [len(rows) for rows in dealt(ByLength(np.full(100, 2.0), 100.0, 0.0, 0), 2)] == [50, 50]


def test_an_utterance_longer_than_the_budget_has_a_batch_of_its_own():
    order = ByLength(np.array([1.0, 35.0, 36.0, 1.0]), 30.0, 0.0, 0)
    assert sorted(sorted(rows) for rows in dealt(order, order.batches_per_epoch)) == [[0, 3], [1], [2]]


def test_an_endless_sampler_has_no_length():
    with pytest.raises(TypeError):
        len(RankBatches(ORDERS["by length"]()))
    assert len(RankBatches(ORDERS["by length"](), count=4)) == 4


def test_wrong_settings_are_input_errors():
    with pytest.raises(InputError, match="at least one"):
        ByLength(np.array([]), 30.0, 0.1, 0)
    with pytest.raises(InputError, match=r"batches\.jitter=1"):
        ByLength(DURATIONS, 30.0, 1.0, 0)
    with pytest.raises(InputError, match=r"batches\.temperature=0\.5"):
        order_of(DURATIONS, 30.0, 0.1, 0, languages=LANGUAGES, temperature=0.5)


def test_a_lane_stays_in_a_window_until_it_is_through_with_it():
    order = Windows(DURATIONS, BLOCKS, 30.0, 0.05, 5, lanes=4, window=8)
    for lane in range(4):
        seen = [frozenset(BLOCKS[order.batch(number, lane)]) for number in range(60)]
        lane_blocks = frozenset().union(*seen)
        for other in set(range(4)) - {lane}:
            assert not lane_blocks & set(BLOCKS[rows_of(order.batch(number, other) for number in range(60))])
        windows, changes = [], 0
        for blocks in seen:  # of a window each batch has some of the blocks
            fitting = windows and (blocks <= windows[-1] or not any(blocks & other for other in windows[:-1]))
            if fitting and blocks & windows[-1]:
                windows[-1] |= blocks
            else:
                windows.append(blocks)
                changes += 1
        assert changes <= 60 / 4, "a window is left early"


def test_lanes_together_have_every_utterance_once_an_epoch():
    order = Windows(DURATIONS, BLOCKS, 30.0, 0.05, 5, lanes=4, window=8)
    for epoch in (0, 2):
        rows = Counter()
        for lane in range(4):
            size = int(order._lane_counts(lane).sum())
            for number in range(epoch * size, (epoch + 1) * size):
                rows.update(order.batch(number, lane))
        assert set(rows) == set(range(len(DURATIONS))) and set(rows.values()) == {1}


def test_windows_keep_padding_small():
    durations = RNG.gamma(4.0, 2.0, 30_000).astype(np.float32) + 1
    order = Windows(durations, np.arange(30_000) // 100, 120.0, 0.05, 0, lanes=8, window=64)
    assert padding(dealt(order, 800), durations) < 0.05


def test_fewer_blocks_than_lanes_are_no_trouble():
    order = Windows(np.full(6, 2.0), np.array([0, 0, 1, 1, 2, 2]), 4.0, 0.0, 0, lanes=8, window=64)
    assert order.lanes == 3 and sorted(rows_of(dealt(order, 3))) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0, 1000.0])
def test_languages_have_the_shares_of_their_temperature(temperature):
    order = order_of(DURATIONS, 60.0, 0.05, 0, languages=LANGUAGES, temperature=temperature)
    plan = dealt(order, 2 * PERIOD)
    if temperature == 1:  # nobody mixes: what is alike in length is together
        assert any(len(set(LANGUAGES[rows])) > 1 for rows in plan)
        return
    counts = Counter(name for rows in plan for name in set(LANGUAGES[rows]))
    assert sum(counts.values()) == len(plan)
    wanted = {name: DURATIONS[of(name)].sum() ** (1 / temperature) for name in counts}
    for name, given in counts.items():
        assert given / len(plan) == pytest.approx(wanted[name] / sum(wanted.values()), abs=1 / PERIOD), name


def test_a_mixture_uses_each_language_up_before_it_repeats():
    order = ORDERS["mixture"]()
    rows = rows_of(dealt(order, 2 * PERIOD))
    for name in ("en", "yue", "zh"):
        times = Counter(row for row in rows if LANGUAGES[row] == name)
        assert len(times) == of(name).sum() and max(times.values()) - min(times.values()) <= 1


def test_a_language_of_one_utterance_is_not_left_out_and_others_keep_theirs():
    languages = np.array(["en"] * 502 + ["yue"])
    order = order_of(DURATIONS, 60.0, 0.05, 0, languages=languages, temperature=1.01)
    counts = Counter(languages[rows[0]] for rows in dealt(order, PERIOD))
    assert counts["yue"] >= 1 and counts["en"] > 0.99 * PERIOD


def test_a_mixture_of_orders_with_more_lanes_takes_them_all():
    class Numbers:
        lanes = 5

        def batch(self, number, lane=0):
            return [number * 5 + lane]

    one = ByLength(np.full(4, 1.0), 1.0, 0.0, 0)
    mixture = Mixture([Numbers(), one], [np.arange(10**4), np.arange(4) + 10**6], np.array([0.9, 0.1]), 0)
    taken = [rows[0] for rows in dealt(mixture, PERIOD) if rows[0] < 10**6]
    assert mixture.lanes == 1 and sorted(taken) == list(range(900))


def test_ten_million_utterances_start_at_once():
    """The goal is 2 s on a quiet machine, which benchmarks/loader.py measures; here it must be of that order."""
    durations = RNG.gamma(4.0, 2.0, 10**7).astype(np.float32) + 1
    begun = time.perf_counter()
    order = ByLength(durations, 320.0, 0.05, 0)
    assert order.batch(order.batches_per_epoch // 2) and time.perf_counter() - begun < 20


def test_in_order_has_every_row_once_sorted_and_within_the_budget():
    plan = in_order(DURATIONS, 40.0)
    rows = [row for batch in plan for row, _ in batch]
    assert sorted(rows) == list(range(len(DURATIONS)))
    assert (np.diff(DURATIONS[rows]) <= 0).all()
    assert max(len(batch) * DURATIONS[[row for row, _ in batch]].max() for batch in plan) <= 40.0
    assert [{index for _, index in batch} for batch in plan] == [{n} for n in range(len(plan))]


def test_in_order_gives_an_overlong_utterance_a_batch_of_its_own():
    assert in_order(np.array([3.0, 50.0, 3.0]), 10.0) == [[(1, 0)], [(0, 1), (2, 1)]]
