"""A probe hears what frames tell, the same each time, and leaves the encoder and its randomness as they were."""

from itertools import groupby, product

import pytest
import torch

from glmasr.build import build
from glmasr.text.tokenizer import learn_characters
from glmasr.training.probe import Heard, ProbeResult, Score, ctc_loss, fit_head, judge, posteriors, probe
from glmasr.training.probing import loaded
from tests.small import SMALL, composed


def heard(frames: list[torch.Tensor], tokens: list[list[int]], texts: tuple[str, ...] = ()) -> Heard:
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(one) for one in tokens], True, -1)
    lengths = torch.tensor([len(one) for one in tokens])
    return Heard({1: torch.cat(frames)}, [len(one) for one in frames], padded, lengths, texts)


def test_posteriors_are_those_of_all_alignments():
    # Two utterances of different lengths, one with a double token; every path through them, one by one.
    logits, said = torch.randn(9, 3), [[1, 2], [2, 2, 1]]
    batch = heard([logits[:4], logits[4:]], said)
    expected, nats, start = torch.zeros(9, 3), 0.0, 0
    for length, tokens in zip(batch.lengths, said, strict=True):
        chances = logits[start : start + length].softmax(-1)
        counted = torch.zeros(length, 3)
        for path in product(range(3), repeat=length):
            if [token for token, _ in groupby(path) if token] == tokens:
                chance = torch.stack([chances[t, token] for t, token in enumerate(path)]).prod()
                counted += chance * torch.nn.functional.one_hot(torch.tensor(path), 3)
        total = counted[0].sum()
        expected[start : start + length], nats, start = counted / total, nats - total.log().item(), start + length
    assert torch.allclose(posteriors(logits, batch), expected, atol=1e-5)
    assert ctc_loss(logits, batch).item() == pytest.approx(nats, rel=1e-5)


def test_a_head_reads_what_frames_tell_and_no_more():
    tokenizer = learn_characters(["abcdef"])
    rng = torch.Generator().manual_seed(1)

    def spoken(count: int, clarity: float) -> list[Heard]:
        """Each letter two frames long, with silence between, in 16 dimensions that know the letter or do not."""
        texts = ["".join("abcdef"[i] for i in torch.randint(0, 6, (5,), generator=rng)) for _ in range(count)]
        rows = [[token for letter in tokenizer.encode(text) for token in (letter, letter, 0)] for text in texts]
        clear = [torch.nn.functional.one_hot(torch.tensor(row), 16).float() for row in rows]
        frames = [clarity * one + 0.3 * torch.randn(one.shape, generator=rng) for one in clear]
        return [heard(frames, [tokenizer.encode(text) for text in texts], tuple(texts))]

    scores = {}
    for clarity in (0.0, 0.6, 2.0):
        head = fit_head(spoken(40, clarity), 1, tokenizer.size)
        scores[clarity] = judge(head, spoken(20, clarity), 1, tokenizer)
    assert scores[2.0].ctc < 0.5 < scores[0.6].ctc < 0.9 * scores[0.0].ctc
    assert scores[2.0].cer < 0.02 < scores[0.6].cer < scores[0.0].cer


@pytest.fixture(scope="module")
def asked(catalog) -> dict:
    """The ear, real utterances to learn and to be judged on, in batches, and their characters."""
    learn, dev = (catalog.subset(split=split, labelled=True) for split in ("train", "dev"))
    tokenizer = learn_characters(learn.texts())
    batches = {"train": loaded(learn, tokenizer), "dev": loaded(dev, tokenizer)}
    return {"ear": build(composed("pretrain")["frontend"]), "tokenizer": tokenizer, "blocks": [1, 2], **batches}


@pytest.fixture
def encoder():
    return build(composed("pretrain", *SMALL)["model"]["encoder"])


def test_a_probe_repeats_itself_and_leaves_no_trace(encoder, asked):
    encoder.train()
    before, state = {k: v.clone() for k, v in encoder.state_dict().items()}, torch.random.get_rng_state()
    first = probe(encoder, **asked)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(module.training for module in encoder.modules())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())
    torch.manual_seed(5)
    with torch.no_grad():  # callbacks may be called so
        assert probe(encoder, **asked) == first
    assert set(first.blocks) == {1, 2} and first.blocks[1] != first.blocks[2]
    assert 1.0 < first.best.ctc < 4.5  # between knowing the sentence by heart and guessing among 20 letters


def test_an_encoder_keeps_its_mode_when_the_probe_fails(encoder, asked):
    encoder.train()
    with pytest.raises(IndexError):
        probe(encoder, **asked | {"blocks": [3]})
    assert encoder.training


def test_neither_padding_nor_scale_changes_a_score(encoder, asked, catalog):
    whole = probe(encoder, **asked)
    alone = [loaded(catalog.subset(split="dev").rows([row]), asked["tokenizer"])[0] for row in range(2)]
    assert len(asked["dev"]) == 1 and len(alone) == 2
    again = probe(encoder, **asked | {"dev": alone})
    assert all(again.blocks[b].ctc == pytest.approx(whole.blocks[b].ctc, abs=1e-4) for b in (1, 2))
    with torch.no_grad():
        for parameter in encoder.blocks[-1].norm_out.parameters():
            parameter.mul_(100)
    loud = probe(encoder, **asked)
    assert loud.blocks[2].ctc == pytest.approx(whole.blocks[2].ctc, rel=0.01)


def test_top_blocks_are_given_up_only_for_a_clear_gain():
    def result(*losses: float) -> ProbeResult:
        return ProbeResult({block: Score(loss, 0.5) for block, loss in enumerate(losses, 1)})

    assert (result(3.0, 2.0, 2.5, 2.6).best_block, result(3.0, 2.0, 2.5, 2.6).reinitialized_blocks) == (2, 2)
    assert (result(3.0, 2.0, 2.01).best_block, result(3.0, 2.0, 2.01).reinitialized_blocks) == (2, 0)
    assert result(3.0, 2.0, 1.0).reinitialized_blocks == 0 and result(3.0, 2.0, 1.0).best == Score(1.0, 0.5)
