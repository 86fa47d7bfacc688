"""Clusters of one unit's contribution vectors: each cluster is a reason for which the unit fires.

``hdbscan`` is the paper's way (ELUDe, arXiv 2605.31304, section 3): HDBSCAN with leaf selection on
the L2-normalised vectors. ``projected`` first maps the normalised vectors to 64 dimensions with one
Gaussian matrix, the same for every unit of a layer; by the Johnson-Lindenstrauss lemma distances
keep within some ten percent, and the quadratic number of distances no longer costs `inputs` each.
``pictures`` clusters by contribution and picture: the projected vectors and, beside them, the
projected places of the instances' pictures (elude.exporter.splitting.pictures), with equal weight.

Pairs of instances grow with the square of their number. Above ``SAMPLED`` instances the two cluster
a sample of that many, with the smallest cluster in proportion, and another instance joins the
cluster whose mean direction is nearest, if it is as near as nine of ten members are: the scores
stay (docs/method.md), and the cost grows linearly.
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
SAMPLED = 4_000
NEAR_ENOUGH = 0.1  # quantile of the members' cosines with their mean, from which on another instance joins
PICTURES = "pictures"
CLUSTERERS = ("hdbscan", "projected", PICTURES)


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
    vectors: NDArray[np.float32],
    *,
    min_cluster_size: int,
    clusterer: str = "hdbscan",
    seed: int = 0,
    places: NDArray[np.float32] | None = None,
) -> Clusters:
    """Cluster the contribution vectors of one unit.

    Args:
        vectors: (rows, inputs), contributions, normalised here.
        min_cluster_size: fewest rows that make a cluster, at least 2.
        clusterer: one of ``CLUSTERERS``.
        seed: of the projection; the exact clusterer has no randomness.
        places: float32 (rows, D), of each row's picture, for ``pictures``.

    Returns:
        At most 64 clusters (the bits of a mask): of more, the largest stay and the others become
        noise. Rows of zeros point nowhere: they are noise.

    Raises:
        UsageError: for an unknown ``clusterer``, or ``pictures`` without ``places``.
    """
    if clusterer not in CLUSTERERS:
        raise UsageError(f"There is no clusterer {clusterer!r}.", f"Choose one of {', '.join(CLUSTERERS)}.")
    if (clusterer == PICTURES) != (places is not None):
        raise UsageError(f"The clusterer {clusterer!r} does not go with what was given.", "Give places to 'pictures'.")
    rows = len(vectors)
    labels, probabilities = np.full(rows, NOISE, np.int64), np.zeros(rows, np.float32)
    unit_vectors = normalise(vectors)
    some = np.flatnonzero(unit_vectors.any(axis=1))
    if len(some) < max(2, min_cluster_size):
        return Clusters(labels, probabilities)
    points = unit_vectors[some]
    if clusterer != "hdbscan":
        points = _projected(points, seed)
        if places is not None:
            points = np.concatenate([points, _projected(places[some], seed)], axis=1)
        labels[some], probabilities[some] = _leaves(points, min_cluster_size, seed)
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


def _leaves(
    points: NDArray[np.float32], min_cluster_size: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels and probabilities of the leaves of HDBSCAN, of a sample where there are many points."""
    count = len(points)
    if count <= SAMPLED:
        return leaf_clusters(reach(points, min_cluster_size), min_cluster_size)
    sample = np.sort(np.random.default_rng([seed, count]).choice(count, SAMPLED, replace=False))
    smallest = max(3, round(min_cluster_size * SAMPLED / count))
    drawn, weights = leaf_clusters(reach(points[sample], smallest), smallest)
    labels, probabilities = _nearest(normalise(points), sample, drawn)
    labels[sample], probabilities[sample] = drawn, weights
    return labels, probabilities


def _nearest(
    points: NDArray[np.float32], sample: NDArray[np.int64], drawn: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each point of length 1 the cluster of the sample that it joins, and 1; or noise, and 0."""
    found = int(drawn.max(initial=NOISE)) + 1
    if not found:
        return np.full(len(points), NOISE, np.int64), np.zeros(len(points))
    means = normalise(np.stack([points[sample[drawn == number]].sum(axis=0) for number in range(found)]))
    cosines = points @ means.T
    near = np.array([np.quantile(cosines[sample[drawn == number], number], NEAR_ENOUGH) for number in range(found)])
    best = cosines.argmax(axis=1)
    joins = cosines[np.arange(len(points)), best] >= near[best]
    return np.where(joins, best, NOISE), joins.astype(np.float64)


def _projected(points: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """At most ``PROJECTED_SIZE`` dimensions of the points."""
    return points @ _projection(points.shape[1], seed) if points.shape[1] > PROJECTED_SIZE else points


def _projection(inputs: int, seed: int) -> NDArray[np.float32]:
    matrix = np.random.default_rng([seed, inputs]).standard_normal((inputs, PROJECTED_SIZE), dtype=np.float32)
    return matrix / np.float32(np.sqrt(PROJECTED_SIZE))


def keep_clusters(clusters: Clusters, kept: NDArray[np.int64]) -> Clusters:
    """Only the clusters ``kept``, renumbered in their order; the rest becomes noise."""
    renumbered = np.full(clusters.count + 1, NOISE, np.int64)  # the last entry is noise's, reached by the label -1
    renumbered[kept] = np.arange(len(kept))
    labels = renumbered[clusters.labels]
    return Clusters(labels, np.where(labels == NOISE, np.float32(0), clusters.probabilities))


def _largest(clusters: Clusters, limit: int) -> Clusters:
    """Keep the ``limit`` largest clusters (ties: the lowest label) in their order; the rest becomes noise."""
    if clusters.count <= limit:
        return clusters
    sizes = np.bincount(clusters.labels[clusters.labels != NOISE], minlength=clusters.count)
    return keep_clusters(clusters, np.sort(np.argsort(-sizes, kind="stable")[:limit]))
