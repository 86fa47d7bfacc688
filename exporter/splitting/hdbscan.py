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
stay (docs/method.md), and the cost grows linearly. The others are read in blocks, and nothing of them
is kept but label and probability. ``hdbscan`` needs all vectors and their distances at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN

from elude.exporter.splitting.contributions import Vectors, blocks, normalise
from elude.exporter.splitting.hdbscan_leaves import leaf_clusters
from elude.exporter.splitting.hdbscan_reach import reach
from elude.exporter.splitting.layer_split import MAX_PARTS
from elude.exporter.splitting.pictures import Places
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
    vectors: Vectors,
    *,
    min_cluster_size: int,
    clusterer: str = "hdbscan",
    seed: int = 0,
    places: Places | None = None,
) -> Clusters:
    """Cluster the contribution vectors of one unit.

    Args:
        vectors: (rows, inputs), contributions, normalised here.
        min_cluster_size: fewest rows that make a cluster, at least 2.
        clusterer: one of ``CLUSTERERS``.
        seed: of the projection; the exact clusterer has no randomness.
        places: of each row's picture, for ``pictures``.

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
    if clusterer == "hdbscan":
        clusters = _exact(normalise(vectors[:]), min_cluster_size)
    elif len(vectors) <= SAMPLED:
        clusters = _leaves(_Points(vectors, places, seed), np.arange(len(vectors)), min_cluster_size)
    else:
        clusters = _sampled(_Points(vectors, places, seed), min_cluster_size)
    return _largest(clusters, MAX_PARTS)


def representatives(vectors: Vectors, clusters: Clusters) -> NDArray[np.float32]:
    """float32 (clusters, inputs): r_c = normalise(sum over cluster c of p * c / |c|), the mean direction of each
    cluster.
    """
    total = np.zeros((clusters.count, vectors.shape[1]))
    members = np.flatnonzero(clusters.labels != NOISE)
    for part in blocks(len(members)):
        rows = members[part]
        weights = np.zeros((clusters.count, len(rows)), np.float32)
        weights[clusters.labels[rows], np.arange(len(rows))] = clusters.probabilities[rows]
        total += weights @ normalise(vectors[rows])
    return normalise(total.astype(np.float32))


@dataclass(frozen=True)
class _Points:
    """What ``projected`` and ``pictures`` cluster, computed when it is read."""

    vectors: Vectors
    places: Places | None
    seed: int

    def __len__(self) -> int:
        return len(self.vectors)

    def read(self, rows: slice | NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The points of some rows, (rows, dimensions), and which of them point anywhere."""
        directions = normalise(self.vectors[rows])
        points = _projected(directions, self.seed)
        if self.places is not None:
            points = np.concatenate([points, _projected(self.places[rows], self.seed)], axis=1)
        return points, np.count_nonzero(directions, axis=1) > 0


def _exact(directions: NDArray[np.float32], min_cluster_size: int) -> Clusters:
    clusters, some = _all_noise(len(directions)), np.flatnonzero(directions.any(axis=1))
    if len(some) >= max(2, min_cluster_size):
        fitted = HDBSCAN(
            min_cluster_size=min_cluster_size, algorithm="brute", cluster_selection_method="leaf", copy=True
        ).fit(directions[some])
        clusters.labels[some], clusters.probabilities[some] = fitted.labels_, fitted.probabilities_
    return clusters


def _leaves(points: _Points, rows: NDArray[np.int64], min_cluster_size: int) -> Clusters:
    """The leaves of the points of some rows; the other rows are noise."""
    clusters = _all_noise(len(points))
    read = [points.read(rows[part]) for part in blocks(len(rows))]
    directed = np.concatenate([nonzero for _, nonzero in read]) if read else np.empty(0, bool)
    rows = rows[directed]
    if len(rows) >= max(2, min_cluster_size):
        joined = reach(np.concatenate([block for block, _ in read])[directed], min_cluster_size)
        clusters.labels[rows], clusters.probabilities[rows] = leaf_clusters(joined, min_cluster_size)
    return clusters


def _sampled(points: _Points, min_cluster_size: int) -> Clusters:
    """The leaves of a sample, and which of them the other points join."""
    count = len(points)
    sample = np.sort(np.random.default_rng([points.seed, count]).choice(count, SAMPLED, replace=False))
    drawn = _leaves(points, sample, max(3, round(min_cluster_size * SAMPLED / count)))
    if not drawn.count:
        return drawn
    members = [np.flatnonzero(drawn.labels == number) for number in range(drawn.count)]
    directions = [normalise(points.read(rows)[0]) for rows in members]
    means = normalise(np.stack([rows.sum(axis=0) for rows in directions]))
    near = np.array([np.quantile(rows @ mean, NEAR_ENOUGH) for rows, mean in zip(directions, means, strict=True)])
    clusters = _all_noise(count)
    for part in blocks(count):
        block, nonzero = points.read(part)
        cosines = normalise(block) @ means.T
        best = cosines.argmax(axis=1)
        joins = nonzero & (cosines[np.arange(len(block)), best] >= near[best])
        clusters.labels[part] = np.where(joins, best, NOISE)
        clusters.probabilities[part] = joins
    clusters.labels[sample], clusters.probabilities[sample] = drawn.labels[sample], drawn.probabilities[sample]
    return clusters


def _all_noise(rows: int) -> Clusters:
    return Clusters(np.full(rows, NOISE, np.int64), np.zeros(rows, np.float32))


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
