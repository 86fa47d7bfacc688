"""From a layer's probed activations to its split, and the fair control of it: instances of each unit, answers of the
units one by one or anywhere, and the layer's choice.

With the clusterer ``pictures`` the layer as a whole decides: clusters of fewer than three different
pictures are noise, and of all others those whose pictures agree best become sub-units, as many as
``expansion`` allows (elude.exporter.splitting.selection).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from elude.exporter import engines
from elude.exporter.progress import Progress
from elude.exporter.splitting.contributions import contributions, layer_bias, top_rows, top_rows_of_pictures
from elude.exporter.splitting.hdbscan import PICTURES
from elude.exporter.splitting.layer_split import LayerSplit, whole
from elude.exporter.splitting.pictures import picture_space
from elude.exporter.splitting.selection import keep_best
from elude.exporter.splitting.split_unit import (
    Candidates,
    Instances,
    SplitSettings,
    UnitSplit,
    candidates_of,
    split_candidates,
    split_unit,
)
from elude.exporter.weighted_layer import WeightedLayer
from elude.handlers.errors import UsageError

if TYPE_CHECKING:
    from elude.exporter.probing.probe_store import Probe

PER_PICTURE = 2  # instances of one picture that a unit's clusters are made of


def split_layer(
    layer: WeightedLayer,
    probe: Probe,
    settings: SplitSettings,
    progress: Progress | None = None,
    *,
    workers: int = 0,
    engine: str = engines.LOCAL,
) -> LayerSplit:
    """Split all units of a layer; see ``split_with_control``."""
    return _split(layer, probe, settings, progress, workers, engine, control=False)[0]


def split_with_control(
    layer: WeightedLayer,
    probe: Probe,
    settings: SplitSettings,
    progress: Progress | None = None,
    *,
    workers: int = 0,
    engine: str = engines.LOCAL,
) -> tuple[LayerSplit, LayerSplit]:
    """Split all units of a layer, and make the fair control of the split.

    Args:
        layer: the layer.
        probe: its activations, q (instances, groups * inputs, window) and z (instances, units).
        settings: see ``SplitSettings``.
        progress: called in this thread with (units done, units) after each unit.
        workers: processes; 0 with ``local`` is threads of this process, one per processor. The
            result does not depend on it.
        engine: ``local`` or ``ray`` (elude.exporter.engines). Other processes and machines get each
            unit's contribution vectors, so they need to see neither model nor images.

    Returns:
        the split, and its control: as many sub-units per unit.

    Raises:
        UsageError: if the probe does not fit the layer or holds values that are not finite; an unknown engine.
    """
    return _split(layer, probe, settings, progress, workers, engine, control=True)


def _split(
    layer: WeightedLayer,
    probe: Probe,
    settings: SplitSettings,
    progress: Progress | None,
    workers: int,
    engine: str,
    *,
    control: bool,
) -> tuple[LayerSplit, LayerSplit]:
    engines.check(engine, workers)
    _check_fit(layer, probe)
    if layer.inputs == 1:  # a depthwise unit has one input: nothing to tell apart
        nothing = whole(layer.name, layer.units, layer.inputs)
        return nothing, nothing
    work = _Work(settings, control)
    answers: list[UnitSplit | Candidates | None] = []
    for answer in _answers(_jobs(layer, probe, settings), layer.units, work, engine, workers):
        answers.append(answer)
        if progress is not None:
            progress(len(answers), layer.units)
    if settings.clusterer == PICTURES:
        units = _chosen([answer if isinstance(answer, Candidates) else None for answer in answers], settings)
    else:
        units = [answer if isinstance(answer, UnitSplit) else None for answer in answers]
    return _gather(layer.name, layer.inputs, units)


def _check_fit(layer: WeightedLayer, probe: Probe) -> None:
    if probe.q.shape[1:] != (layer.groups * layer.inputs, layer.window) or probe.z.shape != (len(probe.q), layer.units):
        raise UsageError(
            f"{layer.name}: probed inputs {probe.q.shape} and outputs {probe.z.shape} do not fit the layer "
            f"({layer.units} units, {layer.groups} x {layer.inputs} inputs, window {layer.window}).",
            "Collect the probe from this very layer.",
        )


def _jobs(layer: WeightedLayer, probe: Probe, settings: SplitSettings) -> Callable[[int], Instances]:
    """What makes the instances of one unit."""
    bias = layer_bias(layer)
    space = picture_space(probe.pictures) if settings.clusterer == PICTURES else None

    def job(unit: int) -> Instances:
        if space is None:
            rows = top_rows(probe.z[:, unit], settings.top_k)
            return Instances(unit, contributions(layer, probe, unit, rows), float(bias[unit]))
        rows = top_rows_of_pictures(probe.z[:, unit], settings.top_k, probe.image, PER_PICTURE)
        pictures = probe.image[rows]
        vectors = contributions(layer, probe, unit, rows)
        return Instances(unit, vectors, float(bias[unit]), space[pictures], pictures)

    return job


@dataclass(frozen=True)
class _Work:
    settings: SplitSettings
    control: bool


def _answers(
    job: Callable[[int], Instances], units: int, work: _Work, engine: str, workers: int
) -> Iterator[UnitSplit | Candidates | None]:
    """The units' answers in order; BLAS has one thread everywhere, as sums depend on the number of threads."""
    if engine == engines.RAY or workers > 0:
        yield from engines.run(_one, work, map(job, range(units)), engine=engine, workers=workers)
        return
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(lambda unit: _answer(work, job(unit)), range(units))


def _one(work: _Work, instances: Instances) -> UnitSplit | Candidates | None:
    """One unit, in another process."""
    with threadpool_limits(1, "blas"):
        return _answer(work, instances)


def _answer(work: _Work, instances: Instances) -> UnitSplit | Candidates | None:
    if work.settings.clusterer == PICTURES:
        return candidates_of(instances, work.settings)
    return split_unit(
        instances.vectors, instances.bias, work.settings, control=instances.unit if work.control else None
    )


def _chosen(candidates: Sequence[Candidates | None], settings: SplitSettings) -> list[UnitSplit | None]:
    """The splits of all units once the layer has chosen."""
    scores = [np.empty(0) if unit is None else unit.coherence for unit in candidates]
    kept = keep_best(scores, round(settings.expansion * len(scores)))
    return [
        None if unit is None or len(rows) < 2 else split_candidates(unit, rows, settings.margin_rule)
        for unit, rows in zip(candidates, kept, strict=True)
    ]


def _gather(name: str, inputs: int, units: Sequence[UnitSplit | None]) -> tuple[LayerSplit, LayerSplit]:
    """The layer's split, and its control; a unit without a control keeps its masks there."""
    alone = UnitSplit(np.ones(inputs, np.uint64), np.nan, np.zeros((1, inputs), np.float32))
    rows = [alone if unit is None else unit for unit in units]
    split = LayerSplit(
        name,
        np.array([len(unit.representatives) for unit in rows], np.int64),
        np.stack([unit.masks for unit in rows]),
        np.array([unit.rho for unit in rows], np.float32),
        np.concatenate([unit.representatives for unit in rows]),
    )
    control = np.stack([unit.masks if unit.control is None else unit.control for unit in rows])
    return split, replace(split, masks=control, representatives=np.zeros((split.sub_units, 0), np.float32))
