"""Features in, context out: subsampling, an optional mask, Conformer blocks."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glmasr.lengths import padding_mask
from glmasr.model.attention import chunk_mask, rotary_angles
from glmasr.model.conformer import ConformerBlock
from glmasr.model.packing import Packing
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
        packing: Packing | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Frames → context. Frames under `mask` are hidden behind one learned vector; padded frames come out as noise.

        With `chunk_frames` a frame attends to its own chunk and `left_chunks` before it (all of them if None), and
        convolutions end with the chunk: what streaming gives, chunk by chunk (model/streaming.py).

        With `packing` only the frames in it are computed and heard, all others are as padding, and come out as zeros:
        without what lies behind an utterance's end, or without hidden frames too (He et al. 2022, "MAE").
        """
        context = self._layers(frames, lengths, mask, chunk_frames, left_chunks, packing)[-1]
        return context if packing is None else packing.unpack(context).clone()  # sharding warns of a view

    def layers(
        self,
        frames: Float[Tensor, "B T D"],
        lengths: Int[Tensor, " B"],
        mask: Bool[Tensor, "B T"] | None = None,
        chunk_frames: int | None = None,
        left_chunks: int | None = None,
        packing: Packing | None = None,
    ) -> list[Float[Tensor, "B T D"]]:
        """What every block makes of the frames, the lowest first; the last is the context."""
        layers = self._layers(frames, lengths, mask, chunk_frames, left_chunks, packing)
        return layers if packing is None else [packing.unpack(layer) for layer in layers]

    def _layers(
        self,
        frames: Float[Tensor, "B T D"],
        lengths: Int[Tensor, " B"],
        mask: Bool[Tensor, "B T"] | None,
        chunk_frames: int | None,
        left_chunks: int | None,
        packing: Packing | None,
    ) -> list[Tensor]:
        """`layers`, packed as they are computed."""
        length = frames.shape[1]
        if packing is not None and left_chunks is not None:
            packing = replace(packing, tight=None)  # what is near is cut from rows with their gaps
        x = self.project(frames if packing is None else packing.pack(frames))
        if mask is not None:
            hidden = mask if packing is None else mask.flatten()[packing.places]
            x = torch.where(hidden[..., None], self.mask_embedding.to(x.dtype), x)
        x = self.dropout(x)
        padding = padding_mask(lengths, length) if packing is None else ~packing.present()
        angles, seen, limits = rotary_angles(length, self.head_width, x.device), ~padding, None
        if chunk_frames is not None and left_chunks is None:
            limits = chunk_mask(length, chunk_frames, None, x.device)
        if packing is not None and packing.tight is not None:
            seen = packing.tight.present()
            places = packing.tight.unpack(packing.positions()[:, None])[..., 0]  # B S
            angles = angles[places][:, None]
            limits = None if limits is None else limits[places[:, :, None], places[:, None]][:, None]
        allowed = seen[:, None, None, :]
        # A softmax over nothing is NaN, so a frame that is not there may look at itself, or at all, where nothing is.
        if limits is not None:
            allowed = allowed & limits | torch.eye(seen.shape[1], dtype=torch.bool, device=x.device)
        elif packing is not None:
            allowed = allowed | ~seen.any(1)[:, None, None, None]
        layers = []
        for block in self.blocks:
            if self.checkpointing and self.training:
                view = (x, angles, padding, allowed, chunk_frames, left_chunks, packing)
                x = checkpoint(block, *view, use_reentrant=False)
            else:
                x = block(x, angles, padding, allowed, chunk_frames, left_chunks, packing)
            layers.append(x)
        return layers

    def forward(
        self, features: Float[Tensor, "B F M"], lengths: Int[Tensor, " B"], **view
    ) -> tuple[Float[Tensor, "B T D"], Int[Tensor, " B"]]:
        """Features → context and its lengths; `view` goes to `contextualize`."""
        frames, lengths = self.subsample(features, lengths)
        return self.contextualize(frames, lengths, **view), lengths
