"""Fills the catalogue: statistics and strongest images of each unit and sub-unit, and one thumbnail of each image
that occurs.

Thumbnails show what the model saw (resized and cropped), so that a token's place on them is its
place in the feature map.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from elude.exporter.images import ImageSource
from elude.exporter.images.classes import readable
from elude.exporter.naming.concept_portraits import portraits
from elude.exporter.naming.concepts import group
from elude.exporter.naming.evidence import Name
from elude.exporter.scoring.activity import UNITS, Activity
from elude.exporter.scoring.measures import SUB_UNITS, Measures
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.bundle.catalogue import write_catalogue
from elude.handlers.bundle.catalogue_schema import ConceptPortrait, ImageRow, SubUnitRow, Top, UnitRow
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.images.read_pixels import Pixels, picture

THUMBNAIL = 96  # pixels, longest side
TOPS = 12


def write_atlas(
    path: Path,
    splits: Sequence[LayerSplit],
    activity: Mapping[str, Mapping[str, Activity]],
    measures: Measures,
    *,
    images: ImageSource,
    preprocess: Preprocess,
    tops: int = TOPS,
    names: Mapping[int, Name] = MappingProxyType({}),
) -> None:
    """Write ``catalogue.sqlite``; the same input gives the same bytes.

    Args:
        path: the file to write.
        splits: in the order that numbers the sub-units.
        activity: layer → ``units`` and ``sub_units`` → activity on ``images``.
        measures: MS-Scores of the same features.
        images: the images that ``activity`` counts; an image's number is its place here.
        preprocess: of the model.
        tops: strongest images of each feature; images where it is not above 0 are none of its tops.
        names: of sub-units, by index; the others stay unnamed.

    Raises:
        UsageError: the file exists.
        ImageError: an image cannot be read.
    """
    found = {
        (split.layer, name): _tops(activity[split.layer][name], tops) for split in splits for name in (UNITS, SUB_UNITS)
    }
    units = [row for split in splits for row in _unit_rows(split, found[split.layer, UNITS], measures)]
    sub_units: list[SubUnitRow] = []
    for split in splits:
        rows = _sub_unit_rows(
            split, len(sub_units), activity[split.layer][SUB_UNITS], found[split.layer, SUB_UNITS], measures, names
        )
        sub_units.extend(rows)
    peak, token = (
        np.concatenate([getattr(activity[split.layer][SUB_UNITS], part) for split in splits], axis=1)
        for part in ("peak", "token")
    )
    classes = [entry.label for entry in images.entries]
    concepts = group(peak, {row.index: row.name for row in sub_units}, classes)
    pictured = portraits(peak, token, concepts, tops)
    rows_with_tops: list[UnitRow | SubUnitRow | ConceptPortrait] = [*units, *sub_units, *pictured]
    used = sorted({top.image for row in rows_with_tops for top in row.tops})
    write_catalogue(path, image_rows(used, images, preprocess), units, sub_units, concepts, pictured)


def _tops(activity: Activity, count: int) -> list[tuple[Top, ...]]:
    strongest = activity.strongest(count)
    tops: list[tuple[Top, ...]] = []
    for feature, images in enumerate(strongest.T):
        peaks = [
            (int(image), int(activity.token[image, feature]), float(activity.peak[image, feature])) for image in images
        ]
        tops.append(tuple(Top(*peak) for peak in peaks if peak[2] > 0))
    return tops


def _unit_rows(split: LayerSplit, tops: Sequence[tuple[Top, ...]], measures: Measures) -> list[UnitRow]:
    ms = measures.layers[split.layer][UNITS].ms
    return [
        UnitRow(split.layer, unit, int(parts), _score(ms[unit]), tops[unit]) for unit, parts in enumerate(split.parts)
    ]


def _sub_unit_rows(
    split: LayerSplit,
    first: int,
    activity: Activity,
    tops: Sequence[tuple[Top, ...]],
    measures: Measures,
    names: Mapping[int, Name],
) -> Iterator[SubUnitRow]:
    ms, omega, highest = measures.layers[split.layer][SUB_UNITS].ms, split.omega(), activity.peak.max(axis=0)
    for row, (unit, part) in enumerate(zip(split.parent.tolist(), split.part.tolist(), strict=True)):
        name = names.get(first + row)
        yield SubUnitRow(
            index=first + row,
            layer=split.layer,
            unit=unit,
            part=part,
            rho=_score(split.rho[unit]),
            omega=float(omega[row]),
            active=float(activity.active[row]),
            mean=float(activity.mean[row]),
            maximum=float(highest[row]),
            ms_score=_score(ms[row]),
            share=float(omega[row]),  # the bias is shared by the mean share of the weights
            name=name.name if name else None,
            name_method=name.method if name else None,
            name_score=name.score if name else None,
            tops=tops[row],
        )


def image_rows(used: Sequence[int], images: ImageSource, preprocess: Preprocess) -> Iterator[ImageRow]:
    """The images with these numbers, each with its thumbnail and its class in words."""
    known = sorted({entry.label for entry in images.entries if entry.label is not None})
    words: dict[str | None, str] = dict(zip(known, readable(known), strict=True))
    for index in used:
        entry = images.entries[index]
        yield ImageRow(index, entry.name, words.get(entry.label), thumbnail(images.pixels(index, preprocess)))


def thumbnail(pixels: Pixels) -> bytes:
    """PNG of an image (H, W, channels), made smaller where larger than ``THUMBNAIL``, and grey where it has no
    colour.
    """
    image = picture(pixels)
    values = np.asarray(image)
    grey = values.ndim == 2 or bool((values == values[..., :1]).all())
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    (image.convert("L") if grey else image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _score(value: float | np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
