"""The answers on images beyond the validation set: shifted sets, mixed backgrounds, cue conflict; made from masks or ready on disk."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from handlers.errors import EvaluationError
from quality.dimensions.ood_robustness import category_predictions, subset_predictions, top1_categories
from quality.subjects.subject import Subject, outputs_of
from quality.suites.builders.composites import cue_conflict, mixed_backgrounds
from quality.suites.builders.masks import dark_background_masks
from quality.suites.builders.shifts import SHIFTS
from quality.suites.image_sets import EncodedSet
from quality.suites.sources import stem
from quality.suites.suite import TOP1, ShiftedSet, Suite


@dataclass(frozen=True)
class ExtraAnswers:
    """Of one subject.

    Attributes:
        shifted: set to bool (M,) right answers.
        mixed: right answers on mixed-same and on mixed-rand backgrounds.
        conflict: answers, shapes and textures of cue-conflict images, int64 (M,) each.
        conflict_names: what these numbers mean.
    """

    shifted: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    mixed: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
    conflict: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None = None
    conflict_names: tuple[str, ...] = ()


def made_answers(
    subjects: Mapping[str, Subject],
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    classes: Sequence[str],
    wanted: Collection[str],
    seed: int,
    batch_size: int,
) -> dict[str, ExtraAnswers]:
    """Make the sets of ``wanted`` dimensions from objects on a dark background, and let every subject answer them."""
    masks = dark_background_masks(pixels)
    answers = {name: ExtraAnswers(conflict_names=tuple(classes)) for name in subjects}

    def predictions(subject: Subject, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        return np.asarray(outputs_of(subject, images, batch_size).argmax(axis=1))

    if "ood_robustness" in wanted:
        for shift, change in SHIFTS.items():
            changed = change(pixels, masks)
            for name, subject in subjects.items():
                hits = predictions(subject, changed) == labels
                answers[name] = replace(answers[name], shifted={**answers[name].shifted, shift: hits})
    if "object_focus" in wanted:
        mixed = mixed_backgrounds(pixels, labels, masks, seed)
        for name, subject in subjects.items():
            both = (predictions(subject, mixed.same) == mixed.labels, predictions(subject, mixed.rand) == mixed.labels)
            answers[name] = replace(answers[name], mixed=both)
    if "shape_bias" in wanted:
        cues = cue_conflict(pixels, labels, masks, seed)
        for name, subject in subjects.items():
            answers[name] = replace(answers[name], conflict=(predictions(subject, cues.pixels), cues.shapes, cues.textures))
    return answers


def ready_answers(
    seen: Mapping[str, Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]]],
    subjects: Collection[str],
    suite: Suite,
    classes: Sequence[str],
) -> dict[str, ExtraAnswers]:
    """From the predictions and labels of each subject on each ready set to answers."""
    answers = {name: ExtraAnswers() for name in subjects}
    for name in subjects:
        right = {shift.name: _hits(seen[f"shifted/{shift.name}"][name]) for shift in suite.shifted if f"shifted/{shift.name}" in seen}
        answers[name] = replace(answers[name], shifted=right)
        if "mixed/same" in seen:
            answers[name] = replace(answers[name], mixed=(_hits(seen["mixed/same"][name]), _hits(seen["mixed/rand"][name])))
        if "cue_conflict" in seen and suite.cue_conflict is not None:
            names = label_names(suite.cue_conflict, classes)
            textures = texture_labels(suite.cue_conflict, names)
            predicted, shapes = seen["cue_conflict"][name]
            conflict = shapes != textures  # some published sets hold images without a conflict
            found = (predicted[conflict], shapes[conflict], textures[conflict])
            answers[name] = replace(answers[name], conflict=found, conflict_names=tuple(names))
    return answers


def ready_sets(suite: Suite, wanted: Collection[str]) -> dict[str, ShiftedSet]:
    """The ready sets that ``wanted`` dimensions need, by the name of their stage."""
    sets: dict[str, ShiftedSet] = {}
    if "ood_robustness" in wanted:
        sets |= {f"shifted/{shift.name}": shift for shift in suite.shifted}
    if "object_focus" in wanted and suite.mixed is not None:
        sets |= {"mixed/same": suite.mixed[0], "mixed/rand": suite.mixed[1]}
    if "shape_bias" in wanted and suite.cue_conflict is not None:
        sets["cue_conflict"] = suite.cue_conflict
    return sets


def decisions(shift: ShiftedSet, outputs: NDArray[np.float32], classes: Sequence[str]) -> NDArray[np.int64]:
    """int64 (N,): the answers, in the numbers of ``label_names``; -1 for none of the categories."""
    index = {name: i for i, name in enumerate(classes)}
    if shift.categories:
        groups = [[index[c] for c in members] for _, members in shift.categories]
        return top1_categories(outputs, groups) if shift.decision == TOP1 else category_predictions(outputs, groups)
    if shift.classes:
        return subset_predictions(outputs, [index[c] for c in shift.classes])
    return np.asarray(outputs.argmax(axis=1))


def _hits(answer: tuple[NDArray[np.int64], NDArray[np.int64]]) -> NDArray[np.bool_]:
    return np.asarray(answer[0] == answer[1])


def label_names(shift: ShiftedSet, classes: Sequence[str]) -> list[str]:
    """What the labels of the set mean: its categories, or the model's classes."""
    return [name for name, _ in shift.categories] if shift.categories else list(classes)


def texture_labels(shift: ShiftedSet, names: Sequence[str]) -> NDArray[np.int64]:
    """int64 (N,): the textures that the names of the files end with, as in ``cat/cat4-elephant2.png``.

    Raises:
        EvaluationError: for a name without a known texture.
    """
    if not isinstance(shift.images, EncodedSet):
        raise EvaluationError("Cue-conflict images are files named SHAPE-TEXTURE.", "Give a folder or tar.")
    longest_first = sorted(names, key=len, reverse=True)
    found = []
    for entry in shift.images.source.entries:
        end = stem(entry.name)
        texture = next((name for name in longest_first if re.search(rf"-{re.escape(name)}\d*$", end)), None)
        if texture is None:
            raise EvaluationError(
                f"{entry.name} does not name a known texture.", "Name the files SHAPE-TEXTURE.png, e.g. cat4-elephant2.png."
            )
        found.append(names.index(texture))
    return np.array(found, np.int64)
