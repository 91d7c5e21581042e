"""A module in, an ONNX file out: traced, described, and if asked for with its matrices in eight bits."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

OPSET = 17
"""Of 2022: what phones' runtimes have, and the first with a layer norm."""

Axes = Mapping[str, Mapping[int, str]]
"""Of each input and output which dimensions may vary, and what they are called."""


def write_graph(
    file: Path, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], axes: Axes, facts: Mapping
) -> None:
    """Write what a module computes from `inputs`; `facts` become the file's metadata."""
    with warnings.catch_warnings(), torch.no_grad():
        # Of tracing, which is deprecated for an exporter that needs one more package; parity is checked afterwards.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            str(file),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
        )
    graph = onnx.load(file)
    onnx.helper.set_model_props(graph, {name: str(value) for name, value in facts.items()})
    onnx.checker.check_model(graph)
    onnx.save(graph, file)


def quantize(file: Path) -> None:
    """Weights of the matrix products in eight bits, one scale per column; their inputs are scaled as they come.

    Convolutions stay in float32, as they have little to do; so does log-mel, whose small numbers matter.
    """
    whole = file.with_name(f"{file.name}.float32")
    file.rename(whole)
    nodes = onnx.load(whole, load_external_data=False).graph.node
    exact = [node.name for node in nodes if node.name.removeprefix("/whole").startswith("/logmel")]
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises to prepare the graph, which changes nothing here
    try:
        quantize_dynamic(
            whole,
            file,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=exact,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    finally:
        logging.disable(before)
    whole.unlink()
