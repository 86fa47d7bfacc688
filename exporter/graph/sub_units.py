"""The sub-unit activations of a layer, a = w q + b, for all sub-units (inspection) or for the edited ones of each
row (steering).

Three kinds of layer: a product over the last axis (Linear, Gemm), a convolution in one group, and
    one in several groups. All give
and take tokens: (batch, tokens, …), where a map's tokens are its locations in row-major order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from elude.exporter.graph.ops import Ops
from elude.exporter.graph.shares import Shares, rows, single
from elude.exporter.graph.site import Site
from elude.handlers.errors import UnsupportedLayerError


@dataclass(frozen=True)
class Grafted:
    """A layer's site together with what the graft adds to the file.

    Attributes:
        site: where the layer is.
        shares: what its sub-units' weights and biases are made of.
        parent: int64 (sub_units,), unit of each sub-unit.
        part: int64 (sub_units,), its number in that unit.
        units: number of units.
        channels: contributions per unit: inputs of a linear layer, input channels of one group of a convolution.
        groups: groups of the convolution, 1 for a linear layer.
    """

    site: Site
    shares: Shares
    parent: NDArray[np.int64]
    part: NDArray[np.int64]
    units: int
    channels: int
    groups: int

    @property
    def conv(self) -> bool:
        return self.site.product.op_type == "Conv"

    @property
    def sub_units(self) -> int:
        return len(self.parent)

    @property
    def window(self) -> int:
        return int(np.prod(self.shares.kernel, dtype=np.int64))

    def attributes(self) -> dict[str, Any]:
        """Strides, pads, … of the convolution as the exporter wrote them."""
        return {name: attribute.value for name, attribute in self.site.product.attributes.items() if name != "group"}

    def group_channels(self) -> NDArray[np.int64]:
        """int64 (sub_units, channels): the input channels each sub-unit sees."""
        group = self.parent // (self.units // self.groups)
        return group[:, None] * self.channels + np.arange(self.channels)

    def q(self, ops: Ops) -> ir.Value:
        """The layer's input in float32."""
        return single(ops, self.site.q, self.site.z)


@dataclass(frozen=True)
class Edited:
    """Which sub-units are edited: int64 (batch, edits) each, 0 for padding and for edits of other layers.

    ``row`` numbers the layer's sub-units, ``unit`` and ``part`` say the same as its unit and its number there.
    """

    row: ir.Value
    unit: ir.Value
    part: ir.Value


def batch_first(ops: Ops, value: ir.Value, width: int, batch: ir.Value) -> ir.Value:
    """A linear layer's (batch, …, width) as (batch, tokens, width); ``batch`` is int64 (1,)."""
    if value.shape is not None and len(value.shape) == 3 and str(value.shape[0]) == "batch":
        return value
    return ops("Reshape", value, ops("Concat", batch, ops.constant([-1, width]), axis=0))


def map_to_tokens(ops: Ops, value: ir.Value) -> ir.Value:
    """(batch, channels, h, w) as (batch, channels, tokens)."""
    return ops("Reshape", value, ops.constant([0, 0, -1]))


def every(ops: Ops, layer: Grafted, batch: ir.Value) -> ir.Value:
    """All sub-units, (batch, tokens, sub_units)."""
    name = layer.site.name
    parent, part = ops.constant(layer.parent, f"{name}.elude.parent"), ops.constant(layer.part, f"{name}.elude.part")
    weights = rows(ops, layer.shares, parent, part, 1)
    if not layer.conv:
        q = batch_first(ops, layer.q(ops), layer.channels, batch)
        flat = ops("Reshape", q, ops.constant([-1, layer.channels]))
        a = ops("Gemm", flat, weights, layer.shares.bias, transB=1)
        return ops(
            "Reshape", a, ops("Concat", ops("Shape", q, start=0, end=2), ops.constant([layer.sub_units]), axis=0)
        )
    q = layer.q(ops)
    group = 1
    if layer.groups > 1:  # sub-units per group differ, so each becomes a group of its own on its unit's channels
        q = ops("Gather", q, ops.constant(layer.group_channels().reshape(-1), f"{name}.elude.channels"), axis=1)
        group = layer.sub_units
    a = ops("Conv", q, weights, layer.shares.bias, group=group, **layer.attributes())
    return ops("Transpose", map_to_tokens(ops, a), perm=[0, 2, 1])


def whole_units(ops: Ops, layer: Grafted, batch: ir.Value) -> ir.Value:
    """The units' own pre-activations, float32 (batch, tokens, units)."""
    z = single(ops, layer.site.z, layer.site.z)
    if layer.conv:
        folded = layer.site.folded
        if folded is not None:  # the model computes them normalised only
            inputs = [layer.q(ops), single(ops, layer.shares.weight, layer.shares.weight), folded.bias]
            z = ops("Conv", *inputs, group=layer.groups, **layer.attributes())
        return ops("Transpose", map_to_tokens(ops, z), perm=[0, 2, 1])
    units = batch_first(ops, z, layer.units, batch)
    return ops("Identity", units) if units is layer.site.z else units


