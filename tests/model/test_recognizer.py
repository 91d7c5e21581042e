"""One encoder, two heads."""

import pytest
import torch

from glmasr.frontend.pipeline import Ear
from glmasr.lengths import padding_mask
from glmasr.model.decoder import Decoder
from glmasr.model.encoder import Encoder
from glmasr.model.recognizer import VOCABULARY, Recognizer, parameter_count, with_vocabulary

V = 13


@pytest.fixture
def recognizer() -> Recognizer:
    torch.manual_seed(0)
    encoder = Encoder(width=32, blocks=1, heads=2, stem_channels=4, dropout=0.1)
    return Recognizer(encoder, Decoder(V, 32, 16, 1, 2), V).eval()


def test_what_is_heard_is_the_encoders_context_and_its_scores(recognizer, spoken_batch):
    features, lengths = Ear()(*spoken_batch)
    heard = recognizer(features, lengths, chunk_frames=4)
    context, counts = recognizer.encoder(features, lengths, chunk_frames=4)
    assert torch.equal(heard.context, context) and torch.equal(heard.lengths, counts)
    assert torch.equal(heard.padding, padding_mask(counts, context.shape[1]))
    torch.testing.assert_close(heard.ctc_log_probs.exp().sum(-1), torch.ones(context.shape[:2]))
    torch.testing.assert_close(heard.ctc_log_probs, torch.log_softmax(recognizer.ctc(context), -1))
    by_step = recognizer.hear(context, counts)
    assert all(torch.equal(getattr(by_step, name), value) for name, value in vars(heard).items())


def test_padding_never_leaks_from_waveform_to_logits(recognizer, spoken, spoken_batch):
    heard = recognizer(*Ear()(*spoken_batch))
    tokens = torch.randint(3, V, (len(spoken), 5))
    logits = recognizer.decoder(tokens, heard.context, heard.padding)
    for row, waveform in enumerate(spoken):
        alone = recognizer(*Ear()(waveform[None], torch.tensor([len(waveform)])))
        length = int(heard.lengths[row])
        assert alone.lengths.tolist() == [length] and not alone.padding.any()
        torch.testing.assert_close(heard.ctc_log_probs[row, :length], alone.ctc_log_probs[0], rtol=0, atol=1e-4)
        expected = recognizer.decoder(tokens[row : row + 1], alone.context, alone.padding)
        torch.testing.assert_close(logits[row], expected[0], rtol=0, atol=1e-4)


def test_scores_are_float32_under_autocast(recognizer):
    with torch.autocast("cpu", torch.bfloat16):
        heard = recognizer(torch.randn(1, 40, 80), torch.tensor([40]))
    assert heard.ctc_log_probs.dtype == torch.float32


def test_parameters_are_counted_and_a_decoder_is_not_needed(recognizer):
    without = Recognizer(recognizer.encoder, None, V)
    assert parameter_count(torch.nn.Linear(3, 4)) == 16
    assert parameter_count(recognizer) - parameter_count(without) == parameter_count(recognizer.decoder)
    assert without(torch.randn(1, 40, 80), torch.tensor([40])).ctc_log_probs.shape == (1, 10, V)


@pytest.fixture
def grown(recognizer) -> Recognizer:
    """The same with three new tokens, one of them between old ones, heads drawn wide as training leaves them."""
    for head in (recognizer.ctc, recognizer.decoder.project):
        torch.nn.init.normal_(head.weight, std=2.0)
        torch.nn.init.normal_(head.bias)
    origins = [*range(5), -1, *range(5, V), -1, -1]
    found = Recognizer(recognizer.encoder, Decoder(V + 3, 32, 16, 1, 2), V + 3).eval()
    found.load_state_dict(with_vocabulary(recognizer.state_dict(), origins))
    return found


OLD = [*range(5), *range(6, V + 1)]


def test_a_larger_vocabulary_keeps_the_logits_of_the_old(recognizer, grown, spoken_batch):
    context, lengths = recognizer.encoder(*Ear()(*spoken_batch))
    assert torch.equal(grown.ctc(context)[..., OLD], recognizer.ctc(context))
    tokens = torch.randint(3, V, (len(lengths), 5))
    padding = padding_mask(lengths, context.shape[1])
    expected = recognizer.decoder(tokens, context, padding)
    found = grown.decoder(torch.tensor(OLD)[tokens], context, padding)
    torch.testing.assert_close(found[..., OLD], expected, rtol=0, atol=1e-5)


def test_a_new_token_is_at_first_no_likelier_than_text_on_average(recognizer, grown, spoken_batch):
    context, lengths = recognizer.encoder(*Ear()(*spoken_batch))
    before, after = recognizer.hear(context, lengths).ctc_log_probs.exp(), grown.hear(context, lengths).ctc_log_probs
    for token in (5, V + 1, V + 2):
        torch.testing.assert_close(grown.ctc(context)[..., token], recognizer.ctc(context)[..., 3:].mean(-1))
    new = after[..., [5, V + 1, V + 2]].exp()
    assert (new > 0).all() and (new <= before[..., 3:].mean(-1, keepdim=True) + 1e-6).all()
    assert (after[..., OLD].exp() >= before / (1 + 3 / (V - 3)) - 1e-6).all()


def test_all_that_has_a_row_for_each_token_grows_and_all_else_stays(recognizer):
    weights = recognizer.state_dict()
    grown = with_vocabulary(weights, [*range(V), -1])
    assert {name for name in weights if V in weights[name].shape[:1]} == set(VOCABULARY)
    for name, value in weights.items():
        assert torch.equal(grown[name][: len(value)], value) if name in VOCABULARY else grown[name] is value
        assert len(grown[name]) == len(value) + (name in VOCABULARY)
    assert set(with_vocabulary(Recognizer(recognizer.encoder, None, V).state_dict(), [0, 1])) == {
        name for name in weights if not name.startswith("decoder.")
    }
