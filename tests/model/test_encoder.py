"""The laws of the encoder: padding never leaks, chunks hide the future, masks hide the input, seeds repeat."""

import pytest
import torch

from glmasr.frontend.pipeline import Ear
from glmasr.lengths import padding_mask
from glmasr.model.attention import chunk_mask, rotary_angles
from glmasr.model.encoder import Encoder
from glmasr.model.packing import packing_of

VIEWS = {
    "whole": {},
    "chunks": {"chunk_frames": 4},
    "two chunks": {"chunk_frames": 4, "left_chunks": 1},
    "own chunk": {"chunk_frames": 3, "left_chunks": 0},
}


def tiny(**options) -> Encoder:
    torch.manual_seed(0)
    return Encoder(**{"width": 32, "blocks": 2, "heads": 2, "stem_channels": 4, "kernel": 5, "dropout": 0.0, **options})


@pytest.fixture(scope="module")
def heard(spoken_batch) -> tuple[torch.Tensor, torch.Tensor]:
    return Ear()(*spoken_batch)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("causal", [False, True])
def test_padding_never_leaks(heard, view, causal):
    features, lengths = heard
    encoder = tiny(causal=causal)
    context, counts = encoder(features, lengths, **VIEWS[view])
    assert context.isfinite().all() and len(set(counts.tolist())) > 1
    for row, (length, count) in enumerate(zip(lengths.tolist(), counts.tolist(), strict=True)):
        alone, _ = encoder(features[row : row + 1, :length], lengths[row : row + 1], **VIEWS[view])
        assert alone.shape[1] == count
        torch.testing.assert_close(context[row, :count], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("view", VIEWS)
def test_gradients_are_finite_under_padding(heard, view):
    encoder = tiny()
    context, counts = encoder(*heard, mask=torch.rand(4, -(-heard[0].shape[1] // 4)) < 0.5, **VIEWS[view])
    sum(row[:count].square().sum() for row, count in zip(context, counts, strict=True)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in encoder.parameters())


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("share", [0.0, 0.4])
def test_packed_it_is_the_same_with_less_work(heard, view, share):
    features, lengths = heard
    found = []
    for is_packed in (False, True):
        encoder = tiny()
        frames, counts = encoder.subsample(features, lengths)
        size = frames.shape[1]
        mask = torch.rand(4, size, generator=torch.Generator().manual_seed(0)) < share if share else None
        packing = packing_of(counts.tolist(), size) if is_packed else None
        context = encoder.contextualize(frames, counts, mask, **VIEWS[view], packing=packing)
        real = ~padding_mask(counts, size)
        (context[real] * torch.linspace(-1, 1, 32)).square().sum().backward()
        assert not is_packed or not context[~real].any()
        found.append((context[real].detach(), {name: p.grad for name, p in encoder.named_parameters()}))
    (dense, gradients), (packed, again) = found
    torch.testing.assert_close(packed, dense, rtol=0, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("view", VIEWS)
def test_hidden_frames_that_are_left_out_are_as_padding(view):
    """The blocks themselves, told that hidden frames are padding, are the reference."""
    encoder, lengths = tiny(), torch.tensor([24, 17, 1])
    frames, hidden = torch.randn(3, 24, 32), torch.rand(3, 24, generator=torch.Generator().manual_seed(1)) < 0.5
    hidden[2, 0] = True  # nothing of the last is there
    packing = packing_of(lengths.tolist(), 24, hidden)
    context = encoder.contextualize(frames, lengths, **VIEWS[view], packing=packing)
    visible = packing.present()
    assert context.isfinite().all() and not context[~visible].any()
    limits = chunk_mask(24, **({"left_chunks": None} | VIEWS[view]), device=frames.device) if VIEWS[view] else True
    allowed = visible[:, None, None] & limits | torch.eye(24, dtype=torch.bool)
    x = encoder.project(frames)
    for block in encoder.blocks:
        chunk = VIEWS[view].get("chunk_frames")
        x = block(x, rotary_angles(24, 16, x.device), ~visible, allowed, chunk)
    torch.testing.assert_close(context[visible], x[visible], rtol=0, atol=1e-5)
    changed = torch.where(visible[..., None], frames, torch.randn_like(frames))
    assert torch.equal(encoder.contextualize(changed, lengths, **VIEWS[view], packing=packing), context)
    context.square().sum().backward()
    missed = {name for name, p in encoder.named_parameters() if p.grad is None}
    assert {name for name in missed if not name.startswith("subsampling.")} == {"mask_embedding"}
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("causal", [False, True])
def test_under_chunks_the_future_changes_nothing_and_the_chunk_does(causal):
    encoder, lengths = tiny(causal=causal), torch.tensor([20])
    frames = torch.randn(1, 20, 32)
    changed = frames.clone()
    changed[:, 8:] += torch.randn(1, 12, 32)
    before, after = (encoder.contextualize(x, lengths, chunk_frames=4) for x in (frames, changed))
    assert torch.equal(before[:, :8], after[:, :8]) and not torch.isclose(before[:, 8:], after[:, 8:]).all(-1).any()
    late = frames.clone()
    late[:, 7] += 1.0  # the last of its chunk, seen by the first
    assert not torch.allclose(encoder.contextualize(late, lengths, chunk_frames=4)[:, 4], before[:, 4])


@pytest.mark.parametrize("causal", [False, True])
def test_the_beginning_alone_is_the_beginning_of_the_whole(causal):
    encoder, frames = tiny(causal=causal), torch.randn(1, 20, 32)
    for view in ({"chunk_frames": 4}, {"chunk_frames": 4, "left_chunks": 1}):
        whole = encoder.contextualize(frames, torch.tensor([20]), **view)
        for end in (4, 8, 16):
            part = encoder.contextualize(frames[:, :end], torch.tensor([end]), **view)
            torch.testing.assert_close(part, whole[:, :end], rtol=0, atol=1e-5)


def test_left_chunks_forget_the_past():
    encoder, lengths, frames = tiny(causal=True, blocks=1, kernel=1), torch.tensor([20]), torch.randn(1, 20, 32)
    changed = frames.clone()
    changed[:, :4] += 1.0
    view = {"chunk_frames": 4, "left_chunks": 1}
    before, after = (encoder.contextualize(x, lengths, **view) for x in (frames, changed))
    assert torch.equal(before[:, 8:], after[:, 8:]) and not torch.allclose(before[:, 4:8], after[:, 4:8])


def test_what_lies_wholly_under_the_mask_is_hidden():
    encoder, lengths, features = tiny(), torch.tensor([80]), torch.randn(1, 80, 80)
    mask = torch.zeros(1, 20, dtype=torch.bool)
    mask[:, 5:10] = True
    # Frame t sees features 4t-3 … 4t+3, so frames 4 and 10 see up to 19 and from 37 on.
    for first, last, hidden in ((20, 36, True), (19, 36, False), (20, 37, False)):
        changed = features.clone()
        changed[:, first : last + 1] += 1.0
        before, after = (encoder(x, lengths, mask=mask)[0] for x in (features, changed))
        assert torch.equal(before, after) == hidden
        assert not torch.allclose(encoder(features, lengths)[0], encoder(changed, lengths)[0])


def test_hidden_frames_are_told_apart_by_their_place_and_change_the_others():
    encoder, lengths, frames = tiny(), torch.tensor([20]), torch.randn(1, 20, 32)
    mask = torch.zeros(1, 20, dtype=torch.bool)
    mask[:, 5:10] = True
    context, plain = encoder.contextualize(frames, lengths, mask), encoder.contextualize(frames, lengths)
    assert torch.pdist(context[0, 5:10]).min() > 1e-3 and not torch.isclose(context, plain).all(-1).any()
    assert torch.equal(encoder.contextualize(frames, lengths, torch.zeros_like(mask)), plain)


def test_same_seed_same_output_bit_for_bit(heard):
    first, second, other = tiny(dropout=0.3), tiny(dropout=0.3), tiny(dropout=0.3)
    outputs = []
    for encoder, seed in ((first, 7), (second, 7), (other, 8)):
        torch.manual_seed(seed)
        outputs.append(encoder(*heard)[0])
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    assert torch.equal(first.eval()(*heard)[0], other.eval()(*heard)[0])


def test_inner_dropout_is_dropout_unless_it_is_told(heard):
    told = {"dropout": 0.3, "inner_dropout": 0.3}, {"dropout": 0.3}, {"dropout": 0.3, "inner_dropout": 0.0}
    outputs = []
    for options in told:
        torch.manual_seed(7)
        outputs.append(tiny(**options)(*heard)[0])
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    bare, without = tiny(dropout=0.0, inner_dropout=0.0), tiny(dropout=0.0)
    bare.load_state_dict(without.state_dict())
    assert torch.equal(bare(*heard)[0], without(*heard)[0])
    for block in (*tiny(dropout=0.0, inner_dropout=0.4).blocks, *tiny(dropout=0.4, inner_dropout=0.0).blocks):
        inner = {block.attention.dropout, block.feed_in[3].p, block.feed_out[3].p}
        outer = {block.dropout.p, block.feed_in[5].p, block.feed_out[5].p, block.convolution.dropout.p}
        assert (inner, outer) in (({0.4}, {0.0}), ({0.0}, {0.4}))


def test_checkpointing_changes_memory_and_nothing_else(heard):
    gradients = []
    for checkpointing in (False, True):
        encoder = tiny(dropout=0.2, checkpointing=checkpointing)
        torch.manual_seed(3)
        saved = 0

        def count(tensor):
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = encoder(*heard)[0].square().mean()
        loss.backward()
        gradients.append(({name: p.grad for name, p in encoder.named_parameters()}, saved))
    (plain, held), (again, held_again) = gradients
    assert held_again < 0.6 * held
    for name, gradient in plain.items():
        if gradient is not None:
            torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-8)


def test_every_size_of_input_gives_a_context():
    encoder = tiny()
    for size in (1, 2, 5, 9):
        context, lengths = encoder(torch.randn(1, size, 80), torch.tensor([size]), chunk_frames=2)
        assert context.shape == (1, -(-size // 4), 32) and lengths.tolist() == [-(-size // 4)]


def test_a_wrong_shape_is_told_by_its_axis():
    with pytest.raises(Exception, match="features"):
        tiny()(torch.randn(1, 80), torch.tensor([80]))
