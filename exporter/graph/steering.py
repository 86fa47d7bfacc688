"""Steering: add to the layer's output what the edits change, and nothing else.

An edit turns activation a of a sub-unit into g·a + o. As a unit is the sum of its sub-units, that
adds (g − 1)·a + o to the unit. The sum goes to the edited units only (a scatter, not a product with
a one-hot matrix), so a NaN or an overflow stays where it was asked for. What an edit does not touch
gets −0.0 added, which leaves every float as it is, the sign of zero included. Where the export
folded a batch normalisation y = s z + t into the layer, the graph holds y only, and s times the
same change is added to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from elude.exporter.graph.ops import Ops, scalar
from elude.exporter.graph.shares import single
from elude.exporter.graph.sub_units import Edited, Grafted, batch_first, map_to_tokens, selected

INPUTS = ("steer_sub_unit", "steer_gain", "steer_offset", "steer_patches")


@dataclass(frozen=True)
class Steering:
    """What all layers share.

    Attributes:
        any_edit: bool (), whether there is any edit at all.
        owner: int64 (batch, edits), number of the layer each edit belongs to, −1 for padding; (1,
            0) without edits, as ``edited``.
        edited: its sub-unit in that layer.
        gain, offset: float32 (batch or 1, edits); patches: int64 (batch or 1, edits). The graph's inputs.
        batch: int64 (1,), size of the batch.
    """

    any_edit: ir.Value
    owner: ir.Value
    edited: Edited
    gain: ir.Value
    offset: ir.Value
    patches: ir.Value
    batch: ir.Value


def prepare(
    ops: Ops, pixels: ir.Value, inputs: dict[str, ir.Value], places: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> Steering:
    """Look every edit up in a table of (layer, row in it, unit, part), once for all layers.

    ``places`` holds each layer's (unit, part) of its sub-units.

    The table is as long as there are sub-units, so an index that is too large fails in the look-up
    instead of being ignored. Its first column is for negative indices: padding.
    """
    counts = [len(unit) for unit, _ in places]
    layer = np.concatenate([[-1], np.repeat(np.arange(len(counts)), counts)])
    row = np.concatenate([[0], *[np.arange(count) for count in counts]])
    unit, part = (np.concatenate([[0], *[place[which] for place in places]]) for which in (0, 1))
    table = np.stack([layer, row, unit, part]).astype(np.int64)
    index, *others = (inputs[name] for name in INPUTS)
    sizes = ops("Size", index)
    for other in others:
        sizes = ops("Add", sizes, ops("Size", other))
    any_edit = ops("Greater", sizes, ops.constant(0))
    batch = ops("Shape", pixels, start=0, end=1)

    def look_up(inner: Ops) -> list[ir.Value]:
        # any difference of the shapes becomes an index that is not there
        shape, *shapes = (inner("Shape", inputs[name]) for name in INPUTS)
        gaps = inner("Sub", inner("Concat", *shapes, axis=0), inner("Concat", *[shape] * len(shapes), axis=0))
        unlike = inner("ReduceSum", inner("Abs", gaps), keepdims=0)
        zero = inner("Gather", inner.constant([0]), unlike, name="elude/the_four_steer_inputs_must_have_one_shape")
        column = inner("Add", inner("Max", index, inner.constant(-1)), inner("Add", inner.constant(1), zero))
        found = inner(
            "Gather", inner.constant(table, "elude/table"), column, axis=1, name="elude/steer_sub_unit_is_out_of_range"
        )
        # one set of edits for all is spelt out for each image: the products then have the same
        # size, and bits, as when each has its own
        found = inner("Expand", found, inner("Concat", inner.constant([1]), batch, inner.constant([1]), axis=0))
        return [inner("Gather", found, inner.constant(number)) for number in range(len(table))]

    def nothing(inner: Ops) -> list[ir.Value]:
        empty = inner.constant(np.zeros((1, 0), np.int64), "elude/no_edit")
        return [inner("Identity", empty) for _ in table]

    owner, *edited = ops.branch(
        any_edit, look_up, nothing, "elude/edits", "The layer, row, unit and part of each edit."
    )
    gain, offset, patches = others
    return Steering(any_edit, owner, Edited(*edited), gain, offset, patches, batch)


def steer(ops: Ops, layer: Grafted, number: int, steering: Steering) -> ir.Value:
    """The layer's output with its edits, of the same shape as ``layer.site.z``."""

    def edited(inner: Ops) -> list[ir.Value]:
        return [_scatter(inner, layer, _changes(inner, layer, number, steering), steering)]

    def untouched(inner: Ops) -> list[ir.Value]:
        return [inner("Identity", layer.site.z)]

    name = f"{layer.site.name}.elude.steered"
    (result,) = ops.branch(steering.any_edit, edited, untouched, name, "The layer's output, steered.")
    return result


