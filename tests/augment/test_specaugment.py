"""SpecAugment hides what it says, no more, and repeats itself."""

import numpy as np
import torch

from glmasr.augment.specaugment import SpecAugment

LENGTHS = [100, 61, 3]


def drawn(augment: SpecAugment, seed: int) -> torch.Tensor:
    return augment(torch.ones(3, 100, 80), LENGTHS, np.random.default_rng(seed))


def test_bands_span_the_utterance_and_stay_within_their_size():
    sizes = set()
    for seed in range(50):
        hidden = drawn(SpecAugment(1, 15, 0, 0), seed) == 0
        for row in hidden:
            assert (row == row[0]).all()
            bins = row[0].nonzero().flatten().tolist()
            assert bins == list(range(bins[0], bins[0] + len(bins))) if bins else True
            sizes.add(len(bins))
    assert sizes == set(range(16))


def test_stretches_hide_at_most_their_share_of_each_utterance():
    sizes = [set(), set(), set()]
    for seed in range(80):
        hidden = drawn(SpecAugment(0, 0, 1, 15, stretch_share=0.2), seed) == 0
        for row, length, seen in zip(hidden, LENGTHS, sizes, strict=True):
            assert (row == row[:, :1]).all() and not row[length:].any()
            frames = row[:, 0].nonzero().flatten().tolist()
            assert frames == list(range(frames[0], frames[0] + len(frames))) if frames else True
            seen.add(len(frames))
    assert [max(seen) for seen in sizes] == [15, 12, 0]


def test_the_outermost_frames_and_bins_can_be_hidden_too():
    frames = sum((drawn(SpecAugment(0, 0, 1, 15), seed)[0, :, 0] == 0).int() for seed in range(300))
    bins = sum((drawn(SpecAugment(1, 15, 0, 0), seed)[0, 0] == 0).int() for seed in range(300))
    assert frames.all() and bins.all()


def test_several_are_drawn_apart():
    hidden = sum((drawn(SpecAugment(3, 20, 0, 0), seed)[0, 0] == 0).sum().item() for seed in range(50)) / 50
    assert 20 < hidden < 30  # three bands of 10 on average, less what overlaps


def test_same_seed_same_result_and_the_input_stays():
    features = torch.randn(3, 100, 80)
    before, augment = features.clone(), SpecAugment(2, 15, 2, 15)
    first, again, other = (augment(features, LENGTHS, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other) and torch.equal(features, before)
    assert torch.equal(first[first != 0], features[first != 0])
