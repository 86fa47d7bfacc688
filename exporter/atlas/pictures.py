"""The thumbnails of an atlas: files that its pages share, each image once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from elude.exporter.atlas.page_data import AtlasContent
from elude.exporter.atlas.thumbnails import encoded, encoding_for, is_tiny
from elude.exporter.atlas.token_places import marker
from elude.handlers.bundle.catalogue_schema import SubUnitRow, Top, UnitRow

View = dict[str, Any]


class WithTops(Protocol):
    """A unit, a sub-unit or a concept's portrait."""

    @property
    def tops(self) -> tuple[Top, ...]: ...


class Pictures:
    """Thumbnails in ``images/`` of an atlas: tiny ones as they are, others as WebP, which is a fraction of the size.

    Args:
        content: of the atlas.
        folder: of the atlas.
        shown: how many of a row's strongest images are shown; only images that are shown are written.
    """

    def __init__(self, content: AtlasContent, folder: Path, shown: Callable[[WithTops], int]) -> None:
        self._content, self._shown = content, shown
        rows: list[WithTops] = [*content.units, *content.sub_units, *content.portraits.values()]
        numbers = sorted({top.image for row in rows for top in row.tops[: shown(row)]})
        images = [content.images[number] for number in numbers]
        self.tiny = [image.id for image in images if is_tiny(image.png)]
        small = set(self.tiny)
        encoding = encoding_for([image.png for image in images if image.id not in small])
        self._views: dict[int, View] = {}
        (folder / "images").mkdir()
        for image in images:
            tiny = image.id in small
            name = f"images/{image.id}.{'png' if tiny else 'webp'}"
            (folder / name).write_bytes(image.png if tiny else encoded(image.png, encoding))
            self._views[image.id] = {"src": name, "tiny": tiny, "label": image.label or image.name}

    def first(self, tops: Iterable[Top], count: int) -> list[View]:
        """The first images without the place in them."""
        return [self._views[number] for number in self.numbers(tops, count)]

    def numbers(self, tops: Iterable[Top], count: int) -> list[int]:
        """The numbers of the first images that the atlas holds."""
        return [top.image for top in tops if top.image in self._views][:count]

    def tops(self, row: WithTops, layer: str) -> View:
        """The strongest images with the place where a sub-unit of the layer is strongest, and their classes."""
        tops = row.tops[: self._shown(row)]
        labels = Counter(label for top in tops if (label := self._content.images[top.image].label))
        pictures = [self._views[top.image] | {"marker": marker(top, layer, self._content.layout)} for top in tops]
        box = next((picture["marker"][2:] for picture in pictures if picture["marker"]), None)
        return {"pictures": pictures, "box": box, "labels": labels.most_common(5), "more": max(len(labels) - 5, 0)}


def fewer_of_many(sub_units: Sequence[SubUnitRow], many: int, shown: int, of_many: int) -> Callable[[WithTops], int]:
    """How many images are shown: ``shown``, but ``of_many`` of a sub-unit or concept where there are more than ``many``
    sub-units.
    """

    def count(row: WithTops) -> int:
        return of_many if len(sub_units) > many and not isinstance(row, UnitRow) else shown

    return count
