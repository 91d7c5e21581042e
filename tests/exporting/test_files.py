"""A module in, a file that says where it is from, and the same in eight bits out."""

import numpy as np
import onnx
import torch
from torch import nn

from glmasr.exported import session
from glmasr.exporting.files import OPSET, quantize, write_graph


class Two(nn.Module):
    """A product that may be rough and, under the name of log-mel, one that must be exact."""

    def __init__(self):
        super().__init__()
        self.logmel, self.rough = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)

    def forward(self, x):
        exact = self.logmel(x)
        return exact, self.rough(exact)


def test_a_graph_is_described_and_takes_any_batch(tmp_path):
    module, file = Two(), tmp_path / "a.onnx"
    write_graph(file, module, {"x": torch.randn(2, 64)}, ("a", "b"), {"x": {0: "B"}}, {"rate_hz": 16000})
    graph = onnx.load(file)
    assert {entry.key: entry.value for entry in graph.metadata_props} == {"rate_hz": "16000"}
    assert graph.opset_import[0].version == OPSET
    x = torch.randn(5, 64)
    assert np.allclose(session(file).run(["b"], {"x": x.numpy()})[0], module(x)[1].detach().numpy(), atol=1e-5)


def test_eight_bits_spare_log_mel(tmp_path):
    module, file, x = Two(), tmp_path / "a.onnx", torch.randn(5, 64)
    write_graph(file, module, {"x": x}, ("a", "b"), {"x": {0: "B"}}, {})
    size = file.stat().st_size
    quantize(file)
    assert file.stat().st_size < 0.75 * size and [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    exact, rough = session(file).run(None, {"x": x.numpy()})
    expected = [part.detach().numpy() for part in module(x)]
    assert np.abs(exact - expected[0]).max() < 1e-6
    assert 1e-6 < np.abs(rough - expected[1]).max() < 0.1
