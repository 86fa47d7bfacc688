"""Weights of sub-units that add up to the unit's own, bit for bit, in whatever order they are added.

A weight W of spacing 2^e (its last bit) that n sub-units share is dealt out as

    share = ((W / n) + W) - W     to each but the last,        rest = W - (n - 1) share     to the last.

W / n + W is rounded to a multiple of the spacing of W or of twice that, so share is one too, and so
are all partial sums of shares and rest: integers times 2^e between 0 and W or next to it, which
floating-point numbers of W's type hold exactly. So the sum is W. A share is off from W / n by at
most two spacings, the rest by less than 2 n (in float16 for n up to 32). The same holds for
denormal numbers. The formula is plain arithmetic, so the file stores no sub-unit weights:
exporter/graph/shares.py writes the same operations into the graph.

The bias is shared by fractions omega that are not 1 / n: M omega truncated to an integer, M 2^e the
bias; the last sub-unit gets the rest.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.errors import UnsupportedLayerError

Float = TypeVar("Float", bound=np.floating)


def sub_unit_weights(weight: NDArray[Float], split: LayerSplit) -> NDArray[Float]:
    """(sub_units, inputs, *kernel) of the weight's own type (float32, or float16 or float64): each sub-unit's weights.

    Args:
        weight: (units, inputs, *kernel).
        split: how to share them.

    Raises:
        UnsupportedLayerError: if the weights do not fit the split, are not all finite or beyond
            half of their type's largest number.
    """
    if weight.shape[:2] != split.masks.shape:
        raise UnsupportedLayerError(
            f"{split.layer}: the weight {weight.shape} does not fit masks of (units, inputs) {split.masks.shape}.",
            "Use the split of this very layer.",
        )
    _check_range(weight, split)
    kernel = (1,) * (weight.ndim - 2)
    share, rest = shares_of(weight, np.bitwise_count(split.masks).reshape(*split.masks.shape, *kernel))
    members = split.members.reshape(split.sub_units, split.masks.shape[1], *kernel)
    higher = (
        split.masks[split.parent] >> split.part.astype(np.uint64)[:, None]
    ) > 1  # a higher bit is set: not the set's last member
    higher = higher.reshape(members.shape)
    return np.where(members, np.where(higher, share[split.parent], rest[split.parent]), np.zeros((), weight.dtype))


def shares_of(weight: NDArray[Float], count: NDArray[np.integer]) -> tuple[NDArray[Float], NDArray[Float]]:
    """What each sub-unit but the last, and what the last gets of weights that ``count`` sub-units share; the module
    says why.
    """
    n = count.astype(weight.dtype)
    share = (weight / n + weight) - weight
    return share, weight - (n - 1) * share


def sub_unit_bias(bias: NDArray[Float] | None, split: LayerSplit) -> NDArray[Float] | NDArray[np.float32]:
    """(sub_units,) of the bias's own type: omega_c times the unit's bias; float32 zeros where the layer has none."""
    if bias is None:
        return np.zeros(split.sub_units, np.float32)
    return _share(bias, split.omega(), split)


def _share(values: NDArray[Float], shares: NDArray[np.float64], split: LayerSplit) -> NDArray[Float]:
    """Share values (units, …) by the fractions (sub_units, …) as the module says of the bias."""
    _check_range(values, split)
    limits = np.finfo(values.dtype)
    _, exponent = np.frexp(values)  # np.spacing overflows in the largest numbers' binade
    spacing = np.ldexp(1.0, np.maximum(exponent - limits.nmant - 1, limits.minexp - limits.nmant))
    integers = values.astype(np.float64) / spacing  # exact: the divisor is a power of two
    part = split.part.reshape(-1, *[1] * (shares.ndim - 1))
    last = np.maximum.reduceat(np.where(shares > 0, part, 0), split.first, axis=0)
    out = np.empty((split.sub_units, *values.shape[1:]), values.dtype)
    rest = integers.copy()
    for number in range(int(split.parts.max())):
        rows = np.flatnonzero(split.part == number)
        units = split.parent[rows]
        taken = np.where(last[units] == number, rest[units], np.trunc(integers[units] * shares[rows]))
        rest[units] -= taken
        out[rows] = (taken * spacing[units]).astype(values.dtype)
    return out


def _check_range(values: NDArray[Float], split: LayerSplit) -> None:
    if not np.isfinite(values).all():
        raise UnsupportedLayerError(
            f"{split.layer}: a weight or bias is NaN or infinite.", "Repair the model before splitting it."
        )
    if values.size and np.abs(values).max() > np.finfo(values.dtype).max / 2:
        raise UnsupportedLayerError(
            f"{split.layer}: a weight or bias is more than half of the largest {values.dtype}.",
            "Repair the model before splitting it.",
        )
