"""The answer of each operation, from the rows of one forward pass that belong to its request."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.bundle import LayerInfo
from handlers.catalogue import Catalogue, SubUnitRow
from handlers.edits import Edit
from handlers.errors import RequestError, UsageError
from handlers.heatmap import grid_of, heat_map
from handlers.requests import EditRequest, Feature, Inspect, Search, Steer

Activations = NDArray[np.float32]  # (tokens, units) or (tokens, sub-units) of one row


def probabilities(output: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax of one row of logits (C,), computed in float64 and rounded to float32 steps, as float64."""
    with np.errstate(invalid="ignore"):  # an infinite logit gives NaN, which the caller refuses to send
        exponents = np.exp(output.astype(np.float64) - output.max())
        rounded: NDArray[np.float64] = (exponents / exponents.sum()).astype(np.float32).astype(np.float64)
    return rounded


def predict(output: NDArray[np.float32], labels: Sequence[str] | None, top_k: int) -> dict[str, Any]:
    """``{label: probability}``, most probable first, as TorchServe's image classifier; ``{"embedding": […]}`` without labels."""
    if labels is None:
        return {"embedding": output.astype(np.float64).tolist()}
    found = probabilities(output)
    order = np.argsort(-found, kind="stable")[:top_k]
    return {labels[i]: float(found[i]) for i in order}


def inspect(
    request: Inspect,
    units: dict[str, Activations],
    sub_units: dict[str, Activations],
    *,
    layers: Sequence[LayerInfo],
    image_size: tuple[int, int],
    catalogue: Catalogue | None,
) -> dict[str, Any]:
    """The sub-units with the largest activation over the tokens, and per layer how far sub-units are from adding up to units."""
    chosen = [layer for layer in layers if request.layer in (None, layer.name)]
    if not chosen:
        raise RequestError(f"Field 'layer' is {request.layer!r}.", f"Inspected layers: {', '.join(layer.name for layer in layers)}.", 404)
    peaks = np.concatenate([sub_units[layer.name].max(axis=0) for layer in chosen])
    owners = np.concatenate([np.full(layer.sub_units, i) for i, layer in enumerate(chosen)])
    locals_ = np.concatenate([np.arange(layer.sub_units) for layer in chosen])
    found = []
    for place in np.argsort(-peaks, kind="stable")[: request.top_k]:
        layer, local = chosen[owners[place]], int(locals_[place])
        unit, part = _parent(layer, local)
        activation = sub_units[layer.name][:, local]
        token = int(activation.argmax())
        row = catalogue.sub_unit(layer.first + local) if catalogue else None
        entry: dict[str, Any] = {"id": f"{layer.name}/u{unit}.s{part}", "index": layer.first + local, "name": row.name if row else None}
        entry |= {"activation": float(activation[token]), "token": token}
        entry |= {"unit": {"id": f"{layer.name}/u{unit}", "parts": layer.parts[unit], "activation": float(units[layer.name][token, unit])}}
        if request.heat_map != "none":
            entry["heat_map"] = heat_map(activation, grid_of(len(activation), *image_size), request.heat_map)
        found.append(entry)
    checks = {layer.name: sum_check(layer, units[layer.name], sub_units[layer.name]) for layer in chosen}
    return {"sub_units": found, "sum_check": checks}


def sum_check(layer: LayerInfo, units: Activations, sub_units: Activations) -> dict[str, float]:
    """Largest distance between a unit and the sum of its sub-units, and the largest unit, over all tokens and units of the layer."""
    starts = np.concatenate([[0], np.cumsum(layer.parts)[:-1]]).astype(np.int64)
    sums = np.add.reduceat(sub_units, starts, axis=1, dtype=np.float64)
    return {"max_residual": float(np.abs(sums - units).max()), "max_unit": float(np.abs(units).max())}


def _parent(layer: LayerInfo, local: int) -> tuple[int, int]:
    ends = np.cumsum(layer.parts)
    unit = int(np.searchsorted(ends, local, side="right"))
    return unit, local - int(ends[unit] - layer.parts[unit])


