"""The bundle's manifest: where the model came from, what was split, and the hash of each file.

No time stamps: same input, same bytes.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from elude.handlers.errors import BundleError

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Source:
    """The original model: name, revision of it, architecture of timm, and sha256 of its weights."""

    model: str
    revision: str
    architecture: str
    weights_sha256: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Source:
        """From a JSON object; raises BundleError naming the field that does not fit."""
        fields = _fields(value, "source", {"model": str, "revision": str, "architecture": str, "weights_sha256": str})
        return cls(**fields)


@dataclass(frozen=True)
class LayerInfo:
    """One split layer.

    Attributes:
        name: path of the module.
        kind: ``linear`` or ``conv``.
        units: number of units.
        inputs: contributions per unit.
        parts: sub-units of each unit, (units,).
        first: index of the layer's first sub-unit over all layers.
    """

    name: str
    kind: str
    units: int
    inputs: int
    parts: tuple[int, ...]
    first: int

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Number of each unit's first sub-unit within the layer, (units,)."""
        return tuple(accumulate(self.parts[:-1], initial=0))

    @cached_property
    def sub_units(self) -> int:
        """Number of sub-units of the layer."""
        return sum(self.parts)

    def parent(self, local: int) -> tuple[int, int]:
        """Unit and part of the layer's sub-unit number ``local``."""
        unit = bisect_right(self.starts, local) - 1
        return unit, local - self.starts[unit]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self) | {"parts": list(self.parts)}

    @classmethod
    def from_json(cls, value: Any) -> LayerInfo:
        """From a JSON object; raises BundleError naming the field that does not fit."""
        fields = _fields(
            value, "layer", {"name": str, "kind": str, "units": int, "inputs": int, "parts": list, "first": int}
        )
        parts = tuple(fields["parts"])
        if any(type(part) is not int or part < 1 for part in parts) or len(parts) != fields["units"]:
            raise BundleError(f"layer {fields['name']}: 'parts' must hold {fields['units']} positive whole numbers.")
        return cls(**fields | {"parts": parts})


@dataclass(frozen=True)
class Manifest:
    """Everything about a bundle that is not in its files.

    Attributes:
        expansion_factor: sub-units per unit over all split layers, 1.0 without any.
        parameters: number of parameters of the original model.
        versions: library name → version.
        files: file name → sha256, without the manifest itself.
    """

    schema_version: int
    source: Source
    layers: tuple[LayerInfo, ...]
    expansion_factor: float
    parameters: int
    versions: dict[str, str]
    files: dict[str, str]

    @classmethod
    def of(
        cls,
        source: Source,
        layers: Sequence[LayerInfo],
        parameters: int,
        versions: Mapping[str, str],
        files: Mapping[str, str],
    ) -> Manifest:
        """A manifest of the current schema; the expansion factor is computed."""
        units = sum(layer.units for layer in layers)
        factor = sum(layer.sub_units for layer in layers) / units if units else 1.0
        return cls(SCHEMA_VERSION, source, tuple(layers), factor, parameters, dict(versions), dict(files))

    def with_files(self, files: Mapping[str, str]) -> Manifest:
        """The same manifest with other files."""
        return replace(self, files=dict(sorted(files.items())))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self) | {"layers": [layer.to_json() for layer in self.layers]}

    def to_bytes(self) -> bytes:
        """The bytes of ``manifest.json``, the same for the same content."""
        return (json.dumps(self.to_json(), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """From a JSON object; raises BundleError for an unknown schema version or naming the field that does not
        fit.
        """
        version = value.get("schema_version") if isinstance(value, dict) else None
        if type(version) is not int or version != SCHEMA_VERSION:
            raise BundleError(
                f"manifest.json has schema_version {version!r}; this version reads {SCHEMA_VERSION}.",
                "Use the version of elude that wrote the bundle, or export it again.",
            )
        types = {"schema_version": int, "source": dict, "layers": list, "expansion_factor": float, "parameters": int}
        fields = _fields(value, "manifest.json", types | {"versions": dict, "files": dict})
        for name in ("versions", "files"):
            if not all(isinstance(entry, str) for entry in fields[name].values()):
                raise BundleError(f"manifest.json: {name!r} must hold texts only.")
        layers = tuple(LayerInfo.from_json(layer) for layer in fields["layers"])
        return cls(**fields | {"source": Source.from_json(fields["source"]), "layers": layers})


def _fields(value: Any, what: str, types: Mapping[str, type]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BundleError(f"{what} must be a JSON object, not {type(value).__name__}.")
    if wrong := sorted(set(value) ^ set(types)):
        raise BundleError(f"{what}: field {wrong[0]!r} is {'unknown' if wrong[0] in value else 'missing'}.")
    for name, kind in types.items():
        if type(value[name]) is not kind:
            raise BundleError(f"{what}: field {name!r} must be {kind.__name__}, not {type(value[name]).__name__}.")
    return dict(value)
