"""Waveforms in, the modules that graphs are traced from against the bundle's own parts out."""

import pytest
import torch

from glmasr.exporting.graphs import NEVER, Chunk, LogMel, NextToken, Shown, Whole
from glmasr.exporting.parity import exact, first_state
from glmasr.text.tokenizer import BOUNDARY


def test_log_mel_is_that_of_the_ear(bundle, spoken_batch):
    waveform, lengths = spoken_batch
    found, counts = LogMel(bundle.ear)(waveform, lengths)
    expected, real = exact(bundle.ear).logmel(waveform, lengths)
    assert counts.tolist() == real.tolist() and found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5


@torch.inference_mode()
def test_the_whole_is_the_recognizer_also_for_what_is_short(bundle, spoken):
    waveforms = [*spoken, spoken[0][:90], spoken[1][:400]]
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    batch = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    scores, frames, context = Whole(bundle.ear, bundle.recognizer()).eval()(batch, lengths)
    heard = bundle.recognizer()(*exact(bundle.ear)(batch, lengths))
    assert frames.tolist() == heard.lengths.tolist()
    for row, count in enumerate(heard.lengths.tolist()):
        assert (scores[row, :count] - heard.ctc_log_probs[row, :count]).abs().max() < 1e-4
        assert (context[row, :count] - heard.context[row, :count]).abs().max() < 1e-4


@torch.inference_mode()
def test_a_chunk_goes_on_where_the_last_one_ended(bundle, spoken):
    module, state = Chunk(bundle.ear, bundle.recognizer()).eval(), first_state(bundle.ear, bundle.recognizer())
    once = module(spoken[0][:10480], *state.values())
    again = module(spoken[0][:10480], *once[1:])
    assert once[0].shape == again[0].shape == (1, 16, bundle.tokenizer.size)
    assert (once[0] - again[0]).abs().max() > 1e-2 and int(again[-1]) == 32
    assert again[6].shape[3] == 32 and float(again[1]) == 128


@torch.inference_mode()
def test_the_next_token_is_the_decoders(bundle):
    context, tokens = torch.randn(2, 9, 32), torch.tensor([[BOUNDARY, 3, 4], [BOUNDARY, 5, 5]])
    found = NextToken(bundle.recognizer().decoder)(tokens, context, torch.tensor([9, 4]))
    alone = bundle.recognizer().decoder(tokens[1:], context[1:, :4], torch.zeros(1, 4, dtype=torch.bool))
    assert found[1] == pytest.approx(alone[0, -1].log_softmax(-1), abs=1e-4)


def test_what_is_never_written_is_the_blank_to_others():
    found = Shown((4, 3), (0, 1, 2))(torch.tensor([[[-5.0, -1.0, -2.0, -3.0, -4.0]]]))
    assert found[0, 0].tolist() == [-1.0, NEVER, NEVER, -4.0, -3.0]
