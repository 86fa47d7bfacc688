"""A model's probabilities, recalibrated by the labels of few images: where the interval of its calibration error looks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from quality.dimensions.calibration_error import BINS, calibration_error
from quality.statistics.calibration_interval import Bins, sampler
from quality.statistics.recalibration import recalibrated
from quality.statistics.statistics import Floats, softmax


def bins_of(stated: Floats) -> Bins:
    top1 = np.digitize(stated.max(axis=1), np.linspace(0, 1, BINS + 1)) - 1
    return Bins.of(top1, np.argsort(stated, axis=0, kind="stable"), stated.argmax(axis=1), BINS)


def drawn(images: int, classes: int) -> tuple[Floats, NDArray[np.int64]]:
    """True probabilities, and labels by them."""
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.full(classes, 0.5), images) + 1e-9
    true /= true.sum(axis=1, keepdims=True)
    return true, sampler(true)(rng.random(images))


@pytest.mark.parametrize("sharper", [0.3, 1.0, 4.0])
def test_finds_a_temperature(sharper: float) -> None:
    true, labels = drawn(4000, 5)
    stated = softmax(np.log(true) * sharper)
    found = recalibrated(stated, labels, bins_of(stated).flat)
    # noise moves the sharpness alone: one power of what was stated
    told = (stated[:, :2] > 1e-9).all(axis=1)  # what is smaller counts as 1e-12
    powers = (np.log(found[:, 0] / found[:, 1]) / np.log(stated[:, 0] / stated[:, 1]))[told]
    assert np.ptp(powers) < 1e-6
    assert powers[0] * sharper == pytest.approx(1, abs=0.06)


def test_finds_what_only_some_bins_are_off_by() -> None:
    true, labels = drawn(20_000, 4)
    logits = np.log(true)
    logits[:, 2] += 1.0
    stated = softmax(logits)
    found = recalibrated(stated, labels, bins_of(stated).flat)
    assert np.abs(found - true).mean() < np.abs(stated - true).mean() / 3


def test_sums_over_bins_are_those_of_the_definition() -> None:
    true, labels = drawn(500, 5)
    bins = bins_of(true)
    assert float(bins.error(bins.sums(true) - bins.hits(labels))) == pytest.approx(calibration_error(true, labels, resamples=0).value)


def certain(wrong: int) -> tuple[Floats, NDArray[np.int64]]:
    """300 answers of probability 1, of which so many are wrong."""
    answers = np.arange(300) % 3
    return np.eye(3)[answers], np.where(np.arange(300) < wrong, (answers + 1) % 3, answers)


def test_probabilities_of_0_and_1() -> None:
    assert calibration_error(*certain(0), resamples=50).interval == (0, 0)
    for wrong in (30, 300):
        result = calibration_error(*certain(wrong), resamples=50)
        assert result.interval is not None
        assert 0 < result.interval[0] < result.value < result.interval[1]


def test_equal_probabilities_and_hardly_an_image() -> None:
    for images in (1, 2, 14, 200):
        result = calibration_error(np.full((images, 4), 0.25), np.zeros(images, np.int64), resamples=50)
        assert result.interval is not None
        assert 0 <= result.interval[0] <= result.interval[1] <= 1
