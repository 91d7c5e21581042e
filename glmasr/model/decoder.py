"""Context and tokens in, logits of the next token out: a Transformer decoder (Vaswani et al. 2017)."""

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from glmasr.model.attention import RotaryAttention, rotary_angles
from glmasr.model.conformer import FeedForward


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
