"""Features in, context out: subsampling, an optional mask, Conformer blocks."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glmasr.lengths import padding_mask
from glmasr.model.attention import chunk_mask, rotary_angles
from glmasr.model.conformer import ConformerBlock
from glmasr.model.subsampling import Subsampling


class Encoder(nn.Module):
    """The part that pretraining trains and fine-tuning keeps.

    `subsample` and `contextualize` are apart because objectives look at the frames in between: they hide some of
    them, and take their targets from them. `inner_dropout` as in ConformerBlock: at 0, as wav2vec 2.0 has it within
    its feed-forward layers, a step on CPU takes about a sixth less time than with 0.1 (docs/LOG.md).
    """

    def __init__(
        self,
        width: int,
        blocks: int,
        heads: int,
        bins: int = 80,
        stem_channels: int = 32,
        expansion: int = 4,
        kernel: int = 15,
        causal: bool = False,
        dropout: float = 0.1,
        checkpointing: bool = False,
        inner_dropout: float | None = None,
    ):
        super().__init__()
        self.width = width
        self.bins = bins
        self.head_width = width // heads
        self.checkpointing = checkpointing
        self.subsampling = Subsampling(bins, width, stem_channels)
        self.project = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.mask_embedding = nn.Parameter(torch.empty(width).uniform_())
        self.blocks = nn.ModuleList(
            ConformerBlock(width, heads, expansion, kernel, causal, dropout, inner_dropout) for _ in range(blocks)
        )

    def subsample(
        self, features: Float[Tensor, "B F M"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B T D"], Int[Tensor, " B"]]:
        """Features → frames (40 ms) and their lengths."""
        return self.subsampling(features, lengths)

    def contextualize(
        self,
        frames: Float[Tensor, "B T D"],
        lengths: Int[Tensor, " B"],
        mask: Bool[Tensor, "B T"] | None = None,
        chunk_frames: int | None = None,
        left_chunks: int | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Frames → context. Frames under `mask` are hidden behind one learned vector; padded frames come out as noise.

        With `chunk_frames` a frame attends to its own chunk and `left_chunks` before it (all of them if None), and
        convolutions end with the chunk: what streaming gives, chunk by chunk (model/streaming.py).
        """
        return self.layers(frames, lengths, mask, chunk_frames, left_chunks)[-1]

    def layers(
        self,
        frames: Float[Tensor, "B T D"],
        lengths: Int[Tensor, " B"],
        mask: Bool[Tensor, "B T"] | None = None,
        chunk_frames: int | None = None,
        left_chunks: int | None = None,
    ) -> list[Float[Tensor, "B T D"]]:
        """What every block makes of the frames, the lowest first; the last is the context."""
        length = frames.shape[1]
        x = self.project(frames)
        if mask is not None:
            x = torch.where(mask[..., None], self.mask_embedding.to(x.dtype), x)
        x = self.dropout(x)
        padding = padding_mask(lengths, length)
        allowed = ~padding[:, None, None, :]
        if chunk_frames is not None and left_chunks is None:
            allowed = allowed & chunk_mask(length, chunk_frames, None, x.device)
            # A padded row may see nothing; a softmax over nothing is NaN, so it may look at itself.
            allowed = allowed | torch.eye(length, dtype=torch.bool, device=x.device)
        angles = rotary_angles(length, self.head_width, x.device)
        layers = []
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, angles, padding, allowed, chunk_frames, left_chunks, use_reentrant=False)
            else:
                x = block(x, angles, padding, allowed, chunk_frames, left_chunks)
            layers.append(x)
        return layers

    def forward(
        self, features: Float[Tensor, "B F M"], lengths: Int[Tensor, " B"], **view
    ) -> tuple[Float[Tensor, "B T D"], Int[Tensor, " B"]]:
        """Features → context and its lengths; `view` goes to `contextualize`."""
        frames, lengths = self.subsample(features, lengths)
        return self.contextualize(frames, lengths, **view), lengths
