"""Joint CTC/attention: each part against its definition, spelled out."""

import itertools
from itertools import groupby

import pytest
import torch
from torch.nn.functional import ctc_loss

from glmasr.lengths import padding_mask
from glmasr.model.decoder import Decoder
from glmasr.model.encoder import Encoder
from glmasr.model.recognizer import Heard, Recognizer
from glmasr.objective.recognition import IGNORED, Recognition, shifted
from glmasr.text.tokenizer import BLANK, BOUNDARY

V, D = 5, 16
LENGTHS = torch.tensor([6, 4, 5])
TOKENS = torch.tensor([[3, 4, 4], [3, -1, -1], [4, 3, -1]])
TOKEN_LENGTHS = torch.tensor([3, 1, 2])


@pytest.fixture
def recognizer() -> Recognizer:
    torch.manual_seed(0)
    encoder = Encoder(width=D, blocks=1, heads=2, stem_channels=2, kernel=3, dropout=0.0)
    return Recognizer(encoder, Decoder(V, D, D, 1, 2, dropout=0.0), V)


@pytest.fixture
def heard(recognizer) -> Heard:
    return recognizer.hear(torch.randn(3, 6, D, generator=torch.Generator().manual_seed(1)), LENGTHS)


def test_the_ctc_part_sums_over_every_alignment(recognizer, heard):
    """Every path of V^T that says the tokens, Graves et al. 2006, equation 3."""
    recognizer.decoder = None
    expected = []
    for row, (length, count) in enumerate(zip(LENGTHS.tolist(), TOKEN_LENGTHS.tolist(), strict=True)):
        wanted, likelihood = TOKENS[row, :count].tolist(), 0.0
        probabilities = heard.ctc_log_probs[row].exp().tolist()
        for path in itertools.product((BLANK, *set(wanted)), repeat=length):
            if [token for token, _ in groupby(path) if token != BLANK] == wanted:
                likelihood += torch.tensor([probabilities[t][token] for t, token in enumerate(path)]).prod().item()
        expected.append(-torch.tensor(likelihood).log().item() / count)
    loss = Recognition(0.3, 0.0)(recognizer, heard, TOKENS, TOKEN_LENGTHS)
    assert loss.total.item() == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert loss.parts == {"ctc": loss.total}


