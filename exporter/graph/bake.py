"""A steered graph at no cost: the edits become weights, and what inspects and steers is taken out.

    W'_u = W_u + sum over edits (g - 1) w^s        b'_u = b_u + sum over edits ((g - 1) b^s + o)

which is what live steering on all tokens computes, up to rounding. Where a batch normalisation is
folded into the convolution, both changes are multiplied by its scale. An edit of the strongest
patches depends on the image, and no weights can do it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from elude.exporter.graph.site import PRODUCTS, scopes
from elude.exporter.graph.steering import INPUTS
from elude.exporter.graph.stored_weights import sub_unit_parameters
from elude.exporter.graph.write_graph import EXTERNAL_ABOVE, save
from elude.handlers.bundle.bundle import Bundle, LayerInfo
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.bundle.edits import PADDING, Edit
from elude.handlers.bundle.external_data import private_model
from elude.handlers.bundle.graph_metadata import read_layers
from elude.handlers.errors import BundleError, UsageError
from elude.handlers.requests.presets import read_presets
from elude.handlers.settings import Limits

Array = NDArray[np.float64]
_DOC = "The original model with edits of sub-units in its weights; see metadata_props['elude.baked']."


def bake(
    source: Bundle | Path | str,
    edits: Sequence[Edit] | str = (),
    out: Path | str | None = None,
    *,
    external_above: int = EXTERNAL_ABOVE,
) -> Path:
    """Write a plain graph: it takes ``pixel_values``, gives the steered output, and does nothing else.

    Without edits it is the original model, bit for bit, for tools that optional inputs trip up.

    Args:
        source: a bundle, its folder, or a ``model.onnx``.
        edits: of any layers, or the name of a preset of the bundle; none by default.
        out: the file to write; ``metadata_props["elude.baked"]`` will hold the edits.
        external_above: bytes of weights above which they are stored beside the file.

    Raises:
        UsageError: an unknown preset or sub-unit, an edit that is limited to some patches or not
            finite, or ``out`` exists or is missing.
        BundleError: the file is not one of this project's.

    Example:
        >>> elude.bake("build/bundle", out="plain.onnx")  # doctest: +SKIP
        PosixPath('plain.onnx')
    """
    with open_source(source, out) as (bundle, path, place):
        _write_baked(bundle, path, edits, place, external_above)
    return place


def _write_baked(
    bundle: Bundle | None, path: Path, edits: Sequence[Edit] | str, out: Path, external_above: int
) -> None:
    model = ir.load(path)
    layers = read_layers(model.metadata_props, path.name)
    chosen = _preset(bundle, edits) if isinstance(edits, str) else tuple(edits)
    _check(chosen, sum(layer.sub_units for layer in layers))
    for layer in layers:
        own = [edit for edit in chosen if layer.first <= edit.index < layer.first + layer.sub_units]
        _bake_layer(model.graph, path, layer, own)
    _take_out(model.graph, layers)
    model.metadata_props["elude.baked"] = json.dumps([edit._asdict() for edit in chosen])
    model.doc_string = model.graph.doc_string = _DOC
    save(model, out, external_above)


@contextmanager
def open_source(source: Bundle | Path | str, out: Path | str | None) -> Iterator[tuple[Bundle | None, Path, Path]]:
    """The bundle, if ``source`` is one, a private copy of its graph, and the place for a new file, where nothing is
    yet.

    Raises:
        UsageError, BundleError: as ``bake``.
    """
    if out is None:
        raise UsageError("The new file has no place.", "Write bake(source, out='plain.onnx').")
    place = Path(out)
    if place.exists():
        raise UsageError(f"{place} already exists.", "Choose another place.")
    if not isinstance(source, Bundle):
        source = Bundle.open(source) if Path(source).is_dir() else Path(source)
    with private_model(source) as (path, _):
        yield source if isinstance(source, Bundle) else None, path, place


def _preset(bundle: Bundle | None, name: str) -> tuple[Edit, ...]:
    if bundle is None:
        raise UsageError(
            f"The preset {name!r} is named, but not its bundle.",
            "Name the bundle instead of its model.onnx, or give edits.",
        )
    catalogue = Catalogue.of(bundle) if bundle.has("catalogue.sqlite") else None
    presets = read_presets(bundle, bundle.manifest.layers, catalogue, Limits())
    if name not in presets:
        raise UsageError(f"The bundle has no preset {name!r}.", f"It has: {', '.join(presets) or 'none'}.")
    return presets[name].edits


def _check(edits: Sequence[Edit], total: int) -> None:
    for edit in edits:
        if not PADDING <= edit.index < total:
            raise UsageError(f"There is no sub-unit {edit.index}.", f"Indices run from 0 to {total - 1}.")
        if edit.patches and edit.index != PADDING:
            raise UsageError(
                f"The edit of sub-unit {edit.index} is limited to {edit.patches} patches, which depend on the image.",
                "Steer it live: weights act on all patches.",
            )
        if not np.isfinite([edit.gain, edit.offset]).all():
            raise UsageError(
                f"The edit of sub-unit {edit.index} has gain {edit.gain} and offset {edit.offset}.",
                "Give finite numbers.",
            )


def _bake_layer(graph: ir.Graph, path: Path, layer: LayerInfo, edits: Sequence[Edit]) -> None:
    steered = next(node for node in graph if node.name == f"{layer.name}.elude.steered")
    (identity,) = steered.attributes["else_branch"].as_graph()
    z = identity.inputs[0]
    assert z is not None
    if edits:
        weight, bias = _changes(path, layer, edits)
        if f"{layer.name}.elude.scale" in graph.initializers:
            scale = _numbers(graph.initializers[f"{layer.name}.elude.scale"])
            weight, bias = weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), bias * scale
        z = _add(graph, layer, z, weight, bias)
    result = steered.outputs[0]
    name = str(result.name)
    result.replace_all_uses_with(z, replace_graph_outputs=True)
    result.name = f"{name}.elude.gone"
    if z.is_graph_output():
        z.name = name


def _changes(path: Path, layer: LayerInfo, edits: Sequence[Edit]) -> tuple[Array, Array]:
    """What is added to the layer's weight, (units, inputs, *kernel), and bias, (units,)."""
    weights, biases = sub_unit_parameters(path, layer.name)
    parent = np.repeat(np.arange(layer.units), layer.parts)
    weight, bias = np.zeros((layer.units, *weights.shape[1:])), np.zeros(layer.units)
    for edit in edits:
        row = edit.index - layer.first
        weight[parent[row]] += (edit.gain - 1) * weights[row].astype(np.float64)
        bias[parent[row]] += (edit.gain - 1) * float(biases[row]) + edit.offset
    return weight, bias


