"""Names lent by neighbours: an unnamed sub-unit takes the name of the named one that answers to the images most alike.

Alike is Pearson's correlation of the two sub-units' largest activations over all images.
(Representatives live in the space of one unit's contributions, weight by weight, and are not
comparable between units; activations are.) The name is flagged ``neighbour``, with the correlation
as its score and the lender's index as evidence: it says less than a name of one's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from elude.exporter.naming.evidence import Name

METHOD = "neighbour"


def profiles(peak: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (sub-units, images): activations above 0, centred and of length 1, so that products are correlations;
    0 for constant ones.
    """
    values = np.maximum(peak.T, 0).astype(np.float64)
    values -= values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = np.divide(values, length, out=np.zeros_like(values), where=length > 1e-12).astype(
        np.float32
    )
    return scaled


def names_from_neighbours(peak: NDArray[np.float32], named: Sequence[Name], least: float = 0.9) -> list[Name]:
    """Names for sub-units without one, from those of ``named`` that correlate at least ``least`` with them.

    Args:
        peak: float32 (images, sub-units) of all layers, largest activation in each image.
        named: names found so far; lent names are not lent on.
        least: smallest correlation.
    """
    lenders = [each for each in named if each.method != METHOD]
    if not lenders:
        return []
    scaled = profiles(peak)
    have = {each.index for each in named}
    without = np.array([index for index in range(peak.shape[1]) if index not in have], np.int64)
    if not len(without):
        return []
    similar = scaled[without] @ scaled[[each.index for each in lenders]].T
    nearest = similar.argmax(axis=1)
    found = []
    for row, lender in enumerate(nearest):
        score = float(min(similar[row, lender], 1.0))
        if score >= least:
            found.append(
                Name(int(without[row]), lenders[lender].name, METHOD, score, {"lender": lenders[lender].index})
            )
    return found
