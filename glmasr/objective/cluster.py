"""Context in, the loss of naming hidden frames' codes out (HuBERT, Hsu et al. 2021; BEST-RQ, Chiu et al. 2022)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from glmasr.model.codebook import Codebook
from glmasr.model.quantizer import code_perplexity, perplexity
from glmasr.objective.contract import Loss, View


class Cluster(nn.Module):
    """Cross-entropy over masked frames, the mean over codebooks; the codes are those of the clean speech.

    With `visible_weight` the frames that were only noisy are named too (HuBERT's 1 − α), at that weight: what is never
    hidden in fine-tuning has then been trained to carry something at the top.

    Which codes there are is the codebook's business: k-means of cepstra or of an earlier encoder's block, or a random
    projection. `seen` counts the targets so far: what always guesses their frequencies is the trivial predictor.
    """

    seen: Tensor

    def __init__(self, width: int, codebook: Codebook, visible_weight: float = 0.0):
        super().__init__()
        self.visible_weight = visible_weight
        self.codebook = codebook
        self.head = nn.Linear(width, codebook.codebooks * codebook.codes)
        self.register_buffer("seen", torch.zeros(codebook.codebooks, codebook.codes))

    def forward(self, view: View) -> Loss:
        book = self.codebook
        vectors = book.vectors(view.features, view.feature_lengths, view.mask.shape[1])
        codes, logits = self.name(vectors, view.context, view.mask)
        loss = total = cross_entropy(logits.flatten(0, 1), codes.flatten())
        with torch.no_grad():
            if self.training:
                self.seen += counted(codes, book.codes)
            parts = {
                "cluster": loss.detach(),
                "accuracy": (logits.argmax(-1) == codes).float().mean(),
                "code_perplexity": code_perplexity(codes, book.codes).mean(),
                "probability_perplexity": perplexity(logits.softmax(-1)).mean(),
                "unused": (self.seen == 0).float().mean(),
                "trivial": guessing(codes, self.seen),
            }
        if self.visible_weight:
            visible = ~view.mask & ~view.padding
            if visible.any():
                heard, named = self.name(vectors, view.context, visible)
                easy = cross_entropy(named.flatten(0, 1), heard.flatten())
                total = total + self.visible_weight * easy
                parts["visible"] = easy.detach()
        return Loss(total, parts)

    def name(
        self, vectors: Float[Tensor, "B T S"], context: Float[Tensor, "B T D"], where: Bool[Tensor, "B T"]
    ) -> tuple[Int[Tensor, "N G"], Float[Tensor, "N G K"]]:
        """The codes of some frames, and the scores they are named by."""
        book = self.codebook
        logits = self.head(context[where]).float().unflatten(-1, (book.codebooks, book.codes))
        return book.codes_of(vectors[where]), logits


def counted(codes: Int[Tensor, "S G"], size: int) -> Tensor:
    """How often each code occurs in each codebook, (G, size)."""
    return torch.stack([torch.bincount(book, minlength=size) for book in codes.T]).to(torch.float32)


def guessing(codes: Int[Tensor, "S G"], seen: Tensor) -> Tensor:
    """Cross-entropy of a guess by the frequencies `seen` (G, K) so far, one added to each."""
    frequencies = (seen + 1) / (seen + 1).sum(1, keepdim=True)
    return -frequencies.log().gather(1, codes.T).mean()
