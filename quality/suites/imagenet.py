"""The coarser classes that published test sets are labelled with, as sets of ImageNet-1k's outputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from elude.exporter.images.classes import NINE, SIXTEEN, synsets
from elude.handlers.errors import UsageError
from elude.handlers.files import read_json

Categories = tuple[tuple[str, tuple[str, ...]], ...]


def sixteen_categories() -> Categories:
    """The 16 categories of model-vs-human, alphabetical, each with its synsets."""
    names = synsets()
    return tuple((category, tuple(names[i] for i in indices)) for category, indices in SIXTEEN.items())


def nine_categories(labels: Sequence[str]) -> Categories:
    """ImageNet-9's categories for its folders, named ``NN_category``.

    Args:
        labels: the set's class folders; ``_`` and ``-`` may stand for spaces.

    Raises:
        UsageError: a folder is not named for one of the nine.
    """
    names = synsets()
    categories = []
    for label in labels:
        category = re.sub(r"^\d+[_-]", "", label).replace("_", " ").replace("-", " ").lower()
        if category not in NINE:
            raise UsageError(
                f"The folder {label!r} is not named for one of ImageNet-9's categories.",
                f"They are {', '.join(NINE)}, with or without a number before: 00_dog.",
            )
        categories.append((label, tuple(names[i] for i in NINE[category])))
    return tuple(categories)


def indexed_categories(path: Path, labels: Sequence[str], outputs: Sequence[str]) -> Categories:
    """Categories of a JSON file that maps each output's index to a category's number, -1 for none, as ImageNet-9's
    ``in_to_in9.json``.

    Args:
        path: of the file.
        labels: the set's class folders, sorted, whose order is the categories' numbers.
        outputs: the names of the model's outputs.

    Raises:
        UsageError: it cannot be read, or numbers categories that the set does not have.
    """
    try:
        numbers = {int(index): int(number) for index, number in read_json(path).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{path} does not map indices to categories: {error}.", "Give the in_to_in9.json of the data set."
        ) from error
    if set(numbers.values()) - {-1} != set(range(len(labels))) or not set(numbers) <= set(range(len(outputs))):
        raise UsageError(
            f"{path} numbers {len(set(numbers.values()) - {-1})} categories of {len(numbers)} outputs, "
            f"and there are {len(labels)} folders and {len(outputs)} outputs.",
            "Give the file that belongs to these images.",
        )
    return tuple(
        (label, tuple(outputs[i] for i, n in sorted(numbers.items()) if n == k)) for k, label in enumerate(labels)
    )
