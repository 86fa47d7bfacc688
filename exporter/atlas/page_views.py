"""What each page shows, as plain values for the templates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from elude.exporter.atlas.charts import Series, heat_map, histogram
from elude.exporter.atlas.concept_map import Spot, concept_map
from elude.exporter.atlas.page_data import AtlasContent, class_lines
from elude.exporter.atlas.pictures import Pictures, WithTops
from elude.handlers.bundle.catalogue_schema import ConceptRow, SubUnitRow, Top, UnitRow, clearest_first

ON_MAP = 400  # concepts, the clearest; each is a stop of the Tab key
CARDS = 18  # of the clearest concepts on the overview
LISTED = 600  # concepts in the overview's list

View = dict[str, Any]


@dataclass(frozen=True)
class Detail:
    """How much of a concept is shown.

    Attributes:
        members: sub-units with images; the others are links.
        member_images, related_images: images of each sub-unit, and of each similar or opposite concept.
    """

    members: int = 24
    member_images: int = 6
    related_images: int = 3


OF_MANY = Detail(10, 3, 1)  # where there are many sub-units: the atlas stays easy to pass on


class Views:
    """The values of each page of one atlas."""

    def __init__(self, content: AtlasContent, pictures: Pictures, detail: Detail) -> None:
        self.content, self.pictures, self.detail = content, pictures, detail
        self.parts: dict[tuple[str, int], list[SubUnitRow]] = {}
        for row in content.sub_units:
            self.parts.setdefault((row.layer, row.unit), []).append(row)
        self.concept_of = {index: concept for concept in content.concepts for index in concept.members}
        self.ordered = clearest_first(content.concepts)

    # ---- links ----

    def sub_unit(self, row: SubUnitRow) -> View:
        """A link to a sub-unit."""
        return {
            "id": row.id,
            "short": f"u{row.unit}.s{row.part}",
            "part": row.part,
            "name": row.name,
            "ms": row.ms_score,
            "href": f"{page_of(row.layer, row.unit)}#s{row.part}",
        }

    def concept(self, row: ConceptRow) -> View:
        """A link to a concept; one of a single sub-unit leads to that."""
        return {
            "id": row.id,
            "title": row.name or f"Concept {row.id}",
            "members": len(row.members),
            "purity": row.purity,
            "href": concept_page(row) or self.sub_unit(self.content.sub_units[row.members[0]])["href"],
        }

    # ---- the pages ----

    def overview(self, most_split: int) -> View:
        """The values of ``index.html``."""
        content = self.content
        split = [unit for unit in content.units if unit.parts > 1]
        return {
            "concepts": [self._card(row) for row in self.ordered[:CARDS] if len(row.members) > 1],
            "listed": [self.concept(row) for row in self.ordered[:LISTED]],
            "concept_count": len(content.concepts),
            "several": sum(len(row.members) > 1 for row in content.concepts),
            "named_concepts": sum(row.name is not None for row in content.concepts),
            "concept_map": self._map(),
            "on_map": min(ON_MAP, len(content.portraits)),
            "units": len(content.units),
            "split": len(split),
            "sub_units": len(content.sub_units),
            "named": sum(row.name is not None for row in content.sub_units),
            "names": content.names(),
            "dead": [self.sub_unit(row) for row in content.dead[:200]],
            "dead_count": len(content.dead),
            "rare_count": len(content.rare),
            "layers": content.layers,
            "most_split": [self._split_row(unit) for unit in sorted(split, key=lambda unit: -unit.parts)[:most_split]],
        } | self._charts(split)

    def concept_view(self, row: ConceptRow) -> View:
        """The values of a concept's page."""
        content, portrait = self.content, self.content.portraits.get(row.number)
        members = [content.sub_units[index] for index in row.members]
        units = Counter((member.layer, member.unit) for member in members)
        effects = None if content.concept_effects is None else content.concept_effects[row.number]
        tops = self._concept_tops(row)
        return self.concept(row) | {
            "pictures_shown": tops["pictures"],
            "box": tops["box"],
            "class_counts": tops["labels"],
            "more": tops["more"],
            "agreement": row.agreement,
            "units": len(units),
            "histogram": None if portrait is None else _strength_chart(portrait.histogram),
            "images": 0 if portrait is None else sum(portrait.histogram),
            "effects_shown": [] if effects is None else class_lines(effects, content.classes, 4),
            "effect_images": content.effect_images,
            "similar": self._related(row, 1),
            "opposite": self._related(row, -1),
            "shown": [
                self.sub_unit(member)
                | {
                    "thumbs": self.pictures.first(member.tops, self.detail.member_images),
                    "twin": units[member.layer, member.unit] > 1,
                }
                for member in members[: self.detail.members]
            ],
            "others_shown": [self.sub_unit(member) for member in members[self.detail.members :]],
        }

    def unit(self, unit: UnitRow) -> View:
        """The values of a unit's page."""
        parts = self.parts[unit.layer, unit.unit]
        scores = [row.ms_score for row in parts if row.ms_score is not None]
        measured = scores and unit.ms_score is not None and unit.parts > 1
        shared = Counter(self.concept_of[row.index].number for row in parts if row.index in self.concept_of)
        return {
            "layer": unit.layer,
            "unit": unit,
            "gain": float(np.mean(scores)) - unit.ms_score if measured and unit.ms_score is not None else None,
            "whole": unit_link(unit) | {"ms": unit.ms_score} | self.pictures.tops(unit, unit.layer),
            "parts": [self._part(row, parts, shared) for row in parts],
            "effect_images": self.content.effect_images,
        }

    def relations(self) -> View:
        """The values of ``relations.html``."""
        together, rows = self.content.together, self.content.sub_units

        def pairs(values: Iterable[tuple[int, int, float]]) -> list[View]:
            return [
                {"first": self.sub_unit(rows[first]), "second": self.sub_unit(rows[second]), "value": value}
                for first, second, value in values
            ]

        shared = {"shared": pairs(self.content.shared)}
        if together is None:
            return shared | {"images": None, "pairs": [], "mapped": [], "map": None}
        mapped = [self.sub_unit(rows[index]) for index in together.mapped]
        titles = [f"{one['short']} {one['name']}" if one["name"] else one["short"] for one in mapped]
        label = f"Correlation of the {len(mapped)} most active sub-units, alike ones side by side; pairs are listed."
        drawn = heat_map(together.matrix, titles, label)
        return shared | {"images": together.images, "pairs": pairs(together.pairs), "mapped": mapped, "map": drawn}

    def search_index(self) -> View:
        """The data of the search: rows of concepts and of sub-units with the numbers of up to three images."""
        content = self.content
        layers = [layer.name for layer in content.layers]
        number = {name: place for place, name in enumerate(layers)}
        concepts = [
            [
                row.number,
                row.name,
                len(row.members),
                _rounded(row.purity),
                self._images(row),
                row.members[0],
            ]
            for row in self.ordered
        ]
        rows = []
        for row in content.sub_units:
            labels = Counter(label for top in row.tops if (label := content.images[top.image].label))
            most = labels.most_common(1)[0][0] if labels else None
            facts = [number[row.layer], row.unit, row.part, row.name, _rounded(row.ms_score)]
            rows.append([*facts, float(f"{row.active:.3g}"), most, self.pictures.numbers(row.tops, 3)])
        return {"layers": layers, "concepts": concepts, "rows": rows, "tiny": self.pictures.tiny}

    # ---- their parts ----

    def _images(self, row: ConceptRow) -> list[int]:
        return self.pictures.numbers(self._tops_of(row), 3)

    def _tops_of(self, row: ConceptRow) -> tuple[Top, ...]:
        return self._pictured(row).tops

    def _pictured(self, row: ConceptRow) -> WithTops:
        """What has the images of a concept: its portrait, in an old bundle its most typical sub-unit."""
        portrait = self.content.portraits.get(row.number)
        return portrait if portrait is not None and portrait.tops else self.content.sub_units[row.members[0]]

    def _concept_tops(self, row: ConceptRow) -> View:
        return self.pictures.tops(self._pictured(row), self.content.sub_units[row.members[0]].layer)

    def _card(self, row: ConceptRow) -> View:
        return self.concept(row) | {"agreement": row.agreement, "thumbs": self.pictures.first(self._tops_of(row), 6)}

    def _map(self) -> Any:
        spots = [
            Spot(portrait.place, link["href"], _spoken(link), _word(row), len(row.members))
            for row in self.ordered[:ON_MAP]
            if (portrait := self.content.portraits.get(row.number)) and (link := self.concept(row))
        ]
        return concept_map(spots, f"Map of {len(spots)} concepts") if spots else None

    def _related(self, row: ConceptRow, sign: int) -> list[View]:
        portrait = self.content.portraits.get(row.number)
        pairs = [] if portrait is None else [pair for pair in portrait.related if sign * pair[1] > 0][::sign]
        rows = [(self.content.concepts[other], value) for other, value in pairs]
        return [
            self.concept(other)
            | {"value": value, "thumbs": self.pictures.first(self._tops_of(other), self.detail.related_images)}
            for other, value in rows
        ]

    def _part(self, row: SubUnitRow, siblings: Sequence[SubUnitRow], shared: Counter[int]) -> View:
        effects, together = self.content.effects, self.content.together
        partners = () if together is None else together.partners[row.index]
        concept = self.concept_of.get(row.index)
        twins = (
            []
            if concept is None or shared[concept.number] < 2
            else [other for other in siblings if other is not row and self.concept_of.get(other.index) is concept]
        )
        return (
            self.sub_unit(row)
            | self.pictures.tops(row, row.layer)
            | {
                "row": row,
                "concept": self.concept(concept) if concept is not None and len(concept.members) > 1 else None,
                "twins": [f"s{other.part}" for other in twins],
                "effects": [] if effects is None else class_lines(effects[row.index], self.content.classes),
                "partners": [(self.sub_unit(self.content.sub_units[other]), value) for other, value in partners],
            }
        )

    def _split_row(self, unit: UnitRow) -> View:
        parts = self.parts[unit.layer, unit.unit]
        scores = [row.ms_score for row in parts if row.ms_score is not None]
        best = max(parts, key=lambda row: row.active)
        return unit_link(unit) | {
            "parts": unit.parts,
            "ms": unit.ms_score,
            "after": float(np.mean(scores)) if scores else None,
            "names": Counter(row.name for row in parts if row.name).most_common(4),
            "pictures": self.pictures.first((*unit.tops[:4], *best.tops[:4]), 4),
        }

    def _charts(self, split: Sequence[UnitRow]) -> View:
        content = self.content
        of_split = {(unit.layer, unit.unit) for unit in split}
        before = [unit.ms_score for unit in split if unit.ms_score is not None]
        after = [
            row.ms_score for row in content.sub_units if (row.layer, row.unit) in of_split and row.ms_score is not None
        ]
        series = [Series("control", "random", content.random), Series("units", "units", before)]
        filled = [one for one in [*series, Series("sub-units", "sub_units", after)] if len(one.values)]
        low = float(np.floor(10 * min(value for one in filled for value in one.values)) / 10) if filled else 0.0
        most = max((unit.parts for unit in content.units), default=1)
        mean = f"{len(content.sub_units) / len(content.units):.2f}"
        return {
            "parts_chart": histogram(
                [Series("units", "sub_units", [unit.parts for unit in content.units])],
                0.5,
                most + 0.5,
                most,
                whole=True,
                label=f"How many units have how many sub-units: from 1 to {most}, mean {mean}",
            ),
            "ms_chart": histogram(filled, low, 1.0, 40, label="; ".join(map(_mean, filled))) if filled else None,
            "series": filled,
            "means": {one.title: float(np.mean(one.values)) for one in filled},
        }