def selected(ops: Ops, layer: Grafted, edits: Edited, batch: ir.Value) -> ir.Value:
    """The sub-units of ``edits``, each on its own row of the batch: (batch, edits, tokens)."""
    w = rows(ops, layer.shares, edits.unit, edits.part, 2)
    b = ops("Unsqueeze", ops("Gather", layer.shares.bias, edits.row, axis=0), ops.constant([-1]))
    if not layer.conv:
        q = batch_first(ops, layer.q(ops), layer.channels, batch)
        a = ops("MatMul", q, ops("Transpose", w, perm=[0, 2, 1]))
        return ops("Add", ops("Transpose", a, perm=[0, 2, 1]), b)
    w = ops("Reshape", w, ops.constant([0, 0, layer.channels * layer.window]))
    if layer.groups == 1:
        return ops("Add", ops("MatMul", w, _windows(ops, layer, layer.q(ops))), b)
    return ops("Add", _grouped(ops, layer, w, edits.row), b)


def _grouped(ops: Ops, layer: Grafted, w: ir.Value, sub_unit: ir.Value) -> ir.Value:
    """w (batch, edits, channels·window) with the windows of each edit's own channels: (batch, edits, tokens)."""
    q, width, inputs = layer.q(ops), layer.channels, layer.channels * layer.window
    table = ops.constant(layer.group_channels().reshape(-1), f"{layer.site.name}.elude.channels")
    table = ops("Reshape", table, ops.constant([layer.sub_units, width]))
    channels = ops("Reshape", ops("Gather", table, sub_unit, axis=0), ops.constant([0, -1]))  # (batch, edits·width)
    channels = ops("Unsqueeze", channels, ops.constant([-1]))
    picked = ops("GatherND", q, channels, batch_dims=1)  # (batch, edits·width, H, W)
    maps = ops("Concat", ops.constant([-1, width]), ops("Shape", q, start=2, end=4), axis=0)
    columns = _windows(ops, layer, ops("Reshape", picked, maps))  # (batch·edits, width·k, tokens)
    tokens = ops("Shape", columns, start=2, end=3)
    edits = ops("Shape", sub_unit, start=1, end=2)
    columns = ops(
        "Reshape",
        columns,
        ops("Concat", ops("Shape", q, start=0, end=1), edits, ops.constant([inputs]), tokens, axis=0),
    )
    return ops("Squeeze", ops("MatMul", ops("Unsqueeze", w, ops.constant([2])), columns), ops.constant([2]))


def _windows(ops: Ops, layer: Grafted, q: ir.Value) -> ir.Value:
    """(batch, C, H, W) as (batch, C·kh·kw, tokens): what each location's window sees, made of shifted copies and no
    arithmetic.
    """
    kh, kw = layer.shares.kernel
    attributes = layer.attributes()
    if attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise UnsupportedLayerError(f"{layer.site.name}: padding {attributes['auto_pad']} depends on the image size.")
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    pads = list(attributes.get("pads", [0, 0, 0, 0]))
    if any(pads):
        q = ops("Pad", q, ops.constant([0, 0, *pads[:2], 0, 0, *pads[2:]]))
    channels = layer.channels
    flat = ops.constant([0, channels, 1, -1])
    if (kh, kw) == (1, 1):
        if list(strides) != [1, 1]:
            q = ops(
                "Slice",
                q,
                ops.constant([0, 0]),
                ops.constant([2**31 - 1] * 2),
                ops.constant([2, 3]),
                ops.constant(list(strides)),
            )
        return ops("Reshape", q, ops.constant([0, channels, -1]))
    shifts = []
    for y in range(kh):
        for x in range(kw):
            begin = [y * dilations[0], x * dilations[1]]
            # the last window starts where its kernel still fits, so each shift stops as far from
            # the end as it is from its kernel's end
            stop = [begin[0] - (kh - 1) * dilations[0], begin[1] - (kw - 1) * dilations[1]]
            end = [value if value < 0 else 2**31 - 1 for value in stop]
            shift = ops(
                "Slice", q, ops.constant(begin), ops.constant(end), ops.constant([2, 3]), ops.constant(list(strides))
            )
            shifts.append(ops("Reshape", shift, flat))
    stacked = ops("Concat", *shifts, axis=2)  # (batch, C, kh·kw, tokens)
    return ops("Reshape", stacked, ops("Concat", ops.constant([0, channels * kh * kw, -1]), axis=0))
