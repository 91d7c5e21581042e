"""Log-mel features in, cepstral coefficients with their differences out: what HuBERT's first codes are made of."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchaudio.functional import compute_deltas, create_dct


class Cepstra(nn.Module):
    """The cosine transform of each log-mel frame, then its first and second differences over time."""

    dct: Tensor

    def __init__(self, bins: int = 80, coefficients: int = 13):
        super().__init__()
        self.size = 3 * coefficients
        self.register_buffer("dct", create_dct(coefficients, bins, "ortho"), persistent=False)

    @torch.no_grad()
    def forward(self, features: Float[Tensor, "B F M"]) -> Float[Tensor, "B F C"]:
        static = (features @ self.dct).transpose(1, 2)
        slope = compute_deltas(static)
        return torch.cat((static, slope, compute_deltas(slope)), dim=1).transpose(1, 2)