def page_of(layer: str, unit: int) -> str:
    """Path of a unit's page within the atlas; a layer's name keeps only what every file system takes."""
    return f"units/{re.sub(r'[^A-Za-z0-9._-]', '_', layer)}/u{unit}.html"


def concept_page(row: ConceptRow) -> str | None:
    """Path of a concept's page within the atlas; None for one of a single sub-unit, which has that one's page."""
    return f"concepts/{row.id}.html" if len(row.members) > 1 else None


def unit_link(unit: UnitRow) -> View:
    """A link to a unit."""
    return {"id": f"{unit.layer}/u{unit.unit}", "href": page_of(unit.layer, unit.unit)}


def _word(row: ConceptRow) -> str | None:
    """The name without the number that tells namesakes apart: ``trouser`` of ``trouser 2``."""
    return re.sub(r" \d+$", "", row.name) if row.name else None


def _spoken(link: View) -> str:
    return f"{link['title']}, {link['members']} sub-unit{'s' if link['members'] > 1 else ''}"


def _strength_chart(bins: Sequence[int]) -> Any:
    middles = [(place + 0.5) / len(bins) for place, images in enumerate(bins) for _ in range(images)]
    label = f"Images by how strong the concept is on them, of {len(middles)} images"
    return histogram([Series("images", "sub_units", middles)], 0, 1, len(bins), label=label)


def _mean(series: Series) -> str:
    return f"{series.title}: mean {np.mean(series.values):.3f} of {len(series.values)}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
