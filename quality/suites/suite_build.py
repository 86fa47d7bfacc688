"""``elude suite build``: from a labelled folder, and masks if there are any, all the sets that the nine dimensions
need.

A suite is a folder: ``suite.toml``, a tar for each set, and ``manifest.json`` with how it was built and the hash of
every file. Each tar is written beside its place and renamed when it is whole, and the manifest keeps what is done: a
build that was stopped resumes, one that is complete changes nothing, and ``suite.toml`` comes last, so that a
half-built suite cannot be opened.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elude.exporter.progress import StepProgress
from elude.handlers.errors import EvaluationError, UsageError
from elude.handlers.files import file_sha256, read_json, replace_file, replacing
from elude.handlers.images.preprocess import Preprocess
from elude.quality.dimensions.quality_json import library_versions
from elude.quality.suites.builders.composites import cue_conflict, mixed_backgrounds
from elude.quality.suites.builders.masks import dark_background_masks
from elude.quality.suites.builders.shifts import SHIFTS
from elude.quality.suites.corruptions import CORRUPTIONS, SEVERITIES, VERSION
from elude.quality.suites.corruptions.parallel import corrupting
from elude.quality.suites.image_sets import EncodedSet
from elude.quality.suites.sources import open_source, stem

BUILDER = 1  # raised whenever the same images would give other sets; corruptions have a version of their own
MANIFEST = "manifest.json"
_CHUNK = 64  # images in memory at once while they are corrupted


@dataclass(frozen=True)
class BuildSettings:
    """How to build.

    Attributes:
        size: side of the images, those of the model that is to be measured.
        crop_pct: part of the resized image that is kept, as in the model's preprocessing.
        interpolation: of the resizing.
        corruptions: which of the fifteen.
        severities: of 1 to 5.
        seed: random seed.
        dark_background: take masks from objects on black.
    """

    size: int = 224
    crop_pct: float = 1.0
    interpolation: str = "bicubic"
    corruptions: tuple[str, ...] = CORRUPTIONS
    severities: tuple[int, ...] = SEVERITIES
    seed: int = 0
    dark_background: bool = False

    @property
    def preprocess(self) -> Preprocess:
        return Preprocess(
            (3, self.size, self.size), self.interpolation, self.crop_pct, "center", (0.0,) * 3, (1.0,) * 3
        )

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "corruptions": list(self.corruptions), "severities": list(self.severities)}


@dataclass(frozen=True)
class Built:
    """What a build did: the folder, the sets that were made, and those that were there."""

    folder: Path
    made: tuple[str, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True)
class _Content:
    """All images of a source: uint8 (N, H, W, 3), classes, stems, and masks bool (N, H, W) or None."""

    pixels: NDArray[np.uint8]
    labels: Sequence[str]
    stems: Sequence[str]
    masks: NDArray[np.bool_] | None

    @property
    def numbers(self) -> NDArray[np.int64]:
        names = sorted(set(self.labels))
        return np.array([names.index(label) for label in self.labels], np.int64)


def build(
    images: str | Path,
    out: str | Path,
    *,
    masks: str | Path | None = None,
    settings: BuildSettings | None = None,
    name: str | None = None,
    workers: int = 0,
    progress: StepProgress | None = None,
) -> Built:
    """Build a suite.

    Args:
        images: labelled images as for ``elude.quality.suites.sources.open_source``.
        out: the suite's folder.
        masks: images of the same class and name, bright where the object is; without them and
            without ``dark_background`` only corruptions are made.
        settings: how.
        name: of the suite.
        workers: processes that corrupt images.
        progress: called with (stage, done, total).

    Raises:
        UsageError: there is another suite at ``out``, or one of its files is not what was written.
        EvaluationError: images without a class, or a mask is missing.
    """
    settings, out = settings or BuildSettings(), Path(out)
    clean = EncodedSet(open_source(str(images)))
    mask_set = EncodedSet(open_source(str(masks))) if masks is not None else None
    recipe = {
        "builder": BUILDER,
        "corruptions": VERSION,
        "images": clean.sha256(),
        "masks": mask_set.sha256() if mask_set else None,
        "settings": settings.to_json(),
        "versions": {name: v for name, v in library_versions().items() if name in ("numpy", "scipy", "pillow")},
    }
    files = _begin(out, recipe)
    content = _read(clean, mask_set, settings)
    plan = _plan(content, settings)
    made, kept = [], []
    with corrupting(workers) as corrupter:

        def corrupted(key: tuple[str, int]) -> Iterable[NDArray[np.uint8]]:
            for start in range(0, len(content.pixels), _CHUNK):
                numbers = list(range(start, min(start + _CHUNK, len(content.pixels))))
                yield from corrupter(content.pixels[start : start + _CHUNK], *key, numbers, settings.seed)()

        for c in settings.corruptions:
            for s in settings.severities:
                names = _names(content.labels, content.stems)
                plan[f"corrupted/{c}/{s}.tar"] = lambda key=(c, s), names=names: zip(names, corrupted(key), strict=True)  # type: ignore[misc]
        for done, (file, make) in enumerate(plan.items(), 1):
            if file in files and _sha256(out / file) == files[file]:
                kept.append(file)
            else:
                files[file] = _write_tar(out / file, make())
                replace_file(out / MANIFEST, _json({"recipe": recipe, "files": files}))
                made.append(file)
            if progress is not None:
                progress("sets", done, len(plan))
    replace_file(out / "suite.toml", _toml(name or out.name, plan, settings).encode())
    return Built(out, tuple(made), tuple(kept))


def verify(folder: str | Path) -> None:
    """Check every file of a built suite against its manifest.

    Raises:
        UsageError: one is missing or was changed, with its name.
    """
    folder = Path(folder)
    files = _manifest(folder)["files"]
    for name, digest in files.items():
        if not (folder / name).is_file() or _sha256(folder / name) != digest:
            raise UsageError(
                f"{name} of the suite {folder} is missing or was changed.",
                "Build the suite again: it makes only that set.",
            )


def _begin(out: Path, recipe: Mapping[str, Any]) -> dict[str, str]:
    """The files that are done, if the folder holds a build by the same recipe."""
    if not (out / MANIFEST).is_file():
        if out.exists() and any(out.iterdir()):
            raise UsageError(f"{out} is not empty and holds no suite.", "Give a new folder.")
        out.mkdir(parents=True, exist_ok=True)
        return {}
    manifest = _manifest(out)
    different = [key for key in recipe if manifest["recipe"].get(key) != json.loads(json.dumps(recipe[key]))]
    if different:
        raise UsageError(
            f"{out} holds a suite with different {', '.join(different)}.", "Give a new folder, or delete that one."
        )
    return dict(manifest["files"])


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        data = read_json(folder / MANIFEST)
        if isinstance(data["recipe"], dict) and isinstance(data["files"], dict):
            return dict(data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder} holds no readable {MANIFEST}: {error!r}.", "Build the suite again in a new folder."
        ) from error
    raise UsageError(f"{folder / MANIFEST} is not a suite's manifest.", "Build the suite again in a new folder.")


def _read(clean: EncodedSet, masks: EncodedSet | None, settings: BuildSettings) -> _Content:
    preprocess = settings.preprocess
    pixels = np.stack([clean.pixels(i, preprocess) for i in range(len(clean))]).astype(np.uint8, copy=False)
    labels = [str(entry.label) for entry in clean.source.entries]
    stems = [stem(entry.name) for entry in clean.source.entries]
    if len(set(zip(labels, stems, strict=True))) < len(stems):
        raise EvaluationError(
            "Two images of one class have the same name.", "Rename one; sets are put together by names."
        )
    found = None
    if masks is not None:
        place = {(str(entry.label), stem(entry.name)): i for i, entry in enumerate(masks.source.entries)}
        missing = [f"{key[0]}/{key[1]}" for key in zip(labels, stems, strict=True) if key not in place]
        if missing:
            raise EvaluationError(
                f"{len(missing)} images have no mask, the first is {missing[0]}.",
                "Give one of the same class and name.",
            )
        found = np.stack(
            [masks.pixels(place[key], preprocess).max(axis=2) > 127 for key in zip(labels, stems, strict=True)]
        )
    elif settings.dark_background:
        found = dark_background_masks(pixels)
    return _Content(pixels, labels, stems, found)


def _plan(
    content: _Content, settings: BuildSettings
) -> dict[str, Callable[[], Iterable[tuple[str, NDArray[np.uint8]]]]]:
    """File to what makes its (name, image) pairs; corrupted sets are added by the caller."""
    names = _names(content.labels, content.stems)
    plan: dict[str, Callable[[], Iterable[tuple[str, NDArray[np.uint8]]]]] = {
        "images.tar": lambda: zip(names, content.pixels, strict=True)
    }
    masks = content.masks
    if masks is None:
        return plan
    for shift, change in SHIFTS.items():
        plan[f"{shift}.tar"] = lambda change=change: zip(names, change(content.pixels, masks), strict=True)  # type: ignore[misc]
    for part in ("same", "rand"):

        def mixed(part: str = part) -> Iterable[tuple[str, NDArray[np.uint8]]]:
            found = mixed_backgrounds(content.pixels, content.numbers, masks, settings.seed)
            return zip([names[i] for i in found.numbers], found.same if part == "same" else found.rand, strict=True)

        plan[f"mixed_{part}.tar"] = mixed

    def cues() -> Iterable[tuple[str, NDArray[np.uint8]]]:
        found, classes = (
            cue_conflict(content.pixels, content.numbers, masks, settings.seed),
            sorted(set(content.labels)),
        )
        shape, texture = ([classes[i] for i in of] for of in (found.shapes, found.textures))
        return zip(
            [f"{s}/{i:06}-{t}.png" for i, (s, t) in enumerate(zip(shape, texture, strict=True))],
            found.pixels,
            strict=True,
        )

    plan["cue_conflict.tar"] = cues
    return plan


def _names(labels: Sequence[str], stems: Sequence[str]) -> list[str]:
    return [f"{label}/{name}.png" for label, name in zip(labels, stems, strict=True)]


def _write_tar(path: Path, images: Iterable[tuple[str, NDArray[np.uint8]]]) -> str:
    """Write PNGs, sorted by name and without time stamps, so that the same images give the same bytes; returns the
    hash.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = sorted((name, _png(image)) for name, image in images)
    with replacing(path) as temporary, tarfile.open(temporary, "w") as tar:
        for name, data in encoded:
            info = tarfile.TarInfo(str(PurePosixPath(name)))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file_sha256(path)


def _png(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _sha256(path: Path) -> str:
    return file_sha256(path) if path.is_file() else ""


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()


def _toml(name: str, plan: Mapping[str, Any], settings: BuildSettings) -> str:
    quoted = json.dumps  # a JSON string is a TOML basic string
    lines = ["schema_version = 1", f"name = {quoted(name)}", "", "[images]", 'source = "images.tar"', "ready = true"]
    if settings.corruptions:
        names, severities = quoted(list(settings.corruptions)), quoted([str(s) for s in settings.severities])
        lines += [
            "",
            "[corruptions]",
            f"names = {names}",
            f"severities = {severities}",
            'source = "corrupted"',
            'suffix = ".tar"',
        ]
    for shift in SHIFTS:
        if f"{shift}.tar" in plan:
            lines += ["", "[[shifted]]", f"name = {quoted(shift)}", f'source = "{shift}.tar"', "ready = true"]
    if "mixed_same.tar" in plan:
        lines += ["", "[mixed]", 'same = "mixed_same.tar"', 'rand = "mixed_rand.tar"', "ready = true"]
        lines += ["", "[cue_conflict]", 'source = "cue_conflict.tar"', "ready = true"]
    return "\n".join(lines) + "\n"
