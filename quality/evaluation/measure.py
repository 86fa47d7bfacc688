"""From what the passes saw to the nine dimensions of one subject; and which of them can be measured at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from elude.handlers.bundle.output_kinds import CLASSES
from elude.handlers.errors import EvaluationError
from elude.quality.dimensions import DIMENSIONS
from elude.quality.dimensions.accuracy import accuracy, correct
from elude.quality.dimensions.adversarial_robustness import adversarial_robustness
from elude.quality.dimensions.calibration_error import calibration_error
from elude.quality.dimensions.class_balance import class_balance
from elude.quality.dimensions.corruption_robustness import corruption_robustness
from elude.quality.dimensions.measured_on import Record
from elude.quality.dimensions.object_focus import object_focus
from elude.quality.dimensions.ood_robustness import ood_robustness
from elude.quality.dimensions.params_m import params_m
from elude.quality.dimensions.result import DimensionResult
from elude.quality.dimensions.shape_bias import shape_bias
from elude.quality.evaluation.extra_sets import ExtraAnswers
from elude.quality.evaluation.observe import Observations
from elude.quality.statistics.intervals import probabilities_of
from elude.quality.subjects.subject import Subject
from elude.quality.suites.suite import Suite


def unavailable(subject: Subject, suite: Suite, *, attackable: bool) -> dict[str, str]:
    """Dimensions that cannot be measured, and why: of outputs that are not classes all but the number of parameters."""
    kind = getattr(subject, "output_kind", CLASSES)
    if kind != CLASSES:
        reason = f"it is defined for classes, and the outputs of {subject.name} are of kind {kind!r}"
        return {dimension: reason for dimension in DIMENSIONS if dimension != "params_m"}
    channels, pictures = subject.preprocess.channels, subject.preprocess.takes_pictures
    made = suite.dark_background and pictures
    possible = {
        "params_m": (subject.parameters is not None, "the number of parameters is not known"),
        "corruption_robustness": (
            pictures and bool(suite.corruptions),
            "the suite names no corruption" if pictures else f"corruptions are defined for pictures, {_not(channels)}",
        ),
        "adversarial_robustness": (
            pictures and attackable,
            "gradients need a torch model or a bundle"
            if pictures
            else f"strengths of attacks are defined for pictures, {_not(channels)}",
        ),
        "ood_robustness": (made or bool(suite.shifted), "the suite has no shifted sets and no masks to make them from"),
        "object_focus": (
            made or suite.mixed is not None,
            "the suite has no mixed backgrounds and no masks to make them from",
        ),
        "shape_bias": (
            made or suite.cue_conflict is not None,
            "the suite has no cue-conflict images and no masks to make them from",
        ),
    }
    return {dimension: reason for dimension, (can, reason) in possible.items() if not can}


def _not(channels: int) -> str:
    return f"and an image of {channels} channels is none"


def measure(
    subject: Subject,
    seen: Observations,
    extra: ExtraAnswers,
    *,
    name: str,
    subset: NDArray[np.int64],
    wanted: Sequence[str],
    classes: Sequence[str],
    resamples: int,
    seed: int,
    records: Mapping[str, Record],
) -> tuple[dict[str, DimensionResult], dict[str, str]]:
    """The ``wanted`` dimensions of the subject called ``name`` in ``seen``, and why others are undefined, such as
    relative accuracies of a model that is never right.

    Raises:
        EvaluationError: the outputs are not those of a classifier, or hold NaN.
    """
    outputs, labels, names = seen.outputs[name], seen.labels, list(classes)
    probabilities_of(outputs)  # a broken model is refused as a whole
    clean = correct(outputs, labels)[subset]
    mixed, conflict = extra.mixed, extra.conflict
    options: Mapping[str, int] = {"resamples": resamples, "seed": seed}
    attacked = seen.attacked[name]
    functions: dict[str, Callable[[], DimensionResult]] = {
        "accuracy": lambda: accuracy(outputs, labels, names),
        "calibration_error": lambda: calibration_error(outputs, labels, **options),
        "class_balance": lambda: class_balance(outputs, labels, names, **options),
        "corruption_robustness": lambda: corruption_robustness(clean, seen.corrupted[name], resamples=resamples),
        "adversarial_robustness": lambda: adversarial_robustness(
            clean,
            attacked["fgsm"],
            attacked["pgd"],
            weaker={kind: hits for kind, hits in attacked.items() if kind not in ("fgsm", "pgd")},
            resamples=resamples,
        ),
        "ood_robustness": lambda: ood_robustness(clean, extra.shifted, paired=extra.paired, resamples=resamples),
    }
    if subject.parameters is not None:
        parameters = subject.parameters
        functions["params_m"] = lambda: params_m(parameters)
    if mixed is not None:
        functions["object_focus"] = lambda: object_focus(mixed[0], mixed[1], resamples=resamples)
    if conflict is not None:
        functions["shape_bias"] = lambda: shape_bias(
            conflict[0], conflict[1], conflict[2], list(extra.conflict_names), resamples=resamples
        )
    results, undefined = {}, {}
    for dimension in wanted:
        try:
            results[dimension] = replace(functions[dimension](), measured_on=records[dimension])
        except EvaluationError as error:  # recorded with its reason; a policy that requires it stops the release
            undefined[dimension] = str(error)
    return results, undefined
