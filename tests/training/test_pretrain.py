"""Pretraining on real speech: every objective learns, reaches its parameters, and repeats itself bit for bit."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from glmasr.build import build
from glmasr.data.dataset import SpeechDataset, collate
from glmasr.model.codebook import Codebook
from glmasr.model.packing import packing_of
from glmasr.speech import Batch
from glmasr.training.pretrain import Pretraining, seed_torch, step_rng
from glmasr.training.run import build_pretraining
from tests.small import CONF, SMALL, composed

OBJECTIVES = sorted(path.stem for path in (CONF / "objective").glob("*.yaml"))
ALONE = [f"objective.weights.{part}=0.0" for part in ("contrastive", "reconstruction")]
VISIBLE = "predictor.layers=2"
CASES = [
    *([f"objective={name}"] for name in OBJECTIVES),
    *([f"objective={name}", VISIBLE] for name in OBJECTIVES),
    *(["objective=contrastive_reconstruction", off] for off in ALONE),
]


@pytest.fixture(scope="module")
def batch(catalog) -> Batch:
    """Eight real utterances of two talkers, noisy."""
    noise = build(composed("pretrain")["augment"]["noise"])
    dataset = SpeechDataset(catalog.subset(split="train"), noise=noise, seed=3)
    return collate([dataset[row, 0] for row in range(len(dataset))])


def pretraining(*overrides: str, seed: int = 0) -> Pretraining:
    torch.manual_seed(seed)
    config = composed("pretrain", *SMALL, "optimizer.learning_rate=0.003", "trainer.max_steps=40", *overrides)
    return build_pretraining(config | {"seed": seed})


def fit(module: Pretraining, batch: Batch) -> None:
    """Fit what codebooks there are to the batch itself."""
    for book in module.objective.modules():
        if isinstance(book, Codebook):
            view = module.look(batch, 0)
            book.fit(book.vectors(view.features, view.feature_lengths, view.mask.shape[1])[~view.padding])


def steps(module: Pretraining, batch: Batch) -> Iterator[float]:
    """Losses of one batch, trained on again and again."""
    configured = module.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    while True:
        loss = module.loss(batch).total
        optimizer.zero_grad()
        loss.backward()
        yield loss.item()
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_an_objective_falls_and_reaches_every_parameter(batch, overrides):
    module = pretraining(*overrides)
    fit(module, batch)
    losses = steps(module, batch)
    first = next(losses)
    unreached = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert unreached == (["encoder.mask_embedding"] if VISIBLE in overrides else [])
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)
    last = [next(losses) for _ in range(30)][-1]
    assert last < 0.93 * first


def test_the_same_seed_gives_the_same_losses_bit_for_bit(batch):
    first, again, other = (
        [loss for loss, _ in zip(steps(pretraining(seed=seed), batch), range(4), strict=False)] for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_the_view_hides_from_the_encoder_what_the_objective_knows(batch):
    module = pretraining().eval()
    view = module.look(batch, 5)
    share = view.mask.sum() / view.lengths.sum()
    assert share == pytest.approx(composed("pretrain")["masking"]["mask_share"], abs=0.05)
    assert not (view.mask & view.padding).any() and view.step == 5
    clean, _ = module.encoder.subsample(*module.ear(batch.clean, batch.lengths))
    assert torch.equal(view.frames, clean)
    # What is under the mask cannot be told from the context: all the masked input frames may change.
    heard, lengths = module.encoder.subsample(*module.ear(batch.waveform, batch.lengths))
    changed = torch.where(view.mask[..., None], torch.randn_like(heard), heard)
    packing = packing_of(lengths.tolist(), heard.shape[1])
    assert torch.equal(view.context, module.encoder.contextualize(changed, lengths, view.mask, packing=packing))


def test_with_a_predictor_the_encoder_never_hears_what_is_hidden(batch):
    module = pretraining(VISIBLE).eval()
    view = module.look(batch, 5)
    visible = ~view.mask & ~view.padding
    assert not view.encoded[~visible].any() and view.encoded[visible].abs().sum(-1).all()
    heard, lengths = module.encoder.subsample(*module.ear(batch.waveform, batch.lengths))
    packing = packing_of(lengths.tolist(), heard.shape[1], view.mask)
    changed = torch.where(visible[..., None], heard, torch.randn_like(heard))
    assert torch.equal(view.encoded, module.encoder.contextualize(changed, lengths, packing=packing))
    real = packing_of(lengths.tolist(), heard.shape[1])
    assert torch.equal(view.context, module.predictor(view.encoded, view.mask, real))
    module.train().training_step(batch, 0)
    assert len(module.seen.context) == visible.sum()  # health looks at what the encoder computed


def test_the_randomness_of_a_step_is_its_seed_and_number():
    def drawn(seed, index):
        return (*step_rng(seed, index).random(2).tolist(), *torch.rand(2).tolist())

    assert drawn(1, 2) == drawn(1, 2)
    assert len({drawn(seed, index) for seed in range(3) for index in range(3)}) == 9
    assert isinstance(step_rng(0, 0), np.random.Generator)


def test_a_step_is_seeded_as_torch_seeds_it_without_writing_down_its_callers(monkeypatch):
    torch.manual_seed(77)
    drawn = torch.rand(3)
    monkeypatch.setattr("traceback.format_stack", lambda *_: pytest.fail("its callers are written down"))
    seed_torch(77)
    assert torch.equal(torch.rand(3), drawn)


def test_limited_attention_changes_what_is_heard_in_training_only(batch):
    def context(probability: float, training: bool) -> torch.Tensor:
        module = pretraining()
        module.chunks = {"probability": probability, "low_frames": 2, "high_frames": 2}
        return module.train(training).look(batch, 0).context

    whole = context(0.0, True)
    assert not torch.allclose(context(1.0, True), whole)
    assert torch.equal(context(1.0, False), context(0.0, False))
