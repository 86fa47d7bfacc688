"""The plain export of a model, and the place of each layer in it.

Both graphs of a comparison come from here, so the graft is all that differs. The exporter's optimiser fuses a convolution with the
batch normalisation that follows it; the layers to be split are kept apart from that, because their pre-activation would be gone.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch import nn

from handlers.errors import UnsupportedLayerError

OPSET = 18
SCOPES = "pkg.torch.onnx.name_scopes"
PRODUCTS = ("MatMul", "Gemm", "Conv")


@dataclass(frozen=True)
class Site:
    """Where a layer is in the graph.

    Attributes:
        name: path of its module.
        product: the node that multiplies by the weights: MatMul, Gemm or Conv.
        q: what it multiplies, the layer's input, (batch, …, inputs) or (batch, channels, H, W).
        z: the layer's output, bias included, (batch, …, units) or (batch, units, h, w).
    """

    name: str
    product: ir.Node
    q: ir.Value
    z: ir.Value


def plain_export(
    module: nn.Module, input_size: tuple[int, int, int], *, layers: Sequence[str] = (), output: str = "logits", opset: int = OPSET
) -> tuple[ir.Model, list[Site]]:
    """Export with a dynamic batch and find ``layers``.

    Args:
        module: in eval mode; takes float32 (N, 3, H, W) and returns one tensor.
        input_size: (3, H, W).
        layers: module paths to find.
        output: name of the graph's output.
        opset: ONNX operator set, 18 or later.

    Raises:
        UnsupportedLayerError: the model cannot be exported, or a layer is not run exactly once.
    """
    batch = {0: torch.export.Dim("batch")}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's own deprecations, nothing a user could act on
            program = torch.onnx.export(
                module,
                (torch.zeros(2, *input_size),),
                dynamo=True,
                verbose=False,
                optimize=False,
                opset_version=opset,
                input_names=["pixel_values"],
                output_names=[output],
                dynamic_shapes=(batch,),
            )
    except torch.onnx.OnnxExporterError as error:
        raise UnsupportedLayerError(f"The model cannot be exported to ONNX: {str(error).splitlines()[0]}") from error
    if program is None or len(program.model.graph.outputs) != 1:
        raise UnsupportedLayerError("The model does not return exactly one tensor.", "Wrap it in a module that returns its logits.")
    model = program.model
    found = {name: _output_of(model.graph, name) for name in layers}
    kept = [value for value in found.values() if not value.is_graph_output()]
    model.graph.outputs.extend(kept)  # as outputs, so that no optimisation swallows them
    names = {layer: value.name for layer, value in found.items()}
    optimizer.optimize_ir(model)
    values = {value.name: value for value in model.graph.outputs}
    sites = [_site(model.graph, layer, values[names[layer]]) for layer in layers]
    for _ in kept:
        model.graph.outputs.pop()
    _strip(model)
    return model, sites


def scopes(node: ir.Node) -> list[str]:
    """The module paths a node was exported from, outermost first."""
    return [str(scope) for scope in ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))]


def _output_of(graph: ir.Graph, layer: str) -> ir.Value:
    """The one value that is made in the layer and used outside of it."""
    inside = [node for node in graph if layer in scopes(node)]
    members = set(inside)
    results = [
        value
        for node in inside
        for value in node.outputs
        if value.is_graph_output() or any(use.node not in members for use in value.uses())
    ]
    if len(results) != 1:
        raise UnsupportedLayerError(
            f"{layer} has {len(results)} outputs in the exported graph; only a module that runs once can be split.",
            "Choose another layer." if results else "Check the path: it must be a module that the forward pass calls.",
        )
    return results[0]


def _site(graph: ir.Graph, layer: str, z: ir.Value) -> Site:
    """Walk from the layer's output to the product it came from; only a bias and views may lie between."""
    products = [node for node in _ancestors(z, layer) if node.op_type in PRODUCTS]
    if len(products) != 1 or products[0].inputs[0] is None:
        raise UnsupportedLayerError(f"{layer} is {len(products)} matrix products or convolutions in the graph; it must be exactly one.")
    return Site(layer, products[0], products[0].inputs[0], z)


def _ancestors(value: ir.Value, layer: str) -> list[ir.Node]:
    seen: dict[ir.Node, None] = {}
    todo = [value]
    while todo:
        node = todo.pop().producer()
        if node is None or node in seen or layer not in scopes(node):
            continue
        seen[node] = None
        todo.extend(item for item in node.inputs if item is not None)
    return list(seen)


def _strip(model: ir.Model) -> None:
    """Keep the module paths only: stack traces hold folders of this machine."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        kept = node.metadata_props.get(SCOPES)
        node.metadata_props.clear()
        if kept is not None:
            node.metadata_props[SCOPES] = kept
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
