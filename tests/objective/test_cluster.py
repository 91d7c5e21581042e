"""Naming hidden codes: the written-out cross-entropy, over masked frames only, against an honest trivial predictor."""

import math

import pytest
import torch

from glmasr.lengths import padding_mask
from glmasr.model.codebook import Codebook, StackedLogMel
from glmasr.model.subsampling import stack_features
from glmasr.objective.cluster import Cluster
from glmasr.objective.contract import View

LENGTHS = torch.tensor([9, 5])
BINS = 6


@pytest.fixture
def view() -> View:
    torch.manual_seed(0)
    padding = padding_mask(LENGTHS, 9)
    features = torch.randn(2, 36, BINS)
    mask = (torch.arange(9) % 2 == 0) & ~padding
    context = torch.randn(2, 9, 8, requires_grad=True)
    stacked = stack_features(features, 9)
    return View(context, lambda: torch.randn(2, 9, 8), stacked, mask, padding, LENGTHS, 0, features, 4 * LENGTHS)


@pytest.fixture
def objective(view) -> Cluster:
    torch.manual_seed(1)
    book = Codebook(StackedLogMel(BINS), "random", codebooks=2, codes=5, components=4, code_width=3)
    book.fit(view.clean[~view.padding])
    return Cluster(8, book)


def test_it_is_the_written_out_mean(view, objective):
    loss = objective(view)
    sums, right, count = 0.0, 0, 0
    for row, frame in view.mask.nonzero().tolist():
        codes = objective.codebook.codes_of(view.clean[row, frame][None])[0].tolist()
        scores = (objective.head.weight @ view.context[row, frame] + objective.head.bias).tolist()
        for book, code in enumerate(codes):
            own = scores[5 * book : 5 * book + 5]
            sums += math.log(sum(math.exp(s) for s in own)) - own[code]
            right += own[code] == max(own)
            count += 1
    assert loss.total.item() == pytest.approx(sums / count, abs=1e-5)
    assert loss.parts["accuracy"].item() == pytest.approx(right / count)


def test_only_hidden_frames_teach(view, objective):
    objective(view).total.backward()
    taught = view.context.grad.abs().sum(-1) > 0
    assert torch.equal(taught, view.mask)


def test_the_trivial_predictor_guesses_by_frequency(view, objective):
    for _ in range(2000):
        parts = objective(view).parts
    codes = objective.codebook.codes_of(view.clean[view.mask])
    share = torch.stack([torch.bincount(book, minlength=5) for book in codes.T]) / len(codes)
    entropy = -(share * share.clamp(min=1e-9).log()).sum(1).mean()
    assert parts["trivial"].item() == pytest.approx(entropy.item(), abs=0.02)
    assert parts["unused"].item() == pytest.approx((share == 0).float().mean().item())
    assert parts["code_perplexity"].item() == pytest.approx(
        torch.exp(-(share * share.clamp(min=1e-9).log()).sum(1)).mean().item(), rel=1e-3
    )


def test_dev_batches_do_not_count_as_seen(view, objective):
    objective.eval()(view)
    assert not objective.seen.any()


def test_visible_frames_are_named_too_at_their_weight(view, objective):
    masked = objective(view).total.item()
    objective.visible_weight = 0.25
    visible = (~view.mask & ~view.padding).nonzero().tolist()
    codes = [objective.codebook.codes_of(view.clean[row, frame][None])[0] for row, frame in visible]
    logits = torch.stack([objective.head(view.context[row, frame]).view(2, 5) for row, frame in visible])
    easy = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.stack(codes).flatten())
    loss = objective(view)
    assert loss.total.item() == pytest.approx(masked + 0.25 * easy.item(), abs=1e-5)
    assert loss.parts["visible"].item() == pytest.approx(easy.item(), abs=1e-5)
