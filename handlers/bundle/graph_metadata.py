"""What a model file says about itself (``metadata_props``), read with distrust: every refusal names the file and
what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from elude.handlers.bundle.bundle import LayerInfo
from elude.handlers.errors import BundleError

GRAPH_SCHEMA_VERSION = 1
INPUTS = ("pixel_values", "inspect", "steer_sub_unit", "steer_gain", "steer_offset", "steer_patches")
OUTPUTS = ("logits", "values", "embedding")
_REMEDY = "Use a file that `elude export` wrote."


def read_layers(metadata: Mapping[str, str], name: str) -> tuple[LayerInfo, ...]:
    """The layers, whose first indices must follow on each other.

    Raises:
        BundleError: the entries are missing, of another version, or contradict themselves.
    """
    version = metadata.get("elude.schema_version")
    if version is None or "elude.layers" not in metadata:
        raise BundleError(
            f"{name} is not a file of elude: its metadata has no elude.schema_version or no elude.layers.", _REMEDY
        )
    if version != str(GRAPH_SCHEMA_VERSION):
        raise BundleError(
            f"{name} has graph schema version {version!r}; this version reads {GRAPH_SCHEMA_VERSION}.", _REMEDY
        )
    try:
        entries = json.loads(metadata["elude.layers"])
    except json.JSONDecodeError as error:
        raise BundleError(f"{name}: elude.layers is not JSON: {error}", _REMEDY) from error
    if not isinstance(entries, list) or not entries:
        raise BundleError(f"{name}: elude.layers is not a list of layers.", _REMEDY)
    layers = tuple(LayerInfo.from_json(entry) for entry in entries)
    first = 0
    for layer in layers:
        if layer.first != first:
            raise BundleError(f"{name}: layer {layer.name} starts at index {layer.first}, not {first}.", _REMEDY)
        first += layer.sub_units
    return layers


def check_interface(inputs: Collection[str], outputs: Collection[str], layers: Sequence[LayerInfo], name: str) -> None:
    """Every input and output that the metadata promises must be there.

    Raises:
        BundleError: one is missing.
    """
    wanted = [f"{layer.name}.{kind}" for layer in layers for kind in ("units", "sub_units")]
    missing = [value for value in INPUTS if value not in inputs] + [value for value in wanted if value not in outputs]
    if missing:
        raise BundleError(f"{name} lacks {', '.join(missing)}.", _REMEDY)
    if not any(value in outputs for value in OUTPUTS):
        raise BundleError(f"{name} has no output named {' or '.join(OUTPUTS)}.", _REMEDY)
