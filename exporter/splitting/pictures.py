"""Which pictures go together, as the layer itself sees them: no label, no other network, no training.

m_i is the mean of the layer's input over all tokens of picture i. With m - mean(m) = U S V' and
D = min(128, pictures - 1), the picture's place is e_i, the first D columns of row i of U scaled to
length 1: whitened, so that no single direction of the layer decides. Of more than 8,192 pictures, V,
S and the mean are those of 8,192 of them, and U = (m - mean) V / S. The coherence of a set of n
pictures is the mean cosine of its pairs, shrunk towards 0 by two pictures, as few agree by chance:

    s = n / (n + 2) * (|sum e_i|^2 - n) / (n (n - 1)),   0 for n < 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elude.exporter.splitting.contributions import blocks

SIZE = 128  # dimensions of a place
FITTED = 8_192  # pictures that the directions are taken from, at most: bounds memory
PRIOR = 2.0  # pictures of no agreement that are added to every set


@dataclass(frozen=True)
class Places:
    """The place of each row's picture, gathered when it is read: ``places[rows]``, float32 (rows, D).

    Attributes:
        space: float32 (pictures, D), see ``picture_space``.
        pictures: int64 (rows,), number of each row's picture.
    """

    space: NDArray[np.float32]
    pictures: NDArray[np.int64]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        return self.space[self.pictures[rows]]

    def of(self, rows: NDArray[np.int64]) -> Places:
        """Of some of the rows only."""
        return Places(self.space, self.pictures[rows])


def picture_space(means: NDArray[np.float32], size: int = SIZE) -> NDArray[np.float32]:
    """float32 (pictures, min(size, pictures - 1)): the places e_i; 0 for a picture that is the mean of all.

    The order of the pictures changes nothing but the order of the rows.

    Args:
        means: float32 (pictures, inputs).
        size: dimensions, at most.
    """
    count = len(means)
    order = np.lexsort(means.T[:8])  # of whatever order the files are: sums round the same
    fitted = means[order[np.linspace(0, count - 1, min(count, FITTED)).astype(np.int64)]].astype(np.float64)
    mean = fitted.mean(axis=0)
    _, singular, directions = np.linalg.svd(fitted - mean, full_matrices=False)
    largest = max(float(singular.max(initial=0.0)), 1e-30)
    used = np.flatnonzero(singular[: min(size, max(count - 1, 0))] > 1e-6 * largest)
    whitening = directions[used].T / singular[used]
    places = np.empty((count, len(used)), np.float32)
    for rows in blocks(count):
        whitened = (means[order[rows]] - mean) @ whitening
        length = np.linalg.norm(whitened, axis=1, keepdims=True)
        places[order[rows]] = np.divide(whitened, length, out=np.zeros_like(whitened), where=length > 1e-12)
    return places


def coherence(space: NDArray[np.float32], pictures: NDArray[np.int64]) -> float:
    """How well some pictures agree, from about 0 (by chance) to below 1.

    Args:
        space: float32 (pictures, D), the places of all pictures.
        pictures: int64, their numbers; a picture that occurs several times counts once.
    """
    places = space[np.unique(pictures)]
    count = len(places)
    if count < 2:
        return 0.0
    total = places.astype(np.float64).sum(axis=0)
    return float(count / (count + PRIOR) * (total @ total - count) / (count * (count - 1)))
