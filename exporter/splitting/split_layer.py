"""From a layer's probed activations to its split: per unit top instances, clusters, margin, masks.

The margin is the one at which each sub-unit fires most on its own cluster and least on the others:
the largest mean over clusters c of (own_c - other_c) / (own_c + other_c), with own_c and other_c
the mean ReLU activation of sub-unit c on its own cluster's instances and on those of all other
clusters together, and 0 where both are 0. Of equal margins the smallest is taken. The paper
describes the aim but not the measure (ELUDe, arXiv 2605.31304, section 3); this one is bounded and
free of the unit's scale.

A unit stays whole when it has fewer than two clusters, or when the best margin leaves every input
    shared by all: its sub-units would all be
the same fraction of the unit and follow no concept of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from elude.exporter import engines
from elude.exporter.splitting.contributions import contributions, layer_bias, top_rows
from elude.exporter.splitting.hdbscan import CLUSTERERS, Clusters, cluster_unit, representatives
from elude.exporter.splitting.layer_split import LayerSplit, full_masks, whole
from elude.exporter.splitting.margin import MARGIN_RULES, MARGINS, winning_masks
from elude.handlers.errors import UsageError

if TYPE_CHECKING:
    from elude.exporter.models.layers import Layer
    from elude.exporter.probing.probe import Probe

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SplitSettings:
    """How units are split.

    Attributes:
        top_k: instances per unit, those with its largest activations; the paper takes 4 to 16 % of all.
        min_cluster_size: fewest instances of a cluster; 0.25 to 1 % of ``top_k``.
        margin_rule: ``literal``, ``smallest`` or ``signed`` (elude.exporter.splitting.margin).
        clusterer: ``hdbscan`` or ``projected`` (elude.exporter.splitting.hdbscan).
        seed: of whatever is random in the clusterer.
    """

    top_k: int
    min_cluster_size: int
    margin_rule: str = "literal"
    clusterer: str = "hdbscan"
    seed: int = 0

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


@dataclass(frozen=True)
class UnitSplit:
    """The split of one unit: masks uint64 (inputs,), margin, representatives float32 (parts, inputs)."""

    masks: NDArray[np.uint64]
    rho: float
    representatives: NDArray[np.float32]


def split_layer(
    layer: Layer,
    probe: Probe,
    settings: SplitSettings,
    progress: Progress | None = None,
    *,
    workers: int = 0,
    engine: str = engines.LOCAL,
) -> LayerSplit:
    """Split all units of a layer.

    Args:
        layer: the layer.
        probe: its activations, q (instances, groups * inputs, window) and z (instances, units).
        settings: see ``SplitSettings``.
        progress: called in this thread with (units done, units) after each unit.
        workers: processes; 0 with ``local`` is threads of this process, one per processor. The
            result does not depend on it.
        engine: ``local`` or ``ray`` (elude.exporter.engines). Other processes and machines get each
            unit's contribution vectors, so they need to see neither model nor images.

    Raises:
        UsageError: if the probe does not fit the layer or holds values that are not finite; an unknown engine.
    """
    engines.check(engine, workers)
    if probe.q.shape[1:] != (layer.groups * layer.inputs, layer.window) or probe.z.shape != (len(probe.q), layer.units):
        raise UsageError(
            f"{layer.name}: probed inputs {probe.q.shape} and outputs {probe.z.shape} do not fit the layer "
            f"({layer.units} units, {layer.groups} x {layer.inputs} inputs, window {layer.window}).",
            "Collect the probe from this very layer.",
        )
    if layer.inputs == 1:  # a depthwise unit has one input: nothing to tell apart
        return whole(layer.name, layer.units, layer.inputs)
    bias = layer_bias(layer)

    def job(unit: int) -> tuple[NDArray[np.float32], float]:
        return contributions(layer, probe, unit, top_rows(probe.z[:, unit], settings.top_k)), float(bias[unit])

    units: list[UnitSplit | None] = []
    for unit in _answers(job, range(layer.units), settings, engine, workers):
        units.append(unit)
        if progress is not None:
            progress(len(units), layer.units)
    return _gather(layer.name, layer.inputs, units)


def _answers(
    job: Callable[[int], tuple[NDArray[np.float32], float]],
    units: range,
    settings: SplitSettings,
    engine: str,
    workers: int,
) -> Iterator[UnitSplit | None]:
    """The units' splits in order; BLAS has one thread everywhere: sums would otherwise depend on how many there are."""
    if engine == engines.RAY or workers > 0:
        yield from engines.run(_one, settings, map(job, units), engine=engine, workers=workers)
        return
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(lambda unit: split_unit(*job(unit), settings), units)


