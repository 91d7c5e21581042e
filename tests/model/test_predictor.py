"""The predictor infers hidden frames from visible ones nearby, and knows nothing else of them."""

import torch

from glmasr.model.packing import packing_of
from glmasr.model.predictor import Predictor

LENGTHS, T, D = [20, 12], 20, 8


def test_it_reaches_as_far_as_its_kernels_and_never_under_the_mask_or_behind_the_end():
    torch.manual_seed(0)
    predictor, real = Predictor(D, layers=2, kernel=5, dropout=0.0), packing_of(LENGTHS, T)
    mask = torch.zeros(2, T, dtype=torch.bool)
    mask[:, 6:9] = True
    context = torch.randn(2, T, D)
    before = predictor(context, mask, real)
    assert before.shape == context.shape and not before[1, 12:].any()
    assert not torch.isclose(before[0, 6:9], context[0, 6:9]).all(-1).any()
    changed = torch.where(mask[..., None], torch.randn_like(context), context)
    changed[1, 12:] += 1.0
    assert torch.equal(predictor(changed, mask, real), before)
    changed = context.clone()
    changed[:, 11] += torch.randn(D)  # two layers of two frames to each side
    moved = ~torch.isclose(predictor(changed, mask, real), before, rtol=0, atol=1e-7).all(-1)
    assert moved[0].nonzero().flatten().tolist() == list(range(7, 16))
    assert moved[1].nonzero().flatten().tolist() == list(range(7, 12))
