"""Fine-tuning on real speech: it falls, reaches every parameter, repeats itself, and scores what it hears."""

from types import SimpleNamespace

import pytest
import torch

from glmasr.build import build
from glmasr.bundle import build_recognizer
from glmasr.data.dataset import SpeechDataset, collate
from glmasr.speech import Batch
from glmasr.text.tokenizer import learn_characters
from glmasr.training.finetune import Finetuning
from tests.small import SMALL, composed


@pytest.fixture(scope="module")
def tokenizer(catalog):
    return learn_characters(catalog.texts())


@pytest.fixture(scope="module")
def batch(catalog, tokenizer) -> Batch:
    """Eight real utterances of two talkers."""
    dataset = SpeechDataset(catalog.subset(split="train"), tokenizer=tokenizer, seed=3)
    return collate([dataset[row, 0] for row in range(len(dataset))])


def finetuning(tokenizer, *overrides: str, seed: int = 0, **more) -> Finetuning:
    torch.manual_seed(seed)
    config = composed("finetune", *SMALL, "optimizer.learning_rate=0.003", "trainer.max_steps=40", *overrides)
    return Finetuning(
        ear=build(config["frontend"]),
        recognizer=build_recognizer(config["model"], tokenizer.size),
        tokenizer=tokenizer,
        loss=build(config["recognition"]),
        specaugment=build(config["specaugment"]),
        optimizer=build(config["optimizer"]),
        schedule=build(config["schedule"]),
        seed=seed,
        language="en",
        **{**config["rates"], **config["masking"], **more},
    )


def losses(module: Finetuning, batch: Batch, count: int) -> list[float]:
    configured, found = module.configure_optimizers(), []
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    for _ in range(count):
        loss = module.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        found.append(loss.item())
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("overrides", [[], ["model.decoder=null"], ["recognition.ctc_weight=0.3"]], ids=" ".join)
def test_the_loss_falls_and_reaches_every_parameter(batch, tokenizer, overrides):
    module = finetuning(tokenizer, *overrides, mask_share=0.3)
    first, *_, last = losses(module, batch, 25)
    missed = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missed and last < 0.7 * first


def test_without_masking_only_the_mask_embedding_stands_still(batch, tokenizer):
    module = finetuning(tokenizer)
    losses(module, batch, 1)
    missed = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missed == ["recognizer.encoder.mask_embedding"]


def test_the_same_seed_gives_the_same_losses_bit_for_bit(batch, tokenizer):
    first, again, other = (losses(finetuning(tokenizer, seed=seed), batch, 3) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_frozen_encoder_stands_still_while_the_heads_learn(batch, tokenizer):
    module = finetuning(tokenizer, frozen_steps=2)
    before = {name: value.clone() for name, value in module.recognizer.state_dict().items()}
    configured = module.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    moved = []
    for _ in range(3):
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
        scheduler.step()
        now = module.recognizer.state_dict()
        moved.append({name.split(".")[0] for name in now if not torch.equal(now[name], before[name])})
    assert moved == [{"ctc", "decoder"}, {"ctc", "decoder"}, {"ctc", "decoder", "encoder"}]


def test_validation_counts_errors_over_the_whole_corpus(batch, tokenizer, monkeypatch):
    module, logged = finetuning(tokenizer).eval(), {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: float(value)}))
    module._trainer = SimpleNamespace(world_size=1)
    said = iter([batch.texts[0], "please select"] + [""] * 6)  # right, two of five words, nothing
    monkeypatch.setattr(tokenizer, "decode", lambda tokens: next(said))
    module.on_validation_epoch_start()
    with torch.no_grad():
        module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    assert logged["dev/wer"] == pytest.approx((3 + 6 * 5) / (8 * 5))
    assert 0 < logged["dev/cer"] < 1 and logged["dev/loss"] > 0
    module.on_validation_epoch_start()
    assert module.errors == {"wer": [0, 0], "cer": [0, 0]}
