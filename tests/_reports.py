"""What the tests of the report share: a small bundle with everything that the report shows, or parts of it."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

from _gate import equivalence
from PIL import Image

from elude.handlers.bundle.bundle import Bundle, LayerInfo, Source, write_bundle
from elude.handlers.bundle.catalogue import ConceptRow, ImageRow, SubUnitRow, Top, UnitRow, write_catalogue
from elude.quality.evaluation.image_answers import ImageAnswers

LAYER = "blocks.0.mlp.fc2"
CLASSES = ("bag", "boot", "<script>alert(1)</script>")


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 8), shade).save(stream, "PNG")
    return stream.getvalue()


def catalogue(path: Path) -> None:
    images = [ImageRow(i, f"{i}.png", CLASSES[i % 3], png(20 * i)) for i in range(12)]
    tops = lambda start: tuple(Top((start + 3 * k) % 12, 1 + k, 5.0 - k) for k in range(4))  # noqa: E731
    units = [UnitRow(LAYER, 0, 3, 0.5, tops(0)), UnitRow(LAYER, 1, 1, 0.4, tops(1)), UnitRow(LAYER, 2, 2, None, ())]
    rows = []
    for index, (unit, part, score) in enumerate(
        [(0, 0, 0.7), (0, 1, 0.9), (0, 2, None), (1, 0, 0.4), (2, 0, None), (2, 1, None)]
    ):
        name = "soles & <b>heels</b>" if index == 1 else None
        rows.append(
            SubUnitRow(
                index,
                LAYER,
                unit,
                part,
                0.5,
                0.3,
                0.2,
                0.1,
                5.0,
                score,
                0.3,
                name,
                None,
                None,
                () if index == 2 else tops(index),
            )
        )
    concepts = [
        ConceptRow(0, "soles", 0.9, 0.5, (1, 0)),
        ConceptRow(1, None, 0.8, 1.0, (3,)),
        ConceptRow(2, "<b>heels</b>", 0.7, 0.75, (4,)),
        ConceptRow(3, "soles 2", 0.7, 0.25, (5,)),
    ]
    write_catalogue(path, images, units, rows, concepts)


def make(root: Path, *, measures: bool = True, with_catalogue: bool = True) -> Bundle:
    source = Source("tiny <i>model</i>", "1", "vit_tiny", "f" * 64)
    layers = (LayerInfo(LAYER, "linear", 3, 4, (3, 1, 2), 0),)
    with write_bundle(root, source=source, layers=layers, parameters=600_000, versions={"torch": "2"}) as folder:
        (folder / "model.onnx").write_bytes(b"graph")
        (folder / "preprocess.json").write_text(json.dumps({"input_size": [3, 8, 8]}))
        (folder / "equivalence.json").write_text(json.dumps(equivalence()))
        if with_catalogue:
            catalogue(folder / "catalogue.sqlite")
        if measures:
            family = {f"{m}_mean_of_split_units": 0.5 for m in ("ms", "centred", "purity")}
            families = {"units": family, "random": family, "sub_units": family | {"ms_mean_of_split_units": 0.876}}
            (folder / "measures.json").write_text(
                json.dumps({"layers": {LAYER: families}, "tokens": {LAYER: 5}, "held_out": True})
            )
    return Bundle.open(root)


def measured(bundle: Bundle, accuracy: float = 0.9) -> Bundle:
    values = {
        "accuracy": accuracy,
        "calibration_error": 0.05,
        "class_balance": 0.8,
        "corruption_robustness": 0.7,
        "params_m": 0.6,
    }
    dimensions: dict[str, Any] = {
        name: {
            "value": value,
            "interval": None,
            "higher_is_better": name not in ("calibration_error", "params_m"),
            "factors": {},
            "factor_intervals": {},
            "tables": {},
            "images": 10,
            "measured_on": {"sets": {"images": {"images": 1000, "sha256": "9" * 64}}},
        }
        for name, value in values.items()
    }
    for name in set(values) - {"params_m"}:
        dimensions[name]["interval"] = [values[name] - 0.02, values[name] + 0.02]
    quality = {
        "schema_version": 2,
        "subject": {"kind": "bundle", "model": "m", "artefact_sha256": bundle.artefact_sha256},
        "suite": {"name": "evaluation", "sha256": "c" * 64, "images": 1000},
        "dimensions": dimensions,
        "lossless": {form: values for form in ("original", "disentangled", "served")},
        "score": None,
        "settings": {"budget": 200, "seed": 0, "not_measured": {"shape_bias": "the suite has no cue-conflict images"}},
        "versions": {},
    }
    return bundle.add({"quality.json": json.dumps(quality).encode()})


def with_answers(bundle: Bundle, answers: ImageAnswers) -> Bundle:
    """A measured bundle with the answers to single images."""
    data = answers.to_bytes()
    quality = bundle.json("quality.json") | {"answers_sha256": hashlib.sha256(data).hexdigest()}
    return bundle.add({"quality.json": json.dumps(quality).encode(), "quality.answers.safetensors": data})
