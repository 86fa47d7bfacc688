"""The plain export of a model, and the place of each layer in it.

Both graphs of a comparison come from here, so the graft is all that differs. The exporter's
optimiser folds a batch normalisation into the convolution before it, for layers that are split as
for all others: the site of such a layer is the folded convolution, with what undoes it.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnxscript import optimizer
from torch import nn

from elude.exporter.graph.ops import Ops
from elude.exporter.graph.site import OPSET, PRODUCTS, SCOPES, Folded, Site, scopes
from elude.handlers.errors import UnsupportedLayerError

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST_REASON = 300


def plain_export(
    module: nn.Module,
    input_size: tuple[int, int, int],
    *,
    layers: Sequence[str] = (),
    output: str = "logits",
    opset: int = OPSET,
    dtype: torch.dtype = torch.float32,
    dynamic_size: bool = False,
    optimise: bool = True,
) -> tuple[ir.Model, list[Site]]:
    """Export with a dynamic batch and find ``layers``.

    Args:
        module: in eval mode; takes (N, C, H, W) and returns one tensor.
        input_size: (C, H, W).
        layers: module paths to find.
        output: name of the graph's output.
        opset: ONNX operator set, 18 or later.
        dtype: of weights and arithmetic; input and output are float32 whatever it is.
        dynamic_size: leave height and width open as well; the model must allow it.
        optimise: let the exporter fold constants and batch normalisations.

    Raises:
        UnsupportedLayerError: the model cannot be exported, or a layer is not run exactly once.
    """
    model = _export(
        module if dtype == torch.float32 else copy.deepcopy(module).to(dtype),
        input_size,
        output,
        opset,
        dtype,
        dynamic_size,
    )
    found = {name: _output_of(model.graph, name) for name in layers}
    norms = {name: _norm_of(value) for name, value in found.items()}
    lost = {name: _lost(module.get_submodule(name), norm) for name, norm in norms.items() if norm is not None}
    ends = {name: value if (norm := norms[name]) is None else norm.outputs[0] for name, value in found.items()}
    kept = [value for value in ends.values() if not value.is_graph_output()]
    model.graph.outputs.extend(kept)  # as outputs, so that no optimisation swallows them
    names = {layer: value.name for layer, value in ends.items()}
    if optimise:
        optimizer.optimize_ir(model)
    values = {value.name: value for value in model.graph.outputs}
    sites = [_site(model.graph, layer, values[names[layer]], lost.get(layer)) for layer in layers]
    for _ in kept:
        model.graph.outputs.pop()
    if dtype != torch.float32:
        _single_ends(model.graph)
    _strip(model)
    return model, sites


def _export(
    module: nn.Module, input_size: tuple[int, int, int], output: str, opset: int, dtype: torch.dtype, dynamic_size: bool
) -> ir.Model:
    axes = {0: torch.export.Dim("batch")}
    if dynamic_size:
        _try_other_size(module, input_size, dtype)
        axes |= {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's own deprecations, nothing a user could act on
            program = torch.onnx.export(
                module,
                (torch.zeros(2, *input_size, dtype=dtype),),
                dynamo=True,
                verbose=False,
                optimize=False,
                opset_version=opset,
                input_names=["pixel_values"],
                output_names=[output],
                dynamic_shapes=(axes,),
            )
    except torch.onnx.OnnxExporterError as error:
        remedy = "Export it with a fixed image size." if dynamic_size else ""
        raise UnsupportedLayerError(f"The model cannot be exported to ONNX: {root_cause(error)}.", remedy) from error
    if program is None or len(program.model.graph.outputs) != 1:
        raise UnsupportedLayerError(
            "The model does not return exactly one tensor.", "Wrap it in a module that returns its logits."
        )
    return program.model


def root_cause(error: BaseException) -> str:
    """The first line that names a reason: the exporter wraps it several times, with steps, colours and traces."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [_COLOUR.sub("", line).strip() for line in str(error).splitlines()]
    text = next((line for line in lines if line), "no reason was given")
    return f"{type(error).__name__}: {text[:_LONGEST_REASON]}".rstrip(".")