@dataclass(frozen=True)
class Steered:
    """Edits of a request resolved against the catalogue's or the graph's identifiers."""

    edits: tuple[Edit, ...]
    described: tuple[dict[str, Any], ...]


def resolve(requested: Sequence[EditRequest], layers: Sequence[LayerInfo], catalogue: Catalogue | None) -> Steered:
    """Identifiers to indices.

    Raises:
        RequestError: 404 for an unknown sub-unit, 400 for one that is edited twice or a value that does not fit its action.
    """
    edits: list[Edit] = []
    described: list[dict[str, Any]] = []
    for i, entry in enumerate(requested):
        where = f"edits[{i}]"
        index = index_of(entry.id, layers, f"{where}.id")
        if any(edit.index == index for edit in edits):
            raise RequestError(f"Field '{where}.id' is {entry.id!r}, which this request already edits.", "Edit each sub-unit once.")
        edits.append(entry.to_edit(index, where))
        described.append(asdict(entry) | {"name": catalogue.sub_unit(index).name if catalogue else None})
    return Steered(tuple(edits), tuple(described))


def index_of(identifier: str, layers: Sequence[LayerInfo], where: str) -> int:
    """Index over all layers of ``LAYER/u31.s4``; RequestError naming ``where`` if there is none."""
    layer_name, _, rest = identifier.partition("/u")
    unit, _, part = rest.partition(".s")
    for layer in layers:
        if layer.name == layer_name and unit.isdecimal() and part.isdecimal() and len(unit) < 10 and len(part) < 10:
            u, p = int(unit), int(part)
            if u < layer.units and p < layer.parts[u] and identifier == f"{layer.name}/u{u}.s{p}":
                return layer.first + sum(layer.parts[:u]) + p
    raise RequestError(f"Field '{where}' is {identifier!r}: there is no such sub-unit.", "Find one with 'inspect' or 'search'.", 404)


def steer(
    request: Steer, edits: Steered, plain: NDArray[np.float32], steered: NDArray[np.float32], labels: Sequence[str] | None
) -> dict[str, Any]:
    """Both predictions side by side; ``change`` is steered minus unsteered, for the classes that either of them names."""
    before, after = predict(plain, labels, request.top_k), predict(steered, labels, request.top_k)
    answer: dict[str, Any] = {"unsteered": before, "steered": after, "edits": list(edits.described)}
    if labels is not None:
        difference = dict(zip(labels, (probabilities(steered) - probabilities(plain)).tolist(), strict=True))
        answer["change"] = {label: difference[label] for label in {**before, **after}}
    answer["max_output_change"] = float(np.abs(steered.astype(np.float64) - plain).max())
    return answer


def feature(request: Feature, layers: Sequence[LayerInfo], catalogue: Catalogue) -> dict[str, Any]:
    """Statistics, name, siblings and example images (PNG, base64) of one sub-unit."""
    row = catalogue.sub_unit(index_of(request.id, layers, "id"))
    examples = []
    for top in row.tops[: request.examples]:
        image = catalogue.image(top.image)
        examples.append(
            {
                "image": image.name,
                "label": image.label,
                "token": top.token,
                "activation": top.activation,
                "png": base64.b64encode(image.png).decode(),
            }
        )
    siblings = [part.id for part in catalogue.parts_of(row.layer, row.unit) if part.part != row.part]
    return _summary(row) | {"siblings": siblings, "examples": examples}


def search(request: Search, catalogue: Catalogue) -> dict[str, Any]:
    """Sub-units whose name or identifier fits, best first."""
    return {"query": request.query, "sub_units": [_summary(row) for row in catalogue.search(request.query, request.limit)]}


def need(catalogue: Catalogue | None) -> Catalogue:
    """The catalogue; RequestError 404 if the bundle has none."""
    if catalogue is None:
        raise RequestError("This model was exported without a catalogue.", "Export it with images to get names and examples.", 404)
    return catalogue


def _summary(row: SubUnitRow) -> dict[str, Any]:
    values = asdict(row)
    del values["tops"]
    return {"id": row.id} | values


def as_request_error(error: UsageError) -> RequestError:
    """A look-up that found nothing, as this request's 404."""
    return RequestError(error.message, error.remedy, 404)
