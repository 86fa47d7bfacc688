"""Write ``model.onnx``: the plain export with a graft at each split layer. ``docs/graph.md`` is the contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from elude.exporter.graph.metadata import layer_infos, metadata
from elude.exporter.graph.ops import Ops
from elude.exporter.graph.shares import store
from elude.exporter.graph.site import Prepared, Site
from elude.exporter.graph.steering import INPUTS, Steering, prepare, steer
from elude.exporter.graph.sub_units import Grafted, every, whole_units
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.splitting.weights import sub_unit_bias
from elude.exporter.weighted_layer import WeightedLayer
from elude.handlers.bundle.bundle import Source
from elude.handlers.bundle.output_kinds import CLASSES, EMBEDDING, METADATA, OUTPUT_NAMES
from elude.handlers.errors import UnsupportedLayerError, UsageError
from elude.handlers.images.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import nn

EXTERNAL_ABOVE = 1 << 30  # bytes of weights; protobuf ends at 2 GiB
_DOC = (
    "Fed pixel_values only, this graph is the original model. inspect=true adds the sub-unit activations of "
    "the layers named in "
    "metadata_props['elude.layers']; the four steer_* inputs, all of one shape (batch or 1, edits), turn "
    "activation a of a "
    "sub-unit into gain*a + offset."
)
_INPUT_DOCS = {
    "pixel_values": "Preprocessed images, see metadata_props['elude.preprocess'].",
    "inspect": "Compute <layer>.units and <layer>.sub_units.",
    "steer_sub_unit": "Sub-unit index over all layers; negative: no edit.",
    "steer_gain": "g in g*a + offset.",
    "steer_offset": "Added to the activation.",
    "steer_patches": "0: edit all tokens; n > 0: only the n tokens where a is largest.",
}


def emit(
    module: nn.Module,
    splits: Sequence[LayerSplit],
    path: Path | str,
    *,
    layers: Sequence[WeightedLayer],
    input_size: tuple[int, int, int],
    source: Source,
    preprocess: Preprocess,
    opset: int | None = None,
    dtype: str = "float32",
    dynamic_size: bool = False,
    external_above: int = EXTERNAL_ABOVE,
    prepared: Prepared | None = None,
    kind: str | None = None,
) -> None:
    """Export ``module``, graft the splits and write the file, checked with full shape inference.

    Args:
        module: the original model, eval mode, float32.
        splits: one per layer, in the order that numbers the sub-units.
        path: the file to write; weights above ``external_above`` bytes go to ``<path>.data`` beside it.
        layers: the split layers, in the order of ``splits``.
        input_size: (channels, H, W).
        source: where the model came from, for the metadata.
        preprocess: what the model expects, for the metadata.
        opset: ONNX operator set, default 18, and 22 for bfloat16.
        dtype: ``float32``, ``float16`` or ``bfloat16``: of the model's weights and arithmetic.
            Inputs and outputs are float32 whatever it is, and so is all that sub-units and edits
            are computed with.
        dynamic_size: leave the image's height and width open; the model must allow it.
        external_above: bytes of weights above which they are stored beside the file.
        prepared: the plain graph, if ``elude.exporter.graph.prepare.prepare_graph`` made it already; it is used up.
        kind: what the outputs mean, one of ``elude.handlers.bundle.output_kinds.OUTPUT_KINDS``; by default classes,
            or an embedding where the module says ``num_classes = 0``.

    Raises:
        UsageError: splits and layers do not fit, the opset is below 18 or the dtype unknown.
        UnsupportedLayerError: the model cannot be exported or a layer not be found in the graph.
    """
    from elude.exporter.graph.prepare import prepare_graph

    names = [split.layer for split in splits]
    if names != [layer.name for layer in layers] or len(set(names)) != len(names) or not names:
        raise UsageError(
            f"splits of {names} do not fit layers {[layer.name for layer in layers]}: same layers, same "
            "order, once each."
        )
    kind = kind or (EMBEDDING if getattr(module, "num_classes", None) == 0 else CLASSES)
    output = OUTPUT_NAMES[kind]
    if prepared is None:
        prepared = prepare_graph(
            module, names, input_size, output=output, opset=opset, dtype=dtype, dynamic_size=dynamic_size
        )
    write_split(
        prepared,
        splits,
        path,
        layers=layers,
        source=source,
        preprocess=preprocess,
        kind=kind,
        external_above=external_above,
    )


def write_split(
    prepared: Prepared,
    splits: Sequence[LayerSplit],
    path: Path | str,
    *,
    layers: Sequence[WeightedLayer],
    source: Source,
    preprocess: Preprocess,
    kind: str,
    external_above: int = EXTERNAL_ABOVE,
) -> None:
    """Graft the splits onto a plain graph, which is used up, and write the file; see ``emit``."""
    model = prepared.model
    grafts = [
        _grafted(model.graph, site, layer, split)
        for site, layer, split in zip(prepared.sites, layers, splits, strict=True)
    ]
    _graft(model, grafts, splits)
    infos = layer_infos(splits, [layer.kind for layer in layers])
    model.metadata_props.update(metadata(source, preprocess, infos, splits, prepared.dtype))
    model.metadata_props[METADATA] = kind
    model.producer_name, model.producer_version, model.doc_string = "elude", None, _DOC
    model.graph.name, model.graph.doc_string = source.model, _DOC
    save(model, Path(path), external_above)


def _grafted(graph: ir.Graph, site: Site, layer: WeightedLayer, split: LayerSplit) -> Grafted:
    shared_bias = sub_unit_bias(layer.bias(), split)
    weight, transposed = _own_weight(graph, site, layer)
    kernel = layer.weight().shape[2:]
    shares = store(Ops(graph, site.name), split, weight, shared_bias, transposed=transposed, kernel=kernel)
    return Grafted(site, shares, split.parent, split.part, layer.units, layer.inputs, layer.groups)


def _own_weight(graph: ir.Graph, site: Site, layer: WeightedLayer) -> tuple[ir.Value, bool]:
    """The layer's weight in the graph, and whether it lies there as (inputs, units); a copy where it is not there as
    it is.
    """
    own = layer.weight()
    if not np.isfinite(own).all() or np.abs(own).max(initial=0.0) > np.finfo(np.float32).max / 2:
        raise UnsupportedLayerError(
            f"{site.name}: a weight is NaN, infinite or more than half of the largest float32.", "Repair the model."
        )
    if site.folded is not None:
        return site.folded.weight, False
    value = site.product.inputs[1]
    found = None if value is None or value.const_value is None else value.const_value.numpy()
    if value is not None and found is not None and value.name in graph.initializers:
        wanted = found.astype(np.float32)
        if wanted.shape == own.shape and (own.shape[0] != own.shape[1] or np.array_equal(wanted, own)):
            return value, False
        if wanted.T.shape == own.shape:
            return value, True
    name = f"{site.name}.elude.weight"
    return Ops(graph, site.name).constant(np.ascontiguousarray(own), name), False


def _graft(model: ir.Model, grafts: Sequence[Grafted], splits: Sequence[LayerSplit]) -> None:
    graph = model.graph
    inputs = _inputs(graph)
    ops = Ops(graph, "elude")
    steering = prepare(ops, graph.inputs[0], inputs, [(split.parent, split.part) for split in splits])
    first = next(iter(graph), None)
    assert first is not None
    graph.insert_before(first, ops.nodes)
    for number, graft in enumerate(grafts):
        _attach(graph, graft, number, inputs["inspect"], steering)
    graph.sort()
    for value in graph.inputs:
        value.doc_string = _INPUT_DOCS[str(value.name)]


def _inputs(graph: ir.Graph) -> dict[str, ir.Value]:
    """Add the optional inputs: graph inputs that have an initialiser, so that a client may leave them out."""
    dtypes = dict.fromkeys(INPUTS, np.int64) | {"steer_gain": np.float32, "steer_offset": np.float32}
    defaults = {"inspect": np.asarray(False)} | {name: np.zeros((1, 0), dtype) for name, dtype in dtypes.items()}
    values = {}
    for name, default in defaults.items():
        tensor = ir.tensor(default, name=name)
        shape = ir.Shape(() if name == "inspect" else ("steer_rows", "edits"))
        value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        graph.inputs.append(value)
        graph.initializers[name] = value
        values[name] = value
    return values


def _attach(graph: ir.Graph, graft: Grafted, number: int, inspect: ir.Value, steering: Steering) -> None:
    """Put the two ``If`` nodes of a layer behind it and let its old consumers read the steered output."""
    z, name = graft.site.z, graft.site.name
    consumers = tuple(z.uses())
    producer = z.producer()
    assert producer is not None
    ops = Ops(graph, f"{name}.elude")
    steered = steer(ops, graft, number, steering)
    units, sub_units = _inspect(ops, graft, inspect, steering)
    graph.insert_after(producer, ops.nodes)
    for use in consumers:
        use.node.replace_input_with(use.idx, steered)
    steered.shape, steered.type = z.shape, z.type
    if z.is_graph_output():  # the head itself is split
        where = list(graph.outputs).index(z)
        z.name, steered.name = f"{name}.elude.original", z.name
        graph.outputs[where] = steered
    graph.outputs.extend([units, sub_units])


def _inspect(ops: Ops, graft: Grafted, inspect: ir.Value, steering: Steering) -> tuple[ir.Value, ir.Value]:
    name, widths = graft.site.name, (graft.units, graft.sub_units)
    tokens = _static_tokens(graft)

    def opened(inner: Ops) -> list[ir.Value]:
        return [whole_units(inner, graft, steering.batch), every(inner, graft, steering.batch)]

    def closed(inner: Ops) -> list[ir.Value]:
        shapes = [(0, tokens or 0, width) for width in widths]
        empty = [
            inner.constant(np.zeros(shape, np.float32), f"elude/nothing_{'x'.join(map(str, shape))}")
            for shape in shapes
        ]
        return [inner("Identity", value) for value in empty]

    results = ops.branch(
        inspect, opened, closed, f"{name}.elude.inspected", "Units and sub-units, computed only on demand."
    )
    docs = ("pre-activations before any edit", "activations, which sum to the units")
    for value, kind, width, doc in zip(results, ("units", "sub_units"), widths, docs, strict=True):
        value.name, value.doc_string = f"{name}.{kind}", f"{name}: {doc}; empty unless inspect."
        # 'inspected' is the batch when inspecting, else 0
        value.shape, value.type = (
            ir.Shape(("inspected", tokens or f"{name}.tokens", width)),
            ir.TensorType(ir.DataType.FLOAT),
        )
    return results[0], results[1]


def _static_tokens(graft: Grafted) -> int | None:
    """Tokens of an image where the graph fixes them."""
    shape = graft.site.z.shape
    if shape is None or str(shape[0]) != "batch":
        return None
    spatial = list(shape)[2:] if graft.conv else list(shape)[1:-1]
    sizes = [size for size in spatial if isinstance(size, int)]
    return int(np.prod(sizes, dtype=np.int64)) if len(sizes) == len(spatial) else None


def save(model: ir.Model, path: Path, external_above: int) -> None:
    """Write a model, its weights beside it if they are large, and check it with full shape inference."""
    weights = sum(
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None
    )
    if weights > external_above:
        ir.save(model, path, external_data=f"{path.name}.data")
    else:
        ir.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)