def _add(graph: ir.Graph, layer: LayerInfo, z: ir.Value, weight: Array, bias: Array) -> ir.Value:
    """Change the product that ``z`` comes from; returns what is now the layer's output."""
    product, adding = _product(layer.name, z)
    stored = product.inputs[1]
    assert stored is not None
    old = _numbers(stored)
    transposed = old.shape != weight.shape or not _same_way(product)
    product.replace_input_with(
        1, _constant(graph, f"{layer.name}.baked.weight", old + (weight.T if transposed else weight), stored)
    )
    if len(product.inputs) > 2 and product.inputs[2] is not None:
        own = product.inputs[2]
        product.replace_input_with(2, _constant(graph, f"{layer.name}.baked.bias", _numbers(own) + bias, own))
        return z
    if adding is not None:
        node, at = adding
        term = node.inputs[at]
        assert term is not None
        node.replace_input_with(at, _constant(graph, f"{layer.name}.baked.bias", _numbers(term) + bias, term))
        return z
    shape = (-1, 1, 1) if product.op_type == "Conv" else (-1,)
    constant = _constant(graph, f"{layer.name}.baked.bias", bias.reshape(shape), stored)
    node = ir.node("Add", [z, constant], name=f"{layer.name}.baked.add")
    node.outputs[0].type, node.outputs[0].shape = z.type, z.shape
    producer = z.producer()
    assert producer is not None
    graph.insert_after(producer, node)
    return node.outputs[0]


def _same_way(product: ir.Node) -> bool:
    """Whether the weight lies as (units, inputs, …)."""
    return product.op_type == "Conv" or (product.op_type == "Gemm" and product.attributes.get_int("transB", 0) == 1)


def _product(layer: str, z: ir.Value) -> tuple[ir.Node, tuple[ir.Node, int] | None]:
    """The product that ``z`` comes from, and the addition of a bias between them with the place of the bias."""
    adding = None
    node = z.producer()
    while node is not None and node.op_type not in PRODUCTS:
        constant = [at for at, value in enumerate(node.inputs) if value is not None and value.const_value is not None]
        if node.op_type == "Add" and constant:
            adding = (node, constant[0])
        before = next((value for value in node.inputs if value is not None and value.const_value is None), None)
        node = None if before is None or layer not in scopes(node) else before.producer()
    if node is None:
        raise BundleError(f"The product of {layer} is not where it should be.", "Export the model again.")
    return node, adding


def _constant(graph: ir.Graph, name: str, values: Array, like: ir.Value) -> ir.Value:
    assert like.const_value is not None
    tensor = ir.tensor(values.astype(like.const_value.dtype.numpy()), name=name)
    value = ir.Value(name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _numbers(value: ir.Value) -> Array:
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float64)


def _take_out(graph: ir.Graph, layers: Sequence[LayerInfo]) -> None:
    """The nodes, inputs and outputs of inspection and steering."""
    gone = {f"{layer.name}.{kind}" for layer in layers for kind in ("units", "sub_units")}
    kept = [value for value in graph.outputs if value.name not in gone]
    graph.outputs.clear()
    graph.outputs.extend(kept)
    names = {f"{layer.name}.elude.{kind}" for layer in layers for kind in ("steered", "inspected")}
    ends = ("elude/pixels", "elude/result")  # the casts of a graph of another type
    graph.remove(
        [
            node
            for node in graph
            if node.name in names or (str(node.name).startswith("elude/") and node.name not in ends)
        ]
    )
    inputs = [value for value in graph.inputs if value.name not in (*INPUTS, "inspect")]
    graph.inputs.clear()
    graph.inputs.extend(inputs)
    used = {value.name for node in graph for value in node.inputs if value is not None} | {
        value.name for value in graph.outputs
    }
    for name in [name for name in graph.initializers if name not in used]:
        graph.initializers.pop(name)
