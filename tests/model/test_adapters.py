"""Low-rank updates: nothing at first, the gradients of their definition, plain weights once merged."""

import pytest
import torch
from torch import nn

from glmasr.frontend.pipeline import Ear
from glmasr.model.adapters import adapt, merged
from glmasr.model.decoder import Decoder
from glmasr.model.encoder import Encoder
from glmasr.model.recognizer import Recognizer

V = 13


def recognizer() -> Recognizer:
    torch.manual_seed(0)
    encoder = Encoder(width=32, blocks=2, heads=2, stem_channels=4, dropout=0.1)
    return Recognizer(encoder, Decoder(V, 32, 16, 1, 2), V).eval()


def learned(module: nn.Module) -> nn.Module:
    """As if its updates had been trained."""
    for name, parameter in module.named_parameters():
        if name.endswith((".up", ".down")):
            nn.init.normal_(parameter, std=0.3)
    return module


def heard(module: Recognizer, spoken_batch) -> list[torch.Tensor]:
    context = module(*Ear()(*spoken_batch))
    tokens = torch.arange(20).reshape(4, 5) % V
    return [context.ctc_log_probs, module.decoder(tokens, context.context, context.padding)]


def test_an_adapted_recognizer_hears_at_first_what_it_heard_before(spoken_batch):
    before, adapted = recognizer(), recognizer()
    adapt(adapted, 4, 8.0)
    for new, old in zip(heard(adapted, spoken_batch), heard(before, spoken_batch), strict=True):
        assert torch.equal(new, old)


def test_merged_weights_are_a_plain_recognizers_and_hear_the_same(spoken_batch):
    adapted, plain = recognizer(), recognizer()
    adapt(adapted.encoder, 4, 8.0)
    adapt(adapted.decoder.blocks, 2, 8.0)
    learned(adapted)
    was = heard(plain, spoken_batch)
    plain.load_state_dict(merged(adapted.state_dict()))
    for ours, theirs, old in zip(heard(plain, spoken_batch), heard(adapted, spoken_batch), was, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        assert not torch.allclose(ours, old, atol=0.01)


def test_every_linear_layer_and_nothing_else_is_trained():
    encoder = recognizer().encoder
    layers = {name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)}
    adapt(encoder, 4, 8.0)
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert trained == {f"{name}.parametrizations.weight.0.{part}" for name in layers for part in ("up", "down")}
    assert len(layers) == 2 + 2 * 8


def test_output_and_gradients_are_those_of_the_definition():
    """y = x Wᵀ + alpha / rank × x downᵀ upᵀ + b, Hu et al. 2021, equation 3."""
    torch.manual_seed(1)
    layer, x = nn.Linear(7, 5), torch.randn(3, 7, dtype=torch.float64)
    layer.double()
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    adapt(layer, 2, 3.0)
    update = learned(layer.double()).parametrizations.weight[0]
    up, down = (update.get_parameter(name).detach().clone().requires_grad_() for name in ("up", "down"))
    expected = x @ weight.T + 3.0 / 2 * x @ down.T @ up.T + bias
    expected.square().sum().backward()
    layer(x).square().sum().backward()
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(update.up.grad, up.grad, rtol=0, atol=1e-6)
    torch.testing.assert_close(update.down.grad, down.grad, rtol=0, atol=1e-6)
    assert layer.bias.grad is None and layer.parametrizations.weight.original.grad is None


def test_alpha_sets_the_size_of_an_update_and_rank_does_not():
    layers = [nn.Linear(6, 6) for _ in range(2)]
    for layer, rank in zip(layers, (1, 3), strict=True):
        nn.init.zeros_(layer.weight)
        adapt(layer, rank, 6.0)
        nn.init.ones_(layer.parametrizations.weight[0].up)
        nn.init.ones_(layer.parametrizations.weight[0].down)
        assert torch.allclose(layer.weight, torch.full((6, 6), 6.0))


def test_merging_copies_what_has_no_updates():
    weights = recognizer().state_dict()
    found = merged(weights)
    assert found is not weights and all(found[name] is weights[name] for name in weights) and len(found) == len(weights)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_updates_are_trained_under_autocast(precision):
    layer = nn.Linear(4, 4)
    adapt(layer, 2, 4.0)
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        layer(torch.randn(2, 4)).float().sum().backward()
    assert layer.parametrizations.weight[0].up.grad.abs().sum() > 0
