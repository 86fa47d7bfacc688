"""The answers of many steered models on one set of images, and the value of a dimension over any resample of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elude.handlers.errors import EvaluationError
from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.dimensions.calibration_error import calibration_error
from elude.quality.dimensions.class_balance import class_balance
from elude.quality.dimensions.object_focus import object_focus
from elude.quality.dimensions.ood_robustness import ood_robustness
from elude.quality.dimensions.shape_bias import shape_bias
from elude.quality.evaluation.extra_sets import ExtraAnswers, made_answers
from elude.quality.steering.presets import SteeredSubject
from elude.quality.subjects.output_names import output_names
from elude.quality.subjects.subject import outputs_of
from elude.quality.suites.suite import Suite

GUARDS = (
    "accuracy",
    "calibration_error",
    "class_balance",
)  # cost nothing beyond the clean images, so they are always watched
MADE = ("ood_robustness", "object_focus", "shape_bias")
TUNABLE = (*GUARDS, *MADE)


@dataclass(frozen=True)
class Images:
    """uint8 pixels (N, H, W, 3), int64 labels (N,), names of the classes."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def rows(self, rows: NDArray[np.int64]) -> Images:
        return Images(self.pixels[rows], self.labels[rows], self.classes)


@dataclass(frozen=True)
class Answers:
    """Of one subject: float32 outputs (N, C) on the clean images, and the answers on the sets made from them."""

    outputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    extra: ExtraAnswers


def load_images(suite: Suite, subject: SteeredSubject) -> Images:
    """All images of a suite as the subject's pixels."""
    classes = output_names(subject, suite).keys
    batches = list(suite.images.batches(subject.preprocess, classes, 250))
    return Images(
        np.concatenate([b.pixels for b in batches]), np.concatenate([b.labels for b in batches]), tuple(classes)
    )


def answer(subjects: Mapping[str, SteeredSubject], images: Images, dimension: str, *, seed: int) -> dict[str, Answers]:
    """What the guards and ``dimension`` need, of every subject, on the same images."""
    wanted = [dimension] if dimension in MADE else []
    extra = made_answers(
        subjects, images.pixels, images.labels, classes=images.classes, wanted=wanted, seed=seed, batch_size=250
    )
    return {
        name: Answers(outputs_of(subject, images.pixels, 250), images.labels, images.classes, extra[name])
        for name, subject in subjects.items()
    }


def size(dimension: str, answers: Answers) -> int:
    """Number of rows that ``value`` resamples."""
    if dimension == "object_focus" and answers.extra.mixed is not None:
        return len(answers.extra.mixed[0])
    if dimension == "shape_bias" and answers.extra.conflict is not None:
        return len(answers.extra.conflict[0])
    return len(answers.labels)


def value(dimension: str, answers: Answers, rows: NDArray[np.int64] | None = None) -> float:
    """The dimension's value over ``rows``, all by default; better is always larger (calibration error is taken
    negative).

    Raises:
        EvaluationError: it is undefined, or was not answered for.
    """
    rows = np.arange(size(dimension, answers)) if rows is None else rows
    outputs, labels, extra = answers.outputs, answers.labels, answers.extra
    if dimension == "accuracy":
        found = float((outputs[rows].argmax(axis=1) == labels[rows]).mean())
    elif dimension == "calibration_error":
        found = calibration_error(outputs[rows], labels[rows], resamples=0).value
    elif dimension == "class_balance":
        found = class_balance(outputs[rows], labels[rows], resamples=0).value
    elif dimension == "ood_robustness":
        clean = outputs.argmax(axis=1) == labels
        found = ood_robustness(
            clean[rows], {name: hits[rows] for name, hits in extra.shifted.items()}, resamples=0
        ).value
    elif dimension == "object_focus" and extra.mixed is not None:
        found = object_focus(extra.mixed[0][rows], extra.mixed[1][rows]).value
    elif dimension == "shape_bias" and extra.conflict is not None:
        predicted, shapes, textures = (part[rows] for part in extra.conflict)
        found = shape_bias(predicted, shapes, textures, list(extra.conflict_names)).value
    else:
        raise EvaluationError(f"{dimension} was not answered for.", f"Tune one of {', '.join(TUNABLE)}.")
    return found if HIGHER_IS_BETTER[dimension] else -found


def gain(
    dimension: str, steered: Answers, plain: Answers, *, resamples: int, seed: int
) -> tuple[float, tuple[float, float]]:
    """Steered minus plain, better being positive, with a 95 % percentile interval of the bootstrap over pairs of the
    same images.
    """
    rng, n = np.random.default_rng(seed), size(dimension, plain)
    found = value(dimension, steered) - value(dimension, plain)
    drawn = [rng.integers(n, size=n) for _ in range(resamples)]
    samples = [value(dimension, steered, rows) - value(dimension, plain, rows) for rows in drawn]
    low, high = np.quantile(samples, [0.025, 0.975])
    return found, (float(low), float(high))
