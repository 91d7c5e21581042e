"""The order of batches: pure, complete, within budget, the same for every rank and after every restart."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from glmasr.data.sampler import BucketBatches, in_order
from glmasr.speech import InputError

DURATIONS = np.random.default_rng(0).uniform(1.0, 15.0, 503).astype(np.float32)


def batches(**options) -> BucketBatches:
    return BucketBatches(**{"durations": DURATIONS, "batch_seconds": 60.0, "buckets": 8, "seed": 5, **options})


def test_a_batch_depends_on_seed_and_index_alone():
    walked = batches()
    in_turn = [walked.batch(index) for index in range(3 * walked.batches_per_epoch)]
    for index in (7, 0, 2 * walked.batches_per_epoch + 3, 11):
        assert batches().batch(index) == in_turn[index]
    assert batches(seed=6).batch(7) != in_turn[7]


@pytest.mark.parametrize("epoch", [0, 1, 4])
def test_an_epoch_has_every_utterance_and_repeats_few(epoch):
    sampler = batches()
    size = sampler.batches_per_epoch
    rows = Counter(row for index in range(epoch * size, (epoch + 1) * size) for row in sampler.batch(index))
    assert set(rows) == set(range(len(DURATIONS))) and max(rows.values()) <= 2
    assert sum(rows.values()) - len(rows) < 8 * 60


def test_epochs_differ_in_batches_and_in_their_order():
    sampler = batches()
    size = sampler.batches_per_epoch
    first, second = ([sampler.batch(epoch * size + n) for n in range(size)] for epoch in (0, 1))
    assert {frozenset(b) for b in first} != {frozenset(b) for b in second}
    lengths = [[DURATIONS[b].max() for b in epoch] for epoch in (first, second)]
    assert lengths[0] != lengths[1] and lengths[0] != sorted(lengths[0])


def test_padded_seconds_stay_within_the_budget_and_waste_is_small():
    sampler = batches()
    plan = [sampler.batch(index) for index in range(sampler.batches_per_epoch)]
    padded = [len(rows) * DURATIONS[rows].max() for rows in plan]
    assert max(padded) <= 60.0
    assert 1 - sum(DURATIONS[rows].sum() for rows in plan) / sum(padded) < 0.12
    assert all(len(set(rows)) == len(rows) for rows in plan[: sampler.batches_per_epoch])


def test_ranks_share_the_global_sequence_without_overlap_and_step_in_time():
    ranks = [list(batches(rank=rank, world=3, start=6, count=10)) for rank in range(3)]
    assert [len(batch) for batch in ranks] == [10, 10, 10]
    merged = [batch for step in zip(*ranks, strict=True) for batch in step]
    assert merged == list(batches(start=6, count=30))
    assert [batch[0][1] for batch in merged] == list(range(6, 36))


def test_a_restart_goes_on_where_the_run_was_cut():
    whole = list(islice(iter(batches()), 100))
    assert list(islice(iter(batches(start=37)), 63)) == whole[37:]


def test_an_endless_sampler_has_no_length():
    with pytest.raises(TypeError):
        len(batches())
    assert len(batches(count=4)) == 4


def test_few_utterances_and_many_buckets_still_make_batches():
    sampler = BucketBatches(np.array([2.0, 2.5, 9.0]), 100.0, 10, 0)
    assert sampler.batches_per_epoch == 3
    assert sorted(row for index in range(3) for row in sampler.batch(index)) == [0, 1, 2]
    assert BucketBatches(np.full(8, 2.0), 100.0, 1, 0).batches_per_epoch == 1


def test_an_utterance_longer_than_the_budget_has_a_batch_of_its_own():
    batches = BucketBatches(np.array([1.0, 35.0, 36.0, 1.0]), 30.0, 2, 0)
    assert sorted(sorted(batches.batch(i)) for i in range(batches.batches_per_epoch)) == [[0, 3], [1], [2]]


def test_no_utterances_are_an_input_error():
    with pytest.raises(InputError, match="at least one"):
        BucketBatches(np.array([]), 30.0, 2, 0)


def test_in_order_has_every_row_once_sorted_and_within_the_budget():
    plan = in_order(DURATIONS, 40.0)
    rows = [row for batch in plan for row, _ in batch]
    assert sorted(rows) == list(range(len(DURATIONS)))
    assert (np.diff(DURATIONS[rows]) <= 0).all()
    assert max(len(batch) * DURATIONS[[row for row, _ in batch]].max() for batch in plan) <= 40.0
    assert [{index for _, index in batch} for batch in plan] == [{n} for n in range(len(plan))]


def test_in_order_gives_an_overlong_utterance_a_batch_of_its_own():
    assert in_order(np.array([3.0, 50.0, 3.0]), 10.0) == [[(1, 0)], [(0, 1), (2, 1)]]
