"""What the file says about itself in its ``metadata_props``: enough to use it without any other file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.bundle.bundle import LayerInfo, Source
from elude.handlers.bundle.graph_metadata import GRAPH_SCHEMA_VERSION
from elude.handlers.images.preprocess import Preprocess


def layer_infos(splits: Sequence[LayerSplit], kinds: Sequence[str]) -> tuple[LayerInfo, ...]:
    """The split layers as manifest and graph have them, each with the index of its first sub-unit over all layers."""
    infos: list[LayerInfo] = []
    first = 0
    for split, kind in zip(splits, kinds, strict=True):
        units, inputs = split.masks.shape
        infos.append(LayerInfo(split.layer, kind, units, inputs, tuple(split.parts.tolist()), first))
        first += split.sub_units
    return tuple(infos)


def split_sha256(splits: Sequence[LayerSplit]) -> str:
    """Hash of the names, parts and masks: two graphs with the same hash share every weight in the same way."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(json.dumps([split.layer, *split.masks.shape]).encode())
        digest.update(np.ascontiguousarray(split.parts, "<i8").tobytes())
        digest.update(np.ascontiguousarray(split.masks, "<u8").tobytes())
    return digest.hexdigest()


def metadata(
    source: Source, preprocess: Preprocess, infos: Sequence[LayerInfo], splits: Sequence[LayerSplit], dtype: str
) -> dict[str, str]:
    """The ``elude.*`` entries, JSON where they are not plain text."""
    return {
        "elude.schema_version": str(GRAPH_SCHEMA_VERSION),
        "elude.source": json.dumps(source.to_json(), sort_keys=True),
        "elude.preprocess": json.dumps(preprocess.to_json(), sort_keys=True),
        "elude.layers": json.dumps([info.to_json() for info in infos], sort_keys=True),
        "elude.split_sha256": split_sha256(splits),
        "elude.dtype": dtype,
    }
