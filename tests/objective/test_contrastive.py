"""The contrastive loss is that of transformers' Wav2Vec2ForPreTraining; its distractors are honest."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import gumbel_softmax, one_hot
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

from glmasr.lengths import padding_mask
from glmasr.objective import contrastive
from glmasr.objective.contract import View
from glmasr.objective.contrastive import Contrastive, contrastive_logits, draw_distractors, gather_masked

D, G, K, WIDTH, NEGATIVES = 24, 2, 16, 12, 10
LENGTHS = torch.tensor([40, 25, 33])
FEATURES = (torch.zeros(3, 160, 80), 4 * LENGTHS)


def view_of(mask: torch.Tensor, lengths: torch.Tensor = LENGTHS, step: int = 0) -> View:
    batch, size = mask.shape
    torch.manual_seed(1)
    context, frames = (torch.randn(batch, size, D, requires_grad=True) for _ in range(2))
    clean = torch.randn(batch, size, 320)
    return View(context, lambda: frames, clean, mask, padding_mask(lengths, size), lengths, step, *FEATURES)


def objective(**options) -> Contrastive:
    torch.manual_seed(0)
    temperatures = {"temperature_start": 2.0, "temperature_end": 0.5, "temperature_decay": 0.5}
    return Contrastive(D, G, K, WIDTH, **{**temperatures, "negatives": NEGATIVES, **options})


@pytest.fixture
def mask() -> torch.Tensor:
    drawn = torch.rand(3, 40, generator=torch.Generator().manual_seed(3)) < 0.5
    return drawn & ~padding_mask(LENGTHS, 40)


def transformers_twin(ours: Contrastive, view: View) -> Wav2Vec2ForPreTraining:
    """Their model with our heads, on an encoder that gives `view`'s context and frames."""
    config = Wav2Vec2Config(
        hidden_size=D, conv_dim=(D,), conv_stride=(1,), conv_kernel=(1,), num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, num_conv_pos_embeddings=2, num_conv_pos_embedding_groups=2,
        num_codevector_groups=G, num_codevectors_per_group=K, codevector_dim=WIDTH, proj_codevector_dim=WIDTH,
        diversity_loss_weight=ours.diversity_weight, contrastive_logits_temperature=ours.similarity_temperature,
    )  # fmt: skip
    theirs = Wav2Vec2ForPreTraining(config)
    theirs.quantizer.weight_proj.load_state_dict(ours.quantizer.logits.state_dict())
    theirs.quantizer.codevectors.data = ours.quantizer.codevectors.data.reshape(1, G * K, WIDTH // G).clone()
    theirs.quantizer.temperature = ours.temperatures[0]
    theirs.project_hid.load_state_dict(ours.project_context.state_dict())
    theirs.project_q.load_state_dict(ours.project_codes.state_dict())

    class Given(torch.nn.Module):
        def forward(self, *_, **__):
            context, frames = view.context.detach(), view.frames.detach()
            return SimpleNamespace(
                last_hidden_state=context, extract_features=frames, hidden_states=None, attentions=None
            )

    theirs.wav2vec2 = Given()
    return theirs


def noiseless(logits: torch.Tensor, tau: float, hard: bool) -> torch.Tensor:
    """Straight-through softmax without the Gumbel noise, which two libraries would draw for different frames."""
    soft = (logits / tau).softmax(-1)
    return one_hot(soft.argmax(-1), soft.shape[-1]) - soft.detach() + soft


@pytest.mark.parametrize("kind", ["some frames", "some frames, few codes", "every frame, Gumbel noise"])
def test_it_is_that_of_transformers(mask, monkeypatch, kind):
    if kind.startswith("every"):
        mask = torch.ones(3, 40, dtype=torch.bool)  # then both draw the same noise from the same seed
        assert torch.nn.functional.gumbel_softmax is gumbel_softmax
    else:
        monkeypatch.setattr(torch.nn.functional, "gumbel_softmax", noiseless)
    lengths = torch.tensor([40, 40, 40]) if kind.startswith("every") else LENGTHS
    view, ours = view_of(mask, lengths), objective()
    if "few codes" in kind:  # most distractors are the target itself
        ours.quantizer.logits.bias.data[::8] += 4.0
    theirs = transformers_twin(ours, view)

    chosen, present = gather_masked(mask)
    distractors, usable = draw_distractors(present, NEGATIVES)
    monkeypatch.setattr(contrastive, "draw_distractors", lambda *_: (distractors, usable))
    sampled = torch.zeros(3, 40, NEGATIVES, dtype=torch.long)
    for row in range(3):
        frames = chosen[row, present[row]]
        sampled[row, frames] = chosen[row][distractors[row, present[row]]] + 40 * row

    torch.manual_seed(7)
    loss = ours(view)
    torch.manual_seed(7)
    expected = theirs.train()(torch.zeros(3, 40), mask_time_indices=mask, sampled_negative_indices=sampled)
    count = mask.sum()
    for ours_part, theirs_part in (
        (loss.total, expected.loss / count),
        (loss.parts["contrast"], expected.contrastive_loss / count),
        (loss.parts["diversity"], expected.diversity_loss / count),
        (loss.parts["probability_perplexity"] / K, expected.codevector_perplexity / (G * K)),
    ):
        torch.testing.assert_close(ours_part, theirs_part, rtol=0, atol=1e-5)

    loss.total.backward()
    (expected.loss / count).backward()
    for ours_head, theirs_head in (
        (ours.quantizer.logits, theirs.quantizer.weight_proj),
        (ours.project_context, theirs.project_hid),
        (ours.project_codes, theirs.project_q),
    ):
        torch.testing.assert_close(ours_head.weight.grad, theirs_head.weight.grad, rtol=0, atol=1e-5)
    codevectors = theirs.quantizer.codevectors.grad.view_as(ours.quantizer.codevectors)
    torch.testing.assert_close(ours.quantizer.codevectors.grad, codevectors, rtol=0, atol=1e-5)


def test_the_accuracy_is_the_share_of_targets_found(mask):
    view, ours = view_of(mask), objective().eval()
    with torch.no_grad():
        codes = ours.project_codes(ours.quantizer(view.frames.flatten(0, 1)).vectors).view(3, 40, WIDTH)
        ours.project_context.weight.copy_(torch.eye(WIDTH, D))
        ours.project_context.bias.zero_()
        view.context[..., :WIDTH] = codes
    assert ours(view).parts["accuracy"] == 1.0
    with torch.no_grad():
        view.context[..., :WIDTH] = -codes
    assert ours(view).parts["accuracy"] < 0.1


def test_masked_frames_are_gathered_in_order(mask):
    chosen, present = gather_masked(mask)
    for row in range(3):
        assert chosen[row, present[row]].tolist() == mask[row].nonzero().flatten().tolist()
    assert present.shape[1] == mask.sum(1).max() and torch.equal(present.sum(1), mask.sum(1))


def test_distractors_are_all_the_others_and_only_they():
    counts = torch.tensor([1, 2, 5, 9])
    present = torch.arange(9) < counts[:, None]
    drawn, usable = draw_distractors(present, 400)
    for row, count in enumerate(counts.tolist()):
        assert bool(usable[row].all()) == (count > 1) == bool(usable[row].any())
        for own in range(count if count > 1 else 0):
            assert set(drawn[row, own].tolist()) == set(range(count)) - {own}
            share = drawn[row, own].bincount(minlength=count) / 400
            assert share[share > 0].tolist() == pytest.approx([1 / (count - 1)] * (count - 1), abs=0.12)


def test_a_distractor_equal_to_the_target_is_none():
    context, targets = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    targets[0, 2] = targets[0, 0]
    distractors = torch.tensor([[[1, 2], [0, 2], [0, 1]]])
    usable = torch.ones_like(distractors, dtype=torch.bool)
    logits = contrastive_logits(context, targets, distractors, usable, 0.1)
    infinite = logits.isinf()[0].tolist()
    assert infinite == [[False, False, True], [False, False, False], [False, True, False]]
    cosine = torch.cosine_similarity(context[0, 1], targets[0, [1, 0, 2]]) / 0.1
    torch.testing.assert_close(logits[0, 1], cosine, rtol=0, atol=1e-5)


def test_only_the_own_utterance_matters(mask):
    """With the second utterance's frames changed, the first one's share of the loss has the same gradient."""
    gradients = []
    for shift in (0.0, 3.0):
        view, ours = view_of(mask), objective(diversity_weight=0.0).eval()
        with torch.no_grad():
            view.frames[1] += shift
            view.context[1] -= shift
        torch.manual_seed(0)
        ours(view).total.backward()
        gradients.append(view.context.grad)
    assert torch.equal(gradients[0][[0, 2]], gradients[1][[0, 2]]) and gradients[0][0].any()
    assert not torch.allclose(gradients[0][1], gradients[1][1])


def test_visible_frames_are_not_asked_for(mask):
    view = view_of(mask)
    objective()(view).total.backward()
    for tensor in (view.context, view.frames):
        asked = tensor.grad.abs().sum(-1) > 0
        assert torch.equal(asked, mask)


def test_it_reaches_every_parameter(mask):
    ours = objective()
    ours(view_of(mask)).total.backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in ours.parameters())


