"""Speech piece by piece in, what the streaming form of sherpa-onnx makes of it against the encoder's own stream out."""

import numpy as np
import pytest
import torch

from glmasr.exported import session
from glmasr.exporting.files import write_graph
from glmasr.exporting.graphs import Shown
from glmasr.exporting.online import FULL_SCALE, PIECE_SAMPLES, first_inputs, online
from glmasr.exporting.parity import LIMIT, ended, exact, heard_by, online_parity
from glmasr.frontend.audio import read_audio
from glmasr.model import streaming
from tests.exporting.conftest import untyped

CHUNK, LEFT = 4, 2
"""Small, so that a clip has chunks that are forgotten."""
SHOWN = ((3, 4, 5, 6, 7), (0, 1, 2))


@pytest.fixture(scope="module")
def graph(bundle, tmp_path_factory):
    """Of the bundle's recognizer, in ONNX Runtime."""
    file = tmp_path_factory.mktemp("online") / "a.onnx"
    with untyped():
        module = online(bundle.ear, bundle.recognizer(), Shown(*SHOWN), CHUNK, LEFT)
        axes = {"state": {1: "S"}, "log_probs": {1: "T"}, "next_state": {1: "S2"}}
        facts = {"state_dim": 2 * module.size}
        write_graph(file, module, first_inputs(module), ("log_probs", "next_state"), axes, facts)
    return session(file)


@pytest.mark.parametrize("samples", [31_999, 24_000, 9 * 2560 + 239, 9 * 2560 + 400, 9000, 500])
@torch.inference_mode()
def test_frames_are_those_of_a_stream_to_its_end_at_the_runtimes_pace(bundle, speech, graph, samples):
    heard = (read_audio(str(speech[0]))[8000 : 8000 + samples] * FULL_SCALE).round().astype(np.int32)
    pieces = heard_by(graph, ended(heard))
    found = np.concatenate(pieces, axis=1)[0]
    waveform, recognizer = torch.from_numpy(heard).float() / FULL_SCALE, bundle.recognizer()
    context = streaming.stream(recognizer.encoder, exact(bundle.ear), [waveform], CHUNK, LEFT)
    expected = Shown(*SHOWN)(recognizer.ctc(context).log_softmax(-1))[0].numpy()
    # 30 ms each, so every frame of ours, of 40 ms, comes at its own time, some of them twice.
    assert len(found) == -(-len(expected) * 40 // 30) and pieces[-1].shape[1] == 0
    for i, row in enumerate(found):
        assert np.abs(row - expected[i * 30 // 40]).max() < LIMIT
    if samples == 31_999:
        assert {piece.shape[1] for piece in pieces} >= {0, 5, 6}
        everything = streaming.stream(recognizer.encoder, exact(bundle.ear), [waveform], CHUNK, None)
        assert (everything - context).abs().max() > 1e-2  # so it does matter how much is forgotten


def test_loud_samples_end_nothing(bundle, speech, graph):
    """Clipped speech is full of the loudest sample, though never for a whole window."""
    heard = (read_audio(str(speech[0]))[8000:32000] * FULL_SCALE).round().astype(np.int32)
    heard[1000:1399] = heard[2001:2400] = 32767  # to the end of a piece
    assert online_parity(*parts(bundle), graph, heard / FULL_SCALE, CHUNK, LEFT).difference <= LIMIT


def test_what_is_over_does_not_grow(graph):
    pieces = np.full((200, PIECE_SAMPLES), 32767, np.int32)
    state = np.zeros((1, int(graph.get_modelmeta().custom_metadata_map["state_dim"])), np.float16)
    size = state.shape[1]
    for piece in pieces:
        found, state = graph.run(None, {"samples": piece[None, :, None], "state": state})
        assert found.shape[1] == 0 and state.shape[1] == size + 800


def parts(bundle):
    """What parity is of."""
    return bundle.ear, bundle.recognizer(), Shown(*SHOWN)


def test_what_waits_loses_nothing(graph):
    """Samples of 16 bits, and counts far beyond what half precision can hold, come back from the state as they were."""
    state = np.zeros((1, int(graph.get_modelmeta().custom_metadata_map["state_dim"])), np.float16)
    samples = np.arange(-1200, 1200)[:, None] * 27 - 7
    _, state = graph.run(None, {"samples": samples[None].astype(np.int32), "state": state})
    assert state.dtype == np.float16
    both = state.reshape(2, -1).astype(np.float64).sum(0)
    assert np.array_equal(both[-PIECE_SAMPLES:], samples[:, 0])


def test_a_stream_that_forgets_too_much_is_found(bundle, speech, graph):
    given = *parts(bundle), graph, read_audio(str(speech[0])), CHUNK
    right, wrong = online_parity(*given, LEFT), online_parity(*given, LEFT - 1)
    assert right.difference <= LIMIT < wrong.difference and right.agreement == 1.0
