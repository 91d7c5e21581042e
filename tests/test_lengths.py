"""Padding masks and the lengths of strided convolutions."""

import pytest
import torch

from glmasr.lengths import padding_mask, strided


def test_padding_is_true_behind_each_length():
    assert padding_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[True] * 3, [False, False, True], [False] * 3]


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (3, 1, 1), (5, 3, 0), (15, 1, 7), (2, 2, 0)])
def test_strided_lengths_are_what_the_convolution_gives(kernel, stride, padding):
    convolution = torch.nn.Conv1d(1, 1, kernel, stride, padding)
    sizes = torch.arange(kernel, 60)
    expected = [convolution(torch.zeros(1, 1, size)).shape[2] for size in sizes]
    assert strided(sizes, kernel, stride, padding).tolist() == expected
