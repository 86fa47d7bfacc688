"""Tools that read the plain file of ``elude bake BUNDLE --out plain.onnx``: the rows of the table in docs/clients.md.

Tools that are not installed are skipped; all of them are on PyPI.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from _graphs import raw_session
from _serving import make_bundle

from elude.exporter.graph.bake import bake
from elude.exporter.graph.triton import triton_model

DOCS = Path(__file__).parents[2] / "docs" / "clients.md"
PIXELS = np.random.default_rng(0).standard_normal((4, 3, 28, 28)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ``model.onnx``, ``plain.onnx`` and ``required.onnx`` of one model."""
    folder = tmp_path_factory.mktemp("tools")
    bundle = make_bundle(folder / "bundle")
    bake(bundle, out=folder / "plain.onnx")
    (triton_model(bundle, folder / "cat") / "1" / "model.onnx").rename(folder / "required.onnx")
    return folder


class Calibration:
    """Images as ONNX Runtime's quantiser reads them."""

    def __init__(self) -> None:
        self._batches = iter([{"pixel_values": PIXELS}])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def quant_pre_process(source: Path, target: Path) -> None:
    pytest.importorskip("sympy")
    from onnxruntime.quantization.shape_inference import quant_pre_process as run

    run(str(source), str(target))


def quantize_dynamic(source: Path, target: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic as run

    run(str(source), str(target))


def quantize_static(source: Path, target: Path) -> None:
    from onnxruntime.quantization import quantize_static as run

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)
    run(str(prepared), str(target), Calibration())


def onnxconverter_float16(source: Path, target: Path) -> None:
    float16 = pytest.importorskip("onnxconverter_common.float16")
    onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def onnxruntime_float16(source: Path, target: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def onnxslim(source: Path, target: Path) -> None:
    pytest.importorskip("onnxslim").slim(str(source), str(target))


def onnxsim(source: Path, target: Path) -> None:
    simplified, same = pytest.importorskip("onnxsim").simplify(onnx.load(source))
    assert same
    onnx.save(simplified, target)


# Largest difference of a logit that the tool's own arithmetic allows; logits here are up to about 10.
TOOLS: dict[str, tuple[Callable[[Path, Path], None], float]] = {
    "onnxruntime quant_pre_process": (quant_pre_process, 1e-4),
    "onnxruntime quantize_dynamic": (quantize_dynamic, 0.5),
    "onnxruntime quantize_static": (quantize_static, 0.5),
    "onnxruntime float16": (onnxruntime_float16, 0.05),
    "onnxconverter-common float16": (onnxconverter_float16, 0.05),
    "onnxslim": (onnxslim, 1e-4),
    "onnxsim": (onnxsim, 1e-4),
}


def logits(path: Path) -> np.ndarray[Any, Any]:
    got: np.ndarray[Any, Any] = raw_session(path).run(["logits"], {"pixel_values": PIXELS})[0]
    return got


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_reads_the_plain_file(tool: str, folder: Path, tmp_path: Path) -> None:
    convert, allowed = TOOLS[tool]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert(folder / "plain.onnx", tmp_path / "out.onnx")
    expected = logits(folder / "plain.onnx")
    assert np.abs(logits(tmp_path / "out.onnx") - expected).max() < allowed
    assert np.abs(expected).max() > 1


def test_openvino_reads_the_plain_file(folder: Path) -> None:
    core = pytest.importorskip("openvino").Core()
    compiled = core.compile_model(core.read_model(folder / "plain.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled([PIXELS])["logits"], logits(folder / "plain.onnx"), atol=1e-4)


def test_triton_s_own_parser_reads_the_configuration(folder: Path) -> None:
    config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    config = text_format.Parse((folder / "cat" / "config.pbtxt").read_text(), config_pb2.ModelConfig())
    assert [value.name for value in config.input][:2] == ["pixel_values", "inspect"]
    assert config.input[1].HasField("reshape")
    assert config.max_batch_size == 0


def test_the_plain_file_is_the_served_model(folder: Path) -> None:
    expected = raw_session(folder / "bundle" / "model.onnx", optimise=False).run(["logits"], {"pixel_values": PIXELS})
    got = raw_session(folder / "plain.onnx", optimise=False).run(["logits"], {"pixel_values": PIXELS})
    assert got[0].tobytes() == expected[0].tobytes()


def test_the_table_has_a_row_for_each_tool() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert {*TOOLS, "OpenVINO", "Triton"} <= {row.replace("`", "") for row in rows}
