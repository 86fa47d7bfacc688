"""The benchmarks' pictures: cut-out things on varied photographs, and photographs of food, in two sets that share no
source picture.

On white backgrounds everywhere all units look alike, so each cut-out is laid on a crop of a
photograph. ``probing`` pictures fit the split, ``held_out`` pictures judge it: every cut-out,
drawing and photograph (also as a background) belongs to one of the two sets only.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.method.fetch import cache, unpacked
from benchmarks.method.model import SIZE

SETS = ("probing", "held_out")
COPIES = 3  # composites of each cut-out
_SKIPPED = ("symbols", "town/flags")
_DRAWN = ("Animals & Nature", "Food & Drink", "Travel & Places", "Objects", "Activities")
_SMALLEST_CLASS = 8


def build(name: str) -> Path:
    """The folder of one of ``SETS``, ``<class>/<picture>.jpg``, made at the first call."""
    folder = cache() / "pictures" / name
    if folder.exists():
        return folder
    half = SETS.index(name)
    photographs = sorted((unpacked("food") / "package" / "assets").glob("*.jpeg"))
    others = sorted(
        path
        for path in (unpacked("backgrounds") / "skimage" / "data").glob("*.[jp]*g")
        if path.stat().st_size > 100_000
    )
    backgrounds = [_open(path) for path in (photographs + others) if _half(path) == half]
    made = folder.with_name(name + ".partial")
    for path in photographs:
        if _half(path) == half:
            _save(
                _square(_open(path), np.random.default_rng(0), whole=True),
                made / "photographs of food" / f"{path.stem}.jpg",
            )
    for label, path, copies in _cut_outs():
        if _half(path) != half:
            continue
        thing = Image.open(path).convert("RGBA")
        for copy in range(copies):
            rng = np.random.default_rng([_number(path), copy])
            _save(
                _composite(thing, backgrounds[rng.integers(len(backgrounds))], rng),
                made / label / f"{path.stem}-{copy}.jpg",
            )
    made.rename(folder)
    return folder


def _cut_outs() -> list[tuple[str, Path, int]]:
    """Class, file and number of composites of each cut-out; classes with few things are merged into one."""
    stamps = unpacked("stamps") / "usr" / "share" / "tuxpaint" / "stamps"
    found = [
        ("/".join(path.relative_to(stamps).parts[:-1][:2]), path, COPIES) for path in sorted(stamps.rglob("*.png"))
    ]
    found = [entry for entry in found if not entry[0].startswith(_SKIPPED)]
    emoji = unpacked("emoji") / "package"
    for entry in json.loads((emoji / "emoji.json").read_text()):
        if entry["category"] in _DRAWN and entry["has_img_google"]:
            found.append((f"drawn {entry['subcategory']}", emoji / "img" / "google" / "64" / entry["image"], 1))
    sizes: dict[str, int] = {}
    for label, _, copies in found:
        sizes[label] = sizes.get(label, 0) + copies
    return [
        (label.replace("/", " ") if sizes[label] >= _SMALLEST_CLASS else "others", path, copies)
        for label, path, copies in found
    ]


def _composite(thing: Image.Image, background: Image.Image, rng: np.random.Generator) -> Image.Image:
    picture = _square(background, rng, whole=False)
    box = thing.getbbox() or (0, 0, *thing.size)
    thing = thing.crop(box)
    side = SIZE * rng.uniform(0.45, 0.9)
    scale = side / max(thing.size)
    thing = thing.resize(
        (max(1, round(thing.width * scale)), max(1, round(thing.height * scale))), Image.Resampling.BICUBIC
    )
    if rng.random() < 0.5:
        thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    place = tuple(int(rng.integers(0, SIZE - length + 1)) for length in thing.size)
    picture.paste(thing, place, thing)
    return picture


def _square(picture: Image.Image, rng: np.random.Generator, *, whole: bool) -> Image.Image:
    shorter = min(picture.size)
    side = shorter if whole else int(shorter * rng.uniform(0.4, 1))
    corner = [(length - side) // 2 if whole else int(rng.integers(0, length - side + 1)) for length in picture.size]
    return picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(*corner, corner[0] + side, corner[1] + side))


def _open(path: Path) -> Image.Image:
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((640, 640))
    return picture


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=92)
    path.write_bytes(data.getvalue())


def _number(path: Path) -> int:
    """A fixed number of a source picture, from its name alone."""
    return int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:4])


def _half(path: Path) -> int:
    return _number(path) % 2


if __name__ == "__main__":
    for each in SETS:
        at = build(each)
        print(each, sum(1 for _ in at.rglob("*.jpg")), "pictures,", sum(1 for _ in at.iterdir()), "classes:", at)
