"""The answers on images beyond the validation set: shifted sets, mixed backgrounds, cue conflict; ready on disk, or
made from masks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from elude.handlers.errors import EvaluationError
from elude.quality.dimensions.ood_robustness import category_predictions, subset_predictions, top1_categories
from elude.quality.evaluation.made_sets import MADE, made_sets
from elude.quality.subjects.subject import Subject, outputs_of
from elude.quality.suites.choice import stratified
from elude.quality.suites.image_sets import EncodedSet, ImageSet
from elude.quality.suites.sources import stem
from elude.quality.suites.suite import TOP1, ShiftedSet, Suite

SHIFTED, SAME, RAND, CONFLICT = "shifted/", "mixed/same", "mixed/rand", "cue_conflict"
Predictions = Mapping[str, Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]]]


@dataclass(frozen=True)
class ExtraAnswers:
    """Of one subject.

    Attributes:
        shifted: set to bool (M,) right answers.
        paired: whether the shifted sets hold the very images of the clean subset, in its order.
        mixed: right answers on mixed-same and on mixed-rand backgrounds.
        conflict: answers, shapes and textures of cue-conflict images, int64 (M,) each.
        conflict_names: what these numbers mean.
    """

    shifted: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    paired: bool = False
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
    """Make the sets of ``wanted`` dimensions from objects on a dark background, and let every subject answer them,
    here and now.
    """
    made = made_sets(pixels, labels, classes=classes, wanted=wanted, seed=seed)
    seen: dict[str, dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
    for stage, shift in made.sets.items():
        batches = list(shift.images.batches(next(iter(subjects.values())).preprocess, classes, batch_size))
        truth = np.concatenate([batch.labels for batch in batches])
        for name, subject in subjects.items():
            found = [outputs_of(subject, batch.pixels, batch_size).argmax(axis=1) for batch in batches]
            seen.setdefault(stage, {})[name] = np.concatenate(found), truth
    return {name: answers_of(name, seen, classes, made.textures, prefix=f"{MADE}/", paired=True) for name in subjects}


def answers_of(
    subject: str,
    seen: Predictions,
    names: Sequence[str],
    textures: NDArray[np.int64] | None,
    *,
    prefix: str = "",
    paired: bool = False,
) -> ExtraAnswers:
    """From predictions and labels, by stage and subject, to one subject's answers.

    Args:
        subject: by name.
        seen: of all sets.
        names: what the numbers of the cue-conflict images mean.
        textures: of these images.
        prefix: of the stages to look at.
        paired: whether the shifted sets hold the images of the clean subset.
    """
    own = {stage.removeprefix(prefix): of[subject] for stage, of in seen.items() if stage.startswith(prefix)}
    shifted = {stage.removeprefix(SHIFTED): _hits(answer) for stage, answer in own.items() if stage.startswith(SHIFTED)}
    conflict = None
    if CONFLICT in own and textures is not None:
        predicted, shapes = own[CONFLICT]
        differ = shapes != textures  # some published sets hold images without a conflict
        conflict = predicted[differ], shapes[differ], textures[differ]
    mixed = (_hits(own[SAME]), _hits(own[RAND])) if SAME in own else None
    return ExtraAnswers(shifted, paired, mixed, conflict, tuple(names) if conflict is not None else ())


def ready_sets(
    suite: Suite, wanted: Collection[str], subset: NDArray[np.int64], budget: int | None, seed: int
) -> tuple[dict[str, ShiftedSet], bool]:
    """The ready sets that ``wanted`` dimensions need, by the name of their stage, and whether the shifted ones are
    of the clean images.

    At most ``budget`` images of each: those of ``subset`` where a set holds the clean images, else a stratified choice.
    """
    sets: dict[str, ShiftedSet] = {}
    paired = all(_aligned(shift.images, suite.images) for shift in suite.shifted)
    if "ood_robustness" in wanted:
        for shift in suite.shifted:
            numbers = subset if paired else stratified(shift.images.class_of(), budget, seed)
            sets[f"{SHIFTED}{shift.name}"] = _chosen(shift, numbers)
    if "object_focus" in wanted and suite.mixed is not None:
        numbers = stratified(suite.mixed[0].images.class_of(), budget, seed)
        if len(suite.mixed[1].images) != len(suite.mixed[0].images):
            raise EvaluationError(
                "The two sets of mixed backgrounds differ in size.", "Give the same objects in the same order."
            )
        sets |= {stage: _chosen(shift, numbers) for stage, shift in zip((SAME, RAND), suite.mixed, strict=True)}
    if "shape_bias" in wanted and suite.cue_conflict is not None:
        sets[CONFLICT] = _chosen(suite.cue_conflict, stratified(suite.cue_conflict.images.class_of(), budget, seed))
    return sets, paired


def _chosen(shift: ShiftedSet, numbers: NDArray[np.int64]) -> ShiftedSet:
    return shift if len(numbers) == len(shift.images) else replace(shift, images=shift.images.chosen(numbers))


def _aligned(images: ImageSet, clean: ImageSet) -> bool:
    """Whether both hold the same images in the same order, as the names and classes of their files tell."""
    if not (isinstance(images, EncodedSet) and isinstance(clean, EncodedSet)) or len(images) != len(clean):
        return False
    keys = [[(entry.label, stem(entry.name)) for entry in each.source.entries] for each in (images, clean)]
    return keys[0] == keys[1]


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
                f"{entry.name} does not name a known texture.",
                "Name the files SHAPE-TEXTURE.png, e.g. cat4-elephant2.png.",
            )
        found.append(names.index(texture))
    return np.array(found, np.int64)
