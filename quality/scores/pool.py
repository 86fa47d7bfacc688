"""A reference pool: the models a score is relative to, and the mean and deviation of each dimension over them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from elude.handlers.errors import UsageError
from elude.quality.dimensions import DIMENSIONS

TRIM = 0.1


@dataclass(frozen=True)
class Pool:
    """Models and what they measure.

    Attributes:
        name: named in every score.
        models: model to its values; a model may lack dimensions.
        constants: dimension to (mean, standard deviation).
    """

    name: str
    models: Mapping[str, Mapping[str, float]]
    constants: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, name: str, models: Mapping[str, Mapping[str, float]], trim: float = TRIM) -> Pool:
        """A pool of one's own models, such as earlier releases; constants over the dimensions that all of them have.

        Raises:
            UsageError: for fewer than two models.
        """
        if len(models) < 2:
            raise UsageError(f"The pool {name!r} has {len(models)} models.", "A deviation needs at least two.")
        shared = [d for d in DIMENSIONS if all(d in values for values in models.values())]
        constants = {d: trimmed_constants([values[d] for values in models.values()], trim) for d in shared}
        return cls(name, models, constants)


def trimmed_constants(values: Sequence[float], trim: float = TRIM) -> tuple[float, float]:
    """Mean and population standard deviation without the ``int(trim * n)`` lowest and highest values."""
    ordered = np.sort(np.asarray(values, np.float64))
    cut = int(trim * len(ordered))
    kept = ordered[cut : len(ordered) - cut]
    return float(kept.mean()), float(kept.std())


@cache
def published_pool() -> Pool:
    """The 326 models of arXiv 2503.17110 with the published constants (which their trimmed table reproduces to
    3.3e-6).
    """
    models = {row["model_id"]: {d: float(row[d]) for d in DIMENSIONS} for row in published_rows()}
    data = json.loads((files("elude.quality.scores.reference") / "quba_constants.json").read_text("utf-8"))[
        "dimensions"
    ]
    return Pool("quba-2025", models, {d: (float(data[d]["mean"]), float(data[d]["std"])) for d in DIMENSIONS})


def published_rows() -> list[dict[str, str]]:
    """The rows of the published table, with what is known of each model."""
    text = (files("elude.quality.scores.reference") / "quba_reference_models.csv").read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))
