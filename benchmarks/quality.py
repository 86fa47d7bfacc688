"""What the quality room claims, measured: the score's table, the coverage of the intervals, losslessness, and what an evaluation costs.

python -m benchmarks.quality score coverage lossless speed [--quick] [--out docs/benchmarks/quality.md]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from quality.dimensions import DIMENSIONS
from quality.dimensions.accuracy import accuracy
from quality.dimensions.calibration_error import BINS, calibration_error
from quality.dimensions.class_balance import class_balance
from quality.scores.pool import published_pool, published_rows, trimmed_constants
from quality.scores.quba import quba_score, ranking, standing
from quality.statistics.calibration_interval import _sampler
from quality.statistics.statistics import softmax

Array = NDArray[np.float64]


def score(quick: bool) -> list[str]:
    rows, pool = published_rows(), published_pool()
    values = {row["model_id"]: {d: float(row[d]) for d in DIMENSIONS} for row in rows}
    golden = [row for row in rows if row["quba"]]
    worst = max(abs(quba_score(values[row["model_id"]]).total - float(row["quba"])) for row in golden)
    ranks = sum(standing(quba_score(values[row["model_id"]])).rank == int(row["quba_rank"]) for row in golden)
    order = ranking(pool)
    consistent = sum(standing(quba_score(values[name])).rank == 1 + sum(other > total for _, other in order) for name, total in order)
    columns = {d: trimmed_constants([v[d] for v in values.values()]) for d in DIMENSIONS}
    gap = max(abs(found - given) for d in DIMENSIONS for found, given in zip(columns[d], pool.constants[d], strict=True))
    return [
        "| what | result |",
        "|---|---|",
        f"| rows with a golden score | {len(golden)} |",
        f"| largest difference to it | {worst:.1e} |",
        f"| their published ranks met | {ranks} of {len(golden)} |",
        f"| models whose rank agrees with the order of all scores | {consistent} of {len(order)} |",
        f"| largest difference of a recomputed μ or σ | {gap:.1e} |",
    ]


@dataclass(frozen=True)
class Case:
    """A synthetic model: draws (outputs, labels) of one sample, and its true value."""

    name: str
    truth: float
    draw: Callable[[int], tuple[Array, NDArray[np.int64]]]
    interval: Callable[[Array, NDArray[np.int64], int], tuple[float, float]]


def accuracy_case(rate: float, images: int) -> Case:
    def draw(seed: int) -> tuple[Array, NDArray[np.int64]]:
        hits = np.random.default_rng([1, seed]).random(images) < rate
        return np.stack([hits, ~hits], axis=1).astype(float) * 3, np.zeros(images, np.int64)

    def interval(outputs: Array, labels: NDArray[np.int64], seed: int) -> tuple[float, float]:
        found = accuracy(outputs, labels).interval
        assert found is not None
        return found

    return Case(f"accuracy {rate}, {images} images", rate, draw, interval)


def balance_case(name: str, rates: Array, images: int, resamples: int) -> Case:
    classes = len(rates)

    def one(rng: np.random.Generator, c: int, count: int) -> tuple[NDArray[np.bool_], Array]:
        hits = rng.random(count) < rates[c]
        inside = rng.beta(2, 1.5, count)
        return hits, np.where(hits, 0.5 + 0.5 * inside, 0.5 * inside)

    rng = np.random.default_rng(0)
    deviation = np.mean([one(rng, c, 400_000)[1].std() for c in range(classes)])

    def draw(seed: int) -> tuple[Array, NDArray[np.int64]]:
        rng = np.random.default_rng([2, seed])
        outputs, labels = np.zeros((classes * images, classes)), np.repeat(np.arange(classes), images)
        for c in range(classes):
            _, confidence = one(rng, c, images)
            rows = slice(c * images, (c + 1) * images)
            outputs[rows, c], outputs[rows, (c + 1) % classes] = confidence, 1 - confidence
        return outputs, labels

    def interval(outputs: Array, labels: NDArray[np.int64], seed: int) -> tuple[float, float]:
        found = class_balance(outputs, labels, resamples=resamples, seed=seed).interval
        assert found is not None
        return found

    truth = float(np.sqrt((1 - rates.std(ddof=1)) * (1 - deviation)))
    return Case(f"class balance, {name}, {classes} classes × {images}", truth, draw, interval)


def calibration_case(name: str, classes: int, images: int, states: Callable[[Array], Array], resamples: int) -> Case:
    def population(seed: int, count: int) -> tuple[Array, Array]:
        true = np.random.default_rng([3, seed]).dirichlet(np.full(classes, 0.3), count) + 1e-9
        true /= true.sum(axis=1, keepdims=True)
        return true, states(true)

    true, stated = population(10**6, 300_000)
    rows, top = np.arange(len(stated)), stated.argmax(axis=1)
    bins = np.digitize(stated.max(axis=1), np.linspace(0, 1, BINS + 1)) - 1
    ece = np.abs(np.bincount(bins, stated[rows, top] - true[rows, top])).sum() / len(rows)
    gaps = np.take_along_axis(stated - true, np.argsort(stated, axis=0), axis=0)
    ace = np.abs(np.add.reduceat(gaps, np.arange(BINS) * len(rows) // BINS, axis=0)).sum(axis=0).mean() / len(rows)

    def draw(seed: int) -> tuple[Array, NDArray[np.int64]]:
        true, stated = population(seed, images)
        return stated, _sampler(true)(np.random.default_rng([4, seed]))

    def interval(outputs: Array, labels: NDArray[np.int64], seed: int) -> tuple[float, float]:
        found = calibration_error(outputs, labels, resamples=resamples, seed=seed).interval
        assert found is not None
        return found

    return Case(f"calibration, {name}, {classes} classes, {images} images", float(np.sqrt(ece * ace)), draw, interval)


def cases(resamples: int) -> list[Case]:
    def sharpened(by: float) -> Callable[[Array], Array]:
        return lambda true: softmax(np.log(true) * by)

    def biased(true: Array) -> Array:
        logits = np.log(true)
        logits[:, 0] += 0.6
        return softmax(logits)

    return [
        accuracy_case(0.9, 500),
        accuracy_case(0.76, 1000),
        balance_case("all classes equal", np.full(5, 0.8), 100, resamples),
        balance_case("all classes equal", np.full(10, 0.9), 100, resamples),
        balance_case("a little apart", np.linspace(0.7, 0.9, 5), 100, resamples),
        balance_case("far apart", np.linspace(0.5, 1.0, 10), 100, resamples),
        calibration_case("calibrated", 10, 1000, sharpened(1.0), resamples),
        calibration_case("overconfident (logits × 2)", 5, 500, sharpened(2.0), resamples),
        calibration_case("a little overconfident (logits × 1.2)", 5, 500, sharpened(1.2), resamples),
        calibration_case("underconfident (logits × 0.6)", 10, 1000, sharpened(0.6), resamples),
        calibration_case("one class favoured", 10, 1000, biased, resamples),
    ]


def coverage_of(case: Case, repeats: int) -> tuple[float, float, float]:
    """Share of repeats whose interval holds the truth, and of those where the truth is below and above it."""
    below = above = 0
    for seed in range(repeats):
        low, high = case.interval(*case.draw(seed), seed)
        below, above = below + (case.truth < low), above + (case.truth > high)
    return 1 - (below + above) / repeats, below / repeats, above / repeats


def coverage(quick: bool) -> list[str]:
    lines = ["| model | true value | repeats | 95 % interval holds it | truth below | truth above |", "|---|---|---|---|---|---|"]
    for case in cases(200 if quick else 400):
        repeats = (500 if quick else 5000) if case.name.startswith("accuracy") else (100 if quick else 400)
        held, below, above = coverage_of(case, repeats)
        lines.append(f"| {case.name} | {case.truth:.4f} | {repeats} | {held:.1%} | {below:.1%} | {above:.1%} |")
        print(lines[-1], flush=True)
    return lines


def lossless(quick: bool) -> list[str]:
    from exporter.pipeline import ExportSettings, export
    from quality.evaluation.evaluate import evaluate
    from quality.suites.suite import embedded_suite

    with tempfile.TemporaryDirectory() as folder:
        bundle = export("embedded", None, "last", Path(folder) / "bundle", ExportSettings())
        report = evaluate(bundle, embedded_suite(), budget=60 if quick else 200, resamples=0)
    assert report.lossless is not None
    forms = report.lossless
    lines = ["| dimension | original | disentangled − original | served ONNX − original |", "|---|---|---|---|"]
    for dimension, value in forms["original"].items():
        gaps = [forms[form][dimension] - value for form in ("disentangled", "served")]
        lines.append(f"| {dimension} | {value:.6f} | " + " | ".join("0" if gap == 0 else f"{gap:.1e}" for gap in gaps) + " |")
    return [f"{report.suite['images']} images, {report.settings['subset_images']} for the dimensions of many passes.", "", *lines]


def speed(quick: bool) -> list[str]:
    import torch

    from exporter.load import load_model
    from quality.evaluation.attacks import attacker
    from quality.evaluation.evaluate import BATCH_SIZE, evaluate
    from quality.subjects.subject import as_unit
    from quality.subjects.torch_subject import TorchSubject
    from quality.suites.suite import embedded_suite

    torch.set_num_threads(1)
    loaded, suite = load_model("embedded"), embedded_suite()
    subject = TorchSubject(loaded.module, loaded.preprocess, labels=loaded.labels)
    budget = 80 if quick else 250
    batch = suite.images.batch(loaded.preprocess, cast(tuple[str, ...], loaded.labels), 0, BATCH_SIZE)
    pixels = as_unit(batch.pixels)
    ratios, totals = [], []
    for _ in range(1 if quick else 3):
        start = time.process_time()
        report = evaluate(subject, suite, budget=budget, batch_size=BATCH_SIZE)
        totals.append(time.process_time() - start)
        passes = report.settings["forward_passes"] + 6 * budget  # and the six made sets
        start = time.process_time()
        for left in range(passes, 0, -BATCH_SIZE):
            subject.outputs(pixels[: min(left, BATCH_SIZE)])
        attacker(subject.on_pixels, 0)(pixels[:budget], batch.labels[:budget], batch.numbers[:budget])
        ratios.append(totals[-1] / (time.process_time() - start))
    return [
        "| what | result |",
        "|---|---|",
        f"| images, of them for many passes | {len(suite.images)}, {budget} |",
        f"| dimensions | {len(report.dimensions)}, with intervals |",
        f"| forward passes, gradients | {passes}, {11 * budget} |",
        f"| CPU time of the evaluation, one thread, median of {len(totals)} | {np.median(totals):.1f} s |",
        f"| ratio to the bare passes, median of pairs | {np.median(ratios):.2f} |",
    ]


SECTIONS = {"score": score, "coverage": coverage, "lossless": lossless, "speed": speed}
TITLES = {
    "score": "The published table",
    "coverage": "Coverage of the 95 % intervals on synthetic models of known truth",
    "lossless": "Lossless, by nine dimensions",
    "speed": "What an evaluation costs (one torch model, embedded suite)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=list(SECTIONS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, help="folder for one Markdown file a section")
    options = parser.parse_args()
    for name in options.sections:
        text = "\n".join([f"## {TITLES[name]}", "", f"`python -m benchmarks.quality {name}`", "", *SECTIONS[name](options.quick), ""])
        print(text, flush=True)
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / f"{name}.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
