"""The images behind the accuracy: the most confident mistakes, the classes that are confused most, and the answers that
changed since a baseline.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import UsageError
from elude.quality.dimensions.accuracy import right_per_class
from elude.quality.dimensions.measured_on import unlike
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.evaluation.image_answers import ImageAnswers, read_answers
from elude.quality.gate.evidence import mapping
from elude.quality.statistics.class_drop import ClassDrop, class_drops

MISTAKES, PAIRS, CHANGED = 24, 10, 12  # shown of each
NOT_KEPT = "The answers to single images were not kept with these measurements: evaluate again to see them."
_TYPES = {b"\x89PNG\r\n\x1a\n": "png", b"RIFF": "webp"}


@dataclass(frozen=True)
class Answer:
    """One answer to one image; ``picture`` is a data URI, None where no thumbnail was kept."""

    image: str
    truth: str
    predicted: str
    confidence: float
    picture: str | None
    tiny: bool


@dataclass(frozen=True)
class Pair:
    """Two classes, how many images of each are taken for the other, and how many images each has; the bars are in
    percent of the longest.
    """

    classes: tuple[str, str]
    taken: tuple[int, int]
    images: tuple[int, int]
    bars: tuple[float, float]


@dataclass(frozen=True)
class ImageChanges:
    """Answers that are wrong now and were right in the baseline, and the reverse: how many, the first of them, and the
    classes that dropped furthest.
    """

    newly_wrong: int
    newly_right: int
    both_wrong: int
    images: int
    wrong_shown: tuple[Answer, ...]
    right_shown: tuple[Answer, ...]
    classes: tuple[ClassDrop, ...]


@dataclass(frozen=True)
class Mistakes:
    """What the section shows; ``changes_problem`` says why there is no image-by-image comparison."""

    wrong: int
    images: int
    shown: tuple[Answer, ...]
    pairs: tuple[Pair, ...]
    changes: ImageChanges | None
    changes_problem: str


def answers_of(bundle: Bundle, quality: object) -> tuple[ImageAnswers | None, str]:
    """The answers that belong to a bundle's measurements, or why there are none."""
    sha256 = mapping(quality).get("answers_sha256")
    if not isinstance(sha256, str):
        return None, NOT_KEPT
    try:
        answers = read_answers(bundle.root, sha256)
    except UsageError as error:
        return None, str(error)
    return answers, "" if answers is not None else "The file with the answers to single images is missing."


def mistakes(
    answers: ImageAnswers,
    *,
    before: ImageAnswers | None = None,
    reports: tuple[QualityReport, QualityReport] | None = None,
) -> Mistakes:
    """What to show of ``answers``.

    Args:
        answers: of this model.
        before: of the baseline, if they were kept.
        reports: the baseline's measurements and this model's, if there is a baseline.
    """
    wrong = answers.mistakes
    changes, problem = None, ""
    if reports is not None:
        problem = _incomparable(before, answers, reports)
        changes = image_changes(before, answers) if before is not None and not problem else None
    return Mistakes(
        len(wrong), len(answers.names), _rows(answers, wrong[:MISTAKES]), confused_pairs(answers), changes, problem
    )


def confused_pairs(answers: ImageAnswers, limit: int = PAIRS) -> tuple[Pair, ...]:
    """The pairs of classes with the most images of one taken for the other, in both directions together; among equals
    the more confident mistakes first.
    """
    counts: dict[tuple[int, int], list[int]] = {}
    confidence: dict[tuple[int, int], float] = {}
    for number in answers.mistakes:
        truth, predicted = int(answers.labels[number]), int(answers.predicted[number])
        key = min(truth, predicted), max(truth, predicted)
        counts.setdefault(key, [0, 0])[truth > predicted] += 1
        confidence[key] = confidence.get(key, 0.0) + float(answers.confidence[number])
    images = np.bincount(answers.labels, minlength=len(answers.classes))
    worst = sorted(counts, key=lambda key: (-sum(counts[key]), -confidence[key], key))[:limit]
    longest = max((max(counts[key]) for key in worst), default=1)
    return tuple(
        Pair(
            (answers.classes[a], answers.classes[b]),
            (counts[a, b][0], counts[a, b][1]),
            (int(images[a]), int(images[b])),
            (100 * counts[a, b][0] / longest, 100 * counts[a, b][1] / longest),
        )
        for a, b in worst
    )


def image_changes(before: ImageAnswers, after: ImageAnswers) -> ImageChanges:
    """Answers to the same images in the same order: newly wrong and newly right."""
    was_wrong, is_wrong = (answers.predicted != answers.labels for answers in (before, after))
    newly_wrong = [n for n in after.mistakes if not was_wrong[n]]
    newly_right = [n for n in before.mistakes if not is_wrong[n]]
    return ImageChanges(
        len(newly_wrong),
        len(newly_right),
        int((was_wrong & is_wrong).sum()),
        len(after.names),
        _rows(after, _pictured_first(after, newly_wrong)[:CHANGED]),
        _rows(before, _pictured_first(before, newly_right)[:CHANGED]),
        worse_classes(before, after),
    )


def worse_classes(before: ImageAnswers, after: ImageAnswers) -> tuple[ClassDrop, ...]:
    """The classes whose accuracy dropped, the furthest first, at most ``PAIRS``."""
    rows = (right_per_class(a.predicted == a.labels, a.labels.astype(np.int64), a.classes) for a in (before, after))
    dropped = [drop for drop in class_drops(*rows) if drop.drop > 0]
    return tuple(sorted(dropped, key=lambda drop: (-drop.drop, -drop.images, drop.name))[:PAIRS])


def _incomparable(
    before: ImageAnswers | None, after: ImageAnswers, reports: tuple[QualityReport, QualityReport]
) -> str:
    if before is None:
        return "The baseline's answers to single images were not kept: evaluate it again to compare image by image."
    records = [
        {} if (result := report.dimensions.get("accuracy")) is None else result.measured_on for report in reports
    ]
    if difference := unlike("accuracy", *records):
        return f"The answers cannot be compared image by image: {difference}."
    if before.names != after.names:
        return "The answers cannot be compared image by image: they are of other images."
    return ""


def _pictured_first(answers: ImageAnswers, numbers: Iterable[np.int64]) -> list[np.int64]:
    return sorted(numbers, key=lambda number: int(number) not in answers.thumbnails)


def _rows(answers: ImageAnswers, numbers: Sequence[np.int64] | NDArray[np.int64]) -> tuple[Answer, ...]:
    return tuple(_row(answers, int(number)) for number in numbers)


def _row(answers: ImageAnswers, number: int) -> Answer:
    data = answers.thumbnails.get(number, b"")
    kind = next((kind for magic, kind in _TYPES.items() if data.startswith(magic)), None)
    picture = None if kind is None else f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    truth, predicted = (answers.classes[array[number]] for array in (answers.labels, answers.predicted))
    return Answer(answers.names[number], truth, predicted, float(answers.confidence[number]), picture, kind == "png")
