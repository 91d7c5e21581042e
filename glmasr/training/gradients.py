"""Gradients in, their norm out, once a step for all who ask: guards, health and clipping."""

from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor


class Normed(lightning.LightningModule):
    """A module that clips its gradient by the norm that callbacks have looked at before.

    Each look for itself would read all gradients again, which on a CPU is a hundredth of a small model's step.
    """

    _norm: Tensor | None = None

    def gradient_norm(self, optimizer: Any) -> Tensor:
        """The norm of the whole gradient before it is clipped, sharded or not, on its device."""
        return whole(self._gradient_norm(optimizer))

    def _gradient_norm(self, optimizer: Any) -> Tensor:
        """The same as it is computed, sharded where gradients are."""
        if self._norm is None:
            gradients = [p.grad for p in parameters_of(optimizer) if p.grad is not None]
            self._norm = torch.nn.utils.get_total_norm(gradients)
        return self._norm

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clip as Lightning does (trainer.gradient_clip_val), by the norm that is known.

        With fp16 the gradient may still be scaled here: then Lightning clips, or says why it cannot.
        """
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if gradient_clip_val and not scaled and gradient_clip_algorithm in (None, "norm"):
            norm = self._gradient_norm(optimizer)
            torch.nn.utils.clip_grads_with_norm_(parameters_of(optimizer), gradient_clip_val, norm)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        self._norm = None


def parameters_of(optimizer: Any) -> list[Tensor]:
    """All that an optimizer trains."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together, on every rank; any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[operator]


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor; any other as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # type: ignore[operator]
