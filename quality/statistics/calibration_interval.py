"""Interval of the calibration error, by simulating models of known calibration (``quality/statistics/inversion.py``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quality.statistics.inversion import Family, invert
from quality.statistics.statistics import Floats

_MEMBERS = 21  # of the family of models that the interval tries
_FARTHEST = 3.0  # how miscalibrated the last of them is, in units of the measured gaps
_LEAST_KEPT = 0.1  # of a gap no larger than its noise
_BLOCKS = 100  # of images, whose differences stand for those between samples


@dataclass(frozen=True)
class Bins:
    """Which bin each probability falls into, and by how much the bins of each class are off.

    Attributes:
        count: of equal-mass bins, and of equal-width ones without the one for exactly 1.
        top1: int64 (N,), of the top-1 confidences.
        by_class: int64 (N, C), of each probability among those of its class.
        gaps: (C, count) mean of probability minus target.
        shrunk: the same with the gaps that are no larger than their own noise almost taken out.
    """

    count: int
    top1: NDArray[np.int64]
    by_class: NDArray[np.int64]
    gaps: Floats
    shrunk: Floats

    @classmethod
    def of(cls, top1: NDArray[np.int64], sorted_gaps: Floats, order: NDArray[np.int64], count: int) -> Bins:
        """From the gaps of each class by ascending probability (N, C), and that order (N, C)."""
        images, classes = sorted_gaps.shape
        of_rank = np.searchsorted(np.arange(count) * images // count, np.arange(images), side="right") - 1
        by_class = np.empty((images, classes), np.int64)
        np.put_along_axis(by_class, order, np.repeat(of_rank[:, None], classes, axis=1), axis=0)
        sizes = np.maximum(np.bincount(of_rank, minlength=count), 1)
        means = np.stack([np.bincount(of_rank, column, count) / sizes for column in sorted_gaps.T])
        squares = np.stack([np.bincount(of_rank, column**2, count) / sizes for column in sorted_gaps.T])
        noise = np.maximum(squares - means**2, 0) / sizes
        kept = np.maximum(1 - noise / np.maximum(means**2, 1e-12), _LEAST_KEPT)
        return cls(count, top1, by_class, means, means * kept)


def calibration_interval(probabilities: Floats, bins: Bins, value: float, resamples: int, seed: int) -> tuple[tuple[float, float], float]:
    """Interval from two families of models, and the mean measurement of a perfectly calibrated one.

    Small errors may be spread over all bins or sit in a few, and noise hides which: the same value leaves different traces. So one family
    moves along all measured gaps, the other along those that stand out of the noise. Each gets half of the ``resamples``.

    Gaps far above their noise show how they are spread: then the first family alone is right. The share of the value that noise does not
    explain says how far above it they are; by the rest the second family widens the interval. (Both to the full held the truth of an
    underconfident model in 97.8 % of repeats; the first alone that of a model which favours one class in 92.8 %. See
    ``docs/benchmarks/quality.md``.)
    """
    half = (resamples + 1) // 2
    spread = _along(bins.gaps, probabilities, bins, value, half, seed)
    few = _along(bins.shrunk, probabilities, bins, value, half, seed)
    noise = 1 - min(1.0, spread.estimate / value) if value else 1.0
    low = spread.low - noise * max(0.0, spread.low - few.low)
    high = spread.high + noise * max(0.0, few.high - spread.high)
    return (low, high), spread.floor


class _Along(NamedTuple):
    """Interval, corrected estimate, and the mean measurement of a perfectly calibrated model."""

    low: float
    high: float
    estimate: float
    floor: float


def _along(gaps: Floats, probabilities: Floats, bins: Bins, value: float, resamples: int, seed: int) -> _Along:
    """Interval by inversion, in one family.

    The family: labels are drawn from the model's own probabilities (no error), from probabilities that lie ``_FARTHEST`` times the
    measured gap of their bin away, or from mixtures of the two. Drawing labels from stated probabilities to see what noise alone gives
    is the consistency resampling of Bröcker & Smith (Weather and Forecasting 2007).
    """
    rng = np.random.default_rng(seed)
    images, classes = probabilities.shape
    top1_bins, class_bins = bins.top1, bins.by_class
    far = np.maximum(probabilities - _FARTHEST * np.take_along_axis(gaps, class_bins.T, axis=1).T, 0)
    far += 1e-12
    far /= far.sum(axis=1, keepdims=True)
    top1 = probabilities.argmax(axis=1)
    rows = np.arange(images)
    flat = class_bins + bins.count * np.arange(classes)

    def errors(targets_top1: NDArray[Any], targets: NDArray[Any]) -> float:
        """The value when bins hold these sums of targets: (bins.count + 1,) and (classes * bins.count,)."""
        ece = np.abs(confidence - targets_top1).sum() / images
        ace = np.abs(masses - targets).sum() / images / classes
        return float(np.sqrt(ece * ace))

    confidence = np.bincount(top1_bins, probabilities[rows, top1], bins.count + 1)
    masses = np.bincount(flat.ravel(), probabilities.ravel(), classes * bins.count)
    farthest = errors(np.bincount(top1_bins, far[rows, top1], bins.count + 1), np.bincount(flat.ravel(), far.ravel(), classes * bins.count))
    # the images are a sample too: what their gaps would sum to on other images, from the differences between blocks of them
    block = rng.permutation(images) % min(images, _BLOCKS)
    count = int(block.max()) + 1
    top1_gap = probabilities[rows, top1] - far[rows, top1]
    top1_blocks = np.bincount(block * (bins.count + 1) + top1_bins, top1_gap, count * (bins.count + 1)).reshape(count, -1)
    spread = (block[:, None] * classes * bins.count + flat).ravel()
    class_blocks = np.bincount(spread, (probabilities - far).ravel(), count * classes * bins.count).reshape(count, -1)
    shares = np.linspace(0, 1, _MEMBERS)
    draw_calibrated, draw_far = _sampler(probabilities), _sampler(far)
    simulated = np.empty((_MEMBERS, resamples))
    for b in range(resamples):
        calibrated, moved, mixing = draw_calibrated(rng), draw_far(rng), rng.random(images)
        change = rng.multinomial(count, np.full(count, 1 / count)) - 1
        top1_change, class_change = change @ top1_blocks, change @ class_blocks
        for m, share in enumerate(shares):
            drawn = np.where(mixing < share, moved, calibrated)
            hits = np.bincount(top1_bins[drawn == top1], minlength=bins.count + 1)
            found = np.bincount(flat[rows, drawn], minlength=classes * bins.count)
            simulated[m, b] = errors(hits - share * top1_change, found - share * class_change)
    family = Family(shares * farthest, simulated)
    estimates = family.corrected(simulated)
    estimate = float(family.corrected(value))
    low, high = invert(estimate, family.truths, estimates)
    return _Along(max(0.0, low), min(1.0, high), estimate, float(simulated[0].mean()))


def _sampler(probabilities: Floats) -> Callable[[np.random.Generator], NDArray[np.int64]]:
    """Draws one label an image: all rows' cumulative probabilities one after another are one ascending sequence to search."""
    images, classes = probabilities.shape
    offsets = np.arange(images)
    ends = probabilities.cumsum(axis=1)
    ends = (ends / ends[:, -1:] + offsets[:, None]).ravel()

    def draw(rng: np.random.Generator) -> NDArray[np.int64]:
        found = np.searchsorted(ends, offsets + rng.random(images), side="right") - offsets * classes
        return np.asarray(np.minimum(found, classes - 1))

    return draw
