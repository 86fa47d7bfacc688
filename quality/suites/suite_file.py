"""``suite.toml``: where the data of each dimension is. Read strictly; paths are relative to the file.

``docs/quality.md`` has the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from elude.exporter.images import ImageSource
from elude.exporter.images.classes import synsets
from elude.handlers.errors import UsageError
from elude.handlers.files import read_plain
from elude.quality.suites.corruptions import CORRUPTIONS, SEVERITIES
from elude.quality.suites.image_sets import EncodedSet, ImageSet
from elude.quality.suites.imagenet import (
    Categories,
    indexed_categories,
    nine_categories,
    sixteen_categories,
)
from elude.quality.suites.label_files import read_labels
from elude.quality.suites.pairing import OtherForm, aligned, same_object
from elude.quality.suites.sources import open_source, read_lines
from elude.quality.suites.suite import IMAGENET_1K, MEAN, OWN, TOP1, ShiftedSet, Suite
from elude.quality.toml_tables import Table

SCHEMA_VERSION = 1
SIXTEEN, NINE, FOLDERS = "model-vs-human-16", "imagenet-9", "folders"
GROUPS = ("blur", "digital", "noise", "weather", "extra")  # ImageNet-C's archives, where each was unpacked by itself


def load_suite(path: str | Path) -> Suite:
    """The suite that a file describes.

    Raises:
        UsageError: the file is wrong, naming file, line and key; or data that it names is missing.
        EvaluationError: images without a class.
    """
    path = Path(path)
    try:
        text = read_plain(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The suite {path} cannot be read: {error}.", "Check the path.") from error
    file, base = Table.parse(text, str(path)), path.parent
    if file.integer("schema_version") != SCHEMA_VERSION:
        raise file.error("schema_version", f"must be {SCHEMA_VERSION}", "Build the suite again with this version.")
    outputs = _outputs(file, base)
    clean = _images(file.table("images"), base, outputs)
    corruptions = file.table("corruptions")
    names = corruptions.texts("names", CORRUPTIONS) or CORRUPTIONS
    severities = tuple(int(s) for s in corruptions.texts("severities", [str(s) for s in SEVERITIES])) or SEVERITIES
    ready = corruptions.text("source", "") if corruptions.has("source") else ""
    corrupted = _corrupted(
        ready, corruptions.text("suffix", "") if corruptions.has("suffix") else "", base, names, severities, clean
    )
    corruptions.finish()
    mixed, cues = file.table("mixed"), file.table("cue_conflict")
    suite = Suite(
        file.text("name", path.parent.name),
        clean,
        names,
        severities,
        file.choice("protocol", (OWN, IMAGENET_1K), OWN),
        file.boolean("dark_background", False),
        tuple(_shifted(table, base, outputs, table.text("name")) for table in file.tables("shifted")),
        _mixed(mixed, base, outputs) if mixed.keys else None,
        _shifted(cues, base, outputs, "cue_conflict") if cues.keys else None,
        corrupted,
        outputs,
    )
    if mixed.keys:
        mixed.finish()
    file.finish()
    return suite


def _outputs(file: Table, base: Path) -> tuple[str, ...] | None:
    """``outputs``: "imagenet-1k", or a file with one name per line."""
    if not file.has("outputs"):
        return None
    text = file.text("outputs")
    return synsets() if text == IMAGENET_1K else read_lines(base / text, "The names of the outputs")


def _source(table: Table, base: Path, key: str = "source") -> ImageSource:
    split = table.text("split", "validation")
    label = table.text("label") if table.has("label") else None
    source = open_source(table.text(key), base, split=split, label=label)
    if not table.has("labels"):
        return source
    kit = base / table.text("kit") if table.has("kit") else None
    labels = read_labels(base / table.text("labels"), [entry.name for entry in source.entries], kit)
    entries = zip(source.entries, labels, strict=True)
    return replace(source, entries=tuple(replace(entry, label=label) for entry, label in entries))


def _images(table: Table, base: Path, outputs: Sequence[str] | None) -> EncodedSet:
    images = EncodedSet(_numbered(table, _source(table, base), outputs), table.boolean("ready", False))
    table.finish()
    return images


def _numbered(table: Table, source: ImageSource, outputs: Sequence[str] | None) -> ImageSource:
    """Classes that are numbers, where the outputs have names: each is the number of an output, from 0."""
    labels = {str(entry.label) for entry in source.entries}
    if outputs is None or not all(label.isdigit() for label in labels) or labels <= set(outputs):
        return source
    largest = max(labels, key=int)
    if int(largest) >= len(outputs):
        raise table.error(
            "source",
            f"has the class {largest}, and the numbers of {len(outputs)} outputs end at {len(outputs) - 1}",
            "Number classes from 0 in the order of the outputs, or name them.",
        )
    return replace(source, entries=tuple(replace(e, label=outputs[int(str(e.label))]) for e in source.entries))


def _corrupted(
    source: str, suffix: str, base: Path, names: Sequence[str], severities: Sequence[int], clean: EncodedSet
) -> tuple[tuple[str, int, ImageSet], ...]:
    """Ready sets ``SOURCE/<corruption>/<severity>``, each with the clean images in the clean order."""
    if not source:
        return ()
    sets: list[tuple[str, int, ImageSet]] = []
    for name in names:
        folder = _corruption_folder(base / source, name)
        for severity in severities:
            sets.append((name, severity, _of_clean(f"{folder}/{severity}{suffix}", clean)))
    return tuple(sets)


def _of_clean(address: str, clean: EncodedSet) -> ImageSet:
    """The clean images in another form, in the clean order."""
    other = OtherForm.of(Path(address), clean)
    return other if other is not None else aligned(EncodedSet(open_source(address), ready=True), clean)


def _corruption_folder(source: Path, name: str) -> Path:
    """``SOURCE/<corruption>``, or ``SOURCE/<group>/<corruption>`` where ImageNet-C's archives have folders."""
    grouped = [source / group / name for group in GROUPS]
    return next((folder for folder in grouped if folder.is_dir()), source / name)


def _shifted(
    table: Table, base: Path, outputs: Sequence[str] | None, name: str, key: str = "source", finish: bool = True
) -> ShiftedSet:
    images = EncodedSet(_source(table, base, key), table.boolean("ready", False))
    categories = _categories(table, base, images.classes, outputs)
    decision = table.choice("decision", (MEAN, TOP1), MEAN)
    classes = images.classes if table.choice("classes", ("all", FOLDERS), "all") == FOLDERS else None
    if finish:
        table.finish()
    return ShiftedSet(name, images, categories, classes, decision)


def _mixed(table: Table, base: Path, outputs: Sequence[str] | None) -> tuple[ShiftedSet, ShiftedSet]:
    """Both backgrounds of the same objects, in the same order."""
    same, rand = (_shifted(table, base, outputs, f"mixed_{key}", key, finish=False) for key in ("same", "rand"))
    if isinstance(same.images, EncodedSet) and isinstance(rand.images, EncodedSet):
        rand = replace(rand, images=aligned(rand.images, same.images, same_object))
    return same, rand


def _categories(table: Table, base: Path, labels: Sequence[str], outputs: Sequence[str] | None) -> Categories | None:
    """``categories``: "model-vs-human-16", "imagenet-9", or a JSON file of numbers by output index."""
    if not table.has("categories"):
        return None
    text = table.text("categories")
    if text == SIXTEEN:
        return sixteen_categories()
    if text == NINE:
        return nine_categories(labels)
    if outputs is None:
        raise table.error("categories", "needs the names of the model's outputs", "Set `outputs` at the top.")
    return indexed_categories(base / text, labels, outputs)
