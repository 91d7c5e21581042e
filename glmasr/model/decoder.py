"""Context and tokens in, logits of the next token out: a Transformer decoder (Vaswani et al. 2017)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from glmasr.model.attention import RotaryAttention, rotary_angles, rotate
from glmasr.model.conformer import FeedForward


@dataclass(frozen=True)
class Memory:
    """What the decoder need not compute twice for N hypotheses of B utterances, N / B of each, neighbors.

    Each block's keys and values of the context (B H T E), which hypotheses of an utterance share, and of the tokens so
    far (N H U E).
    """

    allowed: Bool[Tensor, "B 1 1 T"]
    heard: tuple[tuple[Tensor, Tensor], ...]
    said: tuple[tuple[Tensor, Tensor], ...] | None = None

    def select(self, rows: Int[Tensor, " N"]) -> "Memory":
        """Hypotheses that go on from those in `rows`; each must stay with its utterance."""
        said = tuple((key[rows], value[rows]) for key, value in self.said or ())
        return Memory(self.allowed, self.heard, said or None)


class CrossAttention(nn.Module):
    """Tokens look at the context; no positions, since the context carries its own."""

    def __init__(self, width: int, context_width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(context_width, 2 * width)
        self.project_out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "B U D"], context: Float[Tensor, "B T C"], allowed: Bool[Tensor, "B 1 1 T"]
    ) -> Float[Tensor, "B U D"]:
        batch, _, width = x.shape
        split = (batch, -1, self.heads, width // self.heads)
        query = self.query(x).view(split).transpose(1, 2)
        key, value = (part.view(split).transpose(1, 2) for part in self.key_value(context).chunk(2, dim=-1))
        dropout = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout)
        return self.project_out(mixed.transpose(1, 2).reshape(batch, -1, width))

    def heard(self, context: Float[Tensor, "B T C"]) -> tuple[Float[Tensor, "B H T E"], Float[Tensor, "B H T E"]]:
        """Keys and values of the context."""
        key, value = self.key_value(context).chunk(2, dim=-1)
        split = (len(context), context.shape[1], self.heads, key.shape[-1] // self.heads)
        return key.view(split).transpose(1, 2), value.view(split).transpose(1, 2)

    def recall(
        self,
        x: Float[Tensor, "N U D"],
        heard: tuple[Float[Tensor, "B H T E"], Float[Tensor, "B H T E"]],
        allowed: Bool[Tensor, "B 1 1 T"],
    ) -> Float[Tensor, "N U D"]:
        """As `forward`: all hypotheses of an utterance ask in one row, so its keys are not copied for each."""
        key, value = heard
        query = self.query(x).view(len(key), -1, self.heads, key.shape[-1]).transpose(1, 2)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        return self.project_out(mixed.transpose(1, 2).reshape(x.shape))


class DecoderBlock(nn.Module):
    """Self-attention over earlier tokens, attention to the context, feed-forward."""

    def __init__(self, width: int, context_width: int, heads: int, expansion: int, dropout: float):
        super().__init__()
        self.norm_self = nn.LayerNorm(width)
        self.attention = RotaryAttention(width, heads, dropout)
        self.norm_cross = nn.LayerNorm(width)
        self.cross = CrossAttention(width, context_width, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.feed = FeedForward(width, expansion, dropout)

    def forward(
        self,
        x: Float[Tensor, "B U D"],
        angles: Float[Tensor, "U E2"],
        context: Float[Tensor, "B T C"],
        allowed: Bool[Tensor, "B 1 1 T"],
    ) -> Float[Tensor, "B U D"]:
        x = x + self.dropout(self.attention(self.norm_self(x), angles, causal=True))
        x = x + self.dropout(self.cross(self.norm_cross(x), context, allowed))
        return x + self.feed(x)

    def go_on(
        self,
        x: Float[Tensor, "N U D"],
        angles: Float[Tensor, "U E2"],
        heard: tuple[Tensor, Tensor],
        allowed: Bool[Tensor, "B 1 1 T"],
        said: tuple[Tensor, Tensor] | None,
    ) -> tuple[Float[Tensor, "N U D"], tuple[Tensor, Tensor]]:
        """As `forward` behind tokens whose keys and values are `said`; these with the new tokens' come back."""
        mixed, said = self_attention(self.attention, self.norm_self(x), angles, said)
        x = x + mixed
        x = x + self.cross.recall(self.norm_cross(x), heard, allowed)
        return x + self.feed(x), said


def self_attention(
    attention: RotaryAttention,
    x: Float[Tensor, "N U D"],
    angles: Float[Tensor, "U E2"],
    said: tuple[Tensor, Tensor] | None,
) -> tuple[Float[Tensor, "N U D"], tuple[Tensor, Tensor]]:
    """Causal self-attention of new tokens that also looks at the keys and values of earlier ones."""
    batch, length, width = x.shape
    qkv = attention.project_in(x).view(batch, length, 3, attention.heads, width // attention.heads)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    query, key = rotate(query, angles), rotate(key, angles)
    if said is not None:
        key, value = torch.cat((said[0], key), dim=2), torch.cat((said[1], value), dim=2)
    before = key.shape[2] - length
    allowed = torch.ones(length, key.shape[2], dtype=torch.bool, device=x.device).tril(before)
    mixed = scaled_dot_product_attention(query, key, value, attn_mask=allowed if length > 1 else None)
    return attention.project_out(mixed.transpose(1, 2).reshape(batch, length, width)), (key, value)


class Decoder(nn.Module):
    """Autoregressive decoder; padding behind the last token needs no mask, since nothing real comes after it."""

    def __init__(
        self,
        vocabulary_size: int,
        context_width: int,
        width: int,
        blocks: int,
        heads: int,
        expansion: int = 4,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.head_width = width // heads
        self.embed = nn.Embedding(vocabulary_size, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            DecoderBlock(width, context_width, heads, expansion, dropout) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, vocabulary_size)

    def forward(
        self, tokens: Int[Tensor, "B U"], context: Float[Tensor, "B T C"], padding: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B U V"]:
        """Logits of what follows each token; `padding` is True where the context is not speech."""
        x = self.dropout(self.embed(tokens))
        angles = rotary_angles(tokens.shape[1], self.head_width, tokens.device)
        allowed = ~padding[:, None, None, :]
        for block in self.blocks:
            x = block(x, angles, context, allowed)
        return self.project(self.norm(x))

    def remember(self, context: Float[Tensor, "B T C"], padding: Bool[Tensor, "B T"]) -> Memory:
        """What `step` starts from."""
        blocks: Iterable[DecoderBlock] = self.blocks  # type: ignore[assignment]
        return Memory(~padding[:, None, None, :], tuple(block.cross.heard(context) for block in blocks))

    def step(self, tokens: Int[Tensor, "N U"], memory: Memory) -> tuple[Float[Tensor, "N U V"], Memory]:
        """`forward` in evaluation mode for tokens that come behind those in memory, and the memory with them in it."""
        before = memory.said[0][0].shape[2] if memory.said else 0
        angles = rotary_angles(before + tokens.shape[1], self.head_width, tokens.device)[before:]
        blocks: Iterable[DecoderBlock] = self.blocks  # type: ignore[assignment]
        x, said = self.embed(tokens), []
        for i, block in enumerate(blocks):
            x, kept = block.go_on(x, angles, memory.heard[i], memory.allowed, memory.said[i] if memory.said else None)
            said.append(kept)
        return self.project(self.norm(x)), Memory(memory.allowed, memory.heard, tuple(said))
