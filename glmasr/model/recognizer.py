"""Features in, CTC scores and decoder logits out: an encoder with a CTC head and an attention decoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from glmasr.lengths import padding_mask
from glmasr.model.decoder import Decoder
from glmasr.model.encoder import Encoder
from glmasr.text.tokenizer import SPECIAL

VOCABULARY = ("ctc.weight", "ctc.bias", "decoder.embed.weight", "decoder.project.weight", "decoder.project.bias")
"""What has a row for every token."""


@dataclass(frozen=True)
class Heard:
    """What the encoder makes of a batch: context, its padding, and log-probabilities of tokens per frame."""

    context: Float[Tensor, "B T D"]
    lengths: Int[Tensor, " B"]
    padding: Bool[Tensor, "B T"]
    ctc_log_probs: Float[Tensor, "B T V"]


class Recognizer(nn.Module):
    """Joint CTC/attention recognizer (Kim et al. 2017): both heads share the encoder.

    `ctc_weights` says how much CTC has to say in searches that ask both heads, by their names, where that is known.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder | None, vocabulary_size: int):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.ctc = nn.Linear(encoder.width, vocabulary_size)
        self.ctc_weights: dict[str, float] = {}

    def forward(self, features: Float[Tensor, "B F M"], lengths: Int[Tensor, " B"], **view) -> Heard:
        """Encode a batch once; both searches and both losses start from what this returns."""
        return self.hear(*self.encoder(features, lengths, **view))

    def hear(self, context: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]) -> Heard:
        """Context → Heard, for callers that went through the encoder step by step."""
        log_probs = self.ctc(context).float().log_softmax(-1)
        return Heard(context, lengths, padding_mask(lengths, context.shape[1]), log_probs)


def with_vocabulary(weights: Mapping[str, Tensor], origins: Sequence[int]) -> dict[str, Tensor]:
    """A recognizer's weights for another vocabulary, whose token i was `origins[i]` before, or is new (-1).

    A new token begins as the mean of all that stand for text: at first it is likelier nowhere than they are on average,
    so what the recognizer knew stays as good as it was (Hewitt 2021, "Initializing new word embeddings").
    """
    rows = torch.tensor(origins)
    grown = dict(weights)
    for name in VOCABULARY:
        if name in weights:
            old = weights[name]
            grown[name] = old[rows.clamp(min=0)]
            grown[name][rows < 0] = old[SPECIAL:].mean(0)
    return grown


def parameter_count(module: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(p.numel() for p in module.parameters())
