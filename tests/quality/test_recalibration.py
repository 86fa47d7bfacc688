"""A model's probabilities, recalibrated by the labels of few images: where the interval of its calibration error
looks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from elude.quality.dimensions.calibration_error import BINS, calibration_error
from elude.quality.statistics.calibration_bins import Bins
from elude.quality.statistics.calibration_interval import sampler
from elude.quality.statistics.intervals import Floats, softmax
from elude.quality.statistics.recalibration import recalibrations
from elude.quality.statistics.recalibration_forms import Form, even_share, some_shifts, temperature, top_answer

Ints = NDArray[np.int64]


def bins_of(stated: Floats) -> Bins:
    return Bins.of(stated, BINS)


def drawn(images: int, classes: int, seed: int = 0) -> tuple[Floats, Ints]:
    """True probabilities, and labels by them."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet(np.full(classes, 0.5), images) + 1e-9
    true /= true.sum(axis=1, keepdims=True)
    return true, sampler(true)(rng.random(images))


def log_likelihood(probabilities: Floats, labels: Ints) -> float:
    return float(np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).sum())


@pytest.mark.parametrize("fit", [temperature, even_share, top_answer])
@pytest.mark.parametrize("sharper", [0.5, 1.0, 2.0])
def test_gain_is_that_of_the_new_probabilities(fit: Callable[[Floats, Ints], Form], sharper: float) -> None:
    true, labels = drawn(800, 4)
    stated = softmax(np.log(true) * sharper)
    form = fit(stated, labels)
    made = form.probabilities()
    assert made.min() >= 0
    assert made.sum(axis=1) == pytest.approx(np.ones(800))
    assert form.gain == pytest.approx(log_likelihood(made, labels) - log_likelihood(stated, labels), abs=1e-4)
    assert form.gain > -1e-9


@pytest.mark.parametrize("sharper", [0.3, 1.0, 4.0])
def test_temperature_is_the_likeliest(sharper: float) -> None:
    true, labels = drawn(4000, 5)
    logits = np.log(true) * sharper
    stated = softmax(logits)
    logs = np.log(np.maximum(stated, 1e-12))
    theirs = minimize_scalar(
        lambda power: -log_likelihood(softmax(logs * power), labels), bounds=(0.05, 20), method="bounded"
    )
    assert temperature(stated, labels).probabilities() == pytest.approx(softmax(logs * theirs.x), abs=1e-3)
    assert theirs.x * sharper == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_even_share_is_taken_back(share: float) -> None:
    true, labels = drawn(4000, 5)
    stated = (1 - share) * true + share / 5
    found = even_share(stated, labels).probabilities()
    assert np.abs(found - true).max() < 0.02 + share / 10
    trials = [log_likelihood(np.maximum(stated + e * (0.2 - stated), 0), labels) for e in np.linspace(-1, 1, 401)]
    assert log_likelihood(found, labels) >= max(trials) - 1e-3


def test_even_share_of_an_overconfident_model() -> None:
    true, labels = drawn(4000, 5)
    stated = (true - 0.3 * true.min() / 5) / (1 - 0.3 * true.min())
    assert np.abs(even_share(stated, labels).probabilities() - true).max() < 0.03


def test_top_answer_is_platts_scaling() -> None:
    stated, labels = drawn(2000, 5)
    rows, answers = np.arange(2000), stated.argmax(axis=1)
    labels = np.where(np.random.default_rng(1).random(2000) < 0.7, answers, labels)
    top = stated[rows, answers]
    odds = np.log(top / (1 - top))[:, None]
    theirs = LogisticRegression(C=1e9, tol=1e-8).fit(odds, labels == answers).predict_proba(odds)[:, 1]
    found = top_answer(stated, labels).probabilities()
    assert found[rows, answers] == pytest.approx(theirs, abs=1e-3)
    others = np.arange(5) != answers[:, None]
    assert found[others].reshape(-1, 4) / (1 - found[rows, answers])[:, None] == pytest.approx(
        stated[others].reshape(-1, 4) / (1 - top)[:, None], abs=1e-6
    )


