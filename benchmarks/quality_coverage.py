"""How often the 95 % intervals of the dimensions hold the truth, on synthetic models of known truth.

Run by ``benchmarks.quality``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elude.quality.dimensions.accuracy import accuracy
from elude.quality.dimensions.adversarial_robustness import adversarial_robustness
from elude.quality.dimensions.calibration_error import BINS, calibration_error
from elude.quality.dimensions.class_balance import class_balance
from elude.quality.dimensions.corruption_robustness import corruption_robustness
from elude.quality.dimensions.object_focus import object_focus
from elude.quality.dimensions.ood_robustness import ood_robustness
from elude.quality.dimensions.result import DimensionResult
from elude.quality.dimensions.shape_bias import shape_bias
from elude.quality.statistics.calibration_interval import sampler
from elude.quality.statistics.intervals import softmax

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """A synthetic model: its true value, and the measurement of one sample of images.

    ``costly`` cases get fewer repeats.

    ``first_seed`` keeps the samples apart from those by which a constant of the interval was chosen.
    """

    name: str
    truth: float
    measure: Callable[[int], DimensionResult]
    costly: bool = False
    first_seed: int = 0


def accuracy_case(rate: float, images: int) -> Case:
    def measure(seed: int) -> DimensionResult:
        hits = np.random.default_rng([1, seed]).random(images) < rate
        return accuracy(np.stack([hits, ~hits], axis=1).astype(float) * 3, np.zeros(images, np.int64))

    return Case(f"accuracy {rate}, {images} images", rate, measure)


def balance_case(name: str, rates: Floats, images: int, resamples: int) -> Case:
    classes = len(rates)

    def one(rng: np.random.Generator, rate: float, count: int) -> Floats:
        inside = rng.beta(2, 1.5, count)
        return np.where(rng.random(count) < rate, 0.5 + 0.5 * inside, 0.5 * inside)

    rng = np.random.default_rng(0)
    of_rate = {rate: one(rng, rate, 2_000_000).std() for rate in np.unique(rates)}
    deviation = np.mean([of_rate[rate] for rate in rates])

    def measure(seed: int) -> DimensionResult:
        rng = np.random.default_rng([2, seed])
        outputs, labels = np.zeros((classes * images, classes)), np.repeat(np.arange(classes), images)
        for c, rate in enumerate(rates):
            confidence = one(rng, rate, images)
            rows = slice(c * images, (c + 1) * images)
            outputs[rows, c], outputs[rows, (c + 1) % classes] = confidence, 1 - confidence
        return class_balance(outputs, labels, resamples=resamples, seed=seed)

    truth = float(np.sqrt((1 - rates.std(ddof=1)) * (1 - deviation)))
    return Case(f"class balance, {name}, {classes} classes × {images}", truth, measure, costly=classes > 10)


def calibration_case(
    name: str, classes: int, images: int, other: Callable[[Floats], Floats], resamples: int, *, of_stated: bool = False
) -> Case:
    """``other`` makes the stated probabilities of the true ones; with ``of_stated`` the true ones of those stated."""

    def population(seed: int, count: int) -> tuple[Floats, Floats]:
        drawn = np.random.default_rng([3, seed]).dirichlet(np.full(classes, 0.3), count) + 1e-9
        drawn /= drawn.sum(axis=1, keepdims=True)
        return (other(drawn), drawn) if of_stated else (drawn, other(drawn))

    true, stated = population(10**6, 300_000)
    rows, top = np.arange(len(stated)), stated.argmax(axis=1)
    bins = np.digitize(stated.max(axis=1), np.linspace(0, 1, BINS + 1)) - 1
    ece = np.abs(np.bincount(bins, stated[rows, top] - true[rows, top])).sum() / len(rows)
    gaps = np.take_along_axis(stated - true, np.argsort(stated, axis=0), axis=0)
    ace = np.abs(np.add.reduceat(gaps, np.arange(BINS) * len(rows) // BINS, axis=0)).sum(axis=0).mean() / len(rows)

    def measure(seed: int) -> DimensionResult:
        true, stated = population(seed, images)
        labels = sampler(true)(np.random.default_rng([4, seed]).random(images))
        return calibration_error(stated, labels, resamples=resamples, seed=seed)

    name = f"calibration, {name}, {classes} classes, {images} images"
    return Case(name, float(np.sqrt(ece * ace)), measure, costly=classes > 20, first_seed=60_000)


def nested_hits(seed: int, images: int, rates: list[float], shared: float) -> list[Hits]:
    """Right answers under several conditions with these rates; a share of the images is as hard under all of them."""
    rng = np.random.default_rng([5, seed])
    common, same = rng.random(images), rng.random(images) < shared
    return [np.where(same, common, rng.random(images)) < rate for rate in rates]


def corruption_case(clean: float, images: int, drop: float = 0.08) -> Case:
    """Five corruptions at five severities; each takes ``drop`` of the clean accuracy a severity, the c-th a little
    more.
    """
    keys = [(f"c{c}", s) for c in range(5) for s in range(1, 6)]
    rates = [clean * (1 - drop * s * (1 + c / 5)) for c in range(5) for s in range(1, 6)]

    def measure(seed: int) -> DimensionResult:
        first, *others = nested_hits(seed, images, [clean, *rates], 0.6)
        return corruption_robustness(first, dict(zip(keys, others, strict=True)))

    return Case(f"corruption robustness, accuracy {clean}, {images} images", float(np.mean(rates)) / clean, measure)


def attack_case(clean: float, fgsm: float, pgd: float, images: int) -> Case:
    """What PGD leaves right, FGSM leaves right; what FGSM leaves right was right."""

    def measure(seed: int) -> DimensionResult:
        first, one, many = nested_hits(seed, images, [clean, fgsm, pgd], 1.0)
        return adversarial_robustness(first, one, many)

    truth = float(np.sqrt(fgsm * pgd)) / clean
    return Case(f"adversarial robustness, {clean} → {fgsm} and {pgd}, {images} images", truth, measure)


def shift_case(rates: tuple[float, ...], sizes: tuple[int, ...]) -> Case:
    """Sets of the clean images themselves (one size), or of other images."""

    def measure(seed: int) -> DimensionResult:
        if len(sizes) == 1:
            first, *others = nested_hits(seed, sizes[0], list(rates), 0.6)
        else:
            rng = np.random.default_rng([6, seed])
            first, *others = (rng.random(size) < rate for rate, size in zip(rates, sizes, strict=True))
        return ood_robustness(first, {str(k): hits for k, hits in enumerate(others)}, paired=len(sizes) == 1)

    truth = float(np.exp(np.log(np.array(rates[1:]) / rates[0]).mean()))
    kind = f"{sizes[0]} same images" if len(sizes) == 1 else f"sets of {', '.join(map(str, sizes))}"
    return Case(f"OOD robustness, {rates[0]} → {', '.join(map(str, rates[1:]))}, {kind}", truth, measure)


def focus_case(same: float, rand: float, images: int) -> Case:
    def measure(seed: int) -> DimensionResult:
        return object_focus(*nested_hits(seed, images, [same, rand], 0.7))

    return Case(f"object focus, {same} and {rand}, {images} images", 1 - (same - rand), measure)


def shape_case(shape: float, texture: float, images: int) -> Case:
    def measure(seed: int) -> DimensionResult:
        answers = np.random.default_rng([7, seed]).choice(3, images, p=[shape, texture, 1 - shape - texture])
        return shape_bias(answers, np.zeros(images, np.int64), np.ones(images, np.int64))

    return Case(f"shape bias, shape {shape}, texture {texture}, {images} images", shape / (shape + texture), measure)


def sharpened(by: float) -> Callable[[Floats], Floats]:
    """States probabilities that are ``by`` times as sharp in the logits as the true ones."""
    return lambda true: softmax(np.log(true) * by)


def favoured(count: int) -> Callable[[Floats], Floats]:
    """States more than that many classes allow."""
    return lambda true: softmax(np.log(true) + 0.6 * (np.arange(true.shape[1]) < count))


def spread(true: Floats) -> Floats:
    """States a tenth of the probability evenly for all classes."""
    return 0.9 * true + 0.1 / true.shape[1]


def right_in_seven_of_ten(stated: Floats) -> Floats:
    """The top-1 answer is right in 0.7, whatever is stated."""
    rows, answers = np.arange(len(stated)), stated.argmax(axis=1)
    true = stated * (0.3 / (1 - stated[rows, answers]))[:, None]
    true[rows, answers] = 0.7
    return true


def patchy(shifts: Floats) -> Callable[[Floats], Floats]:
    """Off by a logit of its own in each tenth of each class (classes, 10): no smooth form, and not in steps of the
    fifteen bins.
    """
    classes = len(shifts)
    population = np.random.default_rng(8).beta(
        0.3, 0.3 * (classes - 1), 300_000
    )  # of one class in the Dirichlet distribution
    edges = np.quantile(population, np.arange(1, 10) / 10)
    return lambda stated: softmax(np.log(stated) + shifts[np.arange(classes), np.searchsorted(edges, stated)])


def two_patches() -> Floats:
    shifts = np.zeros((10, 10))
    shifts[2, 8], shifts[7, 9] = -1.5, 1.5
    return shifts


def random_patches(classes: int, size: float) -> Floats:
    return np.random.default_rng(1).normal(0, size, (classes, 10))


def cases(resamples: int) -> list[Case]:
    return [
        accuracy_case(0.9, 500),
        accuracy_case(0.76, 1000),
        corruption_case(0.85, 300),
        corruption_case(0.6, 100),
        attack_case(0.85, 0.5, 0.4, 300),
        attack_case(0.85, 0.1, 0.03, 300),
        attack_case(0.85, 0.1, 0.03, 1000),
        attack_case(0.95, 0.93, 0.9, 500),
        shift_case((0.85, 0.7, 0.5, 0.3), (300,)),
        shift_case((0.8, 0.6, 0.3), (1000, 200, 400)),
        shift_case((0.95, 0.94), (300,)),
        focus_case(0.9, 0.8, 300),
        focus_case(0.9, 0.5, 100),
        focus_case(0.97, 0.95, 150),
        shape_case(0.45, 0.15, 120),
        shape_case(0.25, 0.5, 1000),
        balance_case("all equal", np.full(2, 0.85), 200, resamples),
        balance_case("all equal", np.full(5, 0.8), 100, resamples),
        balance_case("all equal", np.full(10, 0.9), 100, resamples),
        balance_case("a little apart", np.linspace(0.7, 0.9, 5), 100, resamples),
        balance_case("far apart", np.linspace(0.5, 1.0, 10), 100, resamples),
        balance_case("apart", np.linspace(0.6, 0.95, 100), 20, resamples),
        balance_case("all equal", np.full(100, 0.8), 20, resamples),
        calibration_case("calibrated", 10, 1000, sharpened(1.0), resamples),
        calibration_case("overconfident (logits × 2)", 5, 500, sharpened(2.0), resamples),
        calibration_case("a little overconfident (logits × 1.2)", 5, 500, sharpened(1.2), resamples),
        calibration_case("underconfident (logits × 0.6)", 10, 1000, sharpened(0.6), resamples),
        calibration_case("one class favoured", 10, 1000, favoured(1), resamples),
        calibration_case("a little underconfident (logits × 0.8)", 3, 800, sharpened(0.8), resamples),
        calibration_case("overconfident (logits × 1.5)", 20, 1000, sharpened(1.5), resamples),
        calibration_case("a tenth spread evenly", 5, 1000, spread, resamples),
        calibration_case(
            "random logits ± 0.5 by class and tenth", 5, 1000, patchy(random_patches(5, 0.5)), resamples, of_stated=True
        ),
        calibration_case(
            "random logits ± 0.3 by class and tenth",
            10,
            1000,
            patchy(random_patches(10, 0.3)),
            resamples,
            of_stated=True,
        ),
        calibration_case("two tenths of two classes off", 10, 1000, patchy(two_patches()), resamples, of_stated=True),
        calibration_case("a tenth spread evenly", 100, 2000, spread, resamples),
        calibration_case("ten classes favoured", 100, 2000, favoured(10), resamples),
        calibration_case(
            "top-1 right in 0.7 whatever is stated", 5, 1000, right_in_seven_of_ten, resamples, of_stated=True
        ),
        calibration_case(
            "top-1 right in 0.7 whatever is stated", 200, 3000, right_in_seven_of_ten, resamples, of_stated=True
        ),
    ]


def coverage_of(case: Case, repeats: int) -> tuple[float, float, float]:
    """Share of repeats whose interval holds the truth, and of those where the truth is below and above it."""
    below = above = 0
    for seed in range(case.first_seed, case.first_seed + repeats):
        interval = case.measure(seed).interval
        assert interval is not None
        below, above = below + (case.truth < interval[0]), above + (case.truth > interval[1])
    return 1 - (below + above) / repeats, below / repeats, above / repeats


def coverage(quick: bool) -> list[str]:
    """Lines of a Markdown table."""
    lines = [
        "| model | true value | repeats | 95 % interval holds it | truth below | truth above |",
        "|---|---|---|---|---|---|",
    ]
    for case in cases(200 if quick else 400):
        repeats = 100 if quick else 1000 if case.costly else 2000
        held, below, above = coverage_of(case, repeats)
        lines.append(f"| {case.name} | {case.truth:.4f} | {repeats} | {held:.1%} | {below:.1%} | {above:.1%} |")
        print(lines[-1], flush=True)
    return lines
