"""Rotary attention against the paper's formula, position by position; who may look at whom."""

import pytest
import torch

from glmasr.lengths import padding_mask
from glmasr.model.attention import ROTARY_BASE, RotaryAttention, chunk_mask, rotary_angles, rotate

B, T, D, H = 2, 9, 24, 3
E = D // H


@pytest.fixture
def attention() -> RotaryAttention:
    torch.manual_seed(0)
    return RotaryAttention(D, H, dropout=0.0).eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(1))


def explicit(attention: RotaryAttention, x: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Equation 16 of Su et al. in complex numbers, one pair of positions at a time."""
    query, key, value = (part.view(B, T, H, E) for part in attention.project_in(x).chunk(3, dim=-1))
    query, key = (torch.complex(part[..., : E // 2], part[..., E // 2 :]) for part in (query, key))
    theta = torch.tensor([ROTARY_BASE ** (-2 * i / E) for i in range(E // 2)])
    mixed = torch.zeros(B, T, H, E)
    for b, h, m in torch.cartesian_prod(*map(torch.arange, (B, H, T))).tolist():
        others = [n for n in range(T) if allowed[b, m, n]]
        turns = [torch.polar(torch.ones(E // 2), (m - n) * theta) for n in others]
        scores = [
            (query[b, m, h] * key[b, n, h].conj() * turn).sum().real / E**0.5
            for n, turn in zip(others, turns, strict=True)
        ]
        weights = torch.stack(scores).softmax(0)
        mixed[b, m, h] = sum(weight * value[b, n, h] for weight, n in zip(weights, others, strict=True))
    return attention.project_out(mixed.flatten(2))


@pytest.mark.parametrize("kind", ["all", "causal", "chunks", "padding"])
def test_it_is_the_explicit_computation(attention, x, kind):
    everything = torch.ones(B, T, T, dtype=torch.bool)
    allowed = {
        "all": everything,
        "causal": everything.tril(),
        "chunks": everything & chunk_mask(T, 2, 1, x.device),
        "padding": everything & (torch.arange(T) < torch.tensor([T, 5])[:, None, None]),
    }[kind]
    angles = rotary_angles(T, E, x.device)
    given = {"all": {}, "causal": {"causal": True}}.get(kind, {"allowed": allowed[:, None]})
    torch.testing.assert_close(attention(x, angles, **given), explicit(attention, x, allowed), rtol=0, atol=1e-5)


def test_only_distances_matter(attention, x):
    angles = rotary_angles(T + 40, E, x.device)
    near, far = attention(x, angles[:T]), attention(x, angles[40:])
    torch.testing.assert_close(near, far, rtol=0, atol=1e-5)
    assert (attention(x, angles[:T] * 2) - near).abs().max() > 1e-3


def test_turning_keeps_lengths_and_the_first_position():
    vectors = torch.randn(B, H, T, E)
    turned = rotate(vectors, rotary_angles(T, E, vectors.device))
    torch.testing.assert_close(turned.norm(dim=-1), vectors.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], vectors[:, :, 0]) and not torch.allclose(turned[:, :, 1], vectors[:, :, 1])
    assert rotate(vectors.bfloat16(), rotary_angles(T, E, vectors.device)).dtype == torch.bfloat16


def test_who_is_not_allowed_has_no_influence(attention, x):
    allowed = torch.ones(B, 1, T, T, dtype=torch.bool)
    allowed[..., 4] = False
    angles = rotary_angles(T, E, x.device)
    changed = x.clone()
    changed[:, 4] += 1.0
    before, after = attention(x, angles, allowed), attention(changed, angles, allowed)
    others = torch.arange(T) != 4
    assert torch.equal(before[:, others], after[:, others]) and not torch.equal(before[:, 4], after[:, 4])


@pytest.mark.parametrize("chunk_frames", [1, 2, 5, 20])
@pytest.mark.parametrize("left_chunks", [None, 0, 1, 3])
def test_a_frame_sees_its_chunk_and_some_before(chunk_frames, left_chunks):
    expected = [
        [0 <= row // chunk_frames - column // chunk_frames <= (T if left_chunks is None else left_chunks)
         for column in range(T)]
        for row in range(T)
    ]  # fmt: skip
    assert chunk_mask(T, chunk_frames, left_chunks, torch.device("cpu")).tolist() == expected


@pytest.mark.parametrize(("chunk_frames", "left_chunks"), [(1, 0), (1, 3), (4, 0), (4, 1), (5, 2), (T, 1), (T + 3, 0)])
def test_what_is_nearby_is_what_the_mask_allows(chunk_frames, left_chunks):
    torch.manual_seed(0)
    attention, x = RotaryAttention(D, H, dropout=0.0), torch.randn(3, T, D)
    padding = padding_mask(torch.tensor([T, T - 3, 1]), T)
    angles = rotary_angles(T, D // H, x.device)
    allowed = ~padding[:, None, None] & chunk_mask(T, chunk_frames, left_chunks, x.device)
    expected = attention(x, angles, allowed | torch.eye(T, dtype=torch.bool))
    found = attention.nearby(x, angles, padding, chunk_frames, left_chunks)
    assert found.isfinite().all()
    torch.testing.assert_close(found[~padding], expected[~padding], rtol=0, atol=1e-6)
    gradients = [
        torch.autograd.grad(one[~padding].square().sum(), attention.project_in.weight)[0] for one in (expected, found)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("width", "heads"), [(10, 3), (9, 3)])
def test_a_width_that_cannot_be_paired_is_refused(width, heads):
    with pytest.raises(ValueError, match=f"width {width}"):
        RotaryAttention(width, heads, 0.0)


def test_dropout_is_for_training_only(x):
    attention = RotaryAttention(D, H, dropout=0.5)
    angles = rotary_angles(T, E, x.device)
    assert not torch.equal(attention(x, angles), attention(x, angles))
    attention.eval()
    assert torch.equal(attention(x, angles), attention(x, angles))
