"""Which images a budget leaves: a seeded choice in which each class keeps its part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stratified(classes: Sequence[str], count: int | None, seed: int) -> NDArray[np.int64]:
    """int64, ascending: ``count`` of the images whose classes are given, all for None or more than there are.

    Each class keeps its share to within one image, and each image has the same chance: the images of a class of n
    get the places (0 + u) / n, (1 + u) / n, … in random order, u uniform in [0, 1) for each class, and the lowest
    places win.
    """
    if count is None or count >= len(classes):
        return np.arange(len(classes))
    rng = np.random.default_rng(seed)
    _, class_numbers = np.unique(np.asarray(classes, dtype=str), return_inverse=True)
    places = np.empty(len(class_numbers))
    for number in range(int(class_numbers.max()) + 1):
        members = rng.permutation(np.flatnonzero(class_numbers == number))
        places[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.sort(np.argsort(places, kind="stable")[:count])
