"""Clusters of one unit's contribution vectors: each cluster is a reason for which the unit fires.

``hdbscan`` is the paper's way (ELUDe, arXiv 2605.31304, section 3): HDBSCAN with leaf selection on
the L2-normalised vectors. ``projected`` first maps the normalised vectors to 64 dimensions with one
Gaussian matrix, the same for every unit of a layer; by the Johnson-Lindenstrauss lemma distances
keep within some ten percent, and the quadratic number of distances no longer costs `inputs` each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN

from elude.exporter.splitting.contributions import normalise
from elude.exporter.splitting.hdbscan_leaves import leaf_clusters
from elude.exporter.splitting.hdbscan_reach import reach
from elude.exporter.splitting.layer_split import MAX_PARTS
from elude.handlers.errors import UsageError

NOISE = -1
PROJECTED_SIZE = 64
CLUSTERERS = ("hdbscan", "projected")


@dataclass(frozen=True)
class Clusters:
    """The clusters of one unit's instances.

    Attributes:
        labels: int64 (rows,), cluster of each row, 0 … count-1, or -1 for noise.
        probabilities: float32 (rows,), membership probability, 0 for noise.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def count(self) -> int:
        """Number of clusters; 0 when all rows are noise."""
        return int(self.labels.max(initial=NOISE)) + 1


def cluster_unit(
    vectors: NDArray[np.float32], *, min_cluster_size: int, clusterer: str = "hdbscan", seed: int = 0
) -> Clusters:
    """Cluster the contribution vectors of one unit.

    Args:
        vectors: (rows, inputs), contributions, normalised here.
        min_cluster_size: fewest rows that make a cluster, at least 2.
        clusterer: one of ``CLUSTERERS``.
        seed: of the projection; the exact clusterer has no randomness.

    Returns:
        At most 64 clusters (the bits of a mask): of more, the largest stay and the others become
        noise. Rows of zeros point nowhere: they are noise.

    Raises:
        UsageError: for an unknown ``clusterer``.
    """
    if clusterer not in CLUSTERERS:
        raise UsageError(f"There is no clusterer {clusterer!r}.", f"Choose one of {', '.join(CLUSTERERS)}.")
    rows = len(vectors)
    labels, probabilities = np.full(rows, NOISE, np.int64), np.zeros(rows, np.float32)
    unit_vectors = normalise(vectors)
    some = np.flatnonzero(unit_vectors.any(axis=1))
    if len(some) < max(2, min_cluster_size):
        return Clusters(labels, probabilities)
    points = unit_vectors[some]
    if clusterer == "projected":
        if points.shape[1] > PROJECTED_SIZE:
            points = points @ _projection(points.shape[1], seed)
        labels[some], probabilities[some] = leaf_clusters(reach(points, min_cluster_size), min_cluster_size)
    else:
        fitted = HDBSCAN(
            min_cluster_size=min_cluster_size, algorithm="brute", cluster_selection_method="leaf", copy=True
        ).fit(points)
        labels[some], probabilities[some] = fitted.labels_, fitted.probabilities_
    return _largest(Clusters(labels, probabilities), MAX_PARTS)


def representatives(vectors: NDArray[np.float32], clusters: Clusters) -> NDArray[np.float32]:
    """float32 (clusters, inputs): r_c = normalise(sum over cluster c of p * c / |c|), the mean direction of each
    cluster.
    """
    weights = np.zeros((clusters.count, len(vectors)), np.float32)
    member = np.flatnonzero(clusters.labels != NOISE)
    weights[clusters.labels[member], member] = clusters.probabilities[member]
    return normalise(weights @ normalise(vectors))


def _projection(inputs: int, seed: int) -> NDArray[np.float32]:
    matrix = np.random.default_rng([seed, inputs]).standard_normal((inputs, PROJECTED_SIZE), dtype=np.float32)
    return matrix / np.float32(np.sqrt(PROJECTED_SIZE))


def _largest(clusters: Clusters, limit: int) -> Clusters:
    """Keep the ``limit`` largest clusters (ties: the lowest label) in their order; the rest becomes noise."""
    if clusters.count <= limit:
        return clusters
    sizes = np.bincount(clusters.labels[clusters.labels != NOISE], minlength=clusters.count)
    kept = np.sort(np.argsort(-sizes, kind="stable")[:limit])
    renumbered = np.full(clusters.count + 1, NOISE, np.int64)  # the last entry is noise's, reached by the label -1
    renumbered[kept] = np.arange(limit)
    labels = renumbered[clusters.labels]
    return Clusters(labels, np.where(labels == NOISE, np.float32(0), clusters.probabilities))
