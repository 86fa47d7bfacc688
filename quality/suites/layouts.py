"""What lies in a folder: the published data sets as they are after unpacking, and plain class folders.

Only names are looked at, and the size of one image of a set. What a set is follows from names that its publisher
gave (synsets, ``mixed_same``, ``airplane1-bicycle2.png``), never from the order or the number of folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from elude.exporter.images import SUFFIXES
from elude.exporter.images.classes import SIXTEEN, synsets
from elude.quality.suites.corruptions import CORRUPTIONS
from elude.quality.suites.suite_file import GROUPS

CLEAN, SHIFTED, CORRUPTED, MIXED, CUES = "images", "shifted", "corruptions", "mixed", "cue_conflict"
UNUSED = "unused"
SPLITS = {"val": 0, "validation": 0, "valid": 0, "test": 1, "train": 2}  # the lowest is measured on
LABEL_LISTS = (
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
    "val.txt",
    "ILSVRC2012_validation_ground_truth.txt",
)
KIT_NUMBERS, KIT = LABEL_LISTS[-1], "meta.mat"
_RENDITIONS = "art|cartoon|deviantart|embroidery|graffiti|graphic|misc|origami|painting|sculpture|sketch|sticker|tattoo"
_RENDITION = re.compile(rf"^({_RENDITIONS}|toy|videogame)_\d+$")
_SKETCH = re.compile(r"^sketch_\d+$")
_SYNSET = re.compile(r"^n\d{8}$")
_TRIAL = re.compile(r"^\d+_[a-z]+_dnn_[^_]+_([a-z]+)_")
TRIAL_LABEL = r"^(?:.*/)?[^_/]+_[^_/]+_[^_/]+_[^_/]+_([^_/]+)_[^/]*$"
_CUES = re.compile(rf"^({'|'.join(SIXTEEN)})\d+-({'|'.join(SIXTEEN)})\d+$")
SHIFT_NAMES = {"edges": "edge", "filled-silhouettes": "silhouette", "silhouettes": "silhouette"}
PUBLISHED_SHIFTS = ("edge", "silhouette", "sketch", "stylized")


@dataclass(frozen=True)
class DataSet:
    """One data set that was recognised.

    Attributes:
        part: the table of ``suite.toml`` that it belongs to, or ``unused``.
        what: a line for the reader.
        path: its folder.
        classes: names of its classes.
        keys: further keys of its table.
    """

    part: str
    what: str
    path: Path
    classes: frozenset[str] = frozenset()
    keys: Mapping[str, str | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """Names directly inside a folder; hidden ones are passed over."""

    path: Path
    folders: tuple[str, ...]
    images: tuple[str, ...]
    files: tuple[str, ...]

    @classmethod
    def of(cls, path: Path) -> Listing:
        folders, images, files = [], [], []
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif Path(entry.name).suffix.lower() in SUFFIXES:
                    images.append(entry.name)
                else:
                    files.append(entry.name)
        return cls(path, *(tuple(sorted(names)) for names in (folders, images, files)))

    def child(self, name: str) -> Listing:
        return Listing.of(self.path / name)

    @property
    def classes(self) -> frozenset[str]:
        """The sub-folders, if each holds images directly and no folder; else none."""
        if not self.folders or self.images:
            return frozenset()
        inside = [self.child(name) for name in self.folders]
        return frozenset(self.folders) if all(c.images and not c.folders for c in inside) else frozenset()

    def samples(self) -> list[str]:
        """The first image's name of each sub-folder, without suffix."""
        return [Path(images[0]).stem for name in self.folders if (images := self.child(name).images)]


def recognise(root: Path) -> list[DataSet]:
    """The data sets in a folder, or in its sub-folders down to the third level."""
    return list(_recognise(Listing.of(root), root, depth=3))


def _recognise(here: Listing, root: Path, depth: int) -> Iterator[DataSet]:
    for look in (_corrupted, _mixed, _trials, _flat):
        data = look(here, root)
        if data is not None:
            yield data
            return
    split = _split(here)
    if split is None and here.classes:
        yield _class_folders(here)
    elif depth > 0:
        for name in here.folders if split is None else [split]:
            yield from _recognise(here.child(name), root, depth - 1)


def _split(here: Listing) -> str | None:
    """The validation split: of two or more folders named like splits, or of one that is alone."""
    splits = sorted((SPLITS[name.lower()], name) for name in here.folders if name.lower() in SPLITS)
    several = len(splits) > 1 or len(here.folders) == 1
    return splits[0][1] if splits and several and splits[0][0] < SPLITS["train"] else None


def _corrupted(here: Listing, root: Path) -> DataSet | None:
    names = {name for name in here.folders if name in CORRUPTIONS}
    for group in set(GROUPS) & set(here.folders):
        names |= {name for name in here.child(group).folders if name in CORRUPTIONS}
    if not names:
        return None
    missing = [name for name in CORRUPTIONS if name not in names]
    lacks = f"; without {', '.join(missing)}" if missing else ""
    return DataSet(
        CORRUPTED, f"ImageNet-C's layout, {len(names)} of 15 corruptions{lacks}", here.path, frozenset(names)
    )


