"""The pictures of the report: what the most polysemantic units follow, beside what each of their sub-units follows."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from elude.exporter.atlas.token_places import Layout, marker
from elude.handlers.bundle.catalogue import Catalogue, ImageRow, SubUnitRow, Top, UnitRow

TINY = 48  # pixels
SCARCE = 0.01  # share of instances below which a score may be chance


@dataclass(frozen=True)
class Picture:
    """One thumbnail.

    Attributes:
        tiny: smaller than it is shown, so that its pixels should stay sharp.
        marker: the token's box as (left, top, width, height) in percent, None where it has no place.
    """

    data_uri: str
    alt: str
    tiny: bool
    marker: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class Strip:
    """A unit or sub-unit with its top images; ``labels`` are the classes among them, most frequent first."""

    title: str
    name: str | None
    ms_score: float | None
    active: float | None
    labels: tuple[tuple[str, int], ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class UnitCard:
    """One unit beside its sub-units; ``hidden`` counts the sub-units left out for space."""

    identifier: str
    parts: int
    gain: float | None
    unit: Strip
    sub_units: tuple[Strip, ...]
    hidden: int


def unit_cards(
    catalogue: Catalogue, layout: Layout | None, *, limit: int = 8, parts_shown: int = 6, images_shown: int = 8
) -> tuple[UnitCard, ...]:
    """The cards of the ``limit`` units whose sub-units belong together more than the unit does, well-supported ones
    first.

    Not the units with the most sub-units: those tend to be mixed ones whose parts overlap, which shows a reader little.
    """
    split = [unit for unit in catalogue.most_split(catalogue.count()) if unit.parts > 1]
    parts = {unit: catalogue.parts_of(unit.layer, unit.unit) for unit in split}
    gains = {unit: _gain(unit, parts[unit]) for unit in split}

    def order(unit: UnitRow) -> tuple[bool, bool, float]:
        return not _well_supported(parts[unit], parts_shown, images_shown), gains[unit] is None, -(gains[unit] or 0.0)

    chosen = sorted(split, key=order)[:limit]
    return tuple(
        _card(catalogue, unit, gains[unit], layout, parts_shown=parts_shown, images=images_shown) for unit in chosen
    )


def mean_ms_scores(catalogue: Catalogue) -> dict[str, float]:
    """Mean MS-Score of split units and of their sub-units, as far as the catalogue has any."""
    split = [unit for unit in catalogue.most_split(catalogue.count()) if unit.parts > 1]
    units = [unit.ms_score for unit in split if unit.ms_score is not None]
    parts = [
        part.ms_score
        for unit in split
        for part in catalogue.parts_of(unit.layer, unit.unit)
        if part.ms_score is not None
    ]
    return {name: sum(scores) / len(scores) for name, scores in (("units", units), ("sub_units", parts)) if scores}


def _well_supported(parts: Sequence[SubUnitRow], parts_shown: int, images_shown: int) -> bool:
    """Whether all sub-units fit on the card, each with enough images, and none is so rare that its score is chance."""
    return len(parts) <= parts_shown and all(len(part.tops) >= images_shown and part.active >= SCARCE for part in parts)


def _gain(unit: UnitRow, parts: Sequence[SubUnitRow]) -> float | None:
    """Mean MS-Score of the sub-units minus the unit's."""
    scores = [part.ms_score for part in parts if part.ms_score is not None]
    return None if unit.ms_score is None or not scores else sum(scores) / len(scores) - unit.ms_score


def _card(
    catalogue: Catalogue, unit: UnitRow, gain: float | None, layout: Layout | None, *, parts_shown: int, images: int
) -> UnitCard:
    identifier = f"{unit.layer}/u{unit.unit}"
    parts = catalogue.parts_of(unit.layer, unit.unit)
    # the most active sub-units are the ones a reader meets; those without any top image have nothing to show
    shown = sorted((part for part in parts if part.tops), key=lambda part: -part.active)[:parts_shown]
    whole = strip(catalogue, identifier, unit, images, layout)
    strips = tuple(
        strip(catalogue, part.id, part, images, layout) for part in sorted(shown, key=lambda part: part.part)
    )
    return UnitCard(identifier, unit.parts, gain, whole, strips, len(parts) - len(strips))


def strip(
    catalogue: Catalogue, identifier: str, row: UnitRow | SubUnitRow, images: int, layout: Layout | None
) -> Strip:
    """The first ``images`` top images of a unit or sub-unit."""
    tops = [(top, catalogue.image(top.image)) for top in row.tops[:images]]
    part: dict[str, Any] = (
        {"name": row.name, "active": row.active} if isinstance(row, SubUnitRow) else {"name": None, "active": None}
    )
    return Strip(
        identifier.rsplit("/", 1)[-1],
        ms_score=row.ms_score,
        labels=classes(image for _, image in tops),
        pictures=pictures(tops, identifier, row.layer, layout),
        **part,
    )


def pictures(
    tops: Iterable[tuple[Top, ImageRow]], identifier: str, layer: str, layout: Layout | None
) -> tuple[Picture, ...]:
    """The thumbnails of strong instances, strongest first, each with the place in ``layer`` where it is strong."""
    shown = []
    for rank, (top, image) in enumerate(tops, 1):
        alt = f"Top image {rank} of {identifier}: {image.label or image.name}, activation {top.activation:.2f}"
        uri = "data:image/png;base64," + base64.b64encode(image.png).decode()
        shown.append(Picture(uri, alt, _width(image.png) <= TINY, marker(top, layer, layout)))
    return tuple(shown)


def classes(images: Iterable[ImageRow]) -> tuple[tuple[str, int], ...]:
    """The classes of images with their number, most frequent first."""
    return tuple(Counter(image.label for image in images if image.label is not None).most_common())


def _width(png: bytes) -> int:
    """Width in pixels, as the header says (PNG specification, 11.2.2)."""
    return int.from_bytes(png[16:20], "big")
