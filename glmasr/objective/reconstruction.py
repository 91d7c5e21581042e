"""Context in, clean log-mel predicted: the low-SNR reconstruction loss."""

from jaxtyping import Float
from torch import Tensor, nn

from glmasr.objective.contract import Loss, View


class Reconstruction(nn.Module):
    """Mean absolute error of the clean speech's normalized log-mel, from what the encoder heard in noise.

    Hidden frames must be inferred from their neighbours, visible ones cleaned of their noise; the two means are
    weighted by `masked_weight` and `visible_weight`.
    """

    def __init__(self, width: int, features: int, masked_weight: float = 1.0, visible_weight: float = 1.0):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, features))
        self.masked_weight = masked_weight
        self.visible_weight = visible_weight

    def forward(self, view: View) -> Loss:
        error = (self.head(view.context).float() - view.clean).abs().mean(-1)
        masked = mean_where(error, view.mask)
        visible = mean_where(error, ~view.mask & ~view.padding)
        total = self.masked_weight * masked + self.visible_weight * visible
        # The features have zero mean, so silence is the trivial prediction and their mean size its error.
        trivial = mean_where(view.clean.abs().mean(-1), ~view.padding)
        parts = {"masked": masked.detach(), "visible": visible.detach(), "trivial": trivial.detach()}
        return Loss(total, parts)


def mean_where(values: Float[Tensor, "B T"], where: Tensor) -> Float[Tensor, ""]:
    """Mean of `values` at `where`; zero where that is nowhere."""
    return (values * where).sum() / where.sum().clamp(min=1)
