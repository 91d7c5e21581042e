"""Graphs that are right and graphs that are wrong in, how far they are off out."""

import numpy as np
import pytest
import torch

from glmasr.exported import session
from glmasr.exporting.files import write_graph
from glmasr.exporting.graphs import STATE, Chunk, LogMel, Whole
from glmasr.exporting.parity import LIMIT, Parity, chunk_parity, exact, first_state, second_state, whole_parity
from glmasr.frontend.audio import read_audio


def test_parity_is_the_worst_of_all():
    expected = torch.tensor([[0.0, -1.0], [-1.0, 0.0]])
    found = Parity.of(expected, np.array([[0.0, -1.5], [0.0, -1.0]], np.float32))
    assert found == Parity(1.0, 0.5)
    assert found.worse(Parity(2.0, 1.0)) == Parity(2.0, 0.5) == Parity(2.0, 1.0).worse(found)


def test_the_ear_is_exact_where_there_is_nothing_to_hear(bundle, spoken):
    """Digits from a telephone have no high bands: a float32 FFT hears its own rounding there."""
    waveform = spoken[0][None]
    slow = torch.fft.irfft(torch.fft.rfft(waveform)[:, : waveform.shape[1] // 4], waveform.shape[1])
    windows = np.lib.stride_tricks.sliding_window_view(slow[0].double().numpy(), 400)[::160]
    power = np.abs(np.fft.rfft(windows * np.hanning(401)[:400], 512)) ** 2
    expected = np.log(np.maximum(power @ bundle.ear.logmel.banks.double().numpy(), 1e-10))
    lengths = torch.tensor([slow.shape[1]])
    assert np.abs(exact(bundle.ear).logmel(slow, lengths)[0][0].numpy() - expected).max() < 1e-5
    assert np.abs(LogMel(bundle.ear)(slow, lengths)[0][0].numpy() - expected).max() < 1e-5
    assert np.abs(bundle.ear.logmel(slow, lengths)[0][0].numpy() - expected).max() > 1e-4


def test_a_whole_that_hears_one_weight_wrong_is_found(bundle, speech, traced, tmp_path):
    waveforms = [read_audio(str(file)) for file in speech]
    recognizer, inputs = bundle.recognizer(), {"waveform": torch.randn(2, 9000), "lengths": torch.tensor([9000, 700])}
    axes = {"waveform": {0: "B", 1: "N"}, "lengths": {0: "B"}}
    weight = recognizer.encoder.blocks[0].norm_out.bias
    found = []
    for error in (0.0, 1e-3):
        with torch.no_grad():
            weight[0] += error
        write_graph(tmp_path / "a.onnx", Whole(bundle.ear, recognizer), inputs, ("log_probs", "frames"), axes, {})
        with torch.no_grad():
            weight[0] -= error
        found.append(whole_parity(bundle.ear, recognizer, session(tmp_path / "a.onnx"), waveforms).difference)
    assert found[0] <= LIMIT < found[1]


@pytest.mark.parametrize("samples", [9 * 2560, 9 * 2560 + 239, 9 * 2560 + 400, 300])
def test_streaming_is_compared_to_the_last_sample(bundle, speech, traced, samples, tmp_path):
    ear, recognizer, waveform = bundle.ear, bundle.recognizer(), read_audio(str(speech[0]))[8000 : 8000 + samples]
    inputs = {"waveform": torch.randn(16000), **second_state(ear, recognizer, torch.randn(16000))}
    axes = {"waveform": {0: "N"}} | {name: {3: "P"} for name in ("keys", "values", "next_keys", "next_values")}
    outputs = ("log_probs", *(f"next_{name}" for name in STATE))
    write_graph(tmp_path / "a.onnx", Chunk(ear, recognizer), inputs, outputs, axes, {})
    found = chunk_parity(ear, recognizer, session(tmp_path / "a.onnx"), waveform, 4)
    assert found.difference <= LIMIT
    assert [len(value) for value in first_state(ear, recognizer).values() if value.ndim == 6] == []
