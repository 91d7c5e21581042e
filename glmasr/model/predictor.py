"""What the encoder made of the visible frames in, all frames out: a small network that infers what was hidden."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from glmasr.build import build
from glmasr.model.conformer import Convolution
from glmasr.model.packing import Packing


class Predictor(nn.Module):
    """Gated convolutions over time behind an encoder that never computes hidden frames (He et al. 2022, "MAE").

    Hidden frames begin as one learned vector and hear `kernel` // 2 frames to each side, in each of `layers`; so what
    is at the middle of a span needs half a span of them. It is thrown away after pretraining, and the encoder has not
    learned to hear a vector that speech never has (Baevski et al. 2023, "data2vec 2.0", has such a decoder too).
    """

    def __init__(self, width: int, layers: int, kernel: int, dropout: float):
        super().__init__()
        if layers < 1:
            raise ValueError(f"{layers} layers infer nothing: choose 1 or more, or 0 for an encoder that hears masks")
        self.hidden = nn.Parameter(torch.empty(width).uniform_())
        self.layers = nn.ModuleList(Convolution(width, kernel, causal=False, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, context: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"], real: Packing
    ) -> Float[Tensor, "B T D"]:
        """`context` of visible frames, anything under `mask`; zeros behind the utterances' ends come out."""
        x = real.pack(torch.where(mask[..., None], self.hidden.to(context.dtype), context))
        for layer in self.layers:
            x = x + layer(x, None, packing=real)
        return real.unpack(self.norm(x)).clone()  # sharding warns of a view


def build_predictor(config: Mapping[str, Any]) -> Predictor | None:
    """What a config names; None where it has no layers, so that the encoder hears masks."""
    return build(config) if config["layers"] else None
