"""Calibration error: the geometric mean of the expected (ECE) and the adaptive (ACE) calibration error.

ECE (Guo et al. 2017): top-1 confidences in 15 equal-width bins, the count-weighted mean of |mean
    confidence - accuracy|. As in
torchmetrics, bins are closed on the left, and confidences of exactly 1 have a bin of their own.
ACE (Nixon et al. 2019): per class, its probability over *all* images in 15 bins of equal mass,
    against whether the image is of that
class; the count-weighted l1 gap, averaged over the classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.dimensions.result import DimensionResult
from elude.quality.statistics.bootstrap import affordable, counts, standard_interval
from elude.quality.statistics.intervals import LEVEL, RESAMPLES, Floats, check_labels, geometric_mean, probabilities_of

BINS = 15
_CLASSES_AT_ONCE = 50
_FLOOR_DRAWS = 100  # of labels of a perfectly calibrated model


def expected_calibration_error(probabilities: Floats, labels: NDArray[np.int64], bins: int = BINS) -> float:
    """ECE of ``probabilities`` (N, C), in [0, 1]."""
    gaps, bin_of = _top1_gaps(probabilities, labels, bins)
    return float(np.abs(np.bincount(bin_of, weights=gaps)).sum() / len(labels))


def adaptive_calibration_error(probabilities: Floats, labels: NDArray[np.int64], bins: int = BINS) -> float:
    """ACE of ``probabilities`` (N, C), in [0, 1]. Does not depend on the order of the images, ties included."""
    classes = probabilities.shape[1]
    # a few classes at a time: sorting takes several copies of what is sorted
    blocks = (slice(first, first + _CLASSES_AT_ONCE) for first in range(0, classes, _CLASSES_AT_ONCE))
    sums = (_equal_mass(_sorted_gaps(probabilities[:, block], labels - block.start), bins) for block in blocks)
    return float(np.concatenate(list(sums)).mean())


def calibration_error(
    outputs: NDArray[Any], labels: NDArray[Any], *, resamples: int = RESAMPLES, seed: int = 0
) -> DimensionResult:
    """Calibration error with ``factors`` ece and ace.

    Args:
        outputs: (N, C) logits or probabilities; probabilities do not get a second softmax.
        labels: integer (N,).
        resamples: bootstrap resamples of the intervals, 0 for none; fewer are taken of very many images and classes.
        seed: of the resamples.

    Returns:
        value in [0, 1], with a standard bootstrap interval, as have ``ece`` and ``ace``. Finite samples bias both
        errors upwards: factor ``noise_floor`` is what a perfectly calibrated model with these probabilities would
        measure on as many images, on average. The interval reaches down to 0 where such a model could have measured
        as much as this one.

    Raises:
        EvaluationError: for outputs or labels that do not fit.
    """
    probabilities = probabilities_of(outputs)
    labels = check_labels(labels, *probabilities.shape)
    ece = expected_calibration_error(probabilities, labels)
    ace = adaptive_calibration_error(probabilities, labels)
    value = geometric_mean([ece, ace])
    factors = {"ece": ece, "ace": ace}
    interval, factor_intervals = None, {}
    if resamples:
        rng = np.random.default_rng(seed)
        gaps, draws = _Gaps.of(probabilities), affordable(resamples, probabilities.size)
        drawn = np.array([gaps.errors(labels, counts(rng, len(labels))) for _ in range(draws)])
        floor = np.sqrt([np.prod(gaps.errors(draw)) for draw in _calibrated(probabilities, rng)])
        factors["noise_floor"] = float(floor.mean())
        interval = standard_interval(value, np.sqrt(drawn.prod(axis=1)))
        if value <= np.quantile(floor, (1 + LEVEL) / 2):
            interval = (0.0, interval[1])
        factor_intervals = {
            name: standard_interval(factors[name], column) for name, column in zip(("ece", "ace"), drawn.T, strict=True)
        }
    return DimensionResult(
        value,
        HIGHER_IS_BETTER["calibration_error"],
        len(labels),
        interval,
        factors,
        {"reliability": _reliability(probabilities, labels)},
        factor_intervals=factor_intervals,
    )


@dataclass(frozen=True)
class _Gaps:
    """Probability minus target, of the top-1 class and of each class, and the bins they fall into.

    Bins are those of the sample itself, also for resamples of it: they depend on the probabilities alone.

    Attributes:
        probabilities: (N, C).
        top1_bins, class_bins: int64 (N,) and int8 (N, C).
    """

    probabilities: Floats
    top1_bins: NDArray[np.int64]
    class_bins: NDArray[np.int8]

    @classmethod
    def of(cls, probabilities: Floats) -> _Gaps:
        images, classes = probabilities.shape
        of_rank = np.searchsorted(np.arange(BINS) * images // BINS, np.arange(images), side="right") - 1
        class_bins = np.empty((images, classes), np.int8)
        for c in range(classes):  # one at a time: sorting all takes several copies of them
            class_bins[np.argsort(probabilities[:, c], kind="stable"), c] = of_rank
        return cls(probabilities, _equal_width(probabilities.max(axis=1), BINS), class_bins)

    def errors(self, labels: NDArray[np.int64], weights: Floats | float = 1.0) -> tuple[float, float]:
        """ECE and ACE with these labels (N,), each image counted ``weights`` (N,) times."""
        images, classes = self.probabilities.shape
        top1 = self.probabilities.max(axis=1) - (self.probabilities.argmax(axis=1) == labels)
        ece = np.abs(np.bincount(self.top1_bins, top1 * weights)).sum() / images
        by_class = 0.0
        for c in range(classes):
            gaps = (self.probabilities[:, c] - (labels == c)) * weights
            by_class += float(np.abs(np.bincount(self.class_bins[:, c], gaps)).sum())
        return float(ece), by_class / (images * classes)


def _calibrated(probabilities: Floats, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Labels (N,) that a perfectly calibrated model with these probabilities would meet, drawn again and again."""
    ends = probabilities.cumsum(axis=1)
    for _ in range(_FLOOR_DRAWS):
        labels = (rng.random(len(ends))[:, None] * ends[:, -1:] > ends).sum(axis=1)
        yield np.minimum(labels, ends.shape[1] - 1)


