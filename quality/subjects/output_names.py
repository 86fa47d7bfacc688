"""What a model's outputs mean on a suite: the one place where the classes of images become numbers of outputs.

Every subject goes through it (bundle, torch, ONNX file, server, callable), so that all of them measure the same or
refuse alike. Nothing is taken from the order of folders: a class is the output of that name, or, where folders are
numbers, the output of that number. Anything else is refused, also when the counts agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from elude.exporter.images.classes import readable, synsets
from elude.handlers.errors import EvaluationError
from elude.quality.subjects.subject import Subject
from elude.quality.suites.sources import read_lines
from elude.quality.suites.suite import IMAGENET_1K, ShiftedSet, Suite

_ASK = (
    "Give the names of the outputs in order: `outputs` in suite.toml, --outputs FILE, or labels.json beside an .onnx "
    "file; or name the folders by the numbers of the outputs, from 0."
)


@dataclass(frozen=True)
class OutputNames:
    """The names of a model's outputs, each different from all others.

    Attributes:
        keys: as the suite calls them; outputs that the suite does not name have names of their own.
        titles: for people: the model's own names, with words for synsets.
    """

    keys: tuple[str, ...]
    titles: tuple[str, ...]


def output_names(subject: Subject, suite: Suite) -> OutputNames:
    """The names of the outputs of ``subject`` on ``suite``.

    Raises:
        EvaluationError: a class of the suite is not exactly one output of the model, by name or by number.
    """
    labels, outputs = subject.labels, suite.outputs
    if labels is not None and outputs is not None:
        _check_same_order(subject.name, labels, outputs)
    sets = _classes_of_sets(suite)
    names = outputs or labels
    if names is None:
        for set_name, classes in sets.items():
            if not all(_is_number(name) for name in classes):
                raise EvaluationError(
                    f"The outputs of {subject.name} have no names, so it is unknown which of them is "
                    f"{_first_text(classes)!r} of {set_name}.",
                    _ASK,
                )
        count = _count_outputs(subject)
    else:
        count = len(names)
    unique = distinct(names) if names is not None else tuple(str(i) for i in range(count))
    keys = list(unique)
    taken: dict[int, str] = {}
    for set_name, classes in sets.items():
        for name, output in _outputs_of(classes, unique, names or unique, set_name, subject.name).items():
            if taken.setdefault(output, name) != name:
                raise EvaluationError(
                    f"{name!r} of {set_name} and {taken[output]!r} both name output {output} of {subject.name}.",
                    "Name each class in one way in all sets of the suite.",
                )
            keys[output] = name
    return OutputNames(tuple(keys), distinct(readable(labels if labels is not None else unique)))


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """``names``, those that several outputs share with the output's number, as a server answers them."""
    counts = Counter(names)
    return tuple(name if counts[name] == 1 else f"{name} ({i})" for i, name in enumerate(names))


def with_outputs(suite: Suite, outputs: str | None) -> Suite:
    """The suite with ``outputs``, "imagenet-1k" or a file with one name per line; as it is for None.

    Raises:
        UsageError: the file cannot be read.
    """
    if outputs is None:
        return suite
    names = synsets() if outputs == IMAGENET_1K else read_lines(Path(outputs), "The names of the outputs")
    return replace(suite, outputs=names)


def _check_same_order(model: str, labels: Sequence[str], outputs: Sequence[str]) -> None:
    if len(labels) != len(outputs):
        raise EvaluationError(
            f"{model} has {len(labels)} outputs, and the suite's `outputs` names {len(outputs)}.",
            "Give the names of this model's outputs, all of them.",
        )
    if sorted(labels) == sorted(outputs) and list(labels) != list(outputs):
        first = next(i for i, (label, output) in enumerate(zip(labels, outputs, strict=True)) if label != output)
        raise EvaluationError(
            f"The suite's `outputs` has the model's own names in another order: output {first} of {model} is "
            f"{labels[first]!r}, not {outputs[first]!r}.",
            "Leave `outputs` out, or export the model with the right labels.",
        )


def _classes_of_sets(suite: Suite) -> dict[str, tuple[str, ...]]:
    """The classes that each set of the suite names, by the name of the set; of a set with categories, the members."""
    shifts: list[ShiftedSet] = [*suite.shifted, *(suite.mixed or ())]
    if suite.cue_conflict is not None:
        shifts.append(suite.cue_conflict)
    sets = {suite.name: tuple(suite.images.classes)}
    for shift in shifts:
        members = [name for _, group in shift.categories or () for name in group]
        sets[shift.name] = tuple(dict.fromkeys([*(members or shift.images.classes), *(shift.classes or ())]))
    return sets


def _outputs_of(
    classes: Sequence[str], unique: Sequence[str], names: Sequence[str], set_name: str, model: str
) -> Mapping[str, int]:
    """The output of each class of one set: all by name, or all by number."""
    place = {name: i for i, name in enumerate(unique)}
    if all(name in place for name in classes):
        return {name: place[name] for name in classes}
    shared = [name for name in classes if name not in place and name in names]
    if shared:
        numbers = [i for i, name in enumerate(names) if name == shared[0]]
        raise EvaluationError(
            f"{len(numbers)} outputs of {model} are called {shared[0]!r}: {', '.join(map(str, numbers))}.",
            f"Name the folder of each by its number, or {unique[numbers[0]]!r} and so on.",
        )
    if all(_is_number(name) for name in classes) and not _numbers_mean_names(unique):
        outside = [name for name in classes if int(name) >= len(unique)]
        if outside:
            raise EvaluationError(
                f"Class {outside[0]!r} of {set_name} is not an output of {model}, which has 0 to {len(unique) - 1}.",
                "Number the folders like the outputs, from 0.",
            )
        return _by_number(classes, set_name)
    unknown = [name for name in classes if name not in place]
    raise EvaluationError(
        f"The model has no class {unknown[0]!r} ({len(unknown)} classes of {set_name} are unknown to {model}).",
        f"Name the folders like the model's classes: {', '.join(list(unique)[:5])} …; or: {_ASK[0].lower()}{_ASK[1:]}",
    )


def _by_number(classes: Sequence[str], set_name: str) -> dict[str, int]:
    numbers = Counter(int(name) for name in classes)
    twice = [number for number, times in numbers.items() if times > 1]
    if twice:
        same = [name for name in classes if int(name) == twice[0]]
        raise EvaluationError(f"{' and '.join(same)} of {set_name} are the same number.", "Keep one folder per class.")
    return {name: int(name) for name in classes}


def _numbers_mean_names(names: Sequence[str]) -> bool:
    """Whether an output is called by a number that is not its own: then a number may mean either."""
    return any(_is_number(name) and int(name) != i for i, name in enumerate(names))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _first_text(classes: Sequence[str]) -> str:
    return next(name for name in classes if not _is_number(name))


def _count_outputs(subject: Subject) -> int:
    """How many outputs the model has, from one black image."""
    return int(subject.outputs(np.zeros((1, *subject.preprocess.input_size), np.float32)).shape[1])
