"""How much the gaps of a miscalibrated model differ between samples of images, against many fresh samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from elude.quality.dimensions.calibration_error import BINS, calibration_error
from elude.quality.statistics import calibration_interval
from elude.quality.statistics.calibration_bins import Bins
from elude.quality.statistics.calibration_interval import relative_spread
from elude.quality.statistics.intervals import Floats, softmax

IMAGES, CLASSES = 600, 6


def too_flat(true: Floats) -> Floats:
    return softmax(np.log(true) * 0.6)


def off_by_halves(true: Floats) -> Floats:
    # states too much where a class is likely, and too little elsewhere: the gaps of a class change sign at a jump
    return softmax(np.log(true) + np.where(true > 0.3, 0.8, -0.3))


def drawn(rng: np.random.Generator, images: int, classes: int, concentration: float) -> Floats:
    """True probabilities (images, classes)."""
    true = rng.dirichlet(np.full(classes, concentration), images) + 1e-9
    return true / true.sum(axis=1, keepdims=True)


def fresh(seed: int, stated_of: Callable[[Floats], Floats]) -> tuple[Floats, Bins]:
    """Differences of stated from true probabilities on a sample of images, and its bins."""
    true = drawn(np.random.default_rng([1, seed]), IMAGES, CLASSES, 0.4)
    stated = stated_of(true)
    return stated - true, Bins.of(stated, BINS)


def totals(differences: Floats, bins: Bins) -> tuple[float, float]:
    gaps = np.abs(bins.sums(differences))
    return gaps[: BINS + 1].sum(), gaps[BINS + 1 :].sum()


def spread_of(differences: Floats, bins: Bins) -> Floats:
    return relative_spread(differences, bins.sums(differences), bins)


@pytest.mark.parametrize("stated_of", [too_flat, off_by_halves])
def test_spread_is_that_of_fresh_samples(stated_of: Callable[[Floats], Floats]) -> None:
    seen = np.array([totals(*fresh(seed, stated_of)) for seed in range(800)])
    expected = np.cov(seen.T / seen.mean(axis=0)[:, None])
    spread = np.mean([spread_of(*fresh(seed, stated_of)) for seed in range(20)], axis=0)
    assert np.sqrt(np.diag(spread)) == pytest.approx(np.sqrt(np.diag(expected)), rel=0.1)
    assert spread[0, 1] == pytest.approx(expected[0, 1], abs=0.1 * np.sqrt(expected[0, 0] * expected[1, 1]))
    assert expected[0, 1] > 0.5 * np.sqrt(
        expected[0, 0] * expected[1, 1]
    )  # so changes drawn apart would fail the check above


def test_twice_as_many_images_halve_it() -> None:
    differences, bins = fresh(0, too_flat)
    twice = np.repeat(differences, 2, axis=0)
    doubled = Bins(bins.count, *(np.repeat(part, 2, axis=0) for part in (bins.top1, bins.flat, bins.answers)))
    assert spread_of(twice, doubled) == pytest.approx(spread_of(differences, bins) / 2)


def test_no_gaps_have_no_spread() -> None:
    differences, bins = fresh(0, too_flat)
    assert not spread_of(0 * differences, bins).any()


def test_interval_holds_those_of_all_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    true = drawn(rng, IMAGES, CLASSES, 0.4)
    labels = calibration_interval.sampler(true)(rng.random(IMAGES))
    stated = too_flat(true)
    other = stated.copy()  # the error lies in one class, not in all of them
    other[:, 0] *= 0.5
    other /= other.sum(axis=1, keepdims=True)

    def along(*guesses: Floats) -> tuple[float, float]:
        monkeypatch.setattr(calibration_interval, "recalibrations", lambda *_: list(guesses))
        interval = calibration_error(stated, labels, resamples=200).interval
        assert interval is not None
        return interval

    first, second = along(true), along(other)
    assert first != second
    assert along(true, other) == (min(first[0], second[0]), max(first[1], second[1]))


def test_family_measures_what_such_models_do() -> None:
    """Interpolated between its members as at one simulated there: where bins expect one label of their class, noise
    is far from normal.
    """
    rng = np.random.default_rng(4)
    better = drawn(rng, 1000, 100, 0.3)
    stated = softmax(np.log(better) * 1.6)
    bins = Bins.of(stated, BINS)
    labels = calibration_interval.sampler(better)(rng.random(1000))
    gaps = bins.sums(stated - better)
    unit = float(bins.error(gaps))
    family = calibration_interval.family_along(better, stated, labels, bins, 3.4 * unit, 1000, rng).finer()
    assert np.isclose(
        family.truths, unit, rtol=1e-12, atol=0
    ).any()  # no interpolation over the kink at the recalibrated model
    spread = 1 + rng.multivariate_normal(np.zeros(2), relative_spread(stated - better, gaps, bins), 1000)
    factors = np.repeat(spread, [BINS + 1, 100 * BINS], axis=1)
    for multiple in (0.0, 0.3, 0.7, 0.97, 1.0):
        law = multiple * better + (1 - multiple) * stated
        draw, sums = calibration_interval.sampler(law), bins.sums(law)
        exact = np.array(
            [float(bins.error(multiple * gaps * f + sums - bins.hits(draw(rng.random(1000))))) for f in factors]
        )
        at = np.abs(family.truths - multiple * unit).argmin()
        assert family.truths[at] == pytest.approx(multiple * unit, abs=0.01 * unit)
        shift = (multiple * unit - family.truths[at]) / unit * (family.simulated[-1].mean() / family.truths[-1] * unit)
        assert abs(family.simulated[at].mean() + shift - exact.mean()) < 0.2 * exact.std()
        assert family.simulated[at].std() == pytest.approx(exact.std(), rel=0.1)