def test_the_ctc_part_is_torchs_utterance_by_utterance(recognizer, heard):
    expected = [
        ctc_loss(heard.ctc_log_probs[row, :length], TOKENS[row, :count], length[None], count[None], reduction="sum")
        / count
        for row, (length, count) in enumerate(zip(LENGTHS, TOKEN_LENGTHS, strict=True))
    ]
    part = Recognition(0.3, 0.0)(recognizer, heard, TOKENS, TOKEN_LENGTHS).parts["ctc"]
    torch.testing.assert_close(part, torch.stack(expected).mean().detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_attention_part_is_the_explicit_loop(recognizer, heard, smoothing):
    costs = []
    for row, (length, count) in enumerate(zip(LENGTHS.tolist(), TOKEN_LENGTHS.tolist(), strict=True)):
        sentence = [BOUNDARY, *TOKENS[row, :count].tolist(), BOUNDARY]
        for position in range(1, len(sentence)):
            before = torch.tensor([sentence[:position]])
            nothing = torch.zeros(1, length, dtype=torch.bool)
            log_probs = recognizer.decoder(before, heard.context[row : row + 1, :length], nothing)[0, -1].log_softmax(
                -1
            )
            costs.append(-(1 - smoothing) * log_probs[sentence[position]] - smoothing * log_probs.mean())
    expected = torch.stack(costs).mean()
    loss = Recognition(0.25, 0.0, smoothing)(recognizer, heard, TOKENS, TOKEN_LENGTHS)
    torch.testing.assert_close(loss.parts["attention"], expected.detach(), rtol=0, atol=1e-5)
    torch.testing.assert_close(loss.total, 0.25 * loss.parts["ctc"] + 0.75 * expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("decoder", [True, False])
def test_the_middle_block_shares_the_ctc_part(recognizer, heard, decoder):
    """(1 - w) × CTC + w × CTC of the middle block under the same head, Lee and Watanabe 2021, section 2."""
    if not decoder:
        recognizer.decoder = None
    middle = torch.randn(3, 6, D, requires_grad=True)
    plain = Recognition(0.4, 0.0)(recognizer, heard, TOKENS, TOKEN_LENGTHS)
    below = Recognition(0.4, 0.0)(recognizer, recognizer.hear(middle, LENGTHS), TOKENS, TOKEN_LENGTHS).parts["ctc"]
    loss = Recognition(0.4, 0.3)(recognizer, heard, TOKENS, TOKEN_LENGTHS, middle)
    assert loss.parts == plain.parts | {"ctc_middle": below}
    change = 0.3 * (below - plain.parts["ctc"]) * (0.4 if decoder else 1.0)
    torch.testing.assert_close(loss.total, plain.total + change, rtol=0, atol=1e-5)
    loss.total.backward()
    assert middle.grad is not None and middle.grad.any()


def test_without_a_weight_or_a_middle_block_nothing_changes(recognizer, heard):
    plain = Recognition(0.4, 0.0)(recognizer, heard, TOKENS, TOKEN_LENGTHS)
    for weight, middle in ((0.0, heard.context.flip(0)), (0.3, None)):
        loss = Recognition(0.4, weight)(recognizer, heard, TOKENS, TOKEN_LENGTHS, middle)
        assert loss.total == plain.total and loss.parts == plain.parts


def test_shifted_gives_what_was_said_and_what_comes_next():
    given, wanted = shifted(TOKENS, TOKEN_LENGTHS)
    b, i = BOUNDARY, IGNORED
    assert given.tolist() == [[b, 3, 4, 4], [b, 3, b, b], [b, 4, 3, b]]
    assert wanted.tolist() == [[3, 4, 4, b], [3, b, i, i], [4, 3, b, i]]


def test_an_empty_transcript_asks_for_the_boundary_only():
    given, wanted = shifted(torch.full((2, 2), -1), torch.tensor([0, 0]))
    assert wanted.tolist() == [[BOUNDARY, IGNORED, IGNORED]] * 2 and given.tolist() == [[BOUNDARY] * 3] * 2


def test_padding_never_leaks(recognizer, heard):
    loss = Recognition(0.5, 0.0)
    alone = []
    for row, (length, count) in enumerate(zip(LENGTHS.tolist(), TOKEN_LENGTHS.tolist(), strict=True)):
        one = recognizer.hear(heard.context[row : row + 1, :length], LENGTHS[row : row + 1])
        alone.append(loss(recognizer, one, TOKENS[row : row + 1, :count], TOKEN_LENGTHS[row : row + 1]).parts)
    parts = loss(recognizer, heard, TOKENS, TOKEN_LENGTHS).parts
    torch.testing.assert_close(parts["ctc"], torch.stack([a["ctc"] for a in alone]).mean(), rtol=0, atol=1e-5)
    by_token = (
        sum(a["attention"] * (n + 1) for a, n in zip(alone, TOKEN_LENGTHS, strict=True)) / (TOKEN_LENGTHS + 1).sum()
    )
    torch.testing.assert_close(parts["attention"], by_token, rtol=0, atol=1e-5)


def test_more_tokens_than_frames_costs_nothing_instead_of_everything(recognizer):
    context = torch.randn(1, 2, D, requires_grad=True)
    heard = recognizer.hear(context, torch.tensor([2]))
    loss = Recognition(0.5, 0.0)(recognizer, heard, torch.tensor([[3, 4, 3, 4]]), torch.tensor([4]))
    loss.total.backward()
    assert loss.parts["ctc"] == 0 and loss.total.isfinite() and context.grad.isfinite().all()


def test_it_falls_and_reaches_every_parameter(recognizer):
    features = torch.randn(3, 24, 80)
    lengths = torch.tensor([24, 14, 20])
    optimizer, losses = torch.optim.Adam(recognizer.parameters(), lr=3e-3), []
    for step in range(60):
        optimizer.zero_grad()
        loss = Recognition(0.5, 0.0)(recognizer, recognizer(features, lengths), TOKENS, TOKEN_LENGTHS)
        loss.total.backward()
        if not step:
            missed = {name for name, p in recognizer.named_parameters() if p.grad is None or not p.grad.any()}
            assert missed == {"encoder.mask_embedding"}
        optimizer.step()
        losses.append(loss)
    assert losses[-1].parts["ctc"] < 0.4 * losses[0].parts["ctc"]
    assert losses[-1].parts["attention"] < 0.5 * losses[0].parts["attention"]


def test_heard_knows_its_padding(heard):
    assert torch.equal(heard.padding, padding_mask(LENGTHS, 6))
