"""A recognizer whose blocks wait in main memory → the same scores, with one layer at a time on the device."""

import weakref

import pytest
import torch
from torch import nn

from glmasr.model import offload
from glmasr.model.decoder import Decoder
from glmasr.model.encoder import Encoder
from glmasr.model.recognizer import Recognizer
from glmasr.model.streaming import begin, step


@pytest.fixture
def recognizer() -> Recognizer:
    encoder = Encoder(width=32, blocks=3, heads=2, stem_channels=8)
    return Recognizer(encoder, Decoder(20, 32, 32, blocks=2, heads=2), 20).eval()


@pytest.fixture
def visits(monkeypatch) -> list[int]:
    """Bytes on the device after each arrival; CPU stands for it, with copies of its own."""
    alive, seen = weakref.WeakSet(), []

    def bring(tensor, device):
        copy = tensor.clone()
        alive.add(copy.untyped_storage())
        seen.append(sum(storage.nbytes() for storage in alive))
        return copy

    monkeypatch.setattr(offload, "bring", bring)
    return seen


@pytest.fixture
def features(spoken_batch):
    from glmasr.frontend.pipeline import Ear

    ear = Ear()
    return ear, *ear(*spoken_batch)


@torch.inference_mode()
def test_scores_are_the_same_and_one_layer_at_a_time_visits(recognizer, visits, features):
    _, frames, lengths = features
    heard = recognizer(frames, lengths)
    tokens = torch.ones(len(frames), 4, dtype=torch.long)
    told = recognizer.decoder(tokens, heard.context, heard.padding)
    offload.offload(recognizer, "cpu")
    staying = visits[-1]
    before = {name: tensor.data_ptr() for name, tensor in recognizer.state_dict().items()}
    again = recognizer(frames, lengths)
    assert torch.equal(again.ctc_log_probs, heard.ctc_log_probs)
    assert torch.equal(recognizer.decoder(tokens, again.context, again.padding), told)
    largest = max(sum(tensor.nbytes for tensor in offload.own(layer)) for layer in offload.blocks_layers(recognizer))
    assert max(visits) == staying + largest
    assert {name: tensor.data_ptr() for name, tensor in recognizer.state_dict().items()} == before


@torch.inference_mode()
def test_live_captions_hear_the_same(recognizer, visits, features, spoken):
    ear = features[0]
    context = step(recognizer.encoder, ear, spoken[0], begin(recognizer.encoder, ear), 8, last=True)[0]
    offload.offload(recognizer, "cpu")
    again = step(recognizer.encoder, ear, spoken[0], begin(recognizer.encoder, ear), 8, last=True)[0]
    assert visits
    assert torch.equal(again, context)


@torch.inference_mode()
def test_weights_are_at_home_again_after_a_failure(recognizer, visits, features):
    _, frames, lengths = features
    offload.offload(recognizer, "cpu")
    layer = recognizer.encoder.blocks[1].attention.project_out
    home = layer.weight.data_ptr()
    with pytest.raises(RuntimeError):
        layer(torch.zeros(1, 7))
    assert visits
    assert layer.weight.data_ptr() == home
    recognizer(frames, lengths)


def test_all_else_moves_to_the_device(recognizer, visits):
    before = {name: tensor.data_ptr() for name, tensor in recognizer.state_dict().items()}
    offload.offload(recognizer, "cpu")
    moved = {name for name, tensor in recognizer.state_dict().items() if tensor.data_ptr() != before[name]}
    assert moved == {name for name in before if ".blocks." not in name}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.inference_mode()
def test_a_gpu_holds_less_than_the_weights():
    encoder = Encoder(width=512, blocks=12, heads=8)
    recognizer = offload.offload(Recognizer(encoder, None, 20).eval(), "cuda")
    assert all(isinstance(tensor, nn.Parameter) for tensor in recognizer.parameters())
    torch.cuda.reset_peak_memory_stats()
    recognizer(torch.zeros(1, 400, 80, device="cuda"), torch.tensor([400], device="cuda"))
    assert torch.cuda.max_memory_allocated() < 0.3 * sum(tensor.nbytes for tensor in recognizer.parameters())
