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

    Weights use half of those eight bits' range: processors without VNNI (AVX2, most of AVX-512) add two products in
    16 bits, which overflow in silence with the whole range, so that a file good on one machine would be wrong on the
    next. Seven bits cost no time and next to no accuracy.

    Convolutions stay in float32, as they have little to do; so does log-mel, whose small numbers matter, though not so
    much any more that it had to be computed in doubles: that would take a fifth of the time.
    """
    whole = file.with_name(f"{file.name}.float32")
    model = onnx.load(file)
    exact = in_floats(model.graph)
    onnx.save(model, whole)
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
            reduce_range=True,
            extra_options={"EnableSubgraph": True},
        )
    finally:
        logging.disable(before)
    whole.unlink()


def in_floats(graph: onnx.GraphProto) -> list[str]:
    """Make floats of log-mel's doubles, in branches too; the names of its nodes."""
    names = []
    for weights in graph.initializer:
        if "logmel." in weights.name:
            _in_floats(weights)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                names += in_floats(attribute.g)
        if "/logmel/" not in node.name:
            continue
        names.append(node.name)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _in_floats(attribute.t)
            elif node.op_type == "Cast" and attribute.i == onnx.TensorProto.DOUBLE:
                attribute.i = onnx.TensorProto.FLOAT
    return names


def _in_floats(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == onnx.TensorProto.DOUBLE:
        values = onnx.numpy_helper.to_array(tensor).astype("float32")
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
