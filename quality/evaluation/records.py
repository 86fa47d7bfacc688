"""What each dimension of an evaluation was measured on, for ``quality.json``; read by
``elude.quality.dimensions.measured_on``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.quality.dimensions.measured_on import Record
from elude.quality.evaluation.extra_sets import CONFLICT, RAND, SAME, SHIFTED
from elude.quality.suites.builders.shifts import SHIFTS
from elude.quality.suites.image_sets import ImageSet
from elude.quality.suites.suite import ShiftedSet, Suite

CLEAN, MADE_BY = "images", "elude-1"  # the maker's version: raised when the same images would give other sets
_PARTS = {"ood_robustness": (SHIFTED,), "object_focus": (SAME, RAND), "shape_bias": (CONFLICT,)}
_MADE_PARTS = {
    "ood_robustness": tuple(f"{SHIFTED}{name}" for name in SHIFTS),
    "object_focus": (SAME, RAND),
    "shape_bias": (CONFLICT,),
}


@dataclass(frozen=True)
class Measured:
    """What an evaluation looked at.

    Attributes:
        suite: with the clean images.
        subset: int64, those of them that the costly dimensions are limited to.
        conditions: (corruption, severity) pairs.
        ready: other sets that were there, by the name of their stage, limited as they were used.
        attacks: settings of each attack.
        seed: of corruptions, attacks and made images.
        unusual: what else decides the values where it is not as usual: ``published`` settings, mixed ``precision``.
    """

    suite: Suite
    subset: NDArray[np.int64]
    conditions: Sequence[tuple[str, int]]
    ready: Mapping[str, ShiftedSet]
    attacks: Mapping[str, Mapping[str, Any]]
    seed: int
    unusual: Mapping[str, Any] = field(default_factory=dict)

    def records(self, dimensions: Sequence[str]) -> dict[str, Record]:
        """The record of each of ``dimensions``."""
        whole = _record(self.suite.images) if set(dimensions) - set(_PARTS) - {"params_m"} else {}
        part = whole if len(self.subset) == len(self.suite.images) else _record(_chosen(self.suite.images, self.subset))
        records = {dimension: self._record(dimension, whole, part) for dimension in dimensions}
        return {dimension: record and {**record, **self.unusual} for dimension, record in records.items()}

    def _record(self, dimension: str, whole: Record, part: Record) -> Record:
        if dimension == "params_m":
            return {}
        if dimension == "corruption_robustness":
            of_ready = {"ready_sha256": self._ready_corruptions()} if self.suite.corrupted else {}
            return {
                "sets": {CLEAN: part},
                "corruptions": list(dict.fromkeys(name for name, _ in self.conditions)),
                "severities": sorted({severity for _, severity in self.conditions}),
                "seed": self.seed,
            } | of_ready
        if dimension == "adversarial_robustness":
            attacks = {name: dict(settings) for name, settings in self.attacks.items()}
            return {"sets": {CLEAN: part}, "attacks": attacks, "seed": self.seed}
        if dimension not in _PARTS:
            return {"sets": {CLEAN: whole}}
        clean = {CLEAN: part or _record(_chosen(self.suite.images, self.subset))}
        ready = {
            stage: _record(shift.images) for stage, shift in self.ready.items() if stage.startswith(_PARTS[dimension])
        }
        if ready:
            return {"sets": (clean if dimension == "ood_robustness" else {}) | ready}
        made = {stage: {"images": len(self.subset), "made": MADE_BY} for stage in _MADE_PARTS[dimension]}
        return {"sets": clean | made, "seed": self.seed}

    def _ready_corruptions(self) -> str:
        digest = hashlib.sha256()
        for name, severity, images in self.suite.corrupted:
            digest.update(f"{name} {severity} {_chosen(images, self.subset).sha256()}\n".encode())
        return digest.hexdigest()


def _chosen(images: ImageSet, numbers: NDArray[np.int64]) -> ImageSet:
    return images if len(numbers) == len(images) else images.chosen(numbers)


def _record(images: ImageSet) -> dict[str, Any]:
    return {"images": len(images), "sha256": images.sha256()}
