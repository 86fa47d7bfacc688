"""Interval of the calibration error, by simulating models of known calibration
(``quality/statistics/inversion.py``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from elude.quality.statistics.calibration_bins import Bins
from elude.quality.statistics.intervals import Floats
from elude.quality.statistics.inversion import Family, invert
from elude.quality.statistics.recalibration import recalibrations

_MEMBERS = 25  # of the family of models that the interval tries
_FARTHEST = 3.0  # how miscalibrated the last of them is, in units of what was measured
_BELOW = 1e-3  # of what a measurement lacks to the noise floor: orders the estimates of no error


def calibration_interval(
    probabilities: Floats, labels: NDArray[np.int64], bins: Bins, value: float, resamples: int, seed: int
) -> tuple[tuple[float, float], float]:
    """Interval by inversion, and the mean measurement of a perfectly calibrated model.

    The family: models whose bins are off by a multiple of what recalibration finds, from 0 (none)
        on. So the direction comes from few
    parameters (``quality/statistics/recalibration.py``): the measured gaps themselves hold the
        noise, and models along these measure
    less, or scatter less, than the one at hand. Where the labels leave open in which direction the
    model is off, the interval holds those of all that are plausible (Berger & Boos, JASA 1994).
    """
    noise_size = float(bins.error(np.sqrt(bins.sums(probabilities * (1 - probabilities)))))
    farthest = _FARTHEST * max(value, noise_size)
    ends: list[float] = []
    for better in recalibrations(probabilities, labels, bins.flat):
        family = family_along(
            better, probabilities, labels, bins, farthest, resamples, np.random.default_rng(seed)
        ).finer()
        ends += invert(float(estimates_of(family, value)), family.truths, estimates_of(family, family.simulated))
    return (max(0.0, min(ends)), min(1.0, max(0.0, *ends))), float(family.simulated[0].mean())


def family_along(
    better: Floats,
    probabilities: Floats,
    labels: NDArray[np.int64],
    bins: Bins,
    farthest: float,
    resamples: int,
    rng: np.random.Generator,
) -> Family:
    """Models that are off in the direction from ``better`` (N, C) to ``probabilities``, up to a truth of ``farthest``.

    One of them is the model at hand, if ``better`` is right.

    The noise of a member is that of labels drawn from the stated probabilities (the consistency
    resampling of Bröcker & Smith, Weather and Forecasting 2007), from the recalibrated ones, or, in
    between, for each image from either in the member's proportion. The recalibrated ones are those
    after one more image, of any class: where all answers are right, not all need be.

    A member's gaps are as large as its truth says in the mean of many samples of images: in one
    sample ECE's differ by one factor, and ACE's by another.

    Gaps are moved as sums over bins, not as probabilities, which would have to be cut off at 0 and
    1. An error is proportional to them.
    """
    images, classes = len(probabilities), probabilities.shape[1]
    stated_sums = bins.sums(probabilities)
    gaps = stated_sums - bins.sums(better)
    changes = 1 + rng.multivariate_normal(np.zeros(2), relative_spread(probabilities - better, gaps, bins), resamples)
    changes = np.repeat(changes, [bins.count + 1, len(gaps) - bins.count - 1], axis=1)
    unit = float(bins.error(gaps))
    if unit <= np.finfo(float).eps:  # there is nothing to recalibrate by, as where all probabilities are equal
        gaps = stated_sums - bins.hits(labels)
        unit = max(float(bins.error(gaps)), np.finfo(float).tiny)
    likely = (images * better + 1 / classes) / (images + 1)
    # one more member at the unit, where what is measured has a kink: beyond it no noise is mixed
    truths = np.sort(np.append(np.linspace(0, farthest, _MEMBERS), min(unit, farthest)))
    multiples = (truths / unit)[:, None]
    mixture = np.minimum(multiples, 1)
    expected = (1 - mixture) * stated_sums + mixture * bins.sums(likely)
    draw_stated, draw_likely = sampler(probabilities), sampler(likely)
    simulated = np.empty((len(truths), resamples))
    for b in range(resamples):
        places = rng.random(images)
        member = np.searchsorted(mixture[:, 0], rng.random(images), side="right")
        hits = bins.hits_of_members(draw_stated(places), draw_likely(places), member, len(truths))
        simulated[:, b] = bins.error(multiples * gaps * changes[b] + expected - hits)
    return Family(truths, simulated)


def estimates_of(family: Family, measured: Floats | float) -> Floats:
    """Corrected estimates, and a little below 0 the more a measurement falls short of the noise floor.

    Many would be 0 otherwise. In truths as far from 0 as the interval reaches, all of them or none would be unusual.
    """
    return np.asarray(family.corrected(measured) - _BELOW * np.maximum(family.simulated[0].mean() - measured, 0))


def relative_spread(differences: Floats, gaps: Floats, bins: Bins) -> Floats:
    """Covariance (2, 2) of ECE's and ACE's relative differences between samples of images, were their labels without
    noise.

    By what each image adds to the sums of absolute ``gaps``, those of ``differences`` (N, C) over
    bins. Where a gap keeps its sign across an edge of its bin, it does not matter that in another
    sample the edge lies elsewhere.
    """
    of_top1, of_classes = np.split(np.sign(gaps), [bins.count + 1])
    top1 = differences[np.arange(len(differences)), bins.answers] * of_top1[bins.top1]
    by_class = (differences * of_classes[bins.flat]).sum(axis=1)
    added = np.stack([top1, by_class])
    totals = added.sum(axis=1, keepdims=True)
    relative = (added - added.mean(axis=1, keepdims=True)) / np.maximum(totals, len(differences) * np.finfo(float).eps)
    return np.asarray(relative @ relative.T)


def sampler(probabilities: Floats) -> Callable[[Floats], NDArray[np.int64]]:
    """The label of each image at a place (N,) in [0, 1): all rows' cumulative probabilities are one ascending
    sequence to search.
    """
    images, classes = probabilities.shape
    offsets = np.arange(images)
    ends = probabilities.cumsum(axis=1)
    ends = (ends / ends[:, -1:] + offsets[:, None]).ravel()

    def draw(places: Floats) -> NDArray[np.int64]:
        found = np.searchsorted(ends, offsets + places, side="right") - offsets * classes
        return np.asarray(np.minimum(found, classes - 1))

    return draw
