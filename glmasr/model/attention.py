"""Frames in, frames out: multi-head self-attention with rotary positions (Su et al. 2021, section 3.4)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from glmasr.model.packing import Packing

ROTARY_BASE = 10_000.0


def rotary_angles(length: int, head_width: int, device: torch.device) -> Float[Tensor, "T H2"]:
    """The angle of every position (T) for every pair of channels (head_width / 2)."""
    frequencies = ROTARY_BASE ** (-torch.arange(0, head_width, 2, device=device, dtype=torch.float32) / head_width)
    return torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequencies


def rotate(x: Float[Tensor, "B H S E"], angles: Float[Tensor, "*A S E2"]) -> Float[Tensor, "B H S E"]:
    """Turn each pair (first half, second half) of channels by its position's angle."""
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1).to(x.dtype)


class RotaryAttention(nn.Module):
    """Self-attention whose scores depend on distances only; `allowed` says who may look at whom."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        if width % heads or (width // heads) % 2:
            raise ValueError(f"width {width} must be an even multiple of heads {heads}")
        self.heads = heads
        self.dropout = dropout
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "*F D"],
        angles: Float[Tensor, "*A S E2"],
        allowed: Bool[Tensor, "B 1 #S S"] | None = None,
        causal: bool = False,
        packing: Packing | None = None,
    ) -> Float[Tensor, "*F D"]:
        mixed = scaled_dot_product_attention(
            *self.turned(x, angles, packing),
            attn_mask=allowed,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
        )
        return self.joined(mixed.transpose(1, 2).flatten(2), packing)

    def turned(
        self, x: Float[Tensor, "*F D"], angles: Float[Tensor, "*A S E2"], packing: Packing | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, T, E), the first two at their positions."""
        qkv = self.project_in(x)
        if packing is not None:
            qkv = packing.unpack(qkv)
        query, key, value = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return rotate(query, angles), rotate(key, angles), value

    def joined(self, mixed: Float[Tensor, "B T D"], packing: Packing | None) -> Float[Tensor, "*F D"]:
        """What the heads found, side by side, projected."""
        return self.project_out(mixed if packing is None else packing.pack(mixed))

    def nearby(
        self,
        x: Float[Tensor, "*F D"],
        angles: Float[Tensor, "*A S E2"],
        padding: Bool[Tensor, "B T"],
        chunk_frames: int,
        left_chunks: int,
        packing: Packing | None = None,
    ) -> Float[Tensor, "*F D"]:
        """As under `chunk_mask`, but only what is allowed is computed: the cost grows with T, not with its square."""
        (batch, length), before = padding.shape, left_chunks * chunk_frames
        behind, window = -length % chunk_frames, before + chunk_frames
        query, key, value = self.turned(x, angles, packing)
        query = pad(query, (0, 0, 0, behind)).unflatten(2, (-1, chunk_frames))
        key, value = (pad(one, (0, 0, before, behind)).unfold(2, window, chunk_frames) for one in (key, value))
        seen = pad(~padding, (before, behind)).unfold(1, window, chunk_frames)  # B C W
        seen = seen | ~seen.any(-1, keepdim=True)  # a softmax over nothing is NaN
        mixed = scaled_dot_product_attention(
            query.transpose(1, 2).flatten(0, 1),
            key.permute(0, 2, 1, 4, 3).flatten(0, 1),
            value.permute(0, 2, 1, 4, 3).flatten(0, 1),
            attn_mask=seen.flatten(0, 1)[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        mixed = mixed.unflatten(0, (batch, -1)).transpose(2, 3).flatten(3).flatten(1, 2)  # B T D
        return self.joined(mixed[:, :length], packing)


def chunk_mask(length: int, chunk_frames: int, left_chunks: int | None, device: torch.device) -> Bool[Tensor, "T T"]:
    """True where a frame (row) may look: its own chunk and `left_chunks` before it (all of them if None).

    Dynamic-chunk attention of U2 (Zhang et al. 2020, section 2.3).
    """
    chunk = torch.arange(length, device=device) // chunk_frames
    distance = chunk[:, None] - chunk
    allowed = distance >= 0
    return allowed if left_chunks is None else allowed & (distance <= left_chunks)
