"""Every family of image models: bit-identical to the plain export when not optimised, and equal to torch when
steered or inspected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _families import FAMILIES, small
from _graphs import emitted, plain_session

from elude.exporter.rewrite import graft
from elude.handlers.bundle.session import GraphSession

QUICK = {"dinov2_registers", "resnet", "mobilenetv3", "convnextv2"}


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in FAMILIES]
)  # four of unlike kinds are quick enough for every run
def test_a_family(family: str, tmp_path: Path, record_property: Any) -> None:
    name, options, pattern, side = FAMILIES[family]
    model, size = small(name, options), (3, side, side)
    case = emitted(model, pattern, size, tmp_path / "model.onnx", batch=3)
    outputs = {}
    for optimise in (False, True):
        plain = plain_session(model, size, tmp_path / "plain.onnx", optimise=optimise)
        for batch in (1, 3):
            pixels = case.pixels[:batch]
            expected = plain.run(None, {"pixel_values": pixels})[0]
            got = GraphSession(case.path, optimise=optimise).run(pixels).output
            assert np.isfinite(got).all()
            if optimise:
                gap = float(np.abs(got - expected).max() / np.abs(expected).max())
                outputs[batch] = gap
                assert gap < 2e-5
            else:
                assert got.tobytes() == expected.tobytes()
    record_property("optimised: largest difference, relative to the largest output", max(outputs.values()))
    print(f"FAMILY {family}: DISABLE_ALL bit-identical; ENABLE_ALL {max(outputs.values()):.2g}")
    session, twin = GraphSession(case.path), graft(model, case.splits)
    edits = case.edits(1, 3, 6)  # on all tokens: with these weights tokens tie within rounding
    with torch.no_grad():
        sub_units = twin.sub_units(torch.from_numpy(case.pixels))
        with twin.steer(edits):
            steered = twin(torch.from_numpy(case.pixels)).numpy()
    result = session.run(case.pixels, inspect=True)
    for split in case.splits:
        expected, got, units = sub_units[split.layer].numpy(), result.sub_units[split.layer], result.units[split.layer]
        scale = np.abs(expected).max()
        assert np.abs(got - expected).max() < 2e-5 * scale
        merged = np.add.reduceat(got.astype(np.float64), split.first, axis=2)
        assert np.abs(merged - units).max() < 1e-5 * max(scale, np.abs(units).max())
    got = session.run(case.pixels, edits).output
    assert np.abs(got - result.output).max() > 1e-4 * np.abs(steered).max()
    assert np.abs(got - steered).max() < 5e-5 * np.abs(steered).max()
