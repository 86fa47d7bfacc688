"""Splits on disk: ``disentangled.safetensors`` of a bundle, and its control in the same form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.bundle.bundle import SPLITS, Bundle
from elude.handlers.errors import BundleError

SCHEMA_VERSION = 1
CONTROL = "control.safetensors"  # of a bundle: the controls of its splits, in the form of a split
_FIELDS = ("parts", "masks", "rho", "representatives")


def save_splits(splits: Sequence[LayerSplit], path: Path) -> None:
    """Write splits as safetensors, in their order; the same splits give the same bytes.

    The header's metadata holds one entry only (``elude``, JSON): the order of several is not
    defined by the library. Masks are stored as unsigned 64-bit integers; a reader without that type
    may view them as signed ones, the bits are the same.
    """
    header = json.dumps({"schema_version": SCHEMA_VERSION, "layers": [split.layer for split in splits]}, sort_keys=True)
    tensors = {
        f"{split.layer}/{field}": np.ascontiguousarray(getattr(split, field)) for split in splits for field in _FIELDS
    }
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"elude": header}))


def bundle_splits(bundle: Bundle) -> list[LayerSplit]:
    """The splits of a bundle, from bytes compared with its manifest; BundleError as ``load_splits``."""
    with bundle.private(SPLITS) as folder:
        return load_splits(folder / SPLITS)


def load_splits(path: Path) -> list[LayerSplit]:
    """Read splits in the order they were written.

    Raises:
        BundleError: if the file is missing, damaged, of another version, or holds no valid splits.
    """
    remedy = "Export the model again."
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("elude", "{}"))
            if header.get("schema_version") != SCHEMA_VERSION:
                raise BundleError(
                    f"{path.name} is of schema version {header.get('schema_version')}, not {SCHEMA_VERSION}.", remedy
                )
            return [
                LayerSplit(layer, *(file.get_tensor(f"{layer}/{field}") for field in _FIELDS))
                for layer in header["layers"]
            ]
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise BundleError(f"{path.name} holds no readable splits: {error}", remedy) from error
