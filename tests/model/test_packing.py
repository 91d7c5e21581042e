"""Frames that are there go into a packing and come back to their places; nothing else does."""

import torch

from glmasr.model.packing import packing_of

LENGTHS, T = [4, 0, 3, 1], 5
HIDDEN = torch.tensor([[0, 1, 1, 0, 0], [0] * 5, [1, 0, 0, 1, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)


def test_what_is_there_is_neither_padding_nor_hidden():
    x = torch.arange(20.0).view(4, 5, 1)
    for hidden, expected in ((None, [0, 1, 2, 3, 10, 11, 12, 15]), (HIDDEN, [0, 3, 11, 12])):
        packing = packing_of(LENGTHS, T, hidden)
        assert packing.pack(x).flatten().tolist() == expected
        assert packing.present().flatten().nonzero().flatten().tolist() == expected
        assert packing.positions().tolist() == [place % T for place in expected]


def test_back_at_their_places_with_zeros_around_and_gradients_the_same_way():
    packing = packing_of(LENGTHS, T, HIDDEN)
    x = torch.randn(4, T, 3, requires_grad=True)
    again = packing.unpack(packing.pack(x))
    assert torch.equal(again, x * packing.present()[..., None])
    weights = torch.randn_like(x)
    (again * weights).sum().backward()
    assert torch.equal(x.grad, weights * packing.present()[..., None])


def test_tight_rows_have_no_gaps():
    packing = packing_of(LENGTHS, T, HIDDEN)
    assert packing.tight.tight is None and (packing.tight.batch, packing.tight.length) == (4, 2)
    places = packing.tight.unpack(packing.positions()[:, None])[..., 0]
    assert places.tolist() == [[0, 3], [0, 0], [1, 2], [0, 0]]
    assert packing.tight.present().tolist() == [[True, True], [False, False], [True, True], [False, False]]
    nothing = packing_of([1], 1, torch.tensor([[True]]))
    assert nothing.tight.unpack(nothing.pack(torch.ones(1, 1, 2))).tolist() == [[[0.0, 0.0]]]
