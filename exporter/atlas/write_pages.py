"""Writing the pages: an overview with search and a map, one page per concept and per unit, one page of relations.

Nothing is fetched; all works from a file's address.

Thumbnails are files that the pages share, each image once. The search reads ``index.js``, a script
rather than JSON, as a browser fetches no file from a file.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jinja2

from elude.exporter.atlas.page_data import AtlasContent
from elude.exporter.atlas.page_views import OF_MANY, Detail, Views, concept_page, page_of, unit_link
from elude.exporter.atlas.pictures import Pictures, fewer_of_many
from elude.exporter.atlas.token_places import shared_style
from elude.handlers.errors import UsageError

_FOLDER = Path(__file__).parent
_SIGN = "atlas.json"  # says that a folder is an atlas and may be replaced
MANY = 4_000  # sub-units from which fewer images of each are shown

Progress = Callable[[int, int], None]
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class AtlasSettings:
    """What the pages show.

    Attributes:
        images_shown: strongest images of each unit and sub-unit.
        images_of_many: strongest images of each sub-unit and concept where there are more than ``MANY``.
        most_split: units in the overview's table.
    """

    images_shown: int = 12
    images_of_many: int = 8
    most_split: int = 20


def write_pages(
    content: AtlasContent,
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
        _Pages(content, folder, settings).write(progress)
        folder.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        os.rename(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target / "index.html"


class _Pages:
    """The pages of one atlas on their way to a folder."""

    def __init__(self, content: AtlasContent, folder: Path, settings: AtlasSettings) -> None:
        self.content, self.folder, self.settings = content, folder, settings
        self.environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.globals |= {"model": content.model, "facts": content.facts, "layer_count": len(content.layers)}
        self.environment.filters |= {"score": _score, "percent": _percent, "signed": _signed}

    def write(self, progress: Progress | None) -> None:
        """Write everything."""
        content, settings = self.content, self.settings
        shown = fewer_of_many(content.sub_units, MANY, settings.images_shown, settings.images_of_many)
        detail = OF_MANY if len(content.sub_units) > MANY else Detail()
        views = Views(content, Pictures(content, self.folder, shown), detail)
        style = shared_style() + (_FOLDER / "style.css").read_text(encoding="utf-8")
        (self.folder / "style.css").write_text(style, encoding="utf-8")
        shutil.copyfile(_FOLDER / "search.js", self.folder / "search.js")
        index = json.dumps(views.search_index(), separators=(",", ":"), ensure_ascii=True)
        (self.folder / "index.js").write_text(f"const ATLAS={index};\n", encoding="utf-8")
        self._page("index.html", "index.html.j2", root="", **views.overview(settings.most_split))
        self._page("relations.html", "relations.html.j2", root="", **views.relations())
        self._concepts(views)
        self._units(views, progress)
        (self.folder / _SIGN).write_text(json.dumps(dict(content.facts), indent=1) + "\n", encoding="utf-8")

    def _concepts(self, views: Views) -> None:
        pages = [(path, row) for row in views.ordered if (path := concept_page(row))]
        for number, (path, row) in enumerate(pages):
            before, after = _beside(pages, number)
            steps = {"before": before and views.concept(before[1]), "after": after and views.concept(after[1])}
            self._page(path, "concept.html.j2", root="../", **views.concept_view(row), **steps)

    def _units(self, views: Views, progress: Progress | None) -> None:
        units = self.content.units
        for number, unit in enumerate(units):
            before, after = _beside(units, number)
            steps = {"before": before and unit_link(before), "after": after and unit_link(after)}
            path = page_of(unit.layer, unit.unit)
            self._page(path, "unit.html.j2", root="../../", **views.unit(unit), **steps)
            if progress is not None:
                progress(number + 1, len(units))

    def _page(self, path: str, template: str, **values: Any) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(self.environment.get_template(template).render(**values), encoding="utf-8")


def _beside(rows: Sequence[_Row], number: int) -> tuple[_Row | None, _Row | None]:
    """The row before and the row after; None at the ends."""
    return rows[number - 1] if number else None, rows[number + 1] if number + 1 < len(rows) else None


def _score(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−")


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if value >= 0.001 or value == 0 else "< 0.1 %"
