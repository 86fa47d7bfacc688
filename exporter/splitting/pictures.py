"""Which pictures go together, as the layer itself sees them: no label, no other network, no training.

m_i is the mean of the layer's input over all tokens of picture i. With m - mean(m) = U S V' and
D = min(128, pictures - 1), the picture's place is e_i, the first D columns of row i of U scaled to
length 1: whitened, so that no single direction of the layer decides. The coherence of a set of n
pictures is the mean cosine of its pairs, shrunk towards 0 by two pictures, as few agree by chance:

    s = n / (n + 2) * (|sum e_i|^2 - n) / (n (n - 1)),   0 for n < 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZE = 128  # dimensions of a place
PRIOR = 2.0  # pictures of no agreement that are added to every set


def picture_space(means: NDArray[np.float32], size: int = SIZE) -> NDArray[np.float32]:
    """float32 (pictures, min(size, pictures - 1)): the places e_i; 0 for a picture that is the mean of all.

    The order of the pictures changes nothing but the order of the rows.

    Args:
        means: float32 (pictures, inputs).
        size: dimensions, at most.
    """
    order = np.lexsort(means.T[:8])  # of whatever order the files are: sums round the same
    centred = means[order].astype(np.float64)
    centred -= centred.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    kept = left[:, : min(size, max(len(means) - 1, 0))]
    kept = kept[:, singular[: kept.shape[1]] > 1e-6 * max(float(singular.max(initial=0.0)), 1e-30)]
    length = np.linalg.norm(kept, axis=1, keepdims=True)
    places = np.empty(kept.shape, np.float32)
    places[order] = np.divide(kept, length, out=np.zeros_like(kept), where=length > 1e-12)
    return places


def coherence(places: NDArray[np.float32], pictures: NDArray[np.int64]) -> float:
    """How well the pictures of some instances agree, from about 0 (by chance) to below 1.

    Args:
        places: float32 (instances, D), of each instance's picture.
        pictures: int64 (instances,), its number; a picture that occurs several times counts once.
    """
    first = np.unique(pictures, return_index=True)[1]
    count = len(first)
    if count < 2:
        return 0.0
    total = places[first].astype(np.float64).sum(axis=0)
    return float(count / (count + PRIOR) * (total @ total - count) / (count * (count - 1)))
