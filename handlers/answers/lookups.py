"""Answers from the catalogue: one sub-unit, and searches by name or by image."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.handlers.answers.operations import describe_concept, lookup_concept
from elude.handlers.bundle.bundle import LayerInfo
from elude.handlers.bundle.catalogue import Catalogue, ConceptRow, SubUnitRow, Top
from elude.handlers.errors import RequestError
from elude.handlers.requests.schema import Concept, Feature, Search
from elude.handlers.requests.steering import index_of


def need(catalogue: Catalogue | None) -> Catalogue:
    """The catalogue; RequestError 404 if the bundle has none."""
    if catalogue is None:
        raise RequestError(
            "This model was exported without a catalogue.", "Export it with images to get names and examples.", 404
        )
    return catalogue


def feature(request: Feature, layers: Sequence[LayerInfo], catalogue: Catalogue) -> dict[str, Any]:
    """Statistics, name, siblings and example images (PNG, base64) of one sub-unit."""
    row = catalogue.sub_unit(index_of(request.id, layers, "id"))
    examples = _examples(row.tops[: request.examples], catalogue)
    siblings = [part.id for part in catalogue.parts_of(row.layer, row.unit) if part.part != row.part]
    concept = catalogue.concept_of(row.index)
    described = None if concept is None else describe_concept(concept, catalogue)
    return _summary(row) | {"concept": described, "siblings": siblings, "examples": examples}


def concept(request: Concept, catalogue: Catalogue) -> dict[str, Any]:
    """Sub-units, example images and, where the catalogue has them, the concept's strengths and relatives."""
    row = lookup_concept(request.id, "id", catalogue)
    portrait = catalogue.portrait(row.number)
    tops = catalogue.sub_unit(row.members[0]).tops if portrait is None else portrait.tops
    related = [] if portrait is None else [_relative(catalogue, *pair) for pair in portrait.related]
    return describe_concept(row, catalogue) | {
        "sub_units": [{"id": catalogue.identifier(index), "name": catalogue.name(index)} for index in row.members],
        "examples": _examples(tops[: request.examples], catalogue),
        "histogram": None if portrait is None else list(portrait.histogram),
        "similar": [other for other in related if other["correlation"] > 0],
        "opposite": [other for other in reversed(related) if other["correlation"] < 0],
    }


def search(request: Search, catalogue: Catalogue) -> dict[str, Any]:
    """Concepts whose name fits, and sub-units whose name or identifier fits, best first."""
    query = request.query or ""
    concepts = [describe_concept(concept, catalogue) for concept in catalogue.search_concepts(query, request.limit)]
    rows = catalogue.search(query, request.limit)
    return {"query": request.query, "concepts": concepts, "sub_units": [_summary(row) for row in rows]}


def search_by_image(
    request: Search, sub_units: dict[str, NDArray[np.float32]], layers: Sequence[LayerInfo], catalogue: Catalogue
) -> dict[str, Any]:
    """The sub-units that this image activates most, compared with the largest activation each had on the probing
    images.

    ``relative`` is the quotient of the two, 1 where the image is as strong as the strongest known;
    sub-units that never were above 0 on the probing images are left out.
    """
    peaks = np.concatenate([sub_units[layer.name].max(axis=0) for layer in layers]).astype(np.float64)
    maxima = np.array(catalogue.maxima())
    relative = np.divide(peaks, maxima, out=np.full_like(peaks, -np.inf), where=maxima > 0)
    order = [int(i) for i in np.argsort(-relative, kind="stable")[: request.limit] if np.isfinite(relative[i])]
    found = [
        _summary(catalogue.sub_unit(i)) | {"activation": float(peaks[i]), "relative": float(relative[i])} for i in order
    ]
    return {"query": None, "concepts": [], "sub_units": found}


def _examples(tops: Sequence[Top], catalogue: Catalogue) -> list[dict[str, Any]]:
    examples = []
    for top in tops:
        image = catalogue.image(top.image)
        example = {"image": image.name, "label": image.label, "token": top.token, "activation": top.activation}
        examples.append(example | {"png": base64.b64encode(image.png).decode()})
    return examples


def _relative(catalogue: Catalogue, number: int, correlation: float) -> dict[str, Any]:
    other: ConceptRow = catalogue.concepts()[number]
    return {"id": other.id, "name": other.name, "members": len(other.members), "correlation": correlation}


def _summary(row: SubUnitRow) -> dict[str, Any]:
    values = asdict(row)
    del values["tops"]
    return {"id": row.id} | values
