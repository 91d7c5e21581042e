"""The mask's promise: its share at every length, whole spans, and no say for the others."""

import numpy as np
import pytest
import torch

from glmasr.objective.masking import draw_chunk, draw_mask, span_mask


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(int), [0]))))
    return (edges[1::2] - edges[::2]).tolist()


@pytest.mark.parametrize(("share", "span"), [(0.065, 10), (0.4, 5), (0.5, 10), (0.65, 3), (1.0, 7)])
def test_the_share_holds_at_every_length(share, span):
    for length in range(1, 501):
        mask = span_mask(length, share, span, np.random.default_rng(length))
        assert mask.shape == (length,) and mask.dtype == bool
        assert mask.sum() == min(length, max(1, round(share * length)))


def test_it_is_made_of_whole_spans_but_one():
    for seed in range(200):
        sizes = runs(span_mask(100, 0.42, 5, np.random.default_rng(seed)))
        assert sum(size % 5 != 0 for size in sizes) == 1 and sum(sizes) == 42
        assert sum(size % 5 for size in sizes) == 2


def test_every_frame_inside_is_hidden_equally_often():
    often = np.mean([span_mask(100, 0.5, 5, np.random.default_rng(seed)) for seed in range(3000)], axis=0)
    assert often[10:-10] == pytest.approx(0.51, abs=0.04)
    # A span starts at no frame before the first, so the outermost are hidden less, as in wav2vec 2.0.
    assert 0.1 < often[0] < 0.2 and 0.1 < often[-1] < 0.2


def test_spans_are_not_always_apart_nor_always_together():
    counts = {len(runs(span_mask(50, 0.4, 5, np.random.default_rng(seed)))) for seed in range(300)}
    assert counts == {1, 2, 3, 4}


def test_padding_is_never_hidden_and_the_others_lengths_do_not_matter():
    lengths = [40, 17, 1, 33]
    mask = draw_mask(lengths, 50, 0.5, 5, np.random.default_rng(0))
    assert mask.shape == (4, 50) and mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [20, 8, 1, 16]
    assert not any(row[length:].any() for row, length in zip(mask, lengths, strict=True))
    for others in ([40], [40, 3, 50, 2]):
        again = draw_mask(others, 60, 0.5, 5, np.random.default_rng(0))
        assert torch.equal(again[0, :50], mask[0])


def test_the_size_of_the_batch_changes_no_share():
    shares = [draw_mask([n, 300], 300, 0.5, 10, np.random.default_rng(n))[0].sum().item() / n for n in (20, 100, 300)]
    assert shares == [0.5, 0.5, 0.5]


def test_same_seed_same_mask():
    first, again, other = (draw_mask([80, 60], 80, 0.5, 10, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_chunks_are_drawn_with_their_probability_within_their_bounds():
    rng = np.random.default_rng(0)
    drawn = [draw_chunk(0.4, 4, 7, rng) for _ in range(1000)]
    chunks = [size for size in drawn if size is not None]
    assert 340 < len(chunks) < 460 and set(chunks) == {4, 5, 6, 7}
    before = rng.bit_generator.state
    assert draw_chunk(0.0, 4, 7, rng) is None and rng.bit_generator.state == before
