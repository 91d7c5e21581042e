"""CTC scores, decoder logits and tokens in, the joint CTC/attention loss out (Kim et al. 2017)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, ctc_loss

from glmasr.model.recognizer import Heard, Recognizer
from glmasr.objective.contract import Loss
from glmasr.text.tokenizer import BLANK, BOUNDARY

IGNORED = -100


class Recognition(nn.Module):
    """`ctc_weight` × CTC per utterance and character + the rest × smoothed cross-entropy of the decoder.

    `middle_weight` of the CTC part is that of a middle block under the same head, where the caller has its context:
    the lower blocks are so taught directly (Lee and Watanabe 2021, "Intermediate loss regularization").
    """

    def __init__(self, ctc_weight: float, middle_weight: float, label_smoothing: float = 0.1):
        super().__init__()
        self.ctc_weight = ctc_weight
        self.middle_weight = middle_weight
        self.label_smoothing = label_smoothing

    def forward(
        self,
        recognizer: Recognizer,
        heard: Heard,
        tokens: Int[Tensor, "B U"],
        token_lengths: Int[Tensor, " B"],
        middle: Float[Tensor, "B T D"] | None = None,
    ) -> Loss:
        ctc = connectionist(heard, tokens, token_lengths)
        parts = {"ctc": ctc.detach()}
        if self.middle_weight and middle is not None:
            below = connectionist(recognizer.hear(middle, heard.lengths), tokens, token_lengths)
            parts["ctc_middle"] = below.detach()
            ctc = (1 - self.middle_weight) * ctc + self.middle_weight * below
        if recognizer.decoder is None:
            return Loss(ctc, parts)
        given, wanted = shifted(tokens, token_lengths)
        logits = recognizer.decoder(given, heard.context, heard.padding).float()
        attention = cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, label_smoothing=self.label_smoothing
        )
        total = self.ctc_weight * ctc + (1 - self.ctc_weight) * attention
        return Loss(total, parts | {"attention": attention.detach()})


def connectionist(heard: Heard, tokens: Int[Tensor, "B U"], token_lengths: Int[Tensor, " B"]) -> Float[Tensor, ""]:
    """The CTC loss; an utterance whose tokens do not fit its frames costs nothing."""
    scores, targets = heard.ctc_log_probs.transpose(0, 1), tokens.clamp(min=0)
    return ctc_loss(scores, targets, heard.lengths, token_lengths, blank=BLANK, zero_infinity=True)


def shifted(tokens: Int[Tensor, "B U"], lengths: Int[Tensor, " B"]) -> tuple[Int[Tensor, "B U1"], Int[Tensor, "B U1"]]:
    """Decoder input (boundary, then the tokens) and what it must say next (the tokens, then the boundary)."""
    start = tokens.new_full((len(tokens), 1), BOUNDARY)
    real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    given = torch.cat((start, tokens.where(real, tokens.new_tensor(BOUNDARY))), dim=1)
    wanted = torch.cat((tokens.where(real, tokens.new_tensor(IGNORED)), start * 0 + IGNORED), dim=1)
    return given, wanted.scatter(1, lengths[:, None], start)
