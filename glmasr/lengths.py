"""Lengths in, padding masks and strided lengths out; True = padding, everywhere."""

import torch
from torch import Tensor


def padding_mask(lengths: Tensor, size: int) -> Tensor:
    """(B) lengths → (B, size) booleans, True behind each length."""
    return torch.arange(size, device=lengths.device) >= lengths[:, None]


def strided(lengths: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Output lengths of a convolution over inputs of `lengths`."""
    return torch.div(lengths + 2 * padding - kernel, stride, rounding_mode="floor") + 1