def _equal_width(confidences: Floats, bins: int) -> NDArray[np.int64]:
    """Bins of the top-1 confidences (N,): closed on the left, and one after the last for exactly 1."""
    return np.digitize(confidences, np.linspace(0, 1, bins + 1)) - 1


def _top1_gaps(probabilities: Floats, labels: NDArray[np.int64], bins: int) -> tuple[Floats, NDArray[np.int64]]:
    """Confidence minus correctness of each image (N,), and its bin (N,)."""
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    return confidence - hits, _equal_width(confidence, bins)


def _sorted_gaps(probabilities: Floats, labels: NDArray[np.int64]) -> Floats:
    """Per class, images by ascending probability: probability minus target (N, C); other labels are of no class here.

    Images with equal probability share their mean target, so that which of them falls into which
    bin makes no difference.
    """
    order = np.argsort(probabilities, axis=0, kind="stable")
    ascending = np.take_along_axis(probabilities, order, axis=0)
    targets = (labels[order] == np.arange(probabilities.shape[1])).astype(np.float64)
    for c in range(targets.shape[1]):
        starts = np.flatnonzero(np.diff(ascending[:, c], prepend=-1.0))
        if len(starts) < len(labels):
            sizes = np.diff(starts, append=len(labels))
            targets[:, c] = np.repeat(np.add.reduceat(targets[:, c], starts) / sizes, sizes)
    return np.asarray(ascending - targets)


def _equal_mass(gaps: Floats, bins: int) -> Floats:
    """(C,): the count-weighted l1 gap over ``bins`` bins of equal mass, of sorted ``gaps`` (N, C)."""
    images = len(gaps)
    starts = np.unique(np.arange(bins) * images // bins)
    return np.asarray(np.abs(np.add.reduceat(gaps, starts, axis=0)).sum(axis=0) / images)


def _reliability(probabilities: Floats, labels: NDArray[np.int64]) -> dict[str, float | None]:
    """Accuracy of the images in each confidence bin, None for an empty bin: the points of a reliability diagram."""
    gaps, bin_of = _top1_gaps(probabilities, labels, BINS)
    hits = probabilities.max(axis=1) - gaps
    table: dict[str, float | None] = {}
    for b in range(BINS):
        inside = np.minimum(bin_of, BINS - 1) == b
        table[f"{b / BINS:.3f}-{(b + 1) / BINS:.3f}"] = float(hits[inside].mean()) if inside.any() else None
    return table
