"""The numbers of the report, laid out for the template: dimensions with their intervals, claims, MS-Scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from elude.exporter.scoring.split_features import of_split_units
from elude.handlers.bundle.manifest import LayerInfo
from elude.quality.dimensions import HIGHER_IS_BETTER, RANGES
from elude.quality.dimensions.measured_on import images_in
from elude.quality.gate.checks import claim_error
from elude.quality.gate.evidence import Measurement, mapping, number, read_measurement
from elude.quality.policies.policy import CLAIMS
from elude.quality.report.definitions import DEFINITIONS
from elude.quality.scores.compare import Change
from elude.quality.scores.pool import Pool

CLAIM_WORDS = {
    "sums": ("Sub-units sum to their unit", "Largest difference between a unit and the sum of its sub-units."),
    "rewrite": (
        "The rewrite equals the original",
        "Largest difference between the outputs of the rewritten and the original torch model.",
    ),
    "runtime": ("The served graph equals torch", "Largest difference between the outputs of ONNX Runtime and torch."),
}

MEASURES = {
    "ms": ("MS-Score", "how alike the outputs at the strongest images are"),
    "centred": ("MS-Score, centred", "the same less the mean, which does not saturate on narrow data"),
    "purity": ("Class purity", "part of the strongest images that are of one class"),
}
FAMILIES = {"units": "Units", "random": "Random split", "sub_units": "Sub-units"}


@dataclass(frozen=True)
class Mark:
    """Other models on a dimension's axis, in percent of it: the lowest, the mean and the highest value;

    ``beaten`` of ``of`` are worse.
    """

    low: float
    mean: float
    high: float
    beaten: int
    of: int


@dataclass(frozen=True)
class DimensionLine:
    """One dimension, with the number of images of its smallest set; positions are in percent of its axis, which goes
    from 0 to ``top``.
    """

    key: str
    title: str
    direction: str
    measured: Measurement | None
    images: int | None
    position: float | None
    low: float | None
    high: float | None
    why_not: str
    factors: tuple[tuple[str, float], ...]
    original: float | None
    disentangled: float | None
    served: float | None
    top: float
    pool: Mark | None
    baseline: float | None
    baseline_position: float | None
    change: Change | None


@dataclass(frozen=True)
class ClaimLine:
    """One claim of losslessness with its number; ``exact`` when it is exactly 0."""

    title: str
    words: str
    error: float | None

    @property
    def exact(self) -> bool:
        return self.error == 0


@dataclass(frozen=True)
class Bar:
    """One bar of a chart; ``kind`` is units, random or sub_units."""

    kind: str
    title: str
    score: float


@dataclass(frozen=True)
class Chart:
    """One measure of units, of the control and of sub-units, all between 0 and 1."""

    title: str
    words: str
    bars: tuple[Bar, ...]


def dimension_lines(
    quality: Mapping[str, Any],
    pool: Pool | None = None,
    baseline: Mapping[str, Any] | None = None,
    changes: Sequence[Change] = (),
) -> list[DimensionLine]:
    """One line for each of the nine dimensions, measured or not: what was not measured is said, never hidden.

    Args:
        quality: a quality.json.
        pool: other models to show beside it.
        baseline: the quality.json of an earlier model.
        changes: from the baseline to this, as ``elude.quality.scores.compare.compare`` found them.
    """
    lossless = mapping(quality.get("lossless"))
    reasons = mapping(mapping(quality.get("settings")).get("not_measured"))
    of_change = {change.dimension: change for change in changes if not change.factor}
    lines = []
    for dimension, higher in HIGHER_IS_BETTER.items():
        entry = mapping(mapping(quality.get("dimensions")).get(dimension))
        measured = read_measurement(entry, higher, RANGES[dimension]) if entry else None
        usable = measured is not None and not measured.problem
        value = measured.value if measured is not None and usable else None
        interval = measured.interval if measured is not None and usable else None
        images = images_in(mapping(entry.get("measured_on")))
        others = [v for values in pool.models.values() if (v := values.get(dimension)) is not None] if pool else []
        before = number(mapping(mapping(mapping(baseline).get("dimensions")).get(dimension)).get("value"))
        top = axis_end([value, before, *others, *(interval or ())], dimension)
        lines.append(
            DimensionLine(
                key=dimension,
                title=DEFINITIONS[dimension].title,
                direction="higher is better" if higher else "lower is better",
                measured=measured,
                images=images,
                position=None if value is None or top == 0 else _percent(value / top),
                low=None if interval is None else _percent(interval[0] / top),
                high=None if interval is None else _percent(interval[1] / top),
                why_not=str(reasons.get(dimension, "")),
                factors=tuple(
                    (k, v) for k, raw in sorted(mapping(entry.get("factors")).items()) if (v := number(raw)) is not None
                ),
                original=number(mapping(lossless.get("original")).get(dimension)),
                disentangled=number(mapping(lossless.get("disentangled")).get(dimension)),
                served=number(mapping(lossless.get("served")).get(dimension)),
                top=top,
                pool=_mark(others, value, higher, top) if others and top else None,
                baseline=before,
                baseline_position=None if before is None or top == 0 else _percent(before / top),
                change=of_change.get(dimension),
            )
        )
    return lines


def axis_end(values: Sequence[float | None], dimension: str) -> float:
    """Where the dimension's axis ends: 1 for fractions, 0.2, 0.5 or 1 for errors, else the next round number; 0
    without values.
    """
    known = [value for value in values if value is not None]
    if not known:
        return 0.0
    highest = max(known)
    if dimension == "calibration_error":
        return next((end for end in (0.05, 0.1, 0.2, 0.5) if highest <= end), 1.0)
    if dimension != "params_m":
        return 1.0 if highest <= 1 else math.ceil(highest * 10) / 10
    scale = 10.0 ** math.floor(math.log10(highest)) if highest > 0 else 1.0
    return next(step * scale for step in (1, 2, 5, 10) if highest <= step * scale)


def _mark(others: Sequence[float], value: float | None, higher: bool, top: float) -> Mark:
    beaten = 0 if value is None else sum(other < value if higher else other > value for other in others)
    low, mean, high = (_percent(v / top) for v in (min(others), sum(others) / len(others), max(others)))
    return Mark(low, mean, high, beaten, len(others))


def claim_lines(equivalence: Mapping[str, Any]) -> list[ClaimLine]:
    """The three claims, and how often ONNX Runtime and torch name the same class."""
    top1 = number(mapping(equivalence.get("summary")).get("top1"))
    agreement = "" if top1 is None else f" Same top class on {100 * top1:.4g} % of the images, worst case."
    lines = [ClaimLine(*CLAIM_WORDS[claim], claim_error(equivalence, claim)) for claim in CLAIMS]
    return [*lines[:-1], replace(lines[-1], words=lines[-1].words + agreement)]


def measure_charts(
    measures: Mapping[str, Any], fallback: Mapping[str, float], layers: Sequence[LayerInfo]
) -> list[Chart]:
    """The measures of the split units' features, mean over all of them as in the atlas; of a measures.json that does
    not list single features the mean over its layers; without that file the catalogue's MS-Scores.
    """
    known = [mapping(layer) for layer in mapping(measures.get("layers")).values()]
    charts = []
    for measure, (title, words) in MEASURES.items():
        bars = []
        for kind, name in FAMILIES.items():
            means = [number(mapping(layer.get(kind)).get(f"{measure}_mean_of_split_units")) for layer in known]
            score = _mean([*of_split_units(measures, layers, kind, measure)] or means)
            if score is None and measure == "ms" and not known:
                score = fallback.get(kind)
            if score is not None:
                bars.append(Bar(kind, name, score))
        if bars:
            charts.append(Chart(title, words, tuple(bars)))
    return charts


def small(value: float | None) -> str:
    """A difference: ``0`` when exact, else in powers of ten a reader can compare."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}\u202f×\u202f10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def decimal(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _percent(value: float) -> float:
    return 100 * min(max(value, 0.0), 1.0)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
