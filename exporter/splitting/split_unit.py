"""The split of one unit: its clusters, the margin that tells them apart best, masks, and the fair control.

The margin is the one at which each sub-unit fires most on its own cluster and least on the others:
the largest mean over clusters c of (own_c - other_c) / (own_c + other_c), with own_c and other_c
the mean ReLU activation of sub-unit c on its own cluster's instances and on those of all other
clusters together, and 0 where both are 0. Of equal margins the smallest is taken. The paper
describes the aim but not the measure (ELUDe, arXiv 2605.31304, section 3); this one is bounded and
free of the unit's scale.

A unit stays whole when it has fewer than two clusters, or when the best margin leaves every input
shared by all: its sub-units would all be the same fraction of the unit and follow no concept of
their own.

Every split has a fair control: the same rule on the same unit with its instances' labels and
probabilities permuted together, so with as many sub-units that know nothing of the clusters. What a
split gains over its control is what the clusters add beyond mere expansion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elude.exporter.splitting.contributions import Vectors, blocks
from elude.exporter.splitting.fair_control import shuffled
from elude.exporter.splitting.hdbscan import (
    CLUSTERERS,
    PICTURES,
    Clusters,
    cluster_unit,
    keep_clusters,
    representatives,
)
from elude.exporter.splitting.layer_split import MAX_PARTS, full_masks
from elude.exporter.splitting.margin import MARGIN_RULES, MARGINS, WITHOUT_MARGIN, winning_masks
from elude.exporter.splitting.pictures import Places, coherence
from elude.handlers.errors import UsageError

FEWEST_PICTURES = 3  # of a cluster, with the clusterer ``pictures``


@dataclass(frozen=True)
class SplitSettings:
    """How units are split.

    Attributes:
        top_k: instances per unit, those with its largest activations; the paper takes 4 to 16 % of all.
        min_cluster_size: fewest instances of a cluster; 0.25 to 1 % of ``top_k``.
        margin_rule: ``literal``, ``smallest``, ``signed`` or ``near-ties`` (elude.exporter.splitting.margin).
        clusterer: ``hdbscan``, ``projected`` or ``pictures`` (elude.exporter.splitting.hdbscan).
        seed: of whatever is random in the clusterer, and of the control.
        expansion: with ``pictures``, sub-units per unit of the layer, at most.
    """

    top_k: int
    min_cluster_size: int
    margin_rule: str = "literal"
    clusterer: str = "hdbscan"
    seed: int = 0
    expansion: float = 5.0

    def __post_init__(self) -> None:
        if self.min_cluster_size < 2:
            raise UsageError(f"min_cluster_size is {self.min_cluster_size}.", "Give at least 2.")
        if self.top_k < 2 * self.min_cluster_size:
            raise UsageError(
                f"top_k is {self.top_k}, too few for two clusters of {self.min_cluster_size}.",
                "Give at least twice min_cluster_size.",
            )
        if self.margin_rule not in MARGIN_RULES:
            raise UsageError(
                f"There is no margin rule {self.margin_rule!r}.", f"Choose one of {', '.join(MARGIN_RULES)}."
            )
        if self.clusterer not in CLUSTERERS:
            raise UsageError(f"There is no clusterer {self.clusterer!r}.", f"Choose one of {', '.join(CLUSTERERS)}.")
        if self.clusterer == PICTURES and self.margin_rule not in WITHOUT_MARGIN:
            raise UsageError(
                f"The clusterer 'pictures' does not go with the margin rule {self.margin_rule!r}.",
                f"Choose one of {', '.join(WITHOUT_MARGIN)}.",
            )
        if not 2 <= self.expansion <= MAX_PARTS:
            raise UsageError(f"expansion is {self.expansion}.", f"Give 2 to {MAX_PARTS}.")


@dataclass(frozen=True)
class Instances:
    """The top instances of one unit: all that its split depends on.

    Attributes:
        unit: its number.
        vectors: (rows, inputs), contributions.
        bias: of the unit.
        places: of the rows' pictures, for the clusterer ``pictures`` only.
    """

    unit: int
    vectors: Vectors
    bias: float = 0.0
    places: Places | None = None


@dataclass(frozen=True)
class UnitSplit:
    """The split of one unit.

    Attributes:
        masks: uint64 (inputs,).
        rho: the margin, NaN of a rule without one.
        representatives: float32 (parts, inputs).
        control: uint64 (inputs,), masks of the fair control.
    """

    masks: NDArray[np.uint64]
    rho: float
    representatives: NDArray[np.float32]
    control: NDArray[np.uint64]


@dataclass(frozen=True)
class Candidates:
    """Clusters of one unit before the layer chooses: representatives (clusters, inputs), the same of the control, and
    coherence (clusters,).
    """

    representatives: NDArray[np.float32]
    control: NDArray[np.float32]
    coherence: NDArray[np.float64]


def split_unit(vectors: Vectors, bias: float, settings: SplitSettings, unit: int = 0) -> UnitSplit | None:
    """Split one unit by a rule that needs no other unit; None when it stays whole.

    Args:
        vectors: (rows, inputs), contributions.
        bias: of the unit.
        settings: see ``SplitSettings``, any clusterer but ``pictures``.
        unit: its number, which seeds the control.
    """
    clusters = cluster_unit(
        vectors, min_cluster_size=settings.min_cluster_size, clusterer=settings.clusterer, seed=settings.seed
    )
    if clusters.count < 2:
        return None
    means = representatives(vectors, clusters)
    masks, rho = _at_best_margin(vectors, bias, clusters, means, settings.margin_rule)
    if np.all(masks == full_masks(np.array([clusters.count]))):
        return None
    mixed = shuffled(clusters, [settings.seed, unit])
    control, _ = _at_best_margin(vectors, bias, mixed, representatives(vectors, mixed), settings.margin_rule)
    return UnitSplit(masks, rho, means, control)


def _at_best_margin(
    vectors: Vectors, bias: float, clusters: Clusters, means: NDArray[np.float32], rule: str
) -> tuple[NDArray[np.uint64], float]:
    """The masks at the margin that tells the clusters apart best, and that margin."""
    masks = winning_masks(means, MARGINS, rule)
    tried, first = np.unique(masks, axis=0, return_index=True)
    # margins that give the same masks are the same split: each is tried once, smallest margin first
    tried = tried[np.argsort(first)]
    best = int(separation(vectors, clusters, bias, tried).argmax())
    return tried[best], np.nan if rule in WITHOUT_MARGIN else float(MARGINS[np.sort(first)[best]])


def candidates_of(instances: Instances, settings: SplitSettings) -> Candidates:
    """The clusters of one unit by contribution and picture, with the coherence of their pictures."""
    vectors, places = instances.vectors, instances.places
    assert places is not None
    clusters = cluster_unit(
        vectors, min_cluster_size=settings.min_cluster_size, clusterer=PICTURES, seed=settings.seed, places=places
    )
    pictures = [places.pictures[clusters.labels == number] for number in range(clusters.count)]
    enough = [number for number, shown in enumerate(pictures) if len(np.unique(shown)) >= FEWEST_PICTURES]
    clusters = keep_clusters(clusters, np.array(enough, np.int64))
    scores = [coherence(places.space, pictures[number]) for number in enough]
    mixed = shuffled(clusters, [settings.seed, instances.unit])
    return Candidates(representatives(vectors, clusters), representatives(vectors, mixed), np.array(scores))


def split_candidates(unit: Candidates, rows: NDArray[np.int64], rule: str) -> UnitSplit | None:
    margin = np.ones(1)  # the rules used here know none
    means = unit.representatives[rows]
    masks, control = (winning_masks(centres, margin, rule)[0] for centres in (means, unit.control[rows]))
    whole = np.all(masks == full_masks(np.array([len(rows)])))
    return None if whole else UnitSplit(masks, np.nan, means, control)


def separation(vectors: Vectors, clusters: Clusters, bias: float, masks: NDArray[np.uint64]) -> NDArray[np.float64]:
    """float64 (candidates,): how well each candidate's sub-units tell the clusters apart, from -1 to 1 (the module's
    measure).

    Args:
        vectors: (rows, inputs), contributions, not normalised.
        clusters: of the rows, at least two.
        bias: of the unit.
        masks: (candidates, inputs).
    """
    member = np.flatnonzero(clusters.labels >= 0)
    count = clusters.count
    order = member[np.argsort(clusters.labels[member], kind="stable")]
    sizes = np.bincount(clusters.labels[order], minlength=count)
    numbers = np.arange(count, dtype=np.uint64)[:, None]
    sharing = [((mask >> numbers) & np.uint64(1)).astype(np.float32) for mask in masks]
    shares = [shared / shared.sum(axis=0) for shared in sharing]
    sums = np.zeros((len(masks), count, count))  # (candidate, cluster, sub-unit)
    for part in blocks(len(order)):
        rows = vectors[order[part]]
        present, starts = np.unique(clusters.labels[order[part]], return_index=True)
        for total, share in zip(sums, shares, strict=True):
            activations = np.maximum(rows @ share.T + np.float32(bias) * share.mean(axis=1), 0)
            total[present] += np.add.reduceat(activations, starts, axis=0, dtype=np.float64)
    total, own = sums.sum(axis=1), np.diagonal(sums, axis1=1, axis2=2)
    own_mean, other_mean = own / sizes, (total - own) / (len(order) - sizes)
    level = own_mean + other_mean
    ratios: NDArray[np.float64] = np.divide(own_mean - other_mean, level, out=np.zeros_like(level), where=level > 0)
    scores: NDArray[np.float64] = ratios.mean(axis=1)
    return scores
