"""Fine-tuning on real speech: it falls, reaches every parameter, repeats itself, and scores what it hears."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from glmasr.augment.wordless import Wordless
from glmasr.build import build
from glmasr.bundle import build_recognizer
from glmasr.data.dataset import SpeechDataset, collate
from glmasr.decoding.hypothesis import Hypothesis
from glmasr.decoding.search import open_search
from glmasr.model.adapters import adapt
from glmasr.model.recognizer import parameter_count
from glmasr.speech import Batch
from glmasr.text.tokenizer import learn_characters
from glmasr.training.finetune import Finetuning
from glmasr.training.pretrain import step_rng
from glmasr.transcriber import Streaming
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
    recognizer = build_recognizer(config["model"], tokenizer.size)
    return Finetuning(
        ear=build(config["frontend"]),
        recognizer=recognizer,
        tokenizer=tokenizer,
        search=open_search(config["decoding"], recognizer, tokenizer),
        loss=build(config["recognition"]),
        specaugment=build(config["specaugment"]),
        optimizer=build(config["optimizer"]),
        schedule=build(config["schedule"]),
        seed=seed,
        language="en",
        **{**config["rates"], **config["masking"], "chunks": config["chunks"], **more},
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


@pytest.mark.parametrize("overrides", [[], ["model.decoder=null"], ["recognition.middle_weight=0.3"]], ids=" ".join)
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


def test_a_batch_in_which_nobody_speaks_is_learned_to_be_empty(catalog, tokenizer):
    quiet = SpeechDataset(catalog.subset(split="train"), tokenizer=tokenizer, wordless=Wordless(1.0))
    nobody = collate([quiet[row, 0] for row in range(4)])
    module = finetuning(tokenizer, "specaugment=null")
    found = losses(module, nobody, 8)
    assert all(np.isfinite(found)) and found[-1] < found[0] / 2
    module.eval()
    with torch.no_grad():
        assert all(best.tokens == () for best, *_ in module.search(module.hear(nobody, "")))


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


def test_a_plain_step_is_ear_specaugment_recognizer_and_joint_loss_bit_for_bit(batch, tokenizer):
    """Whatever may be added (masks, chunks, adapters, a middle loss): without it nothing is drawn or computed."""
    first, second = finetuning(tokenizer), finetuning(tokenizer)
    for index in range(3):
        now = replace(batch, index=index)
        found = first.training_step(now, 0)
        rng = step_rng(0, index)
        features, lengths = second.ear(now.waveform, now.lengths)
        heard = second.recognizer(second.specaugment(features, lengths.tolist(), rng), lengths)
        expected = second.joint(second.recognizer, heard, now.tokens, now.token_lengths)
        assert found == expected.total and set(expected.parts) == {"ctc", "attention"}


def test_the_middle_loss_is_of_the_middle_block(batch, tokenizer, monkeypatch):
    module, given = finetuning(tokenizer, "model.encoder.blocks=5", "recognition.middle_weight=0.3"), {}
    layers, joint = module.recognizer.encoder.layers, module.joint.forward
    monkeypatch.setattr(module.recognizer.encoder, "layers", lambda *a: given.setdefault("layers", layers(*a)))
    monkeypatch.setattr(module.joint, "forward", lambda *a: (given.update(middle=a[4]), joint(*a))[1])
    module.training_step(batch, 0)
    assert len(given["layers"]) == 5 and given["middle"] is given["layers"][1]


def adapted(tokenizer, **more) -> Finetuning:
    """Its encoder trains by adapters only."""
    module = finetuning(tokenizer, **more)
    for part in (
        module.recognizer.encoder.subsampling,
        module.recognizer.encoder.project,
        module.recognizer.encoder.blocks,
    ):
        adapt(part, 2, 4.0)
    return module


def test_adapters_and_heads_learn_and_nothing_else(batch, tokenizer):
    module = adapted(tokenizer, layer_decay=0.5)
    before = copy.deepcopy(module.recognizer.state_dict())
    first, *_, last = losses(module, batch, 8)
    moved = {name for name, value in module.recognizer.state_dict().items() if not torch.equal(value, before[name])}
    ours = {name for name in before if name.startswith(("ctc.", "decoder.")) or name.endswith((".up", ".down"))}
    assert moved == ours and last < 0.95 * first
    trained = sum(before[name].numel() for name in ours if name.startswith("encoder."))
    assert trained < 0.2 * parameter_count(module.recognizer.encoder)


def test_adapters_go_on_from_a_checkpoint_bit_for_bit(batch, tokenizer):
    def ready(module):
        configured = module.configure_optimizers()
        return module, configured["optimizer"], configured["lr_scheduler"]["scheduler"]

    def steps(training, indices) -> list[float]:
        module, optimizer, scheduler = training
        found = []
        for index in indices:
            loss = module.training_step(replace(batch, index=index), 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            found.append(loss.item())
        return found

    whole, cut = ready(adapted(tokenizer)), ready(adapted(tokenizer))
    expected = steps(whole, range(4))
    steps(cut, range(2))
    resumed = ready(adapted(tokenizer, seed=0))
    for new, old in zip(resumed, cut, strict=True):
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert steps(resumed, range(2, 4)) == expected[2:]


def validated(module: Finetuning, batch: Batch, monkeypatch) -> dict[str, float]:
    """What one validation logs."""
    logged = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: float(value)}))
    module._trainer = SimpleNamespace(world_size=1)
    module.eval().on_validation_epoch_start()
    with torch.no_grad():
        module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    return logged


def test_a_model_that_streams_is_judged_in_chunks_too(batch, tokenizer, monkeypatch):
    module, heard = finetuning(tokenizer, "chunks.probability=0.5", "chunks.validate_frames=8"), []

    def search(heard_now):
        heard.append(heard_now)
        text = "please select" if len(heard) == 2 else ""
        return [[Hypothesis(tuple(tokenizer.encode(text)), 0.0)]] * len(batch.ids)

    module.search = search
    logged = validated(module, batch, monkeypatch)
    assert set(logged) == {f"dev/{name}{kind}" for name in ("loss", "wer", "cer") for kind in ("", "_streaming")}
    assert logged["dev/wer"] == 1.0 and logged["dev/wer_streaming"] == pytest.approx(3 / 5)
    features, lengths = module.ear(batch.waveform, batch.lengths, 32)
    chunked = module.recognizer(features, lengths, chunk_frames=8)
    assert torch.equal(heard[1].ctc_log_probs, chunked.ctc_log_probs)
    assert not torch.equal(heard[1].ctc_log_probs, heard[0].ctc_log_probs)


def test_decoding_as_streams_says_which_chunks_dev_is_heard_in(batch, tokenizer):
    module = finetuning(tokenizer, streaming=Streaming(chunk_frames=8, left_chunks=1)).eval()
    assert "dev/wer_streaming" in module.metrics and "dev/wer_streaming" not in finetuning(tokenizer).metrics
    features, lengths = module.ear(batch.waveform, batch.lengths, 32)
    with torch.no_grad():
        chunked = module.recognizer(features, lengths, chunk_frames=8, left_chunks=1)
        assert torch.equal(module.hear(batch, "_streaming").ctc_log_probs, chunked.ctc_log_probs)


def test_validation_hears_what_the_search_finds(batch, tokenizer, monkeypatch):
    module = finetuning(tokenizer)
    module.search = lambda heard: [
        [Hypothesis(tuple(tokenizer.encode(text)), 0.0), Hypothesis((), -1.0)] for text in batch.texts
    ]
    logged = validated(module, batch, monkeypatch)
    assert set(logged) == {"dev/loss", "dev/wer", "dev/cer"} and logged["dev/wer"] == logged["dev/cer"] == 0.0


def test_validation_counts_errors_over_the_whole_corpus(batch, tokenizer, monkeypatch):
    module = finetuning(tokenizer)
    said = iter([batch.texts[0], "please select"] + [""] * 6)  # right, two of five words, nothing
    monkeypatch.setattr(tokenizer, "decode", lambda tokens: next(said))
    logged = validated(module, batch, monkeypatch)
    assert logged["dev/wer"] == pytest.approx((3 + 6 * 5) / (8 * 5))
    assert 0 < logged["dev/cer"] < 1 and logged["dev/loss"] > 0
    module.on_validation_epoch_start()
    assert module.errors == {"wer": [0, 0], "cer": [0, 0]}
