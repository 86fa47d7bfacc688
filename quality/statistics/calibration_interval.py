"""Interval of the calibration error, by simulating models of known calibration (``quality/statistics/inversion.py``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quality.statistics.inversion import Family, invert
from quality.statistics.recalibration import recalibrated
from quality.statistics.statistics import Floats

_MEMBERS = 25  # of the family of models that the interval tries
_FARTHEST = 3.0  # how miscalibrated the last of them is, in units of what was measured
_BELOW = 1e-3  # of what a measurement lacks to the noise floor: orders the estimates of no error


@dataclass(frozen=True)
class Bins:
    """Which bins the probabilities of (N, C) outputs fall into.

    Sums over bins are vectors: first those of the top-1 confidences (count + 1,), then those of each class (C * count,).

    Attributes:
        count: of equal-mass bins, and of equal-width ones without the one for exactly 1.
        top1: int64 (N,), of the top-1 confidences.
        flat: int64 (N, C), of each probability among those of its class, numbered over all classes.
        answers: int64 (N,), the top-1 classes.
    """

    count: int
    top1: NDArray[np.int64]
    flat: NDArray[np.int64]
    answers: NDArray[np.int64]

    @classmethod
    def of(cls, top1: NDArray[np.int64], order: NDArray[np.int64], answers: NDArray[np.int64], count: int) -> Bins:
        """From the order (N, C) of each class by ascending probability."""
        images, classes = order.shape
        of_rank = np.searchsorted(np.arange(count) * images // count, np.arange(images), side="right") - 1
        flat = np.empty((images, classes), np.int64)
        np.put_along_axis(flat, order, of_rank[:, None] + count * np.arange(classes), axis=0)
        return cls(count, top1, flat, answers)

    def sums(self, values: Floats) -> Floats:
        """Of values (N, C)."""
        images, classes = values.shape
        top1 = np.bincount(self.top1, values[np.arange(images), self.answers], self.count + 1)
        return np.concatenate([top1, np.bincount(self.flat.ravel(), values.ravel(), classes * self.count)])

    def hits(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sums of the targets, if these are the labels (N,)."""
        images, classes = self.flat.shape
        top1 = np.bincount(self.top1[labels == self.answers], minlength=self.count + 1)
        return np.concatenate([top1, np.bincount(self.flat[np.arange(images), labels], minlength=classes * self.count)])

    def error(self, gaps: Floats) -> Floats:
        """sqrt(ECE · ACE) of sums of gaps (..., bins)."""
        images, classes = self.flat.shape
        absolute = np.abs(gaps)
        top1, by_class = absolute[..., : self.count + 1].sum(axis=-1), absolute[..., self.count + 1 :].sum(axis=-1)
        return np.asarray(np.sqrt(top1 * by_class / classes) / images)


def calibration_interval(
    probabilities: Floats, labels: NDArray[np.int64], bins: Bins, value: float, resamples: int, seed: int
) -> tuple[tuple[float, float], float]:
    """Interval by inversion, and the mean measurement of a perfectly calibrated model.

    The family: models whose bins are off by a multiple of what recalibration finds, from 0 (none) on. So the direction comes from few
    parameters (``quality/statistics/recalibration.py``): the measured gaps themselves hold the noise, and models along these measure
    less, or scatter less, than the one at hand. The noise of a member is that of labels drawn from the stated probabilities (the
    consistency resampling of Bröcker & Smith, Weather and Forecasting 2007) or from the recalibrated ones, and in between a mixture
    that has their variances in its proportions. The recalibrated ones are those after one more image, of any class: where all answers
    are right, not all need be.

    A member's gaps are as large as its truth says in the mean of many samples of images: in one sample ECE's differ by one factor, and
    ACE's by another.

    Gaps are moved as sums over bins, not as probabilities, which would have to be cut off at 0 and 1. An error is proportional to them.
    """
    rng = np.random.default_rng(seed)
    images = len(probabilities)
    better = recalibrated(probabilities, labels, bins.flat)
    stated_sums = bins.sums(probabilities)
    gaps = stated_sums - bins.sums(better)
    changes = 1 + rng.multivariate_normal(np.zeros(2), relative_spread(probabilities - better, gaps, bins), resamples)
    changes = np.repeat(changes, [bins.count + 1, len(gaps) - bins.count - 1], axis=1)
    unit = float(bins.error(gaps))
    if unit <= np.finfo(float).eps:  # there is nothing to recalibrate by, as where all probabilities are equal
        gaps = stated_sums - bins.hits(labels)
        unit = max(float(bins.error(gaps)), np.finfo(float).tiny)
    noise_size = float(bins.error(np.sqrt(bins.sums(probabilities * (1 - probabilities)))))
    likely = (images * better + 1 / probabilities.shape[1]) / (images + 1)
    likely_sums = bins.sums(likely)
    truths = np.linspace(0, _FARTHEST * max(value, noise_size), _MEMBERS)
    multiples = (truths / unit)[:, None]
    mixture = np.minimum(multiples, 1)
    draw_stated, draw_likely = sampler(probabilities), sampler(likely)
    simulated = np.empty((_MEMBERS, resamples))
    for b in range(resamples):
        noise = stated_sums - bins.hits(draw_stated(rng.random(images)))
        likely_noise = likely_sums - bins.hits(draw_likely(rng.random(images)))
        simulated[:, b] = bins.error(multiples * gaps * changes[b] + np.sqrt(1 - mixture) * noise + np.sqrt(mixture) * likely_noise)
    family = Family(truths, simulated).finer()
    low, high = invert(float(estimates_of(family, value)), family.truths, estimates_of(family, family.simulated))
    return (max(0.0, low), min(1.0, max(0.0, high))), float(simulated[0].mean())


def estimates_of(family: Family, measured: Floats | float) -> Floats:
    """Corrected estimates, and a little below 0 the more a measurement falls short of the noise floor.

    Many would be 0 otherwise. In truths as far from 0 as the interval reaches, all of them or none would be unusual.
    """
    return np.asarray(family.corrected(measured) - _BELOW * np.maximum(family.simulated[0].mean() - measured, 0))


def relative_spread(differences: Floats, gaps: Floats, bins: Bins) -> Floats:
    """Covariance (2, 2) of ECE's and ACE's relative differences between samples of images, were their labels without noise.

    By what each image adds to the sums of absolute ``gaps``, those of ``differences`` (N, C) over bins. Where a gap keeps its sign across
    an edge of its bin, it does not matter that in another sample the edge lies elsewhere.
    """
    of_top1, of_classes = np.split(np.sign(gaps), [bins.count + 1])
    top1 = differences[np.arange(len(differences)), bins.answers] * of_top1[bins.top1]
    by_class = (differences * of_classes[bins.flat]).sum(axis=1)
    added = np.stack([top1, by_class])
    totals = added.sum(axis=1)
    added -= added.mean(axis=1, keepdims=True)
    return np.asarray(added @ added.T / np.maximum(np.outer(totals, totals), np.finfo(float).eps))


def sampler(probabilities: Floats) -> Callable[[Floats], NDArray[np.int64]]:
    """The label of each image at a place (N,) in [0, 1): all rows' cumulative probabilities are one ascending sequence to search."""
    images, classes = probabilities.shape
    offsets = np.arange(images)
    ends = probabilities.cumsum(axis=1)
    ends = (ends / ends[:, -1:] + offsets[:, None]).ravel()

    def draw(places: Floats) -> NDArray[np.int64]:
        found = np.searchsorted(ends, offsets + places, side="right") - offsets * classes
        return np.asarray(np.minimum(found, classes - 1))

    return draw
