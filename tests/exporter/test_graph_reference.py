"""The graph in another runtime: ONNX's own reference, which also computes in bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from _graphs import Emitted, emitted
from _models import Convolutions, TinyBlocks
from onnx.reference import ReferenceEvaluator

from elude.exporter.rewrite import graft
from elude.exporter.rewrite.twin import Disentangled
from elude.handlers.bundle.edits import pack

MODELS = {
    "blocks": (TinyBlocks, "blocks.0.mlp.fc2,blocks.1.mlp.fc2", (3, 8, 8)),
    "convolutions": (Convolutions, "pointwise,grouped,head", (3, 12, 12)),
}
TOLERANCE = {"float32": 1e-6, "bfloat16": 2.0**-6}  # of the largest value


def answers(case: Emitted, inspect: bool) -> tuple[list[str], list[np.ndarray], list[np.ndarray]]:
    """Names of the outputs; what the reference computes, steered, and what it inspects."""
    model = onnx.load(case.path)
    names = [value.name for value in model.graph.output]
    evaluator = ReferenceEvaluator(model)
    steered = evaluator.run(
        names[:1], {"pixel_values": case.pixels, **pack(case.edits(0, len(case.pixels), 3, (0, 2)))}
    )
    return names, steered, evaluator.run(None, {"pixel_values": case.pixels, "inspect": np.array(inspect)})


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", MODELS)
def test_the_reference_runtime_agrees(name: str, dtype: str, tmp_path: Path) -> None:
    make, pattern, size = MODELS[name]
    case = emitted(make(), pattern, size, tmp_path / "model.onnx", dtype=dtype)
    twin = graft(case.module, case.splits)
    assert isinstance(twin, Disentangled)
    pixels = torch.from_numpy(case.pixels)
    with torch.no_grad():
        plain, units, parts = twin(pixels), twin.units(pixels), twin.sub_units(pixels)
        with twin.steer(case.edits(0, len(case.pixels), 3, (0, 2))):
            steered = twin(pixels)
    names, found, inspected = answers(case, inspect=True)
    expected = {names[0]: plain}
    expected |= {f"{layer}.units": value for layer, value in units.items()}
    expected |= {f"{layer}.sub_units": value for layer, value in parts.items()}
    pairs = [(found[0], steered), *[(value, expected[key]) for key, value in zip(names, inspected, strict=True)]]
    for value, wanted in pairs:
        scale = float(wanted.abs().max())
        np.testing.assert_allclose(value, wanted.numpy(), rtol=0, atol=TOLERANCE[dtype] * scale)
    if dtype == "bfloat16":  # it did compute in bfloat16
        assert np.abs(inspected[0] - plain.numpy()).max() > 1e-5
    assert np.abs(found[0] - inspected[0]).max() > 1e-3


def test_an_edit_left_out_is_seen(tmp_path: Path) -> None:
    make, pattern, size = MODELS["blocks"]
    case = emitted(make(), pattern, size, tmp_path / "model.onnx")
    _, steered, plain = answers(case, inspect=False)
    assert np.abs(steered[0] - plain[0]).max() > TOLERANCE["bfloat16"]
