"""A model is cut at its blocks, and every parameter is in a shard; two ranks are in tests/journeys/test_faults.py."""

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from glmasr.model.encoder import Encoder
from glmasr.training.ranks import free_port
from glmasr.training.sharding import shard


def test_every_parameter_is_sharded_and_the_methods_see_them_whole():
    meeting = f"tcp://127.0.0.1:{free_port()}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    try:
        encoder, head = Encoder(32, 2, 2, stem_channels=8).eval(), torch.nn.Linear(32, 3)
        features, lengths = torch.randn(2, 40, 80), torch.tensor([40, 32])
        expected, _ = encoder(features, lengths)
        shard(encoder, head, torch.nn.Identity(), mesh=init_device_mesh("cpu", (1,)))
        parameters = [*encoder.parameters(), *head.parameters()]
        assert parameters and all(isinstance(parameter, DTensor) for parameter in parameters)
        frames, frame_lengths = encoder.subsample(features, lengths)
        torch.testing.assert_close(encoder.contextualize(frames, frame_lengths), expected)
    finally:
        torch.distributed.destroy_process_group()
