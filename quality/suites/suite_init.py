"""``elude suite init``: looks at a folder, says what it recognises, and writes the suite file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from elude.exporter.images.classes import synsets
from elude.handlers.errors import UsageError
from elude.quality.suites.layouts import (
    CLEAN,
    CORRUPTED,
    CUES,
    KIT_NUMBERS,
    LABEL_LISTS,
    MIXED,
    PUBLISHED_SHIFTS,
    SHIFTED,
    UNUSED,
    DataSet,
    recognise,
)
from elude.quality.suites.suite_file import load_suite

_PHOTOS = "photo"  # PACS's domain of ordinary photographs


@dataclass(frozen=True)
class Initialised:
    """What was written.

    Attributes:
        file: the suite file.
        used: the data sets that it names; the validation images come first.
        left_out: data set and the reason.
    """

    file: Path
    used: tuple[DataSet, ...]
    left_out: tuple[tuple[DataSet, str], ...]


def init(folder: str | Path, *, images: str | Path | None = None, out: str | Path | None = None) -> Initialised:
    """Write a ``suite.toml`` for the data sets in a folder.

    Args:
        folder: of one data set as it is after unpacking, or of several.
        images: which folder holds the validation images (relative to ``folder``), where several could.
        out: the file; by default ``suite.toml`` in the folder.

    Raises:
        UsageError: the folder is not there or holds nothing that is recognised, several could be the validation
            images, classes are not known, or the file exists.
    """
    root = Path(folder)
    file = Path(out) if out is not None else root / "suite.toml"
    if not root.is_dir():
        raise UsageError(f"There is no folder {root}.", "Give the folder of a data set.")
    if file.exists():
        raise UsageError(f"{file} already exists.", "Choose another file with --out, or delete that one.")
    data = recognise(root)
    if images is not None:
        data = _with_images(data, (root / images).resolve())
    clean = _clean(data, root)
    used, left_out = _sorted(data, clean)
    text = _toml(file, root.resolve().name, clean, used)
    _write_checked(file, text)
    return Initialised(file, (clean, *used), tuple(left_out))


def _with_images(data: Sequence[DataSet], path: Path) -> list[DataSet]:
    """The data sets without any other validation images; those at ``path`` are looked at if they are elsewhere."""
    if not path.is_dir():
        raise UsageError(f"There is no folder {path}.", "Give the folder of the validation images.")
    known = [item for item in data if item.path.resolve() == path] or recognise(path)
    clean = [item for item in known if item.part == CLEAN]
    if len(clean) != 1:
        raise UsageError(f"{path} does not hold one set of labelled images.", "Give a folder of class folders.")
    others = [item for item in data if item.path.resolve() != clean[0].path.resolve()]
    return [*clean, *(DataSet(SHIFTED, o.what, o.path, o.classes, o.keys) if o.part == CLEAN else o for o in others)]


def _clean(data: Sequence[DataSet], root: Path) -> DataSet:
    """The validation images among the data sets."""
    candidates = [item for item in data if item.part == CLEAN]
    photos = [item for item in candidates if item.path.name == _PHOTOS]
    if len(photos) == 1 and all(item.classes == photos[0].classes for item in candidates):
        candidates = photos
    if len(candidates) > 1:
        names = ", ".join(os.path.relpath(item.path, root) for item in candidates[:8])
        raise UsageError(
            f"Several folders of {root} could be the validation images: {names}.", "Choose one: --images FOLDER"
        )
    if not candidates:
        there = "; ".join(f"{os.path.relpath(item.path, root)}: {item.what}" for item in data[:8]) or "no images"
        raise UsageError(
            f"There are no validation images in {root} ({there}).",
            "Name them with --images FOLDER: the other sets are compared with them.",
        )
    clean = candidates[0]
    if not clean.classes and "labels" not in clean.keys:
        raise UsageError(
            f"Nothing states the classes of the images in {clean.path}.",
            f"Put one of these beside them: {', '.join(LABEL_LISTS)}; or sort them into a folder per class.",
        )
    if str(clean.keys.get("labels", "")).endswith(KIT_NUMBERS) and "kit" not in clean.keys:
        raise UsageError(
            f"{clean.keys['labels']} holds numbers of the development kit, which are not in the order of the outputs.",
            "Put the kit's data/meta.mat (ILSVRC2012_devkit_t12) beside it.",
        )
    return clean


def _sorted(data: Sequence[DataSet], clean: DataSet) -> tuple[list[DataSet], list[tuple[DataSet, str]]]:
    """The further sets that the suite can use, and the others with the reason."""
    used: list[DataSet] = []
    left_out: list[tuple[DataSet, str]] = []
    imagenet = _is_imagenet(clean)
    for item in data:
        if item is clean:
            continue
        by_category = "categories" in item.keys
        plain = item.part in (CLEAN, SHIFTED) and not by_category
        if item.part == UNUSED:
            left_out.append((item, "not part of the protocol"))
        elif by_category and not imagenet:
            left_out.append((item, "its categories are of ImageNet-1k's classes, and the validation images are not"))
        elif plain and clean.classes and not item.classes <= (set(synsets()) if imagenet else clean.classes):
            left_out.append((item, "its classes are not those of the validation images"))
        elif item.part in (CORRUPTED, MIXED, CUES) and any(other.part == item.part for other in used):
            left_out.append((item, "a second set of its kind"))
        else:
            used.append(item if item.part != CLEAN else DataSet(SHIFTED, item.what, item.path, item.classes, item.keys))
    return used, left_out


def _is_imagenet(clean: DataSet) -> bool:
    """Whether the classes are synsets of ImageNet-1k, or those of its validation images in one folder."""
    if clean.classes:
        return clean.classes <= set(synsets())
    return "ImageNet" in clean.what


def _toml(file: Path, name: str, clean: DataSet, used: Sequence[DataSet]) -> str:
    base = file.resolve().parent

    def address(path: Path | str) -> str:
        path = Path(path).resolve()
        return path.relative_to(base).as_posix() or "." if path.is_relative_to(base) else path.as_posix()

    imagenet = _is_imagenet(clean)
    lines = ["schema_version = 1", f"name = {json.dumps(name)}"]
    lines += ['protocol = "imagenet-1k"'] if imagenet and _complete(used) else []
    lines += ['outputs = "imagenet-1k"   # the 1,000 synsets, in the order of the outputs'] if imagenet else []
    lines += ["", "[images]", f"source = {json.dumps(address(clean.path))}"]
    lines += [f"{key} = {json.dumps(address(str(clean.keys[key])))}" for key in ("labels", "kit") if key in clean.keys]
    for item in used:
        heading = f"[[{SHIFTED}]]" if item.part == SHIFTED else f"[{item.part}]"
        lines += ["", heading, *_table(item, address(item.path))]
    return "\n".join(lines) + "\n"


def _table(item: DataSet, source: str) -> list[str]:
    keys = dict(item.keys)
    if item.part == MIXED:
        inner = str(keys.pop("inner"))
        parts = {part: "/".join(filter(None, (source, f"mixed_{part}", inner))) for part in ("same", "rand")}
        return [f"{key} = {json.dumps(value)}" for key, value in (parts | keys).items()]
    lines = [f"source = {json.dumps(source)}"]
    if item.part == CORRUPTED:
        return [f"names = {json.dumps(sorted(item.classes))}", *lines]
    if item.part == SHIFTED:
        keys.setdefault("name", item.path.name)
    return [*lines, *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]


def _complete(used: Sequence[DataSet]) -> bool:
    """Whether all sets of the published protocol are there; the number of images is checked when it is measured."""
    shifts = {str(item.keys.get("name")) for item in used if item.part == SHIFTED}
    return {*PUBLISHED_SHIFTS, "imagenet-r"} == shifts and {CORRUPTED, MIXED, CUES} <= {item.part for item in used}


def _write_checked(file: Path, text: str) -> None:
    """Write the file and open it; a file that cannot be used does not stay."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.", "Choose another place with --out.") from error
    try:
        load_suite(file)
    except Exception:
        file.unlink()
        raise
