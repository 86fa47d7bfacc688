"""Accuracy, calibration and balance against torchmetrics, hand-worked cases and their own definitions spelled out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import elude.exporter.models.torchvision_compat  # noqa: F401 - torchmetrics imports torchvision

# isort: split
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from elude.handlers.errors import EvaluationError
from elude.quality.dimensions.accuracy import accuracy
from elude.quality.dimensions.calibration_error import (
    adaptive_calibration_error,
    calibration_error,
    expected_calibration_error,
)
from elude.quality.dimensions.class_balance import class_balance
from elude.quality.dimensions.corruption_robustness import corruption_robustness
from elude.quality.dimensions.params_m import params_m
from elude.quality.statistics.intervals import (
    are_probabilities,
    geometric_mean,
    probabilities_of,
    softmax,
    wilson_interval,
)


def random_case(
    seed: int, images: int = 300, classes: int = 7, sharpness: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(images, classes)) * sharpness, rng.integers(classes, size=images)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sharpness", [0.01, 1.0, 30.0, 300.0])
def test_equals_torchmetrics(seed: int, sharpness: float) -> None:
    logits, labels = random_case(seed, sharpness=sharpness)
    probabilities = softmax(logits)
    theirs = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), 7, n_bins=15, norm="l1"
    )
    assert expected_calibration_error(probabilities, labels) == pytest.approx(float(theirs), abs=1e-6)
    top1 = multiclass_accuracy(torch.from_numpy(logits), torch.from_numpy(labels), 7, average="micro")
    assert accuracy(logits, labels).value == pytest.approx(float(top1), abs=1e-6)


def plain_ace(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """The definition, image by image."""
    images, classes = probabilities.shape
    total = 0.0
    for c in range(classes):
        ranked = sorted((float(p), float(y == c)) for p, y in zip(probabilities[:, c], labels, strict=True))
        for b in range(bins):
            part = ranked[b * images // bins : (b + 1) * images // bins]
            if part:
                gap = abs(sum(p for p, _ in part) / len(part) - sum(t for _, t in part) / len(part))
                total += gap * len(part) / images
    return total / classes


@pytest.mark.parametrize(("images", "classes"), [(300, 7), (31, 3), (10, 2), (1, 2)])
def test_ace_is_its_definition(images: int, classes: int) -> None:
    logits, labels = random_case(1, images, classes)
    probabilities = softmax(logits)
    assert adaptive_calibration_error(probabilities, labels) == pytest.approx(
        plain_ace(probabilities, labels), abs=1e-12
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(2, 6),
    st.sampled_from([0.0, 0.5, 5.0, 80.0]),
    st.booleans(),
)
def test_ranges_and_order_of_images(seed: int, images: int, classes: int, sharpness: float, ties: bool) -> None:
    logits, labels = random_case(seed, images, classes, sharpness)
    if ties:
        logits = np.round(logits)
    result = calibration_error(logits, labels, resamples=0)
    order = np.random.default_rng(seed).permutation(images)
    shuffled = calibration_error(logits[order], labels[order], resamples=0)
    assert 0 <= result.value <= 1
    assert result.value == pytest.approx(shuffled.value, abs=1e-9)
    assert result.factors["ace"] == pytest.approx(shuffled.factors["ace"], abs=1e-12)
    assert 0 <= accuracy(logits, labels).value <= 1
    if 1 < len(np.unique(labels)) <= images / 2:
        balance = class_balance(logits, labels, resamples=0)
        assert 0 <= balance.value <= 1
        assert balance.value == pytest.approx(class_balance(logits[order], labels[order], resamples=0).value, abs=1e-12)


def test_calibration_by_hand() -> None:
    # four images, top-1 confidence 0.75, three right: calibrated; all right: off by 0.25
    probabilities = np.tile([0.75, 0.25], (4, 1))
    assert expected_calibration_error(probabilities, np.array([0, 0, 0, 1])) == 0
    assert adaptive_calibration_error(probabilities, np.array([0, 0, 0, 1])) == pytest.approx(0)
    assert expected_calibration_error(probabilities, np.zeros(4, np.int64)) == 0.25
    assert adaptive_calibration_error(probabilities, np.zeros(4, np.int64)) == pytest.approx(0.25)
    result = calibration_error(probabilities, np.zeros(4, np.int64))
    assert result.value == pytest.approx(0.25)
    assert not result.higher_is_better


def test_class_balance_by_hand() -> None:
    # class 0: both right with confidences 1.0 and 0.6 (std 0.2); class 1: both wrong with 0.5-: (0.4, 0.4)
    probabilities = np.array([[1.0, 0.0], [0.6, 0.4], [0.6, 0.4], [0.6, 0.4]])
    result = class_balance(probabilities, np.array([0, 0, 1, 1]), ["a", "b"])
    accuracy_balance, confidence_balance = 1 - np.sqrt(0.5), 1 - 0.1  # std of (1, 0) with ddof 1; mean of (0.2, 0)
    assert result.factors["accuracy_balance"] == pytest.approx(accuracy_balance)
    assert result.factors["confidence_balance"] == pytest.approx(confidence_balance)
    assert result.value == pytest.approx(np.sqrt(accuracy_balance * confidence_balance))
    assert result.tables["accuracy"] == {"a": 1.0, "b": 0.0}


def test_probabilities_get_no_second_softmax() -> None:
    logits, labels = random_case(3, sharpness=4)
    probabilities = softmax(logits).astype(np.float32)
    assert are_probabilities(probabilities)
    assert not are_probabilities(logits)
    assert np.allclose(probabilities_of(probabilities), softmax(logits), atol=1e-6)
    for measure in (calibration_error, class_balance):
        right = measure(logits, labels, resamples=0).value
        assert measure(probabilities, labels, resamples=0).value == pytest.approx(right, abs=1e-5)
        twice = measure(np.log(softmax(probabilities)), labels, resamples=0).value
        assert abs(twice - right) > 0.05  # the fault would be seen


def test_factors_survive_a_zero() -> None:
    assert geometric_mean([0.0, 0.7]) == 0
    clean = np.array([True, True])
    result = corruption_robustness(clean, {("fog", 1): np.array([False, False]), ("snow", 1): clean}, resamples=0)
    assert result.tables["relative"] == {"fog": 0.0, "snow": 1.0}


def test_corruptions_count_equally() -> None:
    clean = np.array([True, True, True, False])
    off, half = np.zeros(4, bool), np.array([True, True, False, False])
    result = corruption_robustness(clean, {("fog", 1): off, ("snow", 1): half, ("snow", 2): clean}, resamples=200)
    assert result.value == pytest.approx((0 + (2 / 3 + 1) / 2) / 2)
    assert result.interval is not None
    assert result.interval[0] < result.value < result.interval[1]


def test_intervals_are_seeded() -> None:
    logits, labels = random_case(5)
    for measure in (calibration_error, class_balance):
        first = measure(logits, labels, resamples=50, seed=1)
        assert first == measure(logits, labels, resamples=50, seed=1)
        assert first.interval != measure(logits, labels, resamples=50, seed=2).interval


def test_wilson_is_not_empty_at_the_ends() -> None:
    low, high = wilson_interval(100, 100)
    assert 0.95 < low < 1
    assert high == 1.0


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        (np.full((3, 2), np.nan), np.zeros(3, np.int64)),
        (np.zeros((3, 1)), np.zeros(3, np.int64)),
        (np.zeros((3, 2)), np.array([0, 1, 2])),
        (np.zeros((3, 2)), np.array([0, 1])),
        (np.zeros((3, 2)), np.array([0.0, 1.0, 1.0])),
        (np.zeros((0, 2)), np.zeros(0, np.int64)),
    ],
)
def test_refuses_what_does_not_fit(outputs: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(EvaluationError):
        calibration_error(outputs, labels)


def test_refuses_one_class_and_no_right_answer() -> None:
    with pytest.raises(EvaluationError, match="one"):
        class_balance(np.zeros((3, 2)), np.zeros(3, np.int64))
    with pytest.raises(EvaluationError, match="no clean image"):
        corruption_robustness(np.zeros(3, bool), {("fog", 1): np.zeros(3, bool)})
    with pytest.raises(EvaluationError):
        params_m(0)


def test_intervals_cover_the_truth() -> None:
    """A perfectly calibrated, balanced model: the calibration interval reaches down to 0, although the estimate
    never does.
    """
    covered = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        probabilities = rng.dirichlet(np.full(5, 0.5), 500)
        labels = (rng.random(500)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1)
        result = calibration_error(probabilities, np.minimum(labels, 4), resamples=100, seed=seed)
        assert result.interval is not None
        covered += result.interval[0] == 0
        assert result.factors["noise_floor"] == pytest.approx(result.value, rel=0.6)
        assert result.value > 0.005
        overconfident = calibration_error(
            np.log(probabilities + 1e-9) * 3, np.minimum(labels, 4), resamples=100, seed=seed
        )
        assert overconfident.interval is not None
        assert overconfident.interval[0] > 0.02
    assert covered >= 18


def test_class_balance_needs_two_images_per_class() -> None:
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(30, 16))
    with pytest.raises(EvaluationError, match="fewer than 2"):
        class_balance(outputs, np.arange(30) % 16)
    assert 0 <= class_balance(outputs, np.arange(30) % 15).value <= 1
