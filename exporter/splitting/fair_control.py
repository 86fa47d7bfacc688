"""The control that a split is compared with: as many sub-units, from clusters that mean nothing.

A control must destroy what it controls for. Permuting the labels alone leaves the probabilities in place: noise has 0,
so what still counts are points of the true clusters. So both are permuted together.
"""

from __future__ import annotations

import numpy as np

from elude.exporter.splitting.hdbscan import Clusters
from elude.exporter.splitting.layer_split import LayerSplit


def shuffled(clusters: Clusters, seed: list[int]) -> Clusters:
    """The fair control: labels and probabilities permuted over the rows together.

    No row keeps what it knew of its cluster, neither its label nor the 0 that noise has; the sizes stay.
    """
    order = np.random.default_rng(seed).permutation(len(clusters.labels))
    return Clusters(clusters.labels[order], clusters.probabilities[order])


def random_control(split: LayerSplit, seed: int) -> LayerSplit:
    """The control of a split whose instances are gone: each unit's masks and representatives permuted over its inputs.

    Parts, expansion factor and each unit's histogram of masks stay. It is the weaker control: under the
    rules without a margin a fair control scores higher. For bundles of earlier versions only.
    """
    generator = np.random.default_rng(seed)
    masks, means = split.masks.copy(), split.representatives.copy()
    for unit, (first, parts) in enumerate(zip(split.first, split.parts, strict=True)):
        order = generator.permutation(masks.shape[1])
        masks[unit] = masks[unit, order]
        means[first : first + parts] = means[first : first + parts, order]
    return LayerSplit(split.layer, split.parts, masks, split.rho, means)