def _one(settings: SplitSettings, job: tuple[NDArray[np.float32], float]) -> UnitSplit | None:
    """One unit, in another process."""
    with threadpool_limits(1, "blas"):
        return split_unit(*job, settings)


def split_unit(vectors: NDArray[np.float32], bias: float, settings: SplitSettings) -> UnitSplit | None:
    """Split one unit given its contributions (rows, inputs) and bias; None when it stays whole."""
    if not np.isfinite(vectors).all():
        raise UsageError(
            "A contribution of the layer is NaN or infinite.",
            "Check the model's weights and the images' preprocessing.",
        )
    clusters = cluster_unit(
        vectors, min_cluster_size=settings.min_cluster_size, clusterer=settings.clusterer, seed=settings.seed
    )
    if clusters.count < 2:
        return None
    means = representatives(vectors, clusters)
    masks = winning_masks(means, MARGINS, settings.margin_rule)
    tried, first = np.unique(masks, axis=0, return_index=True)
    tried = tried[
        np.argsort(first)
    ]  # margins that give the same masks are the same split: each is tried once, smallest margin first
    scores = separation(vectors, clusters, bias, tried)
    best = int(scores.argmax())
    if np.all(tried[best] == full_masks(np.array([clusters.count]))):
        return None
    return UnitSplit(tried[best], float(MARGINS[np.sort(first)[best]]), means)


def separation(
    vectors: NDArray[np.float32], clusters: Clusters, bias: float, masks: NDArray[np.uint64]
) -> NDArray[np.float64]:
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
    starts = np.cumsum(sizes) - sizes
    rows = vectors[order]
    scores = np.empty(len(masks))
    for i, mask in enumerate(masks):
        shared = ((mask >> np.arange(count, dtype=np.uint64)[:, None]) & np.uint64(1)).astype(np.float32)
        shares = shared / shared.sum(axis=0)
        activations = np.maximum(rows @ shares.T + np.float32(bias) * shares.mean(axis=1), 0)
        sums = np.add.reduceat(activations, starts, axis=0, dtype=np.float64)  # (cluster, sub-unit)
        total, own = sums.sum(axis=0), np.diagonal(sums)
        own_mean, other_mean = own / sizes, (total - own) / (len(order) - sizes)
        level = own_mean + other_mean
        scores[i] = np.divide(own_mean - other_mean, level, out=np.zeros(count), where=level > 0).mean()
    return scores


def random_control(split: LayerSplit, seed: int) -> LayerSplit:
    """The same split with its clusters' meaning destroyed: each unit's masks (and representatives) permuted over the
    inputs.

    Parts, expansion factor and each unit's histogram of masks stay, so that what the split gains
    beyond mere expansion shows.
    """
    generator = np.random.default_rng(seed)
    masks, means = split.masks.copy(), split.representatives.copy()
    for unit, (first, parts) in enumerate(zip(split.first, split.parts, strict=True)):
        order = generator.permutation(masks.shape[1])
        masks[unit] = masks[unit, order]
        means[first : first + parts] = means[first : first + parts, order]
    return LayerSplit(split.layer, split.parts, masks, split.rho, means)


def _gather(name: str, inputs: int, units: list[UnitSplit | None]) -> LayerSplit:
    kept = [unit or UnitSplit(np.ones(inputs, np.uint64), np.nan, np.zeros((1, inputs), np.float32)) for unit in units]
    return LayerSplit(
        name,
        np.array([len(unit.representatives) for unit in kept], np.int64),
        np.stack([unit.masks for unit in kept]),
        np.array([unit.rho for unit in kept], np.float32),
        np.concatenate([unit.representatives for unit in kept]),
    )
