"""Frames at a quarter of the rate, that know nothing of padding and see what they should."""

import pytest
import torch

from glmasr.lengths import padding_mask
from glmasr.model.subsampling import Subsampling, frame_lengths, stack_features


@pytest.fixture
def stem() -> Subsampling:
    torch.manual_seed(0)
    return Subsampling(bins=80, width=16, channels=4)


@pytest.mark.parametrize("behind", ["zeros", "noise"])
def test_padding_never_leaks(stem, behind):
    lengths = torch.arange(1, 34)
    features = torch.randn(len(lengths), 40, 80)
    if behind == "zeros":
        features = features.masked_fill(padding_mask(lengths, 40)[..., None], 0.0)
    frames, counts = stem(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, count = stem(features[row : row + 1, :length], lengths[row : row + 1])
        assert count == counts[row] == alone.shape[1]
        torch.testing.assert_close(frames[row, :count], alone[0], rtol=0, atol=1e-5)


def test_lengths_are_a_quarter_rounded_up(stem):
    sizes = torch.arange(1, 60)
    assert frame_lengths(sizes).tolist() == [-(-size // 4) for size in sizes.tolist()]
    assert [stem(torch.zeros(1, s, 80), sizes[:1])[0].shape[1] for s in range(1, 60)] == frame_lengths(sizes).tolist()


@pytest.mark.parametrize("frame", [0, 3, 9])
def test_a_frame_sees_seven_features_around_four_times_its_position(stem, frame):
    features = torch.randn(1, 40, 80, requires_grad=True)
    stem(features, torch.tensor([40]))[0][0, frame].square().sum().backward()
    seen = features.grad.abs().sum((0, 2)).nonzero().flatten().tolist()
    assert seen == list(range(max(0, 4 * frame - 3), 4 * frame + 4))


@pytest.mark.parametrize("bins", [1, 40, 77, 80])
def test_any_number_of_bins_is_served(bins):
    frames, _ = Subsampling(bins, 8, 2)(torch.randn(2, 10, bins), torch.tensor([10, 4]))
    assert frames.shape == (2, 3, 8)


@pytest.mark.parametrize("size", range(1, 14))
def test_stacked_features_are_those_around_the_center(size):
    features = torch.arange(1.0, size + 1)[None, :, None].expand(2, size, 3)
    stacked = stack_features(features, -(-size // 4)).unflatten(2, (4, 3))
    for frame in range(stacked.shape[1]):
        positions = range(4 * frame - 2, 4 * frame + 2)
        assert stacked[1, frame, :, 2].tolist() == [p + 1 if 0 <= p < size else 0 for p in positions]