def _mixed(here: Listing, root: Path) -> DataSet | None:
    if not {"mixed_same", "mixed_rand"} <= set(here.folders):
        return None
    same = here.child("mixed_same")
    inner = "val" if "val" in same.folders else ""
    classes = (same.child(inner) if inner else same).classes
    keys: dict[str, str | bool] = {"categories": "imagenet-9", "decision": "top1", "inner": inner}
    first = (same.child(inner) if inner else same).child(min(classes)) if classes else same
    return DataSet(MIXED, "ImageNet-9, the backgrounds challenge", here.path, classes, keys | _ready(first))


def _trials(here: Listing, root: Path) -> DataSet | None:
    """``sketch`` and ``stylized`` of model-vs-human: ``NNNN_xxx_dnn_CONDITION_CATEGORY_NAME.png``."""
    inside = here
    while not inside.images and len(inside.folders) == 1:
        inside = inside.child(inside.folders[0])
    found = [_TRIAL.match(name) for name in inside.images[:50]]
    if not found or any(match is None or match[1] not in SIXTEEN for match in found):
        return None
    return _sixteen(here, inside, {"label": TRIAL_LABEL})


def _flat(here: Listing, root: Path) -> DataSet | None:
    if here.folders or len(here.images) < 2:
        return None
    keys: dict[str, str | bool] = {}
    labels = _beside(here.path, root, LABEL_LISTS)
    if labels is not None:
        keys["labels"] = str(labels)
        kit = _beside(here.path, root, (KIT,)) if labels.name == KIT_NUMBERS else None
        keys |= {"kit": str(kit)} if kit else {}
    stated = f"classes by {labels.name}" if labels else "without a list of their classes"
    imagenet = "ImageNet validation images" if here.images[0].startswith("ILSVRC2012_val_") else "images"
    return DataSet(CLEAN, f"{len(here.images)} {imagenet} in one folder, {stated}", here.path, keys=keys)


def _class_folders(here: Listing) -> DataSet:
    classes, samples = here.classes, here.samples()
    synset = all(_SYNSET.match(name) for name in classes)
    name = SHIFT_NAMES.get(here.path.name, here.path.name)
    if classes <= set(SIXTEEN) and all(_CUES.match(sample) for sample in samples):
        return DataSet(
            CUES,
            f"cue-conflict stimuli of {len(classes)} of model-vs-human's 16 categories",
            here.path,
            classes,
            {"categories": "model-vs-human-16", **_ready(here.child(min(classes)))},
        )
    if classes == set(SIXTEEN):
        return _sixteen(here, here.child(min(classes)), {})
    if synset and all(_RENDITION.match(sample) for sample in samples) and not all(map(_SKETCH.match, samples)):
        keys: dict[str, str | bool] = {"name": "imagenet-r", "classes": "folders"}
        return DataSet(SHIFTED, f"ImageNet-R, {len(classes)} classes", here.path, classes, keys)
    if synset and all(_SKETCH.match(sample) for sample in samples):
        return DataSet(
            SHIFTED, f"ImageNet-Sketch, {len(classes)} classes", here.path, classes, {"name": "imagenet-sketch"}
        )
    return DataSet(CLEAN, f"class folders, {_named(classes, synset)}", here.path, classes, {"name": name})


def _named(classes: frozenset[str], synset: bool) -> str:
    if synset:
        unknown = len(classes - set(synsets()))
        return f"{len(classes)} by synset" + (f", {unknown} of them not of ImageNet-1k" if unknown else "")
    if all(name.isdigit() for name in classes):
        low, high = min(classes, key=int), max(classes, key=int)
        return f"{len(classes)} by number, {low} to {high}: each is the number of the model's output, from 0"
    return f"{len(classes)} by name: {', '.join(sorted(classes)[:4])}{' …' if len(classes) > 4 else ''}"


def _sixteen(here: Listing, sample: Listing, keys: Mapping[str, str | bool]) -> DataSet:
    """A set of model-vs-human; only those of the published protocol are measured on."""
    name = SHIFT_NAMES.get(here.path.name, here.path.name)
    used = name in PUBLISHED_SHIFTS
    what = f"model-vs-human's {name}, 16 categories" + ("" if used else ": not one of the protocol's shifts, left out")
    table = {"name": name, **keys, "categories": "model-vs-human-16", **_ready(sample)}
    return DataSet(SHIFTED if used else UNUSED, what, here.path, frozenset(SIXTEEN), table)


def _ready(folder: Listing) -> dict[str, str | bool]:
    """``ready`` for stimuli of 224 × 224 pixels, which would lose their border if they were cut once more."""
    if not folder.images:
        return {}
    with Image.open(folder.path / folder.images[0]) as image:
        return {"ready": True} if image.size == (224, 224) else {}


def _beside(path: Path, root: Path, names: tuple[str, ...]) -> Path | None:
    """The first of ``names`` in the folder, one of those above it up to ``root``, or up to two levels below these."""
    above = [path, *(parent for parent in path.parents if parent == root or root in parent.parents)]
    patterns = ("{}", "*/{}", "*/*/{}")
    matches = (
        match
        for name in names
        for folder in above
        for pattern in patterns
        for match in sorted(folder.glob(pattern.format(name)))
    )
    return next(matches, None)
