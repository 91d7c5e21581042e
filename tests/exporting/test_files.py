"""A module in, a file that says where it is from, and the same in eight bits out."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from glmasr.exported import session
from glmasr.exporting.files import OPSET, quantize, write_graph


class Doubles(nn.Module):
    """A product of doubles, and a constant one."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.randn(64, 64).double() / 8)

    def forward(self, x):
        return ((x.double() @ self.weight) * 0.7).float()


class Two(nn.Module):
    """A product that may be rough and, under the name of log-mel, one that must not."""

    def __init__(self):
        super().__init__()
        self.logmel, self.rough = Doubles(), nn.Linear(64, 64, bias=False)

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
    assert np.abs(exact - expected[0]).max() < 1e-5
    assert 1e-5 < np.abs(rough - expected[1]).max() < 0.1
    assert not [
        weights for weights in onnx.load(file).graph.initializer if weights.data_type == onnx.TensorProto.DOUBLE
    ]


def test_no_processor_overflows_on_eight_bits(tmp_path):
    """Two products of an unsigned input and a weight are added in 16 bits where there is no VNNI."""
    file, x = tmp_path / "a.onnx", torch.randn(2, 64)
    write_graph(file, Two(), {"x": x}, ("a", "b"), {}, {})
    quantize(file)
    graph = onnx.load(file).graph
    eight = [onnx.numpy_helper.to_array(part) for part in graph.initializer if part.data_type == onnx.TensorProto.INT8]
    matrices = [np.abs(part.astype(int)) for part in eight if part.ndim == 2]
    assert len(matrices) == 1 and 2 * 255 * matrices[0].max() < 2**15 and matrices[0].max() > 60


class Branched(nn.Module):
    """Both products, in a branch."""

    def __init__(self):
        super().__init__()
        self.both = torch.jit.trace(Two(), torch.zeros(1, 64))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if x.shape[0] > 1:
            a, b = self.both(x)
        else:
            a, b = x, x
        return a, b


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_eight_bits_go_into_branches(tmp_path):
    module, file, x = Branched(), tmp_path / "a.onnx", torch.randn(5, 64)
    write_graph(file, torch.jit.script(module), {"x": x}, ("a", "b"), {"x": {0: "B"}}, {})
    size = file.stat().st_size
    quantize(file)
    exact, rough = session(file).run(None, {"x": x.numpy()})
    expected = [part.detach().numpy() for part in module(x)]
    assert file.stat().st_size < 0.7 * size and np.abs(exact - expected[0]).max() < 1e-5
    assert 1e-5 < np.abs(rough - expected[1]).max() < 0.1