def _changes(ops: Ops, layer: Grafted, number: int, steering: Steering) -> tuple[ir.Value, ir.Value]:
    """What each edit adds at each token, float32 (batch, edits, tokens), and to which unit, int64 (batch, edits)."""
    mine = ops("Equal", steering.owner, ops.constant(number))
    every = (steering.edited.row, steering.edited.unit, steering.edited.part)
    edited = Edited(*(ops("Where", mine, value, ops.constant(0)) for value in every))
    a = selected(ops, layer, edited, steering.batch)
    last = ops.constant([-1])
    slope = ops("Unsqueeze", ops("Sub", steering.gain, ops.constant(scalar(1.0))), last)
    change = ops("Add", ops("Mul", slope, a), ops("Unsqueeze", steering.offset, last))
    if layer.site.folded is not None:
        change = ops("Mul", change, ops("Unsqueeze", ops("Gather", layer.site.folded.scale, edited.unit), last))
    active = ops("And", ops("Unsqueeze", mine, last), _where(ops, layer, a, steering.patches))
    return ops("Where", active, change, ops.constant(scalar(-0.0), "elude/minus_zero")), edited.unit


def _where(ops: Ops, layer: Grafted, a: ir.Value, patches: ir.Value) -> ir.Value:
    """All tokens where ``patches`` ≤ 0, else its many tokens with the largest ``a``, the first of equals.

    bool, of a shape that broadcasts to (batch, edits, tokens).
    """
    most = ops("ReduceMax", patches, keepdims=0)

    def strongest(inner: Ops) -> list[ir.Value]:
        nu = inner("Unsqueeze", patches, inner.constant([-1]))
        shape, tokens = inner("Shape", a), inner("Shape", a, start=2, end=3)
        k = inner("Min", inner("Unsqueeze", most, inner.constant([0])), tokens)
        _, order = inner.many(
            "TopK", [a, k], 2, axis=-1, largest=1, sorted=1
        )  # equal values: the lower index first, by the standard
        place = inner(
            "Expand", inner("Range", inner.constant(0), inner("Squeeze", k), inner.constant(1)), inner("Shape", order)
        )
        rank = inner("ScatterElements", inner("Expand", tokens, shape), order, place, axis=2)
        return [inner("Or", inner("LessOrEqual", nu, inner.constant(0)), inner("Less", rank, nu))]

    def all_tokens(inner: Ops) -> list[ir.Value]:
        return [inner("Identity", inner.constant(np.ones((1, 1, 1), bool), "elude/everywhere"))]

    limited = ops("Greater", most, ops.constant(0))
    (where,) = ops.branch(
        limited, strongest, all_tokens, f"{layer.site.name}.elude.where", "The tokens that each edit acts on."
    )
    return where


def _scatter(ops: Ops, layer: Grafted, changes: tuple[ir.Value, ir.Value], steering: Steering) -> ir.Value:
    change, unit = changes
    own = single(ops, layer.site.z, layer.site.z)
    if layer.conv:
        z, axis, new = map_to_tokens(ops, own), 1, [-1]
    else:
        z, axis, new = batch_first(ops, own, layer.units, steering.batch), 2, [1]
        change = ops("Transpose", change, perm=[0, 2, 1])
    target = ops("Expand", ops("Unsqueeze", unit, ops.constant(new)), ops("Shape", change))
    steered = ops("ScatterElements", z, target, change, axis=axis, reduction="add")
    steered = steered if z is own else ops("Reshape", steered, ops("Shape", own))
    return steered if own is layer.site.z else ops("Cast", steered, to=layer.site.z.dtype)
