"""What the quality package claims, measured: the score's table, losslessness, and what
an evaluation costs.

python -m benchmarks.quality score lossless speed memory [--quick] [--out docs/benchmarks/quality.md]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import cast

from elude.quality.dimensions import DIMENSIONS
from elude.quality.scores.pool import published_pool, published_rows, trimmed_constants
from elude.quality.scores.quba import quba_score, ranking, standing


def score(quick: bool) -> list[str]:
    rows, pool = published_rows(), published_pool()
    values = {row["model_id"]: {d: float(row[d]) for d in DIMENSIONS} for row in rows}
    golden = [row for row in rows if row["quba"]]
    worst = max(abs(quba_score(values[row["model_id"]]).total - float(row["quba"])) for row in golden)
    ranks = sum(standing(quba_score(values[row["model_id"]])).rank == int(row["quba_rank"]) for row in golden)
    order = ranking(pool)
    consistent = sum(
        standing(quba_score(values[name])).rank == 1 + sum(other > total for _, other in order) for name, total in order
    )
    columns = {d: trimmed_constants([v[d] for v in values.values()]) for d in DIMENSIONS}
    gap = max(
        abs(found - given) for d in DIMENSIONS for found, given in zip(columns[d], pool.constants[d], strict=True)
    )
    return [
        "| what | result |",
        "|---|---|",
        f"| rows with a golden score | {len(golden)} |",
        f"| largest difference to it | {worst:.1e} |",
        f"| their published ranks met | {ranks} of {len(golden)} |",
        f"| models whose rank agrees with the order of all scores | {consistent} of {len(order)} |",
        f"| largest difference of a recomputed μ or σ | {gap:.1e} |",
    ]


def lossless(quick: bool) -> list[str]:
    from elude.exporter.export.export_settings import ExportSettings
    from elude.exporter.export.pipeline import export
    from elude.quality.evaluation.evaluate import evaluate
    from elude.quality.suites.open_suite import embedded_suite

    with tempfile.TemporaryDirectory() as folder:
        bundle = export("embedded", None, "last", Path(folder) / "bundle", ExportSettings())
        report = evaluate(bundle, embedded_suite(), budget=60 if quick else None, resamples=0)
    assert report.lossless is not None
    forms = report.lossless
    lines = ["| dimension | original | disentangled − original | served ONNX − original |", "|---|---|---|---|"]
    for dimension, value in forms["original"].items():
        gaps = [forms[form][dimension] - value for form in ("disentangled", "served")]
        lines.append(
            f"| {dimension} | {value:.6f} | " + " | ".join("0" if gap == 0 else f"{gap:.1e}" for gap in gaps) + " |"
        )
    return [
        f"{report.suite['images']} images, {report.settings['subset_images']} for the dimensions of many passes.",
        "",
        *lines,
    ]


def speed(quick: bool) -> list[str]:
    import torch

    from elude.exporter.models.load import load_model
    from elude.handlers.images.preprocess import unit_of
    from elude.quality.evaluation.attacks import attacker
    from elude.quality.evaluation.evaluate import BATCH_SIZE, evaluate
    from elude.quality.subjects.torch_subject import TorchSubject
    from elude.quality.suites.open_suite import embedded_suite

    torch.set_num_threads(1)
    loaded, suite = load_model("embedded"), embedded_suite()
    subject = TorchSubject(loaded.module, loaded.preprocess, labels=loaded.labels)
    budget = 80 if quick else len(suite.images)
    batch = suite.images.batch(loaded.preprocess, cast(tuple[str, ...], loaded.labels), 0, BATCH_SIZE)
    pixels = unit_of(batch.pixels)
    start = time.process_time()
    report = evaluate(subject, suite, budget=budget, batch_size=BATCH_SIZE)
    total = time.process_time() - start
    passes = report.settings["forward_passes"]
    attack = attacker(subject.on_pixels, 0)
    start = time.process_time()
    for left in range(passes, 0, -BATCH_SIZE):
        subject.outputs(pixels[: min(left, BATCH_SIZE)])
    for left in range(budget, 0, -BATCH_SIZE):
        rows = slice(0, min(left, BATCH_SIZE))
        attack(pixels[rows], batch.labels[rows], batch.numbers[rows])
    bare = time.process_time() - start
    return [
        "| what | result |",
        "|---|---|",
        f"| images, of them for many passes | {len(suite.images)}, {budget} |",
        f"| dimensions | {len(report.dimensions)}, with intervals |",
        f"| forward passes, gradients | {passes}, {11 * budget} |",
        f"| CPU time of the evaluation, one thread | {total:.1f} s |",
        f"| ratio to the bare passes | {total / bare:.2f} |",
    ]


def memory(quick: bool) -> list[str]:
    """Run alone: the peak is that of the process."""
    import resource

    import numpy as np

    from elude.handlers.images.preprocess import Preprocess
    from elude.quality.evaluation.evaluate import evaluate
    from elude.quality.subjects.subject import CallableSubject
    from elude.quality.suites.image_sets import PixelSet
    from elude.quality.suites.suite import Suite

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    images, classes, side = 5_000 if quick else 50_000, 1_000, 4
    rng = np.random.default_rng(0)
    labels = np.arange(images) % classes
    pixels = rng.integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    names = tuple(f"class {i:04}" for i in range(classes))
    matrix = rng.normal(0, 0.6, (3 * side * side, classes)).astype(np.float32)
    subject = CallableSubject(
        lambda x: x.reshape(len(x), -1) @ matrix,
        Preprocess((3, side, side), "bilinear", 1.0, "center", (0.5,) * 3, (0.5,) * 3),
        labels=names,
    )
    suite = Suite("synthetic", PixelSet(pixels, labels, names), ())
    before = peak()
    report = evaluate(subject, suite, dimensions=["accuracy", "calibration_error", "class_balance"], resamples=5)
    assert report.dimensions["calibration_error"].interval is not None
    return [
        "| what | result |",
        "|---|---|",
        f"| images × classes, with intervals and the answer to each image | {images:,} × {classes:,} |",
        f"| peak of the process above images and libraries | {peak() - before:,.0f} MB |",
    ]


SECTIONS = {"score": score, "lossless": lossless, "speed": speed, "memory": memory}
TITLES = {
    "score": "The published table",
    "lossless": "Lossless, by nine dimensions",
    "memory": "Memory at 50,000 images of 1,000 classes",
    "speed": "What an evaluation costs (one torch model, embedded suite)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=["score", "lossless", "speed"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, help="folder for one Markdown file a section")
    options = parser.parse_args()
    for name in options.sections:
        text = "\n".join(
            [f"## {TITLES[name]}", "", f"`python -m benchmarks.quality {name}`", "", *SECTIONS[name](options.quick), ""]
        )
        print(text, flush=True)
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / f"{name}.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
