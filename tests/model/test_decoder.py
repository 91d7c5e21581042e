"""The decoder looks at earlier tokens and real context, and at nothing else."""

import pytest
import torch
from torch.nn.functional import softmax

from glmasr.lengths import padding_mask
from glmasr.model.decoder import CrossAttention, Decoder

V, C, T, U = 11, 12, 9, 7


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(V, context_width=C, width=16, blocks=2, heads=2, dropout=0.0)


@pytest.fixture
def context() -> torch.Tensor:
    return torch.randn(3, T, C, generator=torch.Generator().manual_seed(1))


LENGTHS = torch.tensor([9, 5, 1])
TOKENS = torch.randint(3, V, (3, U), generator=torch.Generator().manual_seed(2))


def test_later_tokens_change_nothing_earlier(decoder, context):
    padding = padding_mask(LENGTHS, T)
    whole = decoder(TOKENS, context, padding)
    assert whole.shape == (3, U, V)
    for end in range(1, U):
        changed = TOKENS.clone()
        changed[:, end:] = (changed[:, end:] + 1) % V
        after = decoder(changed, context, padding)
        assert torch.equal(after[:, :end], whole[:, :end]) and not torch.isclose(after[:, end], whole[:, end]).all()
        alone = decoder(TOKENS[:, :end], context, padding)
        torch.testing.assert_close(alone, whole[:, :end], rtol=0, atol=1e-5)


def test_every_earlier_token_matters_and_so_does_their_order(decoder, context):
    padding = padding_mask(LENGTHS, T)
    last = decoder(TOKENS, context, padding)[:, -1]
    for position in range(U):
        changed = TOKENS.clone()
        changed[:, position] = (changed[:, position] + 1) % V
        assert (decoder(changed, context, padding)[:, -1] - last).abs().amax(1).min() > 1e-4


def test_the_order_of_earlier_tokens_matters(context):
    one_block = Decoder(V, C, 16, 1, 2, dropout=0.0)  # a second block would tell the order from the causal mask
    swapped = TOKENS[:, [1, 0, *range(2, U)]]
    padding = padding_mask(LENGTHS, T)
    before, after = (one_block(tokens, context, padding)[:, -1] for tokens in (TOKENS, swapped))
    assert (TOKENS[:, 0] != TOKENS[:, 1]).all() and (before - after).abs().amax(1).min() > 1e-3


def test_padding_never_leaks(decoder, context):
    together = decoder(TOKENS, context + 100 * padding_mask(LENGTHS, T)[..., None], padding_mask(LENGTHS, T))
    for row, length in enumerate(LENGTHS.tolist()):
        one = slice(row, row + 1)
        alone = decoder(TOKENS[one], context[one, :length], torch.zeros(1, length, dtype=torch.bool))
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-5)


def test_all_real_context_matters(decoder, context):
    padding = padding_mask(LENGTHS, T)
    context = context.requires_grad_()
    decoder(TOKENS, context, padding).square().sum().backward()
    assert torch.equal(context.grad.abs().sum(-1) > 0, ~padding)


def test_cross_attention_is_the_explicit_computation(context):
    torch.manual_seed(0)
    cross, x = CrossAttention(16, C, 2, 0.0), torch.randn(3, U, 16)
    padding = padding_mask(LENGTHS, T)
    key, value = cross.key_value(context).chunk(2, dim=-1)
    heads = []
    for part in (slice(0, 8), slice(8, 16)):
        scores = torch.einsum("bud,btd->but", cross.query(x)[..., part], key[..., part]) / 8**0.5
        heads.append(softmax(scores.masked_fill(padding[:, None], float("-inf")), -1) @ value[..., part])
    expected = cross.project_out(torch.cat(heads, -1))
    torch.testing.assert_close(cross(x, context, ~padding[:, None, None]), expected, rtol=0, atol=1e-5)


def test_step_by_step_is_all_at_once(decoder, context):
    decoder.eval()
    padding = padding_mask(LENGTHS, T)
    whole = decoder(TOKENS, context, padding)
    for cuts in ([1] * U, [3, 1, 3], [U]):
        memory, start, found = decoder.remember(context, padding), 0, []
        for cut in cuts:
            logits, memory = decoder.step(TOKENS[:, start : start + cut], memory)
            found.append(logits)
            start += cut
        torch.testing.assert_close(torch.cat(found, 1), whole, rtol=0, atol=1e-5)


def test_hypotheses_of_an_utterance_share_what_was_heard_and_may_change_places(decoder, context):
    decoder.eval()
    padding, each = padding_mask(LENGTHS, T), 4
    tokens = torch.randint(3, V, (3 * each, U), generator=torch.Generator().manual_seed(3))
    rows = torch.tensor([1, 1, 0, 3, 7, 4, 4, 6, 8, 11, 9, 8])
    _, memory = decoder.step(tokens[:, : U - 1], decoder.remember(context, padding))
    logits, _ = decoder.step(tokens[:, U - 1 :], memory.select(rows))
    moved = torch.cat((tokens[rows, : U - 1], tokens[:, U - 1 :]), 1)
    expected = decoder(moved, context.repeat_interleave(each, 0), padding.repeat_interleave(each, 0))
    torch.testing.assert_close(logits[:, 0], expected[:, -1], rtol=0, atol=1e-5)
