"""Writing names into a bundle.

The catalogue decides what a concept steers, so it is part of the artefact: a renamed bundle is a
new one.

It is built whole beside the old one and takes its place in one rename. What was measured, judged or
signed of the old artefact is left out, as it is about other bytes: evaluate and judge the bundle
again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from elude.exporter.naming.concepts import name_concepts
from elude.exporter.naming.evidence import NAMES, Name, names_json
from elude.handlers.bundle.bundle import Bundle, write_bundle
from elude.handlers.bundle.catalogue import Catalogue, ConceptRow, write_catalogue
from elude.handlers.requests.presets import read_presets
from elude.handlers.settings import Limits

CATALOGUE = "catalogue.sqlite"
STALE = (
    "quality.json",
    "quality.answers.safetensors",
    "verdict.json",
    "report.html",
    "signature.json",
    "presets_quality.json",
)  # about the old artefact only


def losses(bundle: Bundle, keep: bool) -> list[str]:
    """What naming a bundle again would lose: its names, unless they are kept, and files about the old artefact."""
    catalogue = Catalogue.of(bundle)
    try:
        named = 0 if keep else sum(row.name is not None for row in catalogue.sub_units())
    finally:
        catalogue.close()
    return ([f"{named} names"] if named else []) + [name for name in STALE if bundle.has(name)]


def rename(
    bundle: Bundle, names: Sequence[Name], settings: Mapping[str, Any], *, keep: bool = False
) -> tuple[Bundle, tuple[str, ...]]:
    """Replace a bundle by the same one with other names.

    Args:
        bundle: with a catalogue.
        names: of sub-units; all others stay unnamed.
        settings: how they were found, for ``names.json``.
        keep: whether sub-units without a new name keep the one that they have.

    Returns:
        the bundle with its new hash, and the files that were left out because they were about the old one.

    Raises:
        BundleError: there is no catalogue, or a preset steers a concept that would no longer have a
            sub-unit. The bundle is as it was.
    """
    old = Catalogue.of(bundle)
    by_index = {name.index: name for name in names}
    earlier = _earlier(bundle) if keep else {}
    try:
        rows, kept = [], list(names)
        for row in old.sub_units():
            found = by_index.get(row.index)
            if found is not None:
                row = replace(row, name=found.name, name_method=found.method, name_score=found.score)  # noqa: PLW2901
            elif not keep:
                row = replace(row, name=None, name_method=None, name_score=None)  # noqa: PLW2901
            elif row.name is not None:
                kept.append(
                    Name(row.index, row.name, row.name_method or "", row.name_score or 0.0, earlier.get(row.index, {}))
                )
            rows.append(row)
        manifest, gone = bundle.manifest, tuple(name for name in STALE if bundle.has(name))
        with write_bundle(
            bundle.root,
            source=manifest.source,
            layers=manifest.layers,
            parameters=manifest.parameters,
            versions=manifest.versions,
            overwrite=True,
        ) as folder:
            for name in manifest.files:
                if name not in (*STALE, CATALOGUE, NAMES):
                    bundle.copy(name, folder / name)
            concepts = _renamed(old.concepts(), {row.index: row.name for row in rows})
            write_catalogue(folder / CATALOGUE, old.images(), old.units(), rows, concepts, old.portraits())
            text = json.dumps(names_json(kept, settings), indent=1, ensure_ascii=False) + "\n"
            (folder / NAMES).write_text(text, encoding="utf-8")
            _check_presets(bundle, folder / CATALOGUE)
    finally:
        old.close()
    return Bundle.open(bundle.root), gone


def _renamed(concepts: Sequence[ConceptRow], names: Mapping[int, str | None]) -> list[ConceptRow]:
    named = name_concepts([concept.members for concept in concepts], names)
    return [replace(concept, name=name) for concept, name in zip(concepts, named, strict=True)]


def _check_presets(bundle: Bundle, path: Path) -> None:
    renamed = Catalogue(path)
    try:
        read_presets(
            bundle, bundle.manifest.layers, renamed, Limits(max_edits=bundle.manifest.layers[-1].first + 10**6)
        )
    finally:
        renamed.close()


def _earlier(bundle: Bundle) -> dict[int, dict[str, Any]]:
    """Evidence of the names that the bundle has, by index."""
    if not bundle.has(NAMES):
        return {}
    standard = {"index", "name", "method", "score"}
    return {row["index"]: {key: row[key] for key in row if key not in standard} for row in bundle.json(NAMES)["names"]}
