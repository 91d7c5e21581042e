"""A Conformer block: half steps, gates that know no padding, kernels that reach as far as they say."""

import pytest
import torch
from torch.nn.functional import conv1d, layer_norm

from glmasr.lengths import padding_mask
from glmasr.model.attention import rotary_angles
from glmasr.model.conformer import ConformerBlock, Convolution

D = 12


def test_the_convolution_is_the_papers():
    torch.manual_seed(0)
    module, x = Convolution(D, 5, causal=False, dropout=0.0), torch.randn(2, 20, D)
    value, gate = module.gate(layer_norm(x, (D,))).chunk(2, dim=-1)
    hidden = (value * gate.sigmoid()).transpose(1, 2)
    hidden = conv1d(hidden, module.depthwise.weight[:, :, 0], module.depthwise.bias, padding=2, groups=D)
    expected = module.project(torch.nn.functional.silu(layer_norm(hidden.transpose(1, 2), (D,))))
    torch.testing.assert_close(module(x, None), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("causal", "before", "after"), [(False, 3, 3), (True, 6, 0)])
def test_the_kernel_reaches_as_far_as_it_says(causal, before, after):
    x = torch.randn(1, 30, D, requires_grad=True)
    Convolution(D, 7, causal, 0.0)(x, None)[0, 15].square().sum().backward()
    seen = x.grad.abs().sum((0, 2)).nonzero().flatten().tolist()
    assert seen == list(range(15 - before, 15 + after + 1))


@pytest.mark.parametrize(("chunk", "seen_by_15"), [(4, (12, 15)), (5, (12, 18)), (16, (12, 15)), (30, (12, 18))])
def test_a_chunks_kernel_ends_with_the_chunk(chunk, seen_by_15):
    x = torch.randn(2, 30, D, requires_grad=True)
    module = Convolution(D, 7, False, 0.0)
    module(x, None, chunk)[0, 15].square().sum().backward()
    assert x.grad.abs().sum((0, 2)).nonzero().flatten().tolist() == list(range(seen_by_15[0], seen_by_15[1] + 1))


def test_one_chunk_around_all_is_no_chunk():
    x, module = torch.randn(2, 30, D), Convolution(D, 7, False, 0.0)
    torch.testing.assert_close(module(x, None, 40), module(x, None), rtol=0, atol=1e-6)
    causal = Convolution(D, 7, True, 0.0)
    assert torch.equal(causal(x, None, 4), causal(x, None))


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="odd, not 4"):
        Convolution(D, 4, False, 0.0)


def test_feed_forwards_count_half_and_every_part_is_added():
    torch.manual_seed(0)
    block, x = ConformerBlock(D, 2, 4, 5, False, 0.0), torch.randn(2, 8, D)
    ends = (block.feed_in[4], block.attention.project_out, block.convolution.project, block.feed_out[4])
    for end in ends:
        torch.nn.init.zeros_(end.weight)
        torch.nn.init.normal_(end.bias)
    first, attention, convolution, last = (end.bias for end in ends)
    expected = layer_norm(x + 0.5 * first + attention + convolution + 0.5 * last, (D,))
    torch.testing.assert_close(block(x, rotary_angles(8, D // 2, x.device), None, None), expected)


@pytest.mark.parametrize("causal", [False, True])
def test_padding_never_leaks(causal):
    torch.manual_seed(0)
    block = ConformerBlock(D, 2, 4, 5, causal, 0.0)
    x, lengths = torch.randn(4, 20, D), torch.tensor([20, 13, 2, 1])
    padding = padding_mask(lengths, 20)
    together = block(x, rotary_angles(20, D // 2, x.device), padding, ~padding[:, None, None])
    for row, length in enumerate(lengths.tolist()):
        alone = block(x[row : row + 1, :length], rotary_angles(length, D // 2, x.device), None, None)
        torch.testing.assert_close(together[row, :length], alone[0], rtol=0, atol=1e-5)
