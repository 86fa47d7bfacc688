"""A model small enough to work out by hand, as a session and as a bundle, and what is asked of it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elude.handlers.bundle.bundle import Bundle, LayerInfo, Source, write_bundle
from elude.handlers.bundle.catalogue import (
    ConceptPortrait,
    ConceptRow,
    ImageRow,
    SubUnitRow,
    Top,
    UnitRow,
    write_catalogue,
)
from elude.handlers.bundle.edits import Edit
from elude.handlers.files import file_sha256
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.requests.calls import Call
from elude.handlers.service import Service

LAYER = "fc"
LAYERS = (LayerInfo(LAYER, "linear", 2, 3, (1, 2), 0),)
LABELS = ["black", "bright", "odd"]
SIDE = 2  # a 2×2 image, one token a pixel


@dataclass(frozen=True)
class Result:
    output: NDArray[np.float32]
    units: dict[str, NDArray[np.float32]]
    sub_units: dict[str, NDArray[np.float32]]


class WorkedSession:
    """Sub-unit 0 = red, 1 = green, 2 = blue - green; unit 0 = red, unit 1 = blue.

    Logits: token means of (-red, red, unit 1).
    """

    layers, output_name, output_kind = LAYERS, "logits", "classes"

    def __init__(self) -> None:
        self.passes: list[tuple[int, bool]] = []

    def run(
        self, pixel_values: NDArray[np.float32], edits: Sequence[Sequence[Edit]] | None = None, inspect: bool = False
    ) -> Result:
        self.passes.append((len(pixel_values), inspect))
        red, green, blue = (pixel_values[:, c].reshape(len(pixel_values), -1) for c in range(3))
        sub = np.stack([red, green, blue - green], axis=-1)
        before = np.stack([sub[..., 0], sub[..., 1] + sub[..., 2]], axis=-1)
        edited = sub.copy()
        for row, row_edits in enumerate(edits or []):
            for e in row_edits:
                edited[row, :, e.index] = e.gain * sub[row, :, e.index] + e.offset
        unit0, unit1 = edited[..., 0], edited[..., 1] + edited[..., 2]
        output = np.stack([-unit0.mean(1), unit0.mean(1), unit1.mean(1)], axis=1).astype(np.float32)
        return Result(output, {LAYER: before} if inspect else {}, {LAYER: sub} if inspect else {})


def png(values: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.array(values, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


PIXELS = [[[255, 0, 0], [0, 0, 0]], [[0, 51, 255], [0, 0, 0]]]
PICTURE = png(PIXELS)
TEXT = base64.b64encode(PICTURE).decode()


def make_bundle(
    path: Path,
    labels: Any = LABELS,
    names: int = 3,
    concepts: Sequence[ConceptRow] = (),
    portraits: Sequence[ConceptPortrait] = (),
) -> Bundle:
    with write_bundle(path, source=Source("m", "1", "a", "0" * 64), layers=LAYERS, parameters=9, versions={}) as folder:
        (folder / "model.onnx").write_bytes(b"not used here")
        preprocess = Preprocess((3, SIDE, SIDE), "nearest", 1.0, "center", (0.0,) * 3, (1.0,) * 3)
        (folder / "preprocess.json").write_text(json.dumps(preprocess.to_json()))
        (folder / "labels.json").write_text(json.dumps(labels))
        tops = (Top(0, 1, 0.5),)
        rows = [
            SubUnitRow(i, LAYER, u, p, None, 0.5, 0.5, 0.1, 1.0, None, 0.5, n, "labels" if n else None, None, tops)
            for i, (u, p, n) in enumerate([(0, 0, "red thing"), (1, 0, "green thing"), (1, 1, None)][:names])
        ]
        units = [UnitRow(LAYER, 0, 1, None, tops), UnitRow(LAYER, 1, 2, None, tops)]
        images = [ImageRow(0, "a.png", "black", PICTURE)]
        write_catalogue(folder / "catalogue.sqlite", images, units, rows, concepts, portraits)
    return Bundle.open(path)


COLOUR = ConceptRow(0, "colour", 0.9, None, (2, 0))
COLOUR_PORTRAIT = ConceptPortrait(0, (0.5, -0.5), (1, 0, 3), ((1, -0.25),), (Top(0, 1, 0.75),))
GREEN = ConceptRow(1, None, 1.0, 0.5, (1,))


def ask(service: Service, body: Any, **route: bool) -> tuple[int, Any]:
    answer = service.answer([Call(body, **route)])[0]
    return answer.status, json.loads(answer.body)


def softmax(*logits: float) -> list[float]:
    exponents = np.exp(logits)
    return (exponents / exponents.sum()).tolist()


PRESET = {
    "less red": [{"id": "fc/u0.s0", "action": "scale", "value": 0.5}],
    "no red": [{"concept": "red thing", "action": "ablate"}],
}


def with_presets(path: Path, presets: Any = PRESET, **rows: Any) -> Bundle:
    return make_bundle(path, **rows).add({"presets.json": json.dumps(presets).encode()})


def hashed_again(path: Path) -> Bundle:
    """A bundle whose files were changed in place, as its exporter would have written it with them."""
    manifest = Bundle.open(path, verify=False).manifest
    files = {name: file_sha256(path / name) for name in manifest.files}
    (path / "manifest.json").write_bytes(manifest.with_files(files).to_bytes())
    return Bundle.open(path)
