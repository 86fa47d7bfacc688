"""The layers of a graph: matrix products and convolutions with constant weights, named after their nodes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from elude.exporter.graph.site import PRODUCTS, Site, scopes

Weight = NDArray[np.float32]
_STRANGE = re.compile(r"[^A-Za-z0-9_.]+")


@dataclass(frozen=True, eq=False)
class OnnxLayer:
    """A layer z = W q + b of a graph.

    Attributes:
        name: path made of the node's name, unique in the graph.
        kind: ``linear`` for MatMul and Gemm, ``conv`` for Conv.
        units: rows of W, output channels of a convolution.
        inputs: contributions per unit.
        groups: groups of a convolution, 1 for a linear layer.
        window: kernel positions of a convolution, 1 for a linear layer.
        site: where it is in the graph.
        weights: float32 (units, inputs, *kernel).
        biases: float32 (units,), None where it has none.
    """

    name: str
    kind: Literal["linear", "conv"]
    units: int
    inputs: int
    groups: int
    window: int
    site: Site
    weights: Weight
    biases: Weight | None

    def weight(self) -> Weight:
        """float32 (units, inputs, *kernel)."""
        return self.weights

    def bias(self) -> Weight | None:
        """float32 (units,), None where it has none."""
        return self.biases


def find_layers(graph: ir.Graph) -> tuple[list[OnnxLayer], dict[str, str]]:
    """The layers that can be split, in the order of execution, and why other products cannot: node → reason.

    A product of two activations, as in attention, is neither.
    """
    layers: list[OnnxLayer] = []
    reasons: dict[str, str] = {}
    for number, node in enumerate(graph):
        if node.op_type not in PRODUCTS or node.domain not in ("", "ai.onnx"):
            continue
        layer = _layer(node, _name(node, number))
        if isinstance(layer, OnnxLayer):
            layers.append(layer)
        elif layer:
            reasons[node.name or f"{node.op_type} {number}"] = layer
    return _unique(layers), reasons


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array that a value always has: an initialiser or constant, also through Identity and Transpose."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    node = value.producer()
    if node is None or (not node.inputs and node.op_type != "Constant"):
        return None
    if node.op_type == "Constant":
        tensor = node.attributes.get("value")
        return None if tensor is None else tensor.as_tensor().numpy()
    inner = constant(node.inputs[0]) if node.op_type in ("Identity", "Transpose") else None
    if inner is None or node.op_type == "Identity":
        return inner
    permutation = node.attributes.get("perm")
    return np.transpose(inner, None if permutation is None else tuple(permutation.as_ints()))


def _layer(node: ir.Node, name: str) -> OnnxLayer | str:
    """The layer of a node, or why it cannot be split; empty where it is not a layer."""
    weight = constant(node.inputs[1])
    if weight is None:
        if constant(node.inputs[0]) is not None:
            return "its constant is the first factor, so it mixes tokens instead of inputs"
        return _quantised(node)
    if weight.dtype != np.float32:
        return f"its weights are {weight.dtype}, and only float32 is split"
    makers = {"Gemm": _gemm, "MatMul": _matmul, "Conv": _conv}
    return makers[node.op_type](node, name, weight)


def _quantised(node: ir.Node) -> str:
    producer = None if node.inputs[1] is None else node.inputs[1].producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        return "its weights are quantised"
    return "its kernel is computed" if node.op_type == "Conv" else ""


def _gemm(node: ir.Node, name: str, weight: Weight) -> OnnxLayer | str:
    number = node.attributes.get_float
    if node.attributes.get_int("transA", 0) or number("alpha", 1.0) != 1.0 or number("beta", 1.0) != 1.0:
        return "it is a Gemm with transA, alpha or beta"
    weight = weight if node.attributes.get_int("transB", 0) else weight.T
    added = node.inputs[2] if len(node.inputs) > 2 else None
    bias = _row(constant(added), len(weight))
    if added is not None and bias is None:
        return "what it adds is not a constant with one number per unit"
    return _linear(node, name, weight, node.outputs[0], bias)


def _matmul(node: ir.Node, name: str, weight: Weight) -> OnnxLayer | str:
    if weight.ndim != 2:
        return f"its weights have {weight.ndim} axes, and a matrix has two"
    product, units = node.outputs[0], weight.shape[1]
    uses = list(product.uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and not product.is_graph_output():
        bias = _row(constant(uses[0].node.inputs[1 - uses[0].idx]), units)
        if bias is not None:
            return _linear(node, name, weight.T, uses[0].node.outputs[0], bias)
    return _linear(node, name, weight.T, product, None)


def _row(value: NDArray[Any] | None, units: int) -> Weight | None:
    """A constant as one number per unit, if it is that or a single number for all."""
    if value is None or value.dtype != np.float32 or value.size not in (1, units):
        return None
    if value.ndim and value.shape[-1] != value.size:
        return None  # one number per token
    return np.broadcast_to(value.reshape(-1), (units,)).copy()


def _linear(node: ir.Node, name: str, weight: Weight, z: ir.Value, bias: Weight | None) -> OnnxLayer:
    q = node.inputs[0]
    assert q is not None
    units, inputs = weight.shape
    return OnnxLayer(name, "linear", units, inputs, 1, 1, Site(name, node, q, z), np.ascontiguousarray(weight), bias)


def _conv(node: ir.Node, name: str, weight: Weight) -> OnnxLayer | str:
    if weight.ndim != 4:
        return f"it is a convolution over {weight.ndim - 2} axes, and only two are split"
    if (padding := node.attributes.get_string("auto_pad", "NOTSET")) != "NOTSET":
        return f"padding {padding} depends on the image size"
    units, inputs, *kernel = weight.shape
    added = node.inputs[2] if len(node.inputs) > 2 else None
    bias = _row(constant(added), units)
    if added is not None and bias is None:
        return "its bias is not constant"
    q = node.inputs[0]
    assert q is not None
    site, groups = Site(name, node, q, node.outputs[0]), node.attributes.get_int("group", 1)
    return OnnxLayer(name, "conv", units, inputs, groups, int(np.prod(kernel)), site, weight, bias)


def _name(node: ir.Node, number: int) -> str:
    """The module's path where torch wrote it down, else that in the node's or the weight's name, else a number."""
    if paths := [scope for scope in scopes(node)[:-1] if scope]:  # the last one is the call itself
        return _clean(paths[-1])
    weight = node.inputs[1]
    stored = "" if weight is None else str(weight.name or "")
    if node.name and "/" in node.name:
        return _clean(_path(node))
    if stored.endswith(".weight"):
        return _clean(stored.removesuffix(".weight"))
    return _clean(node.name or "") or f"{node.op_type}_{number}"


