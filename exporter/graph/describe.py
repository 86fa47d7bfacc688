"""What is in a file: inputs, outputs, layers, sub-units, sizes, metadata and hashes, without running it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.external_data import private_model
from elude.handlers.bundle.graph_metadata import read_layers
from elude.handlers.errors import BundleError
from elude.handlers.files import file_sha256


@dataclass(frozen=True)
class Value:
    """An input or output: its name, element type, shape with names for open axes, and whether it may be left out."""

    name: str
    type: str
    shape: tuple[int | str, ...]
    optional: bool
    doc: str


@dataclass(frozen=True)
class Description:
    """A file.

    Attributes:
        file: its name; ``bytes``: with the weights beside it; ``sha256``: of each file by name.
        opset: version of the ONNX operators.
        nodes: in the main graph; ``grafted``: of them, those that inspect and steer.
        inputs, outputs: in order.
        layers: name, kind, units, inputs, sub-units, expansion factor, most parts of a unit, first
            index, bytes that the split adds.
        metadata: the ``elude.*`` entries, parsed where they are JSON.
    """

    file: str
    bytes: int
    sha256: dict[str, str]
    opset: int
    nodes: int
    grafted: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    layers: tuple[dict[str, Any], ...]
    metadata: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def rows(self) -> dict[str, str]:
        """As rows of a table with two columns."""
        found = {
            "file": (
                f"{self.file}, {self.bytes / 1e6:.1f} MB, opset {self.opset}, {self.nodes} nodes "
                f"({self.grafted} grafted)"
            )
        }
        found |= {f"sha256 of {name}": value for name, value in self.sha256.items()}
        for kind, values in (("input", self.inputs), ("output", self.outputs)):
            for value in values:
                default = " (optional)" if value.optional else ""
                found[f"{kind} {value.name}"] = (
                    f"{value.type} ({', '.join(map(str, value.shape))}){default}. {value.doc}".strip()
                )
        for layer in self.layers:
            found[f"layer {layer['name']}"] = (
                f"{layer['kind']}, {layer['units']} units of {layer['inputs']} inputs, {layer['sub_units']} "
                "sub-units from index "
                f"{layer['first']}, EF {layer['expansion_factor']:.2f}, at most {layer['most_parts']} a "
                f"unit, {layer['bytes'] / 1e6:.2f} MB"
            )
        shown = {key: value for key, value in self.metadata.items() if key != "elude.layers"}
        return found | {key: value if isinstance(value, str) else json.dumps(value) for key, value in shown.items()}


def describe(path: Path | str) -> Description:
    """Read a ``model.onnx``, or that of a bundle's folder.

    Raises:
        BundleError: it does not exist, or is not a file of this project.
    """
    with private_model(open_model(path)) as (file, _):
        return _describe(file)


def open_model(path: Path | str) -> Bundle | Path:
    """The bundle of a folder, or the file; BundleError if there is neither."""
    path = Path(path)
    if path.is_dir():
        return Bundle.open(path)
    if not path.is_file():
        raise BundleError(f"{path} does not exist.", "Name a bundle or a model.onnx.")
    return path


def _describe(path: Path) -> Description:
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise BundleError(f"{path.name} is not an ONNX file.", "Name a bundle or a model.onnx.") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    infos = read_layers(metadata, path.name)
    sizes = {tensor.name: _bytes(tensor) for tensor in model.graph.initializer}
    stored = set(sizes)
    layers: list[dict[str, Any]] = []
    for info in infos:
        own = (f"{info.name}.sub_units.", f"{info.name}.elude.")
        known = {"name": info.name, "kind": info.kind, "units": info.units, "inputs": info.inputs, "first": info.first}
        counts = {
            "sub_units": info.sub_units,
            "expansion_factor": info.sub_units / info.units,
            "most_parts": max(info.parts),
        }
        layers.append(known | counts | {"bytes": sum(size for name, size in sizes.items() if name.startswith(own))})
    files = [path, *(item for item in [path.with_name(f"{path.name}.data")] if item.is_file())]
    return Description(
        path.name,
        sum(item.stat().st_size for item in files),
        {item.name: file_sha256(item) for item in files},
        model.opset_import[0].version,
        len(model.graph.node),
        sum("elude" in node.name for node in model.graph.node),
        _values(model.graph.input, stored),
        _values(model.graph.output, set()),
        tuple(layers),
        {key: _parsed(value) for key, value in metadata.items() if key.startswith("elude.")},
    )


def _values(values: Iterable[Any], stored: set[str]) -> tuple[Value, ...]:
    found = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim)
        name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        found.append(Value(value.name, name, shape, value.name in stored, value.doc_string))
    return tuple(found)


def _bytes(tensor: Any) -> int:
    outside = {entry.key: entry.value for entry in tensor.external_data}
    if "length" in outside:
        return int(outside["length"])
    return len(tensor.raw_data) or int(tensor.ByteSize())


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:  # a hash or a name
        return value
