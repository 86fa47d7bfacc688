"""The check must pass what is right and catch each way of being wrong, naming the claim and the number."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from _graphs import SOURCE, Emitted, emitted, preprocess, random_split
from _models import Convolutions, TinyBlocks
from onnx import numpy_helper

from elude.exporter.graph import emit
from elude.exporter.rewrite import graft
from elude.exporter.verify.check import fan_in, verify
from elude.exporter.verify.compare import Run, compare, errors
from elude.handlers.errors import EquivalenceError, UsageError

LAYERS = "blocks.0.mlp.fc2,blocks.1.mlp.fc2"
SIZE = (3, 8, 8)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    return emitted(TinyBlocks(), LAYERS, SIZE, tmp_path_factory.mktemp("verify") / "model.onnx", batch=9)


def check(case: Emitted, path: Path | None = None) -> dict:
    twin = graft(case.module, case.splits)
    return verify(case.module, twin, path or case.path, case.splits, case.layers, case.pixels).to_json()


def tampered(case: Emitted, path: Path, name: str, change: Callable[[np.ndarray], None]) -> Path:
    """The file with one initialiser changed."""
    shutil.copy(case.path, path)
    model = onnx.load(path)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, path)
    return path


def refusal(case: Emitted, path: Path) -> EquivalenceError:
    with pytest.raises(EquivalenceError) as caught:
        check(case, path)
    assert caught.value.report["passed"] is False
    assert caught.value.exit_code == 1
    return caught.value


def test_a_right_export_passes_with_all_its_numbers(case: Emitted) -> None:
    report = check(case)
    json.dumps(report, allow_nan=False)
    assert report["passed"]
    assert report["summary"]["rewrite"] == 0.0
    assert 0 < report["summary"]["runtime"] < 1e-5
    assert report["summary"]["top1"] == 1.0
    assert report["images"] == 9
    assert [layer["mismatches"] for layer in report["claims"]["sums"]["layers"]] == [0, 0]
    outputs = report["claims"]["runtime"]["outputs"]
    kinds = {f"blocks.{i}.mlp.fc2.{kind}" for i in (0, 1) for kind in ("units", "sub_units")}
    assert {item["output"] for item in outputs} == {"logits", "logits, steered"} | kinds
    assert {item["inputs"] for item in outputs} == {"real", "random", "scaled"}
    assert {item["setting"] for item in outputs} == {"optimised", "not optimised"}
    assert all(0 < item["tolerance"] < 1e-4 * max(item["scale"], 1) for item in outputs)
    assert {"formula", "dtype", "roundoff", "terms"} <= set(report["tolerance"])


def test_convolutions_pass_and_one_image_is_enough(tmp_path: Path) -> None:
    conv = emitted(Convolutions(), "stem,grouped,depthwise,head", (3, 12, 12), tmp_path / "model.onnx", batch=1)
    assert check(conv)["passed"]


def test_a_model_without_classes_has_no_top1(tmp_path: Path) -> None:
    class Headless(TinyBlocks):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks[0](self.patch(x).flatten(2).transpose(1, 2)).mean(1)

    headless = Headless()
    headless.num_classes = 0
    report = check(emitted(headless, "blocks.0.mlp.fc2", SIZE, tmp_path / "model.onnx"))
    assert report["summary"]["top1"] is None
    assert "embedding, steered" in {item["output"] for item in report["claims"]["runtime"]["outputs"]}


def test_a_split_that_does_not_sum_is_caught(case: Emitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes that compute the sub-unit weights are made wrong."""
    from elude.exporter.graph.ops import Ops, scalar
    from elude.exporter.graph.shares import rows

    def wrong(ops: Ops, *arguments: Any) -> Any:
        return ops("Mul", rows(ops, *arguments), ops.constant(scalar(1.01)))

    monkeypatch.setattr("elude.exporter.graph.sub_units.rows", wrong)
    module, path = case.module, tmp_path / "model.onnx"
    emit(module, case.splits, path, layers=case.layers, input_size=SIZE, source=SOURCE, preprocess=preprocess(SIZE))
    error = refusal(case, path)
    assert "Claim (a) the sub-units sum to their unit fails for blocks.0.mlp.fc2: 6" in error.message
    assert "allowed: 0" in error.message


def test_a_single_lost_share_is_caught(case: Emitted, tmp_path: Path) -> None:
    def lose(values: np.ndarray) -> None:
        values[0, 0] = 0

    path = tampered(case, tmp_path / "model.onnx", "blocks.1.mlp.fc2.sub_units.masks", lose)
    message = refusal(case, path).message
    assert "Claim (a) the sub-units sum to their unit fails for blocks.1.mlp.fc2: 1 of 66 weights and biases" in message
    assert "allowed: 0" in message


def test_a_wrong_bias_is_caught(case: Emitted, tmp_path: Path) -> None:
    def shift(values: np.ndarray) -> None:
        values[0] += 1

    path = tampered(case, tmp_path / "model.onnx", "blocks.0.mlp.fc2.sub_units.bias", shift)
    assert "(a)" in refusal(case, path).message


def test_weights_exchanged_between_sub_units_are_caught(case: Emitted, tmp_path: Path) -> None:
    """They still sum, so claim (a) holds; only the comparison of sub-units with the twin can tell."""
    unit = int(np.argmax(case.splits[0].parts > 1))

    def exchange(values: np.ndarray) -> None:
        row = values[unit]
        values[unit] = (row & 0b11111100) | ((row & 1) << 1) | ((row >> 1) & 1)

    path = tampered(case, tmp_path / "model.onnx", "blocks.0.mlp.fc2.sub_units.masks", exchange)
    message = refusal(case, path).message
    assert "Claim (c)" in message
    assert "logits, steered" in message
    assert "first off" not in message  # the model itself is right


