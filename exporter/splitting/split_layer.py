"""From a layer's probed activations to its split, and the fair control of it: instances of each unit, answers of the
units one by one or anywhere, and the layer's choice.

With the clusterer ``pictures`` the layer as a whole decides: clusters of fewer than three different
pictures are noise, and of all others those whose pictures agree best become sub-units, as many as
``expansion`` allows (elude.exporter.splitting.selection).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from elude.exporter import engines
from elude.exporter.progress import Progress
from elude.exporter.splitting.contributions import (
    BLOCK,
    contributions,
    layer_bias,
    layer_weight,
    top_rows,
    top_rows_of_pictures,
)
from elude.exporter.splitting.hdbscan import PICTURES
from elude.exporter.splitting.layer_split import LayerSplit, whole
from elude.exporter.splitting.pictures import Places, picture_space
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
) -> tuple[LayerSplit, LayerSplit]:
    """Split all units of a layer, and make the fair control of the split.

    Args:
        layer: the layer.
        probe: its activations, q (instances, groups * inputs, window) and z (instances, units).
        settings: see ``SplitSettings``.
        progress: called in this thread with (units done, units) after each unit.
        workers: processes; 0 with ``local`` is threads of this process, one per processor. The
            result does not depend on it.
        engine: ``local`` or ``ray`` (elude.exporter.engines). Other processes and machines get the probe
            once and then numbers of units, so they need to see neither model nor images.

    Returns:
        the split, and its control: as many sub-units per unit.

    Raises:
        UsageError: if the probe does not fit the layer or holds values that are not finite; an unknown engine.
    """
    engines.check(engine, workers)
    _check_fit(layer, probe)
    if layer.inputs == 1:  # a depthwise unit has one input: nothing to tell apart
        nothing = whole(layer.name, layer.units, layer.inputs)
        return nothing, nothing
    work = _Work.of(layer, probe, settings)
    answers: list[UnitSplit | Candidates | None] = []
    for answer in _answers(work, engine, workers):
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


@dataclass(frozen=True)
class _Work:
    """What the units of a layer are split from. It is put once on each machine; a job is the number of a unit.

    Attributes:
        q, z, image: of the probe, ``image`` for the clusterer ``pictures`` only.
        space: of the pictures, likewise.
        weight: float32 (units, inputs, window).
        bias: float32 (units,).
        settings: of the split.
    """

    q: NDArray[np.float32]
    z: NDArray[np.float32]
    image: NDArray[np.int64] | None
    space: NDArray[np.float32] | None
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    settings: SplitSettings

    @classmethod
    def of(cls, layer: WeightedLayer, probe: Probe, settings: SplitSettings) -> _Work:
        by_pictures = settings.clusterer == PICTURES
        return cls(
            probe.q,
            probe.z,
            probe.image if by_pictures else None,
            picture_space(probe.pictures) if by_pictures else None,
            layer_weight(layer),
            layer_bias(layer),
            settings,
        )

    def instances(self, unit: int) -> Instances:
        """The top instances of one unit; vectors that fit into one block are computed at once."""
        activations, count = np.asarray(self.z[:, unit]), self.settings.top_k
        if self.image is None or self.space is None:
            rows, places = top_rows(activations, count), None
        else:
            rows = top_rows_of_pictures(activations, count, self.image, PER_PICTURE)
            places = Places(self.space, self.image[rows])
        vectors = contributions(self.q, self.weight, unit, rows)
        return Instances(unit, vectors if len(rows) > BLOCK else vectors[:], float(self.bias[unit]), places)


def _answers(work: _Work, engine: str, workers: int) -> Iterator[UnitSplit | Candidates | None]:
    """The units' answers in order; BLAS has one thread everywhere, as sums depend on the number of threads."""
    units = range(len(work.bias))
    if engine == engines.RAY or workers > 0:
        yield from engines.run(_elsewhere, work, units, engine=engine, workers=workers)
        return
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(partial(_answer, work), units)


def _elsewhere(work: _Work, unit: int) -> UnitSplit | Candidates | None:
    """One unit, in another process."""
    with threadpool_limits(1, "blas"):
        return _answer(work, unit)


def _answer(work: _Work, unit: int) -> UnitSplit | Candidates | None:
    instances = work.instances(unit)
    if work.settings.clusterer == PICTURES:
        return candidates_of(instances, work.settings)
    return split_unit(instances.vectors, instances.bias, work.settings, unit)


def _chosen(candidates: Sequence[Candidates | None], settings: SplitSettings) -> list[UnitSplit | None]:
    """The splits of all units once the layer has chosen."""
    scores = [np.empty(0) if unit is None else unit.coherence for unit in candidates]
    kept = keep_best(scores, round(settings.expansion * len(scores)))
    return [
        None if unit is None or len(rows) < 2 else split_candidates(unit, rows, settings.margin_rule)
        for unit, rows in zip(candidates, kept, strict=True)
    ]


def _gather(name: str, inputs: int, units: Sequence[UnitSplit | None]) -> tuple[LayerSplit, LayerSplit]:
    """The layer's split, and its control."""
    one = np.ones(inputs, np.uint64)
    alone = UnitSplit(one, np.nan, np.zeros((1, inputs), np.float32), one)
    rows = [alone if unit is None else unit for unit in units]
    split = LayerSplit(
        name,
        np.array([len(unit.representatives) for unit in rows], np.int64),
        np.stack([unit.masks for unit in rows]),
        np.array([unit.rho for unit in rows], np.float32),
        np.concatenate([unit.representatives for unit in rows]),
    )
    control = np.stack([unit.control for unit in rows])
    return split, replace(split, masks=control, representatives=np.zeros((split.sub_units, 0), np.float32))
