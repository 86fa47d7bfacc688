"""The weights of sub-units as the graph computes them: from the layer's own weight and bit masks, so that neither is
stored twice.

    share = ((W / n) + W) - W,   rest = W - (n - 1) share,   w = rest for the last member of a
    sharing set, share for others, 0 else

as ``elude.exporter.splitting.weights.shares_of`` computes them, by the same four operations, so to
the same bits (but for the sign of a zero). For inspection the rows are fixed: ONNX Runtime folds
the whole computation into one constant when it loads the file. For steering only the edited
sub-units' rows are computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from elude.exporter.graph.ops import Ops, scalar
from elude.exporter.splitting.layer_split import LayerSplit


@dataclass(frozen=True)
class Shares:
    """What one layer's sub-unit weights are made of; initialisers of the main graph.

    Attributes:
        weight: the layer's own, (units, inputs, *kernel) or, ``transposed``, (inputs, units); any floating-point type.
        transposed: see ``weight``.
        masks: unsigned integers (units, inputs), bit c for sub-unit c of the unit.
        counts: uint8 (units, inputs), bits set in ``masks``: stored, as counting them for the
            edited rows took longer than all else there.
        bias: float32 (sub_units,).
        kernel: (kh, kw) of a convolution, () of a linear layer.
    """

    weight: ir.Value
    transposed: bool
    masks: ir.Value
    counts: ir.Value
    bias: ir.Value
    kernel: tuple[int, ...]


def store(
    ops: Ops,
    split: LayerSplit,
    weight: ir.Value,
    bias: NDArray[np.float32],
    *,
    transposed: bool,
    kernel: tuple[int, ...],
) -> Shares:
    """Put a layer's masks and sub-unit biases into the file."""
    most = int(split.parts.max())
    dtype = next(kind for kind in (np.uint8, np.uint16, np.uint32, np.uint64) if most <= np.iinfo(kind).bits)
    masks = ops.constant(split.masks.astype(dtype), f"{split.layer}.sub_units.masks")
    counts = ops.constant(np.bitwise_count(split.masks).astype(np.uint8), f"{split.layer}.sub_units.counts")
    stored_bias = ops.constant(np.ascontiguousarray(bias, np.float32), f"{split.layer}.sub_units.bias")
    return Shares(weight, transposed, masks, counts, stored_bias, kernel)


def rows(ops: Ops, shares: Shares, unit: ir.Value, part: ir.Value, rank: int) -> ir.Value:
    """Weights of chosen sub-units.

    Args:
        ops: of the graph or branch.
        shares: of the layer.
        unit: int64 (…), units.
        part: int64 (…), the number of the sub-unit in each.
        rank: number of axes of both.

    Returns:
        float32 (…, inputs, *kernel).
    """
    weight = _own(ops, shares, unit)
    mask = ops("Gather", shares.masks, unit, axis=0)
    count = ops("Cast", ops("Gather", shares.counts, unit, axis=0), to=ir.DataType.FLOAT)
    own, higher = _bits(ops, shares.masks, part)
    member, not_last = (_one_where(ops, ops("BitwiseAnd", mask, bits)) for bits in (own, higher))
    gets_share = ops("Mul", member, not_last)
    gets_rest = ops("Sub", member, gets_share)
    if shares.kernel:
        window = ops.constant([rank + 1, rank + 2])
        count, gets_share, gets_rest = (ops("Unsqueeze", value, window) for value in (count, gets_share, gets_rest))
    share = ops("Sub", ops("Add", ops("Div", weight, count), weight), weight)
    rest = ops("Sub", weight, ops("Mul", ops("Sub", count, ops.constant(scalar(1.0))), share))
    # at most one of the two is not 0, so this is exact; ONNX Runtime multiplies many times faster than it chooses
    return ops("Add", ops("Mul", gets_share, share), ops("Mul", gets_rest, rest))


def _one_where(ops: Ops, bits: ir.Value) -> ir.Value:
    """float32, 1 where any bit is set, else 0."""
    return ops("Cast", ops("Cast", bits, to=ir.DataType.BOOL), to=ir.DataType.FLOAT)


def _own(ops: Ops, shares: Shares, unit: ir.Value) -> ir.Value:
    """The units' whole weights, float32 (…, inputs, *kernel)."""
    if shares.transposed:
        # transposed as a whole, which ONNX Runtime does once, at loading; to gather columns takes
        # it milliseconds in each run
        weight = ops("Gather", ops("Transpose", shares.weight, perm=[1, 0]), unit, axis=0)
    else:
        weight = ops("Gather", shares.weight, unit, axis=0)
    return single(ops, weight, shares.weight)


def _bits(ops: Ops, masks: ir.Value, part: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The bit of each part and all bits above it, (…, 1)."""
    assert masks.dtype is not None
    dtype = masks.dtype.numpy()
    width = np.iinfo(dtype).bits
    bits = (np.uint64(1) << np.arange(width, dtype=np.uint64)).astype(dtype)
    above = np.array([sum(1 << bit for bit in range(c + 1, width)) for c in range(width)], np.uint64).astype(dtype)
    table = ops.constant(np.stack([bits, above], axis=1), f"elude/bits_{width}")
    chosen = ops("Gather", table, part, axis=0)
    last = ops.constant([-1])
    own, higher = (ops("Gather", chosen, ops.constant(column), axis=-1) for column in (0, 1))
    return ops("Unsqueeze", own, last), ops("Unsqueeze", higher, last)


def single(ops: Ops, value: ir.Value, like: ir.Value) -> ir.Value:
    """``value`` in float32, given a value ``like`` it in type: sub-units are computed in float32 whatever the
    model's type.
    """
    return value if like.dtype in (None, ir.DataType.FLOAT) else ops("Cast", value, to=ir.DataType.FLOAT)
