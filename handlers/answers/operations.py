"""The answer of each operation, from the rows of one forward pass that belong to its request."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.handlers.answers.forward_pass import Row
from elude.handlers.answers.heatmap import grid_of, heat_maps
from elude.handlers.bundle.bundle import LayerInfo
from elude.handlers.bundle.catalogue import Catalogue, ConceptRow
from elude.handlers.bundle.identifiers import UnitId, named_sub_units
from elude.handlers.bundle.output_kinds import EMBEDDING, REGRESSION
from elude.handlers.errors import RequestError
from elude.handlers.requests.schema import Inspect
from elude.handlers.requests.steering import Steered

Activations = NDArray[np.float32]  # (tokens, units) or (tokens, sub-units) of one row


def predict(row: Row, labels: Sequence[str] | None, top_k: int) -> dict[str, Any]:
    """``{label: probability}``, most probable first, as TorchServe's image classifier; of a regression
    ``{"values": {label: value}}``, all of them; of an embedding ``{"embedding": […]}``.
    """
    if labels is None or row.kind == EMBEDDING:
        return {"embedding": row.output.astype(np.float64).tolist()}
    if row.kind == REGRESSION:
        return {"values": dict(zip(labels, row.scores.tolist(), strict=True))}
    order = row.ranking[:top_k]
    return dict(zip([labels[i] for i in order.tolist()], row.scores[order].tolist(), strict=True))


@dataclass(frozen=True)
class Effects:
    """Measured effects on a class: ``change`` by index over all layers, of the ``candidates`` strongest sub-units."""

    target: str
    change: dict[int, float]

    def describe(self) -> dict[str, Any]:
        """For the answer."""
        return {
            "target": self.target,
            "measured": len(self.change),
            "method": "logit minus logit with the sub-unit ablated",
        }


def chosen_layers(layer: str | None, layers: Sequence[LayerInfo]) -> list[LayerInfo]:
    """The asked layer or all; RequestError 404 if there is none of that name."""
    found = [entry for entry in layers if layer in (None, entry.name)]
    if not found:
        raise RequestError(
            f"Field 'layer' is {layer!r}.", f"Inspected layers: {', '.join(entry.name for entry in layers)}.", 404
        )
    return found


def strongest(
    sub_units: dict[str, Activations],
    layers: Sequence[LayerInfo],
    count: int,
    *,
    among: Collection[int] | None = None,
    magnitude: bool = False,
) -> list[int]:
    """Indices over all layers of the sub-units with the largest activation (or magnitude of it) over the tokens,
    largest first; only those ``among`` the given ones.
    """
    values = [np.abs(sub_units[layer.name]) if magnitude else sub_units[layer.name] for layer in layers]
    peaks = np.concatenate([value.max(axis=0) for value in values])
    indices = np.concatenate([np.arange(layer.first, layer.first + layer.sub_units) for layer in layers])
    ordered = indices[np.argsort(-peaks, kind="stable")]
    if among is not None:
        ordered = ordered[np.isin(ordered, list(among))]
    return [int(i) for i in ordered[:count]]


def asked_sub_units(
    request: Inspect, layers: Sequence[LayerInfo], catalogue: Catalogue | None
) -> Collection[int] | None:
    """Indices of those that a request is limited to; None: to none.

    Raises:
        RequestError: it names a unit and a concept, or there is no such unit or concept.
    """
    if request.unit is not None and request.concept is not None:
        raise RequestError("A request has either 'unit' or 'concept'.")
    if request.unit is not None:
        return parts_of(request.unit, layers)
    return None if request.concept is None else lookup_concept(request.concept, "concept", catalogue).members


def lookup_concept(text: str, field: str, catalogue: Catalogue | None) -> ConceptRow:
    """The concept of that name or identifier; RequestError 404 if there is none."""
    if catalogue is not None and (row := catalogue.concept(text)) is not None:
        return row
    raise RequestError(f"Field '{field}' is {text!r}: there is no such concept.", "Find one with 'search'.", 404)


def parts_of(unit: str, layers: Sequence[LayerInfo]) -> range:
    """Indices over all layers of the sub-units of a unit, e.g. ``blocks.5.mlp.fc2/u31``;

    RequestError 404 if there is no such unit.
    """
    if parts := named_sub_units(unit, layers, UnitId):
        return parts
    raise RequestError(
        f"Field 'unit' is {unit!r}: there is no such unit here.", "Units are named in the answers of 'inspect'.", 404
    )


def inspect(
    request: Inspect,
    units: dict[str, Activations],
    sub_units: dict[str, Activations],
    *,
    layers: Sequence[LayerInfo],
    image_size: tuple[int, int],
    catalogue: Catalogue | None,
    effects: Effects | None = None,
) -> dict[str, Any]:
    """The first sub-units in the asked order, and per layer how far sub-units are from adding up to units."""
    chosen = chosen_layers(request.layer, layers)
    if effects is None:
        order = strongest(sub_units, chosen, request.top_k, among=asked_sub_units(request, chosen, catalogue))
    else:
        order = sorted(effects.change, key=lambda index: -abs(effects.change[index]))[: request.top_k]
    maps: dict[int, dict[str, Any]] = {}
    for layer in chosen if request.heat_map != "none" else ():
        own = [index for index in order if layer.first <= index < layer.first + layer.sub_units]
        activations = sub_units[layer.name][:, [index - layer.first for index in own]]
        maps |= zip(own, heat_maps(activations, grid_of(len(activations), *image_size), request.heat_map), strict=True)
    found = []
    for index in order:
        layer = next(entry for entry in chosen if entry.first <= index < entry.first + entry.sub_units)
        unit, part = layer.parent(index - layer.first)
        activation = sub_units[layer.name][:, index - layer.first]
        token = int(activation.argmax())
        row = catalogue.sub_unit(index) if catalogue else None
        entry: dict[str, Any] = {
            "id": f"{layer.name}/u{unit}.s{part}",
            "index": index,
            "name": row.name if row else None,
        }
        entry |= {"activation": float(activation[token]), "token": token}
        if row:
            entry["share"] = row.share
        concept = catalogue.concept_of(index) if catalogue else None
        entry["concept"] = None if concept is None else {"id": concept.id, "name": concept.name}
        if effects is not None:
            entry["effect"] = effects.change[index]
        entry |= {
            "unit": {
                "id": f"{layer.name}/u{unit}",
                "parts": layer.parts[unit],
                "activation": float(units[layer.name][token, unit]),
            }
        }
        if request.heat_map != "none":
            entry["heat_map"] = maps[index]
        found.append(entry)
    checks = {layer.name: sum_check(layer, units[layer.name], sub_units[layer.name]) for layer in chosen}
    concepts = active_concepts(sub_units, layers, catalogue, request.top_k, request.concept) if catalogue else []
    answer: dict[str, Any] = {} if effects is None else {"effects": effects.describe()}
    return answer | {"concepts": concepts, "sub_units": found, "sum_check": checks}


def active_concepts(
    sub_units: dict[str, Activations],
    layers: Sequence[LayerInfo],
    catalogue: Catalogue,
    count: int,
    only: str | None = None,
) -> list[dict[str, Any]]:
    """The concepts that an image activates most; those of a single sub-unit last, as the list of sub-units has them.

    ``relative`` is the mean over a concept's sub-units of the largest activation over the tokens,
    divided by the largest on the atlas images; activations below 0 count as 0. With ``only`` that
    concept, however strong.
    """
    concepts = catalogue.concepts() if only is None else (lookup_concept(only, "concept", catalogue),)
    if not concepts:
        return []
    peaks = np.concatenate([sub_units[layer.name].max(axis=0) for layer in layers]).astype(np.float64)
    maxima = np.array(catalogue.maxima())
    relative = np.divide(np.maximum(peaks, 0), maxima, out=np.zeros_like(peaks), where=maxima > 0)
    means = [float(relative[list(concept.members)].mean()) for concept in concepts]
    order = sorted(range(len(concepts)), key=lambda i: (len(concepts[i].members) < 2, -means[i]))
    shown = [i for i in order if means[i] > 0 or only is not None][:count]
    return [describe_concept(concepts[i], catalogue) | {"relative": means[i]} for i in shown]


def describe_concept(concept: ConceptRow, catalogue: Catalogue) -> dict[str, Any]:
    """Identifier, name, size, quality and most typical sub-unit of a concept."""
    return {
        "id": concept.id,
        "name": concept.name,
        "members": len(concept.members),
        "agreement": concept.agreement,
        "purity": concept.purity,
        "typical": catalogue.sub_unit(concept.members[0]).id,
    }


def sum_check(layer: LayerInfo, units: Activations, sub_units: Activations) -> dict[str, float]:
    """Largest distance between a unit and the sum of its sub-units, and the largest unit, over all tokens and units
    of the layer.
    """
    sums = np.add.reduceat(sub_units, layer.starts, axis=1, dtype=np.float64)
    return {"max_residual": float(np.abs(sums - units).max()), "max_unit": float(np.abs(units).max())}


def steer(edits: Steered, rows: Sequence[Row], labels: Sequence[str] | None, top_k: int) -> dict[str, Any]:
    """The steered prediction, and beside it the unsteered one if ``rows`` holds both, unsteered first.

    ``change`` is steered minus unsteered, for the labels that either of them names.
    """
    after = predict(rows[-1], labels, top_k)
    if len(rows) == 1:
        return {"steered": after, "edits": edits.described}
    plain, steered = rows
    before = predict(plain, labels, top_k)
    answer: dict[str, Any] = {"unsteered": before, "steered": after, "edits": edits.described}
    if labels is not None:
        difference = dict(zip(labels, (steered.scores - plain.scores).tolist(), strict=True))
        named = labels if plain.kind == REGRESSION else {**before, **after}
        answer["change"] = {label: difference[label] for label in named}
    answer["max_output_change"] = float(np.abs(steered.output.astype(np.float64) - plain.output).max())
    return answer
