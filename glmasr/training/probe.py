"""A frozen encoder and a few labelled minutes in; how well a linear CTC head reads each of its blocks, out.

The pretraining loss says little about what an encoder is worth (docs/LOG.md). This does, cheaply: frames of the clean,
unmasked input are computed once, standardized, and given to one linear layer per block. That layer is trained by
expectation-maximization: CTC's posteriors (Graves et al. 2006, eq. 16) are the targets of a convex regression for a few
steps, then drawn up anew. Nothing in it is random, and CTC, the dear part, runs ten times, not a hundred.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from glmasr.decoding import ctc
from glmasr.model.encoder import Encoder
from glmasr.speech import Batch
from glmasr.text.errors import count_errors
from glmasr.text.tokenizer import BLANK, Tokenizer

ROUNDS, STEPS, RATE, DECAY = 10, 10, 0.05, 1e-2
"""Of the head's training, chosen by what tells trained encoders from untrained ones best (docs/LOG.md)."""

MARGIN = 0.02
"""Share of the CTC loss below which two scores are called equal: what another draw of labels moves their difference."""


@dataclass(frozen=True)
class Score:
    """What a linear head makes of the dev utterances: CTC loss in nats per token, greedy character error rate."""

    ctc: float
    cer: float


@dataclass(frozen=True)
class ProbeResult:
    """Scores of blocks, which are counted from 1: block 2 is what an encoder of two blocks would give."""

    blocks: dict[int, Score]

    @property
    def best_block(self) -> int:
        return min(self.blocks, key=lambda block: self.blocks[block].ctc)

    @property
    def best(self) -> Score:
        return self.blocks[self.best_block]

    @property
    def reinitialized_blocks(self) -> int:
        """How many top blocks fine-tuning had better begin afresh: those above the best, if it is better by MARGIN."""
        top = max(self.blocks)
        return top - self.best_block if self.best.ctc < (1 - MARGIN) * self.blocks[top].ctc else 0


class Heard(NamedTuple):
    """One batch as a head sees it: frames of every probed block (S, D) without padding, and what was said."""

    frames: dict[int, Tensor]
    lengths: list[int]
    tokens: Tensor
    token_lengths: Tensor
    texts: tuple[str | None, ...]


def probe(
    encoder: Encoder,
    ear: nn.Module,
    train: Sequence[Batch],
    dev: Sequence[Batch],
    tokenizer: Tokenizer,
    blocks: Iterable[int],
) -> ProbeResult:
    """Score `blocks` of an encoder by heads that learn `train` and are judged on `dev`; the encoder is left as it was.

    No random number is drawn, and the encoder's mode is put back.
    """
    blocks, mode = sorted(blocks), encoder.training
    encoder.eval()
    try:
        learned, judged = ([hear(encoder, ear, batch, blocks) for batch in batches] for batches in (train, dev))
    finally:
        encoder.train(mode)
    scores = {}
    for block in blocks:
        frames = torch.cat([heard.frames[block] for heard in learned])
        center, scale = frames.mean(0), frames.std(0).clamp(min=1e-5)
        for heard in [*learned, *judged]:
            heard.frames[block].sub_(center).div_(scale)
        head = fit_head(learned, block, tokenizer.size)
        scores[block] = judge(head, judged, block, tokenizer)
    return ProbeResult(scores)


@torch.no_grad()
def hear(encoder: Encoder, ear: nn.Module, batch: Batch, blocks: Sequence[int]) -> Heard:
    """Frames of one clean, whole batch, on the CPU."""
    assert batch.tokens is not None and batch.token_lengths is not None
    there = batch.to(encoder.mask_embedding.device)
    frames, lengths = encoder.subsample(*ear(there.waveform, there.lengths))
    layers, ends = encoder.layers(frames, lengths), lengths.tolist()
    real = {b: torch.cat([row[:end] for row, end in zip(layers[b - 1], ends, strict=True)]) for b in blocks}
    frames_of = {block: value.float().cpu() for block, value in real.items()}
    return Heard(frames_of, ends, batch.tokens, batch.token_lengths, batch.texts)


def ctc_loss(logits: Float[Tensor, "S V"], heard: Heard) -> Float[Tensor, ""]:
    """Nats of all transcripts of a batch, logits (S, V) without padding; one too long for its frames counts nothing."""
    rows = pad_sequence(list(logits.log_softmax(-1).split(heard.lengths)))
    tokens = heard.tokens.clamp(min=BLANK)  # what is behind an end is never read
    lengths = torch.tensor(heard.lengths)
    return nn.functional.ctc_loss(
        rows, tokens, lengths, heard.token_lengths, BLANK, reduction="sum", zero_infinity=True
    )


def posteriors(logits: Float[Tensor, "S V"], heard: Heard) -> Float[Tensor, "S V"]:
    """CTC's posterior of every token in every frame (S, V): softmax minus the gradient of the loss."""
    logits = logits.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(ctc_loss(logits, heard), logits)
    return logits.detach().softmax(-1) - gradient


@torch.enable_grad()
def fit_head(learned: Sequence[Heard], block: int, size: int) -> nn.Linear:
    """A linear layer from one block's frames to tokens.

    Its bias begins at how often each token is said: from zero, heads of different encoders end in different alignments,
    and of an encoder that is worse than an untrained one nothing is seen (docs/LOG.md).
    """
    frames = torch.cat([heard.frames[block] for heard in learned])
    said = torch.cat([heard.tokens[heard.tokens >= 0] for heard in learned])
    counts = said.bincount(minlength=size) + 0.5
    counts[BLANK] = max(len(frames) - len(said), 0.2 * len(said))
    head = nn.Linear(frames.shape[1], size, device="meta").to_empty(device="cpu")  # no random number is drawn
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_((counts / counts.sum()).log())
    optimizer = torch.optim.Adam(head.parameters(), betas=(0.9, 0.98))
    for done in range(ROUNDS):
        wanted = torch.cat([posteriors(head(heard.frames[block]), heard) for heard in learned])
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - done / ROUNDS)
        for _ in range(STEPS):
            likelihood = (wanted * head(frames).log_softmax(-1)).sum() / len(said)
            optimizer.zero_grad()
            (DECAY * head.weight.square().sum() - likelihood).backward()
            optimizer.step()
    return head


@torch.no_grad()
def judge(head: nn.Linear, judged: Sequence[Heard], block: int, tokenizer: Tokenizer) -> Score:
    """The score of one head on what it has not learned."""
    nats = tokens = errors = characters = 0.0
    for heard in judged:
        logits = head(heard.frames[block])
        nats += float(ctc_loss(logits, heard))
        tokens += int(heard.token_lengths.sum())
        for row, text in zip(logits.log_softmax(-1).cpu().split(heard.lengths), heard.texts, strict=True):
            counts = count_errors(text or "", tokenizer.decode(ctc.greedy(row).tokens), "", "cer")
            errors, characters = errors + counts.errors, characters + counts.words
    return Score(nats / max(tokens, 1), errors / max(characters, 1))
