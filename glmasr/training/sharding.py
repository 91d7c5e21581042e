"""A model in, the same with parameters, gradients and optimizer spread over the ranks (FSDP, Zhao et al. 2023) out."""

from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from glmasr.model.encoder import Encoder


class Sharded(ModelParallelStrategy):
    """Shards over all ranks, of every machine; checkpoints are whole, as those of any other strategy.

    The module says in `configure_model` how it is to be cut (`shard`). Activation checkpointing is the encoder's own
    (`model.encoder.checkpointing`), mixed precision Lightning's (`trainer.precision`).
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(encoder: Encoder, *others: nn.Module, mesh) -> None:
    """Cut each block of the encoder by itself, so that only one is whole at a time, then the rest, then `others`."""
    for block in encoder.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(encoder, mesh=mesh)
    for entered in ("subsample", "contextualize"):  # instead of forward
        register_fsdp_forward_method(encoder, entered)
    for other in others:
        if any(True for _ in other.parameters()):
            fully_shard(other, mesh=mesh)
