"""A recognizer and a device in, the same out with its blocks' weights in main memory, on the device layer by layer.

For a model larger than the GPU: what it needs there is the largest layer and the activations. Every pass brings all
weights over, so it pays with long batches: 1.5 B numbers of float32 are 6 GB, a quarter of a second of PCIe 4.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from glmasr.model.recognizer import Recognizer


def offload(recognizer: Recognizer, device: str | torch.device) -> Recognizer:
    """Move all but the blocks of encoder and decoder to the device, in place; those visit it while they compute.

    For inference only, by one thread at a time: while a layer computes, whoever shares its weights sees them there.
    """
    layers = list(blocks_layers(recognizer))
    staying = {id(tensor) for layer in layers for tensor in own(layer)}
    for tensor in (*recognizer.parameters(), *recognizer.buffers()):
        if id(tensor) not in staying:
            tensor.data = bring(tensor.data, device)
    for layer in layers:
        if torch.device(device).type == "cuda":
            for tensor in own(layer):
                tensor.data = tensor.data.pin_memory()  # twice as fast to bring over
        layer.register_forward_pre_hook(partial(_fetch, device))
        layer.register_forward_hook(_send_home, always_call=True)
    return recognizer


def blocks_layers(recognizer: Recognizer) -> Iterator[nn.Module]:
    """The modules within blocks that have weights of their own."""
    blocks = [*recognizer.encoder.blocks, *(recognizer.decoder.blocks if recognizer.decoder is not None else [])]
    return (layer for block in blocks for layer in block.modules() if own(layer))


def own(layer: nn.Module) -> list[Tensor]:
    """Parameters and buffers of the layer itself."""
    return [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]


def bring(tensor: Tensor, device: str | torch.device) -> Tensor:
    """A copy on the device; the GPU waits for it, the CPU goes on."""
    return tensor.to(device, non_blocking=True)


def _fetch(device: str | torch.device, layer: nn.Module, _) -> None:
    layer.__dict__["home"] = [tensor.data for tensor in own(layer)]
    for tensor in own(layer):
        tensor.data = bring(tensor.data, device)


def _send_home(layer: nn.Module, *_) -> None:
    for tensor, home in zip(own(layer), layer.__dict__.pop("home", ()), strict=False):
        tensor.data = home
