"""Batches are where the step says they are, on every rank, from any start."""

import hashlib
import random
import warnings
from itertools import islice
from types import SimpleNamespace

import pytest
import torch

from glmasr.augment.noise import NoiseMixing
from glmasr.data.catalog import prepare_catalog
from glmasr.data.export import to_shards
from glmasr.data.streaming import StreamedShards
from glmasr.speech import RATE_HZ
from glmasr.text.tokenizer import learn_characters
from glmasr.training.datamodule import SpeechBatches


@pytest.fixture
def loaded(catalog):
    """(first `count` training batches, all dev batches) as a rank sees them after `step` optimizer steps."""

    def load(step=0, rank=0, world=1, accumulate=1, count=4, tokenizer=None, noise=None, workers=0):
        train, dev = catalog.subset(split="train"), catalog.subset(split="dev")
        batches = SpeechBatches(train, dev, 6.0, 0.05, 1.0, workers, {}, 7, noise=noise, tokenizer=tokenizer)
        batches.trainer = SimpleNamespace(
            global_step=step, global_rank=rank, world_size=world, num_devices=world, accumulate_grad_batches=accumulate
        )
        return list(islice(batches.train_dataloader(), count)), list(batches.val_dataloader())

    return load


def facts(batches) -> list:
    return [(batch.index, batch.ids, batch.waveform.sum().item()) for batch in batches]


def test_a_resumed_loader_goes_on_where_it_was(loaded):
    noise = NoiseMixing(0.0, 10.0, 1.0, None)
    whole = facts(loaded(count=12, noise=noise)[0])
    assert facts(loaded(step=5, count=7, noise=noise)[0]) == whole[5:]
    assert facts(loaded(step=2, accumulate=3, count=6, noise=noise)[0]) == whole[6:]
    assert len({ids for _, ids, _ in whole}) > 4


def test_the_order_has_one_hash_whoever_loads_it(loaded):
    """On a rerun, with 0, 1 and 3 workers, resumed at a batch drawn at random, on one rank and on two in turn."""

    def hashed(seen) -> str:
        return hashlib.sha256(repr(seen).encode()).hexdigest()

    noise = NoiseMixing(0.0, 10.0, 1.0, None)
    expected = hashed(facts(loaded(count=12, noise=noise)[0]))
    for workers in (0, 1, 3):
        assert hashed(facts(loaded(count=12, noise=noise, workers=workers)[0])) == expected
    cut = random.randrange(1, 12)
    first, rest = loaded(count=cut, noise=noise)[0], loaded(step=cut, count=12 - cut, noise=noise, workers=1)[0]
    assert hashed(facts(first) + facts(rest)) == expected
    ranks = [facts(loaded(rank=rank, world=2, count=6, noise=noise, workers=rank)[0]) for rank in (0, 1)]
    assert hashed([one for step in zip(*ranks, strict=True) for one in step]) == expected


def test_ranks_share_the_batches_of_one_process(loaded):
    whole, dev = (facts(part) for part in loaded(count=12))
    shares = [[facts(part) for part in loaded(step=1, rank=rank, world=2, count=4)] for rank in (0, 1)]
    assert sorted(shares[0][0] + shares[1][0]) == whole[2:10]
    # One dev batch is too few for two ranks: its utterances are shared.
    names = [[name for _, ids, _ in share[1] for name in ids] for share in shares]
    assert all(names) and sorted(names[0] + names[1]) == sorted(name for _, ids, _ in dev for name in ids)


def test_lanes_that_do_not_fit_the_loaders_are_said_to_cost_traffic(catalog, tmp_path):
    to_shards(catalog, tmp_path / "shards")
    streamed = prepare_catalog(StreamedShards(str(tmp_path / "shards")), str(tmp_path / "catalogs"))
    train, dev = streamed.subset(split="train"), streamed.subset(split="dev")
    for lanes in (3, 4):
        batches = SpeechBatches(train, dev, 6.0, 0.05, 1.0, 0, {"lanes": lanes, "window": 64}, 7)
        batches.trainer = SimpleNamespace(
            global_step=0, global_rank=0, world_size=2, num_devices=2, accumulate_grad_batches=1
        )
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert next(iter(batches.train_dataloader())).ids
        assert ["lanes=3 is no multiple of 2" in str(one.message) for one in said if "lanes" in str(one.message)] == (
            [True] if lanes == 3 else []
        )


def test_training_batches_fit_the_budget_and_dev_comes_once(loaded, catalog):
    train, dev = loaded(count=8, tokenizer=learn_characters(catalog.texts()))
    assert all(batch.waveform.numel() / RATE_HZ <= 6.0 + 0.01 for batch in train)
    assert sorted(name for batch in dev for name in batch.ids) == ["dev/F1/F1_b5_w1", "dev/M3/M3_b5_w1"]
    for batch in train:
        assert batch.tokens is not None and (batch.tokens >= 0).sum(1).tolist() == batch.token_lengths.tolist()
        assert all(text.startswith("please select the word") for text in batch.texts)


def test_a_batch_moves_with_everything_in_it(loaded):
    batch = loaded(count=1, noise=NoiseMixing(0.0, 0.0, 1.0, None))[0][0]
    moved = SpeechBatches.transfer_batch_to_device(None, batch, torch.device("meta"), 0)
    assert moved.waveform.is_meta and moved.lengths.is_meta and moved.clean.is_meta
    assert moved.ids == batch.ids and moved.tokens is None


@pytest.mark.parametrize(("workers", "devices", "share"), [(0, 1, 12.0), (3, 1, 4.0), (2, 3, 2.0)])
def test_what_a_machine_keeps_decoded_is_shared_by_its_loaders(catalog, workers, devices, share):
    train = catalog.subset(split="train")
    batches = SpeechBatches(train, train, 6.0, 0.05, 1.0, workers, {}, 7, decoded_mb=12.0)
    batches.trainer = SimpleNamespace(
        global_step=0, global_rank=0, world_size=8, num_devices=devices, accumulate_grad_batches=1
    )
    assert batches.train_dataloader().dataset.room_bytes == share * 1e6
