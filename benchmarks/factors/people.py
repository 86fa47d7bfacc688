"""Pictures with known factors: 27 roles x 3 genders x 6 skin tones x 2 styles of drawn people, each on a photograph.

The drawings are the people of two emoji sets, so the factors are balanced and independent by
construction. Place, size and background are nuisances drawn at random. Half of the combinations are
for training (the split, the autoencoders, the choice of a feature's factor), the other half judges;
the halves share no combination and no background. White backgrounds would make all units look alike
(docs/method.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.method.fetch import Package, fetch_package, unpacked
from benchmarks.method.model import SIZE

TWITTER = Package(
    "emoji-datasource-twitter-16.0.0.tgz",
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    ("npm", "pack", "-s", "emoji-datasource-twitter@16.0.0"),
)
STYLES = ("google", "twitter")
GENDERS = ("person", "woman", "man")
TONES = ("none", "1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")
FANTASY = ("superhero", "supervillain", "mage")  # beside the 24 of the subcategory ``person-role``
FACTORS = ("role", "gender", "tone", "style")
COPIES = 1  # pictures of each combination, on different backgrounds
PATCHES = 16  # along each side of the model's input
_BASES = {"1F468": "man", "1F469": "woman", "1F9D1": "person"}


@dataclass(frozen=True)
class Person:
    """One drawing: its file and its factors."""

    path: Path
    factors: tuple[str, str, str, str]


@dataclass(frozen=True)
class Picture:
    """One composed picture: uint8 (SIZE, SIZE, 3), bool (PATCHES * PATCHES,) where the figure is, and the person."""

    pixels: NDArray[np.uint8]
    figure: NDArray[np.bool_]
    person: Person


def people() -> list[Person]:
    """All 972 drawings, in a fixed order."""
    listed = json.loads((unpacked("emoji") / "package" / "emoji.json").read_text())
    roles: dict[str, dict[str, dict[str, object]]] = {}
    for entry in listed:
        if entry["category"] == "People & Body" and len(entry.get("skin_variations", {})) == 5:
            role, gender = _role(entry["unified"])
            roles.setdefault(role, {})[gender] = entry
    found = []
    for _, entries in sorted(roles.items()):
        neutral = entries.get("person", {})
        wanted = neutral.get("subcategory") == "person-role" or neutral.get("short_name") in FANTASY
        if len(entries) == 3 and wanted:
            found += [Person(path, (str(neutral["short_name"]), *rest)) for path, rest in _variants(entries)]
    return found


def _role(unified: str) -> tuple[str, str]:
    """What tells a role, and the gender, of a code such as 1F469-200D-1F33E or 1F46E-200D-2640-FE0F."""
    parts = unified.split("-")
    if parts[0] in _BASES and len(parts) > 2:
        return "-".join(parts[2:]), _BASES[parts[0]]
    return parts[0], "woman" if "2640" in parts else "man" if "2642" in parts else "person"


def _variants(entries: dict[str, dict[str, object]]) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    folders = {"google": unpacked("emoji"), "twitter": fetch_package(TWITTER, "emoji-twitter")}
    for gender in GENDERS:
        for tone in TONES:
            variations = entries[gender]["skin_variations"]
            entry = entries[gender] if tone == "none" else variations[tone]  # type: ignore[index]
            for style in STYLES:
                yield folders[style] / "package" / "img" / style / "64" / str(entry["image"]), (gender, tone, style)


def halves(count: int) -> NDArray[np.int64]:
    """int64 (count,): 0 for training, 1 for judging, half of each at random; always the same."""
    return np.random.default_rng(5).permutation(np.arange(count) % 2)


def pictures(copy: int) -> Iterator[Picture]:
    """Every person once, on a background of its half."""
    everyone = people()
    backgrounds = [_open(path) for path in sorted((unpacked("food") / "package" / "assets").glob("*.jpeg"))]
    for number, (person, half) in enumerate(zip(everyone, halves(len(everyone)), strict=True)):
        rng = np.random.default_rng([number, copy])
        own = backgrounds[half::2]
        yield _compose(person, own[rng.integers(len(own))], rng)


def _compose(person: Person, background: Image.Image, rng: np.random.Generator) -> Picture:
    side = int(min(background.size) * rng.uniform(0.5, 1))
    corner = [int(rng.integers(0, length - side + 1)) for length in background.size]
    picture = background.resize(
        (SIZE, SIZE), Image.Resampling.BICUBIC, box=(*corner, corner[0] + side, corner[1] + side)
    )
    length = int(SIZE * rng.uniform(0.7, 0.95))
    figure = Image.open(person.path).convert("RGBA").resize((length, length), Image.Resampling.BICUBIC)
    place = (int(rng.integers(0, SIZE - length + 1)), int(rng.integers(0, SIZE - length + 1)))
    alpha = Image.new("L", (SIZE, SIZE))
    alpha.paste(figure.getchannel("A"), place)
    picture.paste(figure, place, figure)
    cover = np.asarray(alpha.resize((PATCHES, PATCHES), Image.Resampling.BOX))
    return Picture(np.asarray(picture), (cover >= 128).ravel(), person)


def _open(path: Path) -> Image.Image:
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((480, 480))
    return picture
