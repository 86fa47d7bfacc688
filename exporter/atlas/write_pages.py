"""Writing the pages: an overview with search, one page a unit, one page of relations.

Nothing is fetched; all works from a file's address.

Thumbnails are files that the pages share, each image once. The search reads ``index.js``, a script
rather than JSON, as a browser fetches no file from a file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from elude.exporter.atlas.charts import Series, heat_map, histogram
from elude.exporter.atlas.page_data import Gathered, class_lines
from elude.exporter.atlas.thumbnails import encoded, encoding_for, is_tiny
from elude.exporter.atlas.token_places import marker, shared_style
from elude.exporter.progress import Progress
from elude.handlers.bundle.catalogue import SubUnitRow, Top, UnitRow
from elude.handlers.errors import UsageError

_FOLDER = Path(__file__).parent
_SIGN = "atlas.json"  # says that a folder is an atlas and may be replaced
MANY = 4_000  # sub-units from which fewer images of each are shown


@dataclass(frozen=True)
class AtlasSettings:
    """What the pages show.

    Attributes:
        images_shown: strongest images of each unit and sub-unit.
        images_of_many: strongest images of each sub-unit where there are more than ``MANY``.
        most_split: units in the overview's table.
    """

    images_shown: int = 12
    images_of_many: int = 8
    most_split: int = 20


def write_pages(
    gathered: Gathered,
    out: str | Path,
    settings: AtlasSettings = AtlasSettings(),
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the pages to the folder ``out``; the same input gives the same files.

    Returns:
        the overview, ``out/index.html``.

    Raises:
        UsageError: something is at ``out``, and it is not an atlas or may not be replaced.
    """
    target = Path(out)
    if target.exists() and not (overwrite and (target / _SIGN).is_file()):
        raise UsageError(
            f"{target} already exists{'' if not overwrite else ' and is no atlas'}.",
            "Choose another place or --overwrite.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _Pages(gathered, folder, settings).write(progress)
        folder.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        os.rename(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target / "index.html"


class _Pages:
    """The pages of one atlas on their way to a folder."""

    def __init__(self, gathered: Gathered, folder: Path, settings: AtlasSettings) -> None:
        self.all, self.folder, self.settings = gathered, folder, settings
        self.environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.globals |= {
            "model": gathered.model,
            "facts": gathered.facts,
            "layer_count": len(gathered.layers),
        }
        self.environment.filters |= {"score": _score, "percent": _percent, "signed": _signed}
        self.parts: dict[tuple[str, int], list[SubUnitRow]] = {}
        for row in gathered.sub_units:
            self.parts.setdefault((row.layer, row.unit), []).append(row)
        self.pictures: dict[int, dict[str, Any]] = {}

    def write(self, progress: Progress | None) -> None:
        """Write everything."""
        (self.folder / "images").mkdir()
        self._write_pictures()
        style = shared_style() + (_FOLDER / "style.css").read_text(encoding="utf-8")
        (self.folder / "style.css").write_text(style, encoding="utf-8")
        shutil.copyfile(_FOLDER / "search.js", self.folder / "search.js")
        (self.folder / "index.js").write_text(self._index(), encoding="utf-8")
        self._page("index.html", "index.html.j2", root="", **self._overview())
        self._page("relations.html", "relations.html.j2", root="", **self._relations())
        count = len(self.all.units)
        for number, unit in enumerate(self.all.units):
            before, after = (
                self.all.units[number - 1] if number else None,
                self.all.units[number + 1] if number + 1 < count else None,
            )
            path = page_of(unit.layer, unit.unit)
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            self._page(
                path,
                "unit.html.j2",
                root="../../",
                **self._unit(unit),
                before=before and _link(before),
                after=after and _link(after),
            )
            if progress is not None:
                progress(number + 1, count)
        (self.folder / _SIGN).write_text(json.dumps(dict(self.all.facts), indent=1) + "\n", encoding="utf-8")

    def _page(self, path: str, template: str, **values: Any) -> None:
        (self.folder / path).write_text(self.environment.get_template(template).render(**values), encoding="utf-8")

    def _write_pictures(self) -> None:
        """Writes the thumbnail of each image that is shown: tiny ones as they are, others as WebP, which is a
        fraction of the size.
        """
        rows: list[UnitRow | SubUnitRow] = [*self.all.units, *self.all.sub_units]
        shown = sorted({top.image for row in rows for top in self._shown(row)})
        images = [self.all.images[number] for number in shown]
        tiny = {image.id for image in images if is_tiny(image.png)}
        encoding = encoding_for([image.png for image in images if image.id not in tiny])
        for image in images:
            name = f"images/{image.id}.{'png' if image.id in tiny else 'webp'}"
            (self.folder / name).write_bytes(image.png if image.id in tiny else encoded(image.png, encoding))
            self.pictures[image.id] = {"src": name, "tiny": image.id in tiny, "label": image.label or image.name}

    def _shown(self, row: UnitRow | SubUnitRow) -> tuple[Top, ...]:
        many = isinstance(row, SubUnitRow) and len(self.all.sub_units) > MANY
        return row.tops[: self.settings.images_of_many if many else self.settings.images_shown]

    def _index(self) -> str:
        """Rows of the search: layer, unit, part, name, MS-Score, part of instances, most frequent class of the
        strongest images.
        """
        names = [layer.name for layer in self.all.layers]
        number = {name: i for i, name in enumerate(names)}
        rows = []
        for row in self.all.sub_units:
            labels = Counter(label for top in row.tops if (label := self.all.images[top.image].label))
            ms = None if row.ms_score is None else round(row.ms_score, 3)
            most = labels.most_common(1)[0][0] if labels else None
            rows.append([number[row.layer], row.unit, row.part, row.name, ms, float(f"{row.active:.3g}"), most])
        text = json.dumps({"layers": names, "rows": rows}, separators=(",", ":"), ensure_ascii=True)
        return f"const ATLAS={text};\n"

    def _overview(self) -> dict[str, Any]:
        gathered = self.all
        split = [unit for unit in gathered.units if unit.parts > 1]
        order = sorted(split, key=lambda unit: -unit.parts)[: self.settings.most_split]
        before = [unit.ms_score for unit in split if unit.ms_score is not None]
        own = {(unit.layer, unit.unit) for unit in split}
        after = [
            row.ms_score for row in gathered.sub_units if (row.layer, row.unit) in own and row.ms_score is not None
        ]
        series = [Series("control", "random", gathered.random)] if gathered.random else []
        series += [Series("units", "units", before), Series("sub-units", "sub_units", after)]
        values = [value for one in series for value in one.values]
        filled = [one for one in series if len(one.values)]
        low = float(np.floor(10 * min(values)) / 10) if values else 0.0
        most = max((unit.parts for unit in gathered.units), default=1)
        return {
            "units": len(gathered.units),
            "split": len(split),
            "sub_units": len(gathered.sub_units),
            "names": gathered.names(),
            "named": sum(row.name is not None for row in gathered.sub_units),
            "dead": [self._strip(row) for row in gathered.dead[:200]],
            "dead_count": len(gathered.dead),
            "rare_count": len(gathered.rare),
            "layers": gathered.layers,
            "parts_chart": histogram(
                [Series("units", "sub_units", [unit.parts for unit in gathered.units])],
                0.5,
                most + 0.5,
                most,
                whole=True,
                label=(
                    f"How many units have how many sub-units: from 1 to {most}, mean "
                    f"{len(gathered.sub_units) / len(gathered.units):.2f}"
                ),
            ),
            "ms_chart": histogram(series, low, 1.0, 40, label="; ".join(map(_mean, filled))) if filled else None,
            "series": filled,
            "means": {one.title: float(np.mean(one.values)) for one in filled},
            "most_split": [self._row(unit) for unit in order],
        }

    def _row(self, unit: UnitRow) -> dict[str, Any]:
        parts = self.parts[unit.layer, unit.unit]
        scores = [row.ms_score for row in parts if row.ms_score is not None]
        names = Counter(row.name for row in parts if row.name)
        best = max(parts, key=lambda row: row.active)
        return _link(unit) | {
            "parts": unit.parts,
            "ms": unit.ms_score,
            "after": float(np.mean(scores)) if scores else None,
            "names": names.most_common(4),
            "pictures": [self.pictures[top.image] for row in (unit, best) for top in row.tops[:4]][:4],
        }

    def _relations(self) -> dict[str, Any]:
        found, rows = self.all.together, self.all.sub_units

        def pair(one: tuple[int, int, float]) -> dict[str, Any]:
            return {"first": self._strip(rows[one[0]]), "second": self._strip(rows[one[1]]), "value": one[2]}

        values: dict[str, Any] = {
            "shared": [pair(one) for one in self.all.shared],
            "images": None if found is None else found.images,
        }
        if found is None:
            return values | {"pairs": [], "groups": [], "grouped": 0, "group_count": 0, "mapped": [], "map": None}
        mapped = [self._strip(rows[index]) for index in found.mapped]
        label = (
            f"Correlation of the {len(mapped)} most active sub-units; alike ones are side by side. "
            "The pairs are listed below."
        )
        return values | {
            "pairs": [pair(one) for one in found.pairs],
            "groups": [
                [self._strip(rows[index]) for index in group[:12]] + [len(group)] for group in found.groups[:30]
            ],
            "group_count": len(found.groups),
            "grouped": sum(len(group) for group in found.groups),
            "mapped": mapped,
            "map": heat_map(found.matrix, [_title(one) for one in mapped], label),
        }

    def _unit(self, unit: UnitRow) -> dict[str, Any]:
        parts = self.parts[unit.layer, unit.unit]
        scores = [row.ms_score for row in parts if row.ms_score is not None]
        gain = (
            float(np.mean(scores)) - unit.ms_score if scores and unit.ms_score is not None and unit.parts > 1 else None
        )
        whole = {"id": f"{unit.layer}/u{unit.unit}", "ms": unit.ms_score} | self._tops(unit)
        return {
            "layer": unit.layer,
            "unit": unit,
            "gain": gain,
            "whole": whole,
            "parts": [self._part(row) for row in parts],
            "effect_images": self.all.effect_images,
        }

    def _part(self, row: SubUnitRow) -> dict[str, Any]:
        effects = self.all.effects
        partners = () if self.all.together is None else self.all.together.partners[row.index]
        return (
            self._strip(row)
            | self._tops(row)
            | {
                "row": row,
                "effects": [] if effects is None else class_lines(effects[row.index], self.all.classes),
                "partners": [(self._strip(self.all.sub_units[other]), value) for other, value in partners],
            }
        )

    def _tops(self, row: UnitRow | SubUnitRow) -> dict[str, Any]:
        tops = self._shown(row)
        labels = Counter(label for top in tops if (label := self.all.images[top.image].label))
        pictures = [self.pictures[top.image] | {"marker": marker(top, row.layer, self.all.layout)} for top in tops]
        box = next((p["marker"][2:] for p in pictures if p["marker"]), None)
        return {"pictures": pictures, "box": box, "labels": labels.most_common(5), "more": max(len(labels) - 5, 0)}

    def _strip(self, row: SubUnitRow) -> dict[str, Any]:
        return {
            "id": row.id,
            "short": f"u{row.unit}.s{row.part}",
            "part": row.part,
            "name": row.name,
            "ms": row.ms_score,
            "href": f"{page_of(row.layer, row.unit)}#s{row.part}",
        }


def page_of(layer: str, unit: int) -> str:
    """Path of a unit's page within the atlas; a layer's name keeps only what every file system takes."""
    return f"units/{re.sub(r'[^A-Za-z0-9._-]', '_', layer)}/u{unit}.html"


def _link(unit: UnitRow) -> dict[str, Any]:
    return {"id": f"{unit.layer}/u{unit.unit}", "href": page_of(unit.layer, unit.unit)}


def _title(strip: Mapping[str, Any]) -> str:
    return f"{strip['short']} {strip['name']}" if strip["name"] else str(strip["short"])


def _mean(series: Series) -> str:
    return f"{series.title}: mean {np.mean(series.values):.3f} of {len(series.values)}"


def _score(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−")


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if value >= 0.001 or value == 0 else "< 0.1 %"