@pytest.mark.parametrize("counts", [(1, 1, 1), (1, 5, 2)])
def test_the_loss_is_finite_with_one_masked_frame(counts):
    ours, view = objective(), view_of(torch.arange(40) < torch.tensor(counts)[:, None])
    loss = ours(view)
    loss.total.backward()
    assert loss.total.isfinite() and all(value.isfinite() for value in loss.parts.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in ours.parameters())
    assert view.context.grad.isfinite().all() and (view.context.grad[0] == 0).all()


def test_an_utterance_with_one_masked_frame_does_not_dilute_the_others():
    counts = torch.tensor([[1], [2], [2]])  # with two, each has but one distractor and nothing is left to chance
    mask = torch.arange(40) < counts
    with_it, without = (objective().eval()(view_of(rows)).parts for rows in (mask, mask & (counts > 1)))
    assert without["contrast"] > 0
    torch.testing.assert_close(with_it["contrast"], without["contrast"])


def test_the_temperature_falls_to_its_end(mask):
    ours = objective()
    seen = [ours(view_of(mask, step=step)).parts["temperature"].item() for step in (0, 1, 2, 3, 50)]
    assert seen == [2.0, 1.0, 0.5, 0.5, 0.5] and ours.quantizer.temperature == 0.5


def test_same_seed_same_loss_bit_for_bit(mask):
    losses = []
    for seed in (4, 4, 5):
        ours, view = objective(), view_of(mask)
        torch.manual_seed(seed)
        losses.append(ours(view).total.item())
    assert losses[0] == losses[1] != losses[2]


def test_it_falls(mask):
    ours, view = objective(diversity_weight=1.0), view_of(mask)
    optimizer = torch.optim.Adam([*ours.parameters(), view.context], lr=0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = ours(replace(view, stem=view.frames.detach))
        loss.total.backward()
        optimizer.step()
        losses.append(loss)
    assert losses[-1].parts["contrast"] < 0.5 * losses[0].parts["contrast"]
    assert losses[-1].parts["diversity"] < losses[0].parts["diversity"]
    assert losses[-1].parts["accuracy"] > 0.8