def test_a_changed_weight_of_the_model_is_caught(case: Emitted, tmp_path: Path) -> None:
    def change(values: np.ndarray) -> None:
        values[0] += 0.01

    path = tampered(case, tmp_path / "model.onnx", "head.weight", change)
    error = refusal(case, path)
    assert "Claim (c) ONNX Runtime equals torch fails for logits on real inputs, not optimised: off by" in error.message
    assert error.report["divergence"]["module"] == "head"
    assert error.report["divergence"]["op"] in ("Gemm", "MatMul", "Add")


@pytest.mark.parametrize("module", ["patch", "blocks.0.mlp.fc1", "blocks.1.mlp.fc2"])
def test_the_first_wrong_node_is_named(case: Emitted, tmp_path: Path, module: str) -> None:
    """Everything after it is off too; only the first is to be named."""

    def change(values: np.ndarray) -> None:
        values[0] += 0.1

    error = refusal(case, tampered(case, tmp_path / "model.onnx", f"{module}.bias", change))
    divergence = error.report["divergence"]
    assert divergence["module"] == module
    assert divergence["max_abs"] > divergence["tolerance"]
    assert f"of {module}, by" in error.message


def test_steering_the_wrong_unit_is_caught(case: Emitted, tmp_path: Path) -> None:
    def shift(values: np.ndarray) -> None:
        values[2] = (values[2] + 1) % 6

    path = tampered(case, tmp_path / "model.onnx", "elude/table", shift)
    assert "Claim (c) ONNX Runtime equals torch fails for logits, steered" in refusal(case, path).message


def test_a_changed_twin_is_caught(case: Emitted) -> None:
    twin = graft(case.module, case.splits)
    with torch.no_grad():
        twin.model.head.bias[0] += 1e-6
    with pytest.raises(EquivalenceError, match=r"Claim \(b\) .*allowed: 0"):
        verify(case.module, twin, case.path, case.splits, case.layers, case.pixels)


def test_a_file_of_another_split_is_caught(case: Emitted) -> None:
    splits = [random_split(layer, 99) for layer in case.layers]
    with pytest.raises(EquivalenceError, match="another split"):
        verify(case.module, graft(case.module, splits), case.path, splits, case.layers, case.pixels)


def test_nothing_to_compare_is_refused(case: Emitted) -> None:
    with pytest.raises(UsageError, match="0 images"):
        verify(case.module, graft(case.module, case.splits), case.path, case.splits, case.layers, case.pixels[:0])


def test_errors_of_values_that_are_not_finite() -> None:
    inf, nan = np.inf, np.nan
    got = errors(
        np.array([inf, -inf, nan, inf, 1.0, 2.0], np.float32), np.array([inf, inf, nan, 1.0, nan, 2.5], np.float32)
    )
    assert got.tolist() == [0, inf, 0, inf, inf, 0.5]


def test_a_comparison_by_hand() -> None:
    reference = np.array([[1.0, -4.0], [0.0, 2.0]], np.float32)
    got = np.array([[1.0, -4.5], [0.01, 2.0]], np.float32)
    result = compare(
        "logits", "real", "optimised", [Run(reference, reference, 0), Run(got, reference, 5)], 0.4, classes=True
    )
    assert (result.scale, result.max_abs, result.passed) == (4.0, 0.5, False)
    assert result.mean_abs == pytest.approx(0.51 / 8)
    assert result.max_rel == pytest.approx(0.25, rel=1e-5)  # 0.01 on an element below 1 % of the scale, 0.04
    assert result.worst == {"image": 5, "batch": 2}
    assert result.top1 == 1.0
    assert not compare("x", "real", "torch", [Run(got * np.nan, reference, 0)], 1e30).passed


def test_fan_in_by_hand() -> None:
    assert fan_in(TinyBlocks()) == 48 + 2 * (6 + 10) + 6
    assert fan_in(torch.nn.Conv2d(4, 8, 3, groups=2)) == 18


class Cancelling(torch.nn.Module):
    """Large terms cancel in its output, so that torch's own error is large beside it, but not for black images."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 3
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.mix, self.wide = torch.nn.Linear(192, 8, bias=False), torch.nn.Linear(8, 600, bias=False)
            self.narrow = torch.nn.Linear(600, 3, bias=False)
        with torch.no_grad():
            self.wide.weight[300:] = self.wide.weight[:300]
            self.narrow.weight[:, 300:] = -self.narrow.weight[:, :300]
            self.narrow.weight[:, 0] *= 1 + 1e-5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.narrow(self.wide(self.mix(x.flatten(1))))


def test_an_image_on_which_torch_itself_is_inexact_is_measured_in_float64(tmp_path: Path) -> None:
    case = emitted(Cancelling(), "mix", SIZE, tmp_path / "model.onnx")
    case.pixels[:2] = 0  # the images on which torch's own error is measured at first
    report = check(case)
    assert report["passed"]
    real = [
        row for row in report["claims"]["runtime"]["outputs"] if (row["output"], row["inputs"]) == ("logits", "real")
    ]
    roundoff, terms = report["tolerance"]["roundoff"], report["tolerance"]["terms"]
    assert any(row["max_abs"] > 16 * roundoff * terms**0.5 * row["scale"] for row in real)  # refused without it
    shifted = tampered(case, tmp_path / "wrong.onnx", "narrow.weight", lambda values: values.__setitem__((0, 0), 9.0))
    assert refusal(case, shifted)
