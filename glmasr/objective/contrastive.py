"""Context and clean frames in, the wav2vec 2.0 loss out: find the true code among distractors (Baevski et al. 2020)."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from glmasr.model.quantizer import GumbelQuantizer, code_perplexity, perplexity
from glmasr.objective.contract import Loss, View


class Contrastive(nn.Module):
    """InfoNCE over masked frames with distractors from the same utterance, plus codebook diversity.

    Targets come from the clean waveform's frames, so the encoder must also see through the noise it was given.
    The Gumbel temperature falls from `temperature_start` to `temperature_end` by `temperature_decay` per step.
    """

    def __init__(
        self,
        width: int,
        codebooks: int,
        codes: int,
        code_width: int,
        temperature_start: float,
        temperature_end: float,
        temperature_decay: float,
        diversity_weight: float = 0.1,
        negatives: int = 100,
        similarity_temperature: float = 0.1,
    ):
        super().__init__()
        self.quantizer = GumbelQuantizer(width, codebooks, codes, code_width)
        self.project_context = nn.Linear(width, code_width)
        self.project_codes = nn.Linear(code_width, code_width)
        self.temperatures = (temperature_start, temperature_end, temperature_decay)
        self.diversity_weight = diversity_weight
        self.negatives = negatives
        self.similarity_temperature = similarity_temperature

    def forward(self, view: View) -> Loss:
        start, end, decay = self.temperatures
        self.quantizer.temperature = max(start * decay**view.step, end)
        mask = view.mask
        quantized = self.quantizer(view.frames[mask])
        chosen, present = gather_masked(mask)
        context = self.project_context(view.context)[torch.arange(len(mask), device=mask.device)[:, None], chosen]
        targets = context.new_zeros(*present.shape, self.project_codes.out_features)
        targets[present] = self.project_codes(quantized.vectors).to(targets.dtype)
        distractors, usable = draw_distractors(present, self.negatives)
        logits = contrastive_logits(context, targets, distractors, usable, self.similarity_temperature)[present]
        alone = ~usable.any(-1).expand_as(present)[present]
        contrast = cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long), reduction="none")
        contrast = contrast[~alone].mean() if not bool(alone.all()) else logits[:, 0].sum() * 0.0
        used = perplexity(quantized.probabilities)
        diversity = 1.0 - used.mean() / self.quantizer.codes
        with torch.no_grad():
            accuracy = (logits[~alone].argmax(-1) == 0).sum() / (~alone).sum().clamp(min=1)
            entries = code_perplexity(quantized.codes, self.quantizer.codes)
        parts = {
            "contrast": contrast.detach(),
            "diversity": diversity.detach(),
            "accuracy": accuracy,
            "probability_perplexity": used.mean().detach(),
            "code_perplexity": entries.mean(),
            "temperature": torch.tensor(self.quantizer.temperature),
            "trivial": torch.tensor(math.log(1 + self.negatives)),
        }
        return Loss(contrast + self.diversity_weight * diversity, parts)


def gather_masked(mask: Bool[Tensor, "B T"]) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
    """Positions of each row's masked frames, packed to the left, and which of them are there."""
    most = int(mask.sum(1).max())
    order = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return order, mask.gather(1, order)


def draw_distractors(present: Bool[Tensor, "B S"], count: int) -> tuple[Int[Tensor, "B S K"], Bool[Tensor, "B S K"]]:
    """For each masked frame, `count` other masked frames of its utterance, drawn with replacement.

    The second result is False throughout for an utterance that has no other masked frame.
    """
    batch, size = present.shape
    others = (present.sum(1) - 1).clamp(min=1)[:, None, None]
    drawn = (torch.rand(batch, size, count, device=present.device) * others).long()
    own = torch.arange(size, device=present.device)[:, None]
    drawn = drawn + (drawn >= own)
    usable = (present.sum(1) > 1)[:, None, None].expand_as(drawn)
    return drawn.clamp(max=size - 1), usable


def contrastive_logits(
    context: Float[Tensor, "B S D"],
    targets: Float[Tensor, "B S D"],
    distractors: Int[Tensor, "B S K"],
    usable: Bool[Tensor, "B S K"],
    temperature: float,
) -> Float[Tensor, "B S K1"]:
    """Scaled cosine similarities, the true target first. A distractor equal to the target is no distractor: -inf.

    All pairs of an utterance are compared once (S × S) and the drawn ones picked, instead of copying S × K vectors.
    """
    similarity = torch.bmm(normalize(context.float(), dim=-1), normalize(targets.float(), dim=-1).transpose(1, 2))
    similarity = similarity / temperature
    true = similarity.diagonal(dim1=1, dim2=2)[..., None]
    with torch.no_grad():
        equal = torch.cdist(targets.float(), targets.float(), p=float("inf")) == 0
    false = similarity.gather(2, distractors)
    false = false.masked_fill(equal.gather(2, distractors) | ~usable, float("-inf"))
    return torch.cat((true, false), dim=-1)
