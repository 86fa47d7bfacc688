"""Arrays against references, and how far apart they may be.

The rule: |error| ≤ 16 u sqrt(n) scale + 4 |torch own − torch64|. u is the unit roundoff of the
    type; n the number of products one
output is a sum of: all fan-ins of the model's layers for what passes through the model, as rounding
    errors add up like a random walk over
them, and the layer's own fan-in for its sums; scale the largest absolute value of the reference.
The second term measures how much this model amplifies rounding on these very inputs: torch's own
error in the file's type against float64. A wrong graph is wrong by far more, and in float64 as
well, so that the term does not hide it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.exporter.verify.report import Comparison

Array = NDArray[Any]
ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
FACTOR = 16.0
OWN_ERROR = 4.0


@dataclass(frozen=True)
class Run:
    """One output of one run. ``got`` and ``reference``: (batch, …); ``first``: number of its first image."""

    got: Array
    reference: Array
    first: int


def rounding(terms: int, scale: float, dtype: str = "float32") -> float:
    """16 u sqrt(terms) scale."""
    return FACTOR * ROUNDOFF[dtype] * float(np.sqrt(terms)) * scale


def rule(terms: int, sums: dict[str, int], dtype: str = "float32") -> dict[str, Any]:
    """The tolerance in words and numbers, for the report."""
    return {
        "formula": (
            "factor * roundoff * sqrt(terms) * scale + own_error_factor * max|torch in dtype - torch "
            "float64|; rewrite: 0"
        ),
        "dtype": dtype,
        "roundoff": ROUNDOFF[dtype],
        "factor": FACTOR,
        "own_error_factor": OWN_ERROR,
        "terms": terms,
        "terms_of_sums": sums,
    }


def scale_of(reference: Array) -> float:
    """Largest absolute finite value, 0 without any."""
    finite = np.abs(reference[np.isfinite(reference)])
    return float(finite.max()) if finite.size else 0.0


def errors(got: Array, reference: Array) -> NDArray[np.float64]:
    """Absolute differences; 0 where both are the same infinity or both NaN, infinite where only one is finite."""
    a, b = got.astype(np.float64), reference.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.abs(a - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, np.where(np.isfinite(difference), difference, np.inf))


def compare(
    output: str, inputs: str, setting: str, runs: Sequence[Run], tolerance: float, *, classes: bool = False
) -> Comparison:
    """Join the runs of one output into a comparison."""
    absolute = [errors(run.got, run.reference) for run in runs]
    scale = max(scale_of(run.reference) for run in runs)
    floor = max(0.01 * scale, float(np.finfo(np.float32).tiny))
    references = [
        np.nan_to_num(np.abs(run.reference.astype(np.float64)), nan=0.0, posinf=scale, neginf=scale) for run in runs
    ]
    relative = np.concatenate([(a / np.maximum(b, floor)).ravel() for a, b in zip(absolute, references, strict=True)])
    flat = np.concatenate([item.ravel() for item in absolute])
    worst_run = int(np.argmax([item.max() for item in absolute]))
    image = int(absolute[worst_run].reshape(len(absolute[worst_run]), -1).max(1).argmax())
    top1 = None
    if classes:
        same = [run.got.argmax(-1) == run.reference.argmax(-1) for run in runs]
        top1 = float(np.mean(np.concatenate(same)))
    return Comparison(
        output,
        inputs,
        setting,
        scale,
        tolerance,
        float(flat.max()),
        float(flat.mean()),
        _p99(flat),
        float(relative.max()),
        float(relative.mean()),
        _p99(relative),
        {"image": runs[worst_run].first + image, "batch": len(runs[worst_run].got)},
        top1,
    )


def _p99(values: NDArray[np.float64]) -> float:
    return float(np.quantile(values, 0.99, method="higher"))
