"""What is in the file itself: its splits, and the sub-unit weights that it computes, by running the very nodes that
compute them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from elude.exporter.graph.metadata import split_sha256
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.bundle.graph_metadata import read_layers
from elude.handlers.errors import BundleError, EquivalenceError


def splits_of(path: Path) -> list[LayerSplit]:
    """The splits as the file holds them; margins and representatives are not in it and left empty.

    Raises:
        BundleError: the file is not one of this project's, or its masks contradict its metadata.
    """
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    splits = []
    for info in read_layers(metadata, path.name):
        if f"{info.name}.sub_units.masks" not in stored:
            raise BundleError(f"{path.name} has no masks for {info.name}.", "Export the model again.")
        masks = numpy_helper.to_array(stored[f"{info.name}.sub_units.masks"]).astype(np.uint64)
        rho, representatives = (
            np.full(info.units, np.nan, np.float32),
            np.zeros((info.sub_units, info.inputs), np.float32),
        )
        try:
            splits.append(LayerSplit(info.name, np.array(info.parts, np.int64), masks, rho, representatives))
        except ValueError as error:
            raise BundleError(f"{path.name}: {error}", "Export the model again.") from error
    if split_sha256(splits) != metadata.get("elude.split_sha256"):
        raise BundleError(
            f"{path.name}: its masks are not those that its elude.split_sha256 names.", "Export the model again."
        )
    return splits


def sub_unit_parameters(path: Path, layer: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (sub_units, inputs, *kernel) and biases (sub_units,) with which the file computes the sub-units of
    ``layer``.

    Raises:
        EquivalenceError: the file does not compute any.
    """
    model = onnx.load(path)
    branch = next((_branch(node) for node in model.graph.node if node.name == f"{layer}.elude.inspected"), None)
    bias = f"{layer}.sub_units.bias"
    products = (
        []
        if branch is None
        else [node for node in branch.node if node.op_type in ("Gemm", "Conv") and bias in node.input]
    )
    if branch is None or len(products) != 1:
        raise EquivalenceError(f"{path.name} does not compute the sub-units of {layer}.", "Export the model again.")
    makers = {name: node for node in branch.node for name in node.output}
    nodes: list[Any] = []
    _collect(products[0].input[1], makers, nodes)
    used = {name for node in nodes for name in node.input} | {bias}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    outputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in (products[0].input[1], bias)
    ]
    graph = helper.make_graph(nodes, "sub_units", [], outputs, kept)
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(alone.SerializeToString(), options, providers=["CPUExecutionProvider"])
    weight, biases = session.run(None, {})
    return weight, biases


def _branch(node: Any) -> Any:
    return next(attribute.g for attribute in node.attribute if attribute.name == "then_branch")


def _collect(name: str, makers: dict[str, Any], nodes: list[Any]) -> None:
    """Nodes that ``name`` needs, in order."""
    node = makers.get(name)
    if node is None or node in nodes:
        return
    for item in node.input:
        _collect(item, makers, nodes)
    nodes.append(node)