def _try_other_size(module: nn.Module, input_size: tuple[int, int, int], dtype: torch.dtype) -> None:
    """The export does not always notice that a model takes one size only."""
    channels, height, width = input_size
    try:
        with torch.no_grad():
            module(torch.zeros(1, channels, 2 * height, 2 * width, dtype=dtype))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UnsupportedLayerError(
            f"The model takes images of {height} × {width} only: {str(error).splitlines()[0]}",
            "Export it with a fixed image size.",
        ) from error


def _output_of(graph: ir.Graph, layer: str) -> ir.Value:
    """The one value that is made of the layer's product and used outside of the layer; shapes and constants may
    leave it too.
    """
    inside = [node for node in graph if layer in scopes(node)]
    members = set(inside)
    made: set[ir.Node] = set()
    for node in inside:  # in the order of execution
        if node.op_type in PRODUCTS or any(value is not None and value.producer() in made for value in node.inputs):
            made.add(node)
    results = [
        value
        for node in inside
        if node in made
        for value in node.outputs
        if value.is_graph_output() or any(use.node not in members for use in value.uses())
    ]
    if len(results) != 1:
        raise UnsupportedLayerError(
            f"{layer} has {len(results)} outputs in the exported graph; only a module that runs once can be split.",
            "Choose another layer." if results else "Check the path: it must be a module that the forward pass calls.",
        )
    return results[0]


def _norm_of(z: ir.Value) -> ir.Node | None:
    """The batch normalisation that is alone in reading a convolution's output, which the optimiser will fold into
    it.
    """
    uses, producer = list(z.uses()), z.producer()
    if producer is None or producer.op_type != "Conv" or z.is_graph_output() or len(uses) != 1:
        return None
    node = uses[0].node
    constants = [value is not None and value.const_value is not None for value in node.inputs[1:]]
    return node if node.op_type == "BatchNormalization" and uses[0].idx == 0 and all(constants) else None


def _lost(conv: nn.Module, norm: ir.Node) -> dict[str, NDArray[np.float32]]:
    """What folding would lose: the fields of ``Folded``."""
    assert isinstance(conv, nn.Conv2d)
    gamma, _, _, variance = (_numbers(value) for value in norm.inputs[1:])
    scale = gamma / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
    bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
    return {
        "weight": conv.weight.detach().float().numpy(),
        "bias": bias.float().numpy(),
        "scale": scale.astype(np.float32),
    }


def _numbers(value: ir.Value | None) -> NDArray[np.float64]:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float64)


def _site(graph: ir.Graph, layer: str, z: ir.Value, lost: dict[str, NDArray[np.float32]] | None) -> Site:
    """Walk from the layer's output to the product it came from; only a bias and views may lie between."""
    producer = z.producer()
    if lost is not None and producer is not None and producer.inputs[0] is not None:
        if producer.op_type == "Conv":
            ops = Ops(graph, layer)
            folded = Folded(**{key: ops.constant(value, f"{layer}.elude.{key}") for key, value in lost.items()})
            return Site(layer, producer, producer.inputs[0], z, folded)
        z = producer.inputs[0]  # it was not folded after all
    products = [node for node in _ancestors(z, layer) if node.op_type in PRODUCTS]
    if len(products) != 1 or products[0].inputs[0] is None:
        raise UnsupportedLayerError(
            f"{layer} is {len(products)} matrix products or convolutions in the graph; it must be exactly one."
        )
    return Site(layer, products[0], products[0].inputs[0], z)


def _single_ends(graph: ir.Graph) -> None:
    """Let a graph of another type take and give float32."""
    pixels, result = graph.inputs[0], graph.outputs[0]
    cast = ir.node("Cast", [pixels], {"to": pixels.dtype}, name="elude/pixels")
    uses, first = [use for use in pixels.uses() if use.node is not cast], next(iter(graph))
    for use in uses:
        use.node.replace_input_with(use.idx, cast.outputs[0])
    cast.outputs[0].shape, cast.outputs[0].type = pixels.shape, pixels.type
    graph.insert_before(first, cast)
    pixels.type = ir.TensorType(ir.DataType.FLOAT)
    name = result.name
    result.name = f"{name}.elude.own_type"
    back = ir.node("Cast", [result], {"to": ir.DataType.FLOAT}, outputs=[ir.Value(name=name)], name="elude/result")
    back.outputs[0].shape, back.outputs[0].type = result.shape, ir.TensorType(ir.DataType.FLOAT)
    graph.append(back)
    graph.outputs[0] = back.outputs[0]


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
