"""The classes of images that lie in one flat folder: lists as ImageNet's validation images are published with.

Understood forms (``docs/own-data.md``):

- ``NAME CLASS`` or ``NAME<tab>CLASS`` per line, as Caffe's ``val.txt``; a number is that of the model's output;
- ``ImageId,PredictionString`` (Kaggle's ``LOC_val_solution.csv``): the first word of the prediction is the synset;
- one class per line, in the order of the files' names (``imagenet_2012_validation_synset_labels.txt``);
- one number per line, ``ILSVRC2012_validation_ground_truth.txt``: numbers of the development kit, which are *not* in
  the order of the outputs; ``data/meta.mat`` of the same kit says which synset each one is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from elude.handlers.errors import UsageError
from elude.quality.suites.sources import read_lines, stem

_KAGGLE = "ImageId,PredictionString"
_NAMED = re.compile(r"^(\S.*?\.(?:jpe?g|png|webp|bmp|gif|tiff?|ppm|pgm))[\t ,]+(\S.*)$", re.IGNORECASE)
_SYNSET = re.compile(r"n\d{8}")


def read_labels(path: Path, names: Sequence[str], kit: Path | None = None) -> list[str]:
    """The class of each image.

    Args:
        path: of the list.
        names: of the images, in their order.
        kit: the development kit's ``meta.mat``, needed where the list holds its numbers.

    Raises:
        UsageError: the list cannot be read, does not name an image, has another number of lines, or holds numbers
            whose meaning nothing states.
    """
    lines = read_lines(path, "The list of classes")
    if lines and lines[0] == _KAGGLE:
        by_name = dict(_kaggle(line, path) for line in lines[1:])
        return _looked_up(by_name, [stem(name) for name in names], path)
    if lines and all(_NAMED.match(line) for line in lines):
        pairs = [match.groups() for line in lines if (match := _NAMED.match(line))]
        return _looked_up({stem(name): label.strip() for name, label in pairs}, [stem(name) for name in names], path)
    if len(lines) != len(names):
        raise UsageError(
            f"{path} has {len(lines)} lines for {len(names)} images.",
            "Give one class per image in the order of the files' names, or NAME CLASS per line.",
        )
    ordered = dict(zip(sorted(names, key=stem), lines, strict=True))
    labels = [ordered[name] for name in names]
    return _from_kit(labels, path, kit) if all(label.isdigit() for label in labels) else labels


def kit_synsets(path: Path) -> dict[int, str]:
    """Number to synset of the 1,000 classes, from the development kit's ``meta.mat``.

    Raises:
        UsageError: it cannot be read, or holds no such table.
    """
    from scipy.io import loadmat

    try:
        rows = loadmat(path, squeeze_me=True)["synsets"]
        numbers = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows if int(row["num_children"]) == 0}
    except (OSError, ValueError, KeyError, TypeError, IndexError, NotImplementedError) as error:
        raise UsageError(
            f"{path} does not hold the development kit's table of synsets: {error!r}.",
            "Give data/meta.mat of ILSVRC2012_devkit_t12.",
        ) from error
    return numbers


def _from_kit(labels: Sequence[str], path: Path, kit: Path | None) -> list[str]:
    if kit is None:
        raise UsageError(
            f"{path} holds numbers, and those of ILSVRC2012's development kit are not in the order of the outputs.",
            'Name the kit\'s table: kit = "ILSVRC2012_devkit_t12/data/meta.mat".',
        )
    synset_of = kit_synsets(kit)
    unknown = next((label for label in labels if int(label) not in synset_of), None)
    if unknown is not None:
        raise UsageError(f"{path} holds the number {unknown}, which {kit} does not know.", "Give the list of that kit.")
    return [synset_of[int(label)] for label in labels]


def _kaggle(line: str, path: Path) -> tuple[str, str]:
    name, _, prediction = line.partition(",")
    synset = _SYNSET.match(prediction)
    if synset is None:
        raise UsageError(f"{path} has a line without a synset: {line[:60]!r}.", f"The form is {_KAGGLE}.")
    return name, synset[0]


def _looked_up(by_name: dict[str, str], stems: Sequence[str], path: Path) -> list[str]:
    missing = [name for name in stems if name not in by_name]
    if missing:
        raise UsageError(
            f"{path} has no class for {len(missing)} images, the first is {missing[0]}.",
            "Give the list of this folder.",
        )
    return [by_name[name] for name in stems]