def test_some_shifts_by_numerical_integration() -> None:
    true, labels = drawn(600, 6)
    stated = softmax(np.log(true) + 0.8 * (np.arange(6) == 2))
    form = some_shifts(stated, labels, np.broadcast_to(np.arange(6), stated.shape))
    variance, excess = (stated * (1 - stated)).sum(axis=0), np.bincount(labels, minlength=6) - stated.sum(axis=0)

    def gain(share: float, size: float) -> float:
        total = 0.0
        for v, g in zip(variance, excess, strict=True):
            shifted = quad(
                lambda s, v=v, g=g: norm.pdf(g, s * v, np.sqrt(v)) * norm.pdf(s, 0, size), -6, 6, points=[g / v]
            )[0]
            total += np.log(share * shifted / norm.pdf(g, 0, np.sqrt(v)) + 1 - share)
        return total

    best = max(
        gain(share, size)
        for share in (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
        for size in np.geomspace(0.1, 2, 13)
    )
    assert form.gain == pytest.approx(best, abs=1e-6)
    moved = np.log(form.probabilities() / stated)
    assert (moved[:, 2:3] - moved[:, [0, 1, 3, 4, 5]]).mean() == pytest.approx(-0.8, abs=0.2)
    assert np.ptp(moved[:, [0, 1, 3, 4, 5]], axis=1).max() < 0.2


def test_shifts_that_double_each_other() -> None:
    """Of two classes each shift moves both: together they go half as far."""
    true, labels = drawn(5000, 2)
    stated = softmax(np.log(true) + np.array([1.0, 0]))
    form = some_shifts(stated, labels, np.broadcast_to(np.arange(2), stated.shape))
    assert np.abs(form.probabilities() - true).max() < 0.03
    assert form.gain <= log_likelihood(form.probabilities(), labels) - log_likelihood(stated, labels) + 1e-6


def test_groups_of_few_labels_are_left() -> None:
    stated = np.full((6, 3), 1 / 3)
    form = some_shifts(stated, np.zeros(6, np.int64), np.broadcast_to(np.arange(3), stated.shape))
    assert form.gain == 0
    assert form.probabilities() == pytest.approx(stated)


def test_takes_the_form_that_the_labels_speak_for() -> None:
    true, labels = drawn(20_000, 4)
    rows, answers = np.arange(20_000), true.argmax(axis=1)
    patched = softmax(
        np.log(true) + np.where(bins_of(true).flat == BINS + 11, -1.5, 0.0)
    )  # one bin of the second class
    of_patched = sampler(patched)(np.random.default_rng(2).random(20_000))
    seven = np.random.default_rng(1).random(20_000) < 0.7
    other = np.where(labels == answers, (answers + 1) % 4, labels)
    for stated, truly, seen in (
        (softmax(np.log(true) * 2), true, labels),
        (0.9 * true + 0.1 / 4, true, labels),
        (softmax(np.log(true) + np.array([0, 0, 1.0, 0])), true, labels),
        (true, patched, of_patched),
        (true, None, np.where(seven, answers, other)),
    ):
        found, *others = recalibrations(stated, seen, bins_of(stated).flat)
        assert len(others) <= 2
        if truly is None:
            assert np.abs(found[rows, answers] - 0.7).mean() < 0.02
        else:
            assert np.abs(found - truly).mean() < np.abs(stated - truly).mean() / 3


def by_trying_all(stated: Floats, labels: Ints) -> dict[frozenset[str], tuple[float, Floats]]:
    """Worth and probabilities of every set of forms within Occam's window, from all orders in which each form is
    worth something.
    """
    flat, classes = bins_of(stated).flat, np.broadcast_to(np.arange(stated.shape[1]), stated.shape)
    fits = {
        "temperature": (1, lambda p: temperature(p, labels)),
        "even": (1, lambda p: even_share(p, labels)),
        "top": (2, lambda p: top_answer(p, labels)),
        "classes": (2, lambda p: some_shifts(p, labels, classes)),
        "bins": (2, lambda p: some_shifts(p, labels, flat)),
    }
    found: dict[frozenset[str], tuple[float, Floats]] = {}

    def go(forms: frozenset[str], worth: float, probabilities: Floats) -> None:
        if forms and worth > found.get(forms, (0.0,))[0]:
            found[forms] = worth, probabilities
        for name, (parameters, fit) in fits.items():
            if name not in forms:
                form = fit(probabilities)
                gain = form.gain - parameters * np.log(len(labels)) / 2
                if gain > 0:
                    go(forms | {name}, worth + gain, form.probabilities())

    go(frozenset(), 0.0, stated)
    best = max((worth for worth, _ in found.values()), default=0.0)
    return {forms: guess for forms, guess in found.items() if np.exp(guess[0] - best) >= 1 / 20}


@pytest.mark.parametrize("images", [150, 400, 3000])
@pytest.mark.parametrize(
    "other", [lambda p: softmax(np.log(p) * 1.4), lambda p: softmax(np.log(p) + np.array([0.9, 0, 0, 0]))]
)
def test_guesses_are_plausible_sets_of_forms(images: int, other: Callable[[Floats], Floats]) -> None:
    true, labels = drawn(images, 4)
    stated = other(true)
    plausible = by_trying_all(stated, labels)
    found = recalibrations(stated, labels, bins_of(stated).flat)
    _, likeliest = max(plausible.values(), key=lambda guess: guess[0])
    assert found[0] == pytest.approx(likeliest, abs=1e-12)
    names = [
        [forms for forms, (_, theirs) in plausible.items() if np.allclose(mine, theirs, rtol=0, atol=1e-12)]
        for mine in found
    ]
    assert all(len(same) == 1 for same in names)
    assert {forms for forms in plausible if len(forms) == 1} <= {same[0] for same in names}


def test_few_images_leave_open_which_form_it_is() -> None:
    def guesses(images: int, seed: int) -> int:
        true, labels = drawn(images, 4, seed)
        stated = softmax(np.log(true) * 1.3)
        return len(recalibrations(stated, labels, bins_of(stated).flat))

    assert np.mean([guesses(150, seed) for seed in range(10)]) > 2
    assert np.mean([guesses(5000, seed) for seed in range(10)]) < 1.5


def test_noise_is_not_followed() -> None:
    """A calibrated model's bins scatter by noise alone: what is found is a smooth form near the stated
    probabilities.
    """
    true, labels = drawn(2000, 5)
    bins = bins_of(true)
    found = recalibrations(true, labels, bins.flat)[0]
    measured, explained = (
        bins.error(bins.sums(true) - bins.hits(labels)),
        bins.error(bins.sums(true) - bins.sums(found)),
    )
    assert explained < measured / 3
    assert np.array_equal(found.argsort(axis=1), true.argsort(axis=1))


def test_sums_over_bins_are_those_of_the_definition() -> None:
    true, labels = drawn(500, 5)
    bins = bins_of(true)
    assert float(bins.error(bins.sums(true) - bins.hits(labels))) == pytest.approx(
        calibration_error(true, labels, resamples=0).value
    )


def certain(wrong: int) -> tuple[Floats, Ints]:
    """300 answers of probability 1, of which that many are wrong."""
    answers = np.arange(300) % 3
    return np.eye(3)[answers], np.where(np.arange(300) < wrong, (answers + 1) % 3, answers)


def test_probabilities_of_0_and_1() -> None:
    assert calibration_error(*certain(0), resamples=50).interval == (0, 0)
    for wrong in (30, 300):
        result = calibration_error(*certain(wrong), resamples=50)
        assert result.interval is not None
        assert 0 < result.interval[0] < result.value < result.interval[1]


def test_all_right_does_not_mean_always_right() -> None:
    """200 answers of 0.9 are all right: so may those of a model be that is right in 0.99."""
    result = calibration_error(np.tile([0.9, 0.1], (200, 1)), np.zeros(200, np.int64), resamples=200)
    assert result.interval is not None
    assert result.value == pytest.approx(0.1)
    assert (
        0.07 < result.interval[0] < 0.09
    )  # 0.082 by Clopper and Pearson's limit of a rate of which 200 of 200 were seen
    assert result.interval[1] >= 0.1 - 1e-9


def test_equal_probabilities_and_hardly_an_image() -> None:
    for images in (1, 2, 14, 200):
        result = calibration_error(np.full((images, 4), 0.25), np.zeros(images, np.int64), resamples=50)
        assert result.interval is not None
        assert 0 <= result.interval[0] <= result.interval[1] <= 1
