"""Which layers of a graph are meant: by name, or the last before the head."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from elude.exporter.onnx_files.layers import OnnxLayer
from elude.exporter.onnx_files.read_file import PIXELS, OnnxFile, quantised
from elude.exporter.onnx_files.run import Session
from elude.handlers.bundle.identifiers import parse_id
from elude.handlers.bundle.output_kinds import EMBEDDING, OUTPUT_NAMES
from elude.handlers.errors import UnsupportedLayerError, UsageError

DEFAULTS = ("last", "default")
_IMAGES = 2
_LISTED = 8


def choose_layers(file: OnnxFile, layers: Sequence[OnnxLayer], reasons: Mapping[str, str], pattern: str) -> list[
    OnnxLayer
]:  # fmt: skip
    """The layers whose name matches, in the order of execution.

    Args:
        file: the file.
        layers: those that can be split.
        reasons: why others cannot, by node.
        pattern: names with ``*`` and ``?``, separated by commas; ``last`` is ``mlp.fc2`` of the last block where there
            are such names, else the last layer before the head that sees more than one place of an image.

    Raises:
        UsageError: nothing matches.
        UnsupportedLayerError: the file has no layer that can be split, or one does not work image by image.
    """
    name = file.source.model
    if not layers:
        quantities = " It is quantised: split the file it was made from." if quantised(file.given) else ""
        why = "; ".join(f"{node}: {reason}" for node, reason in list(reasons.items())[:3])
        raise UnsupportedLayerError(
            f"{name} has no layer that can be split.{' ' + why + '.' if why else ''}",
            f"A layer is a MatMul, Gemm or Conv with constant float32 weights.{quantities}",
        )
    rows, width = _rows(file, layers)
    chosen: set[str] = set()
    for part in (part.strip() for part in pattern.split(",")):
        if part in DEFAULTS:
            chosen.add(_last(layers, rows, width, file.kind == EMBEDDING))
            continue
        matches = [layer.name for layer in layers if fnmatchcase(layer.name, part)]
        if not matches:
            raise UsageError(f"No layer matches {part!r}.", _available(layers, part))
        chosen |= set(matches)
    for layer in layers:
        if layer.name in chosen:
            parse_id(f"{layer.name}/u0")
            if not rows[layer.name]:
                raise UnsupportedLayerError(
                    f"Layer {layer.name!r} cannot be split: it does not work image by image.", "Choose another layer."
                )
    return [layer for layer in layers if layer.name in chosen]


def tokens_of(file: OnnxFile, layers: Sequence[OnnxLayer]) -> dict[str, int]:
    """Layer → vectors of features per image."""
    return _rows(file, layers)[0]


def _rows(file: OnnxFile, layers: Sequence[OnnxLayer]) -> tuple[dict[str, int], int]:
    """Vectors of features per image of each layer, 0 where they cannot be dealt out to images, and the output's width.

    Found with one image and with two, so that a fixed axis is not taken for the images'.
    """
    values = [str(layer.site.z.name) for layer in layers]
    session = Session(file.ready, [*values, OUTPUT_NAMES[file.kind]])
    noise = np.random.default_rng(0).standard_normal((_IMAGES, *file.preprocess.input_size)).astype(np.float32)
    one, two = session.run({PIXELS: noise[:1]}), session.run({PIXELS: noise})
    rows = {}
    for layer, alone, both in zip(layers, one, two, strict=False):
        fits = both.shape == (alone.shape[0] * _IMAGES, *alone.shape[1:])
        fits = fits and (both.ndim == 4 and len(both) == _IMAGES if layer.kind == "conv" else both.ndim > 1)
        rows[layer.name] = both.size // layer.units // _IMAGES if fits else 0
    return rows, two[-1].shape[-1]


def _last(layers: Sequence[OnnxLayer], rows: Mapping[str, int], width: int, headless: bool) -> str:
    """As ``elude.exporter.models.layers.find_layers`` takes it from modules."""
    fit = [layer for layer in layers if rows[layer.name] and layer.inputs > 1]
    blocks = [layer.name for layer in fit if re.search(r"(^|\.)\d+\.mlp\.fc2$", layer.name)]
    if blocks:
        return blocks[-1]
    candidates = [layer for layer in fit if rows[layer.name] > 1] or fit
    if not headless and len(candidates) > 1 and candidates[-1].units == width:
        candidates.pop()
    if not candidates:
        raise UsageError("The file has no layer to split by default.", _available(layers, "fc2"))
    return candidates[-1].name


def _available(layers: Sequence[OnnxLayer], wanted: str) -> str:
    names = [layer.name for layer in layers]
    close = difflib.get_close_matches(wanted, names, _LISTED, cutoff=0.6)
    rest = [name for name in reversed(names) if name not in close]
    more = ", …" if len(names) > _LISTED else ""
    return f"Layers that can be split: {', '.join([*close, *rest][:_LISTED])}{more}."
