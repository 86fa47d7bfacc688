"""A plain graph with the places of the layers that will be split. Loads no torch."""

from __future__ import annotations

import ast
from dataclasses import dataclass

import onnx_ir as ir

OPSET = 18
SCOPES = "pkg.torch.onnx.name_scopes"
PRODUCTS = ("MatMul", "Gemm", "Conv")


@dataclass(frozen=True)
class Folded:
    """A batch normalisation y = scale z + … that is part of the convolution in the graph.

    Attributes:
        weight: float32 (units, inputs, kh, kw), the layer's own weight.
        bias: float32 (units,), the layer's own bias, 0 without.
        scale: float32 (units,).
    """

    weight: ir.Value
    bias: ir.Value
    scale: ir.Value


@dataclass(frozen=True)
class Site:
    """Where a layer is in the graph.

    Attributes:
        name: path of its module.
        product: the node that multiplies by the weights: MatMul, Gemm or Conv.
        q: what it multiplies, the layer's input, (batch, …, inputs) or (batch, channels, H, W).
        z: the layer's output, bias included, (batch, …, units) or (batch, units, h, w); normalised where ``folded``.
        folded: the batch normalisation in ``product``, None without.
    """

    name: str
    product: ir.Node
    q: ir.Value
    z: ir.Value
    folded: Folded | None = None


@dataclass(frozen=True)
class Prepared:
    """A plain graph, ready for the graft, which changes it: use it once.

    Attributes:
        model: the graph.
        sites: places of the layers, in the order in which they were asked for.
        dtype: of weights and arithmetic, one of ``DTYPES``.
        notes: what was done otherwise than usual, human-readable.
    """

    model: ir.Model
    sites: tuple[Site, ...]
    dtype: str
    notes: tuple[str, ...]


def scopes(node: ir.Node) -> list[str]:
    """The module paths a node was exported from, outermost first."""
    return [str(scope) for scope in ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))]
