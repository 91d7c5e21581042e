"""The Gumbel quantizer is that of transformers' Wav2Vec2, on the same weights and inputs."""

import pytest
import torch
from transformers import Wav2Vec2Config
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

from glmasr.model.quantizer import GumbelQuantizer, code_perplexity, perplexity

B, T, D, G, K, WIDTH = 2, 30, 24, 2, 64, 16


@pytest.fixture
def pair() -> tuple[GumbelQuantizer, Wav2Vec2GumbelVectorQuantizer]:
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        conv_dim=(D,), conv_stride=(1,), conv_kernel=(1,),
        codevector_dim=WIDTH, num_codevector_groups=G, num_codevectors_per_group=K,
    )  # fmt: skip
    ours, theirs = GumbelQuantizer(D, G, K, WIDTH), Wav2Vec2GumbelVectorQuantizer(config)
    theirs.weight_proj.load_state_dict(ours.logits.state_dict())
    theirs.codevectors.data = ours.codevectors.data.reshape(1, G * K, WIDTH // G).clone()
    return ours, theirs


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("temperature", [2.0, 0.5])
def test_it_is_that_of_transformers(pair, training, temperature):
    frames, outcomes = torch.randn(B, T, D), []
    for module in pair:
        module.train(training)
        module.temperature = temperature
        torch.manual_seed(5)
        outcomes.append(module(frames.flatten(0, 1) if module is pair[0] else frames))
    ours, (vectors, used) = outcomes
    torch.testing.assert_close(ours.vectors.view(B, T, WIDTH), vectors, rtol=0, atol=1e-5)
    counted = perplexity(ours.probabilities) if training else code_perplexity(ours.codes, K)
    torch.testing.assert_close(counted.sum(), used, rtol=1e-5, atol=0)
    weights = torch.randn(B, T, WIDTH)
    (ours.vectors.view(B, T, WIDTH) * weights).sum().backward()
    (vectors * weights).sum().backward()
    torch.testing.assert_close(pair[0].codevectors.grad.flatten(), pair[1].codevectors.grad.flatten())
    if training:
        torch.testing.assert_close(pair[0].logits.weight.grad, pair[1].weight_proj.weight.grad, rtol=1e-4, atol=1e-5)
        assert pair[0].logits.weight.grad.any()


def test_the_perplexity_of_masked_frames_is_that_of_transformers(pair):
    frames, mask = torch.randn(B, T, D), torch.rand(B, T) < 0.4
    expected = pair[1].train()(frames, mask_time_indices=mask)[1]
    torch.testing.assert_close(perplexity(pair[0](frames[mask]).probabilities).sum(), expected, rtol=1e-5, atol=0)


def test_in_evaluation_the_largest_logit_wins(pair):
    quantizer, frames = pair[0].eval(), torch.randn(50, D)
    first, second = quantizer(frames), quantizer(frames)
    assert torch.equal(first.vectors, second.vectors)
    assert torch.equal(first.codes, quantizer.logits(frames).view(50, G, K).argmax(-1))
    expected = torch.cat([quantizer.codevectors[group, first.codes[:, group]] for group in range(G)], dim=1)
    torch.testing.assert_close(first.vectors, expected)
    torch.testing.assert_close(first.probabilities.sum(-1), torch.ones(50, G))


def test_in_training_every_vector_is_an_entry_and_noise_decides_which(pair):
    quantizer, frames = pair[0].train(), torch.randn(50, D)
    groups = quantizer(frames).vectors.view(50, G, 1, WIDTH // G)
    assert (groups - quantizer.codevectors).abs().amax(-1).amin(-1).max() < 1e-5
    assert not torch.equal(quantizer(frames).vectors, quantizer(frames).vectors)


def test_perplexity_counts_the_codes_in_use():
    codes = torch.tensor([[0, 0], [1, 0], [2, 0], [3, 0]])
    torch.testing.assert_close(code_perplexity(codes, K), torch.tensor([4.0, 1.0]), rtol=1e-4, atol=0)
    uniform = torch.full((3, 1, K), 1 / K)
    assert perplexity(uniform).item() == pytest.approx(K, rel=1e-4)


def test_a_width_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="15 must be a multiple"):
        GumbelQuantizer(D, 2, K, 15)