def _path(node: ir.Node) -> str:
    """``/blocks/blocks.0/mlp/fc1/MatMul`` as ``blocks.0/mlp/fc1``: torch's old exporter repeats lists."""
    parts = [part for part in str(node.name).split("/") if part]
    if len(parts) > 1 and re.fullmatch(rf"{node.op_type}(_\d+)?", parts[-1]):
        parts.pop()
    pairs = zip(parts, [*parts[1:], ""], strict=True)
    return "/".join(part for part, after in pairs if not after.startswith(f"{part}."))


def _clean(name: str) -> str:
    """Only what an identifier may hold, so ``/blocks.0/mlp/fc1`` becomes ``blocks.0.mlp.fc1``."""
    return _STRANGE.sub("_", name.strip("/").replace("/", ".")).strip("._")


def _unique(layers: list[OnnxLayer]) -> list[OnnxLayer]:
    """Layers of one name get numbers: ``fc``, ``fc_2``."""
    used: Counter[str] = Counter()
    taken, result = {layer.name for layer in layers}, []
    for layer in layers:
        used[layer.name] += 1
        name = layer.name
        while used[layer.name] > 1 and name in taken:
            name = f"{layer.name}_{used[layer.name]}"
            used[layer.name] += name in taken
        taken.add(name)
        result.append(replace(layer, name=name, site=replace(layer.site, name=name)))
    return result
