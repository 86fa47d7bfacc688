"""Other types, open image sizes, many parts, what is in a file, and checking a file again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from _graphs import SOURCE, Emitted, emitted, preprocess, random_split, raw_session
from _models import Convolutions, TinyBlocks
from test_graph import WindowedMaps

from elude.exporter.graph import describe, emit
from elude.exporter.graph.bake import bake
from elude.exporter.graph.stored_weights import splits_of, sub_unit_parameters
from elude.exporter.models.layers import find_layers
from elude.exporter.models.load import LoadedModel
from elude.exporter.rewrite import graft
from elude.exporter.splitting.weights import sub_unit_bias, sub_unit_weights
from elude.exporter.verify.check import verify
from elude.exporter.verify.page import html, rows, summary
from elude.exporter.verify.verify_bundle import verify_file
from elude.handlers.bundle.bundle import write_bundle
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import BundleError, EquivalenceError, UnsupportedLayerError, UsageError

LAYERS = "blocks.0.mlp.fc2,blocks.1.mlp.fc2"
SIZE = (3, 8, 8)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    return emitted(TinyBlocks(), LAYERS, SIZE, tmp_path_factory.mktemp("types") / "model.onnx")


def loaded(case: Emitted) -> LoadedModel:
    return LoadedModel(case.module, preprocess(SIZE), None, SOURCE)


@pytest.mark.parametrize(
    ("make", "pattern", "size"),
    [
        (TinyBlocks, LAYERS, SIZE),
        (Convolutions, "pointwise,grouped,head", (3, 12, 12)),
        (WindowedMaps, "stem,maps,windows", (3, 33, 24)),
    ],
)
def test_float16_is_verified_with_its_own_tolerance(
    make: type, pattern: str, size: tuple[int, int, int], tmp_path: Path
) -> None:
    case = emitted(make(), pattern, size, tmp_path / "model.onnx", dtype="float16")
    model = onnx.load(case.path)
    assert onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT16  # clients need no half numbers
    report = verify(
        case.module, graft(case.module, case.splits), case.path, case.splits, case.layers, case.pixels
    ).to_json()
    assert (report["tolerance"]["dtype"], report["tolerance"]["roundoff"]) == ("float16", 2.0**-11)
    assert all(layer["mismatches"] == 0 for layer in report["claims"]["sums"]["layers"])
    assert report["summary"]["runtime"] > 1e-6  # it did compute in half numbers


def test_bfloat16_is_written_for_providers_that_have_it(tmp_path: Path) -> None:
    """ONNX Runtime's CPU provider has no bfloat16 products, and says so; the file itself is checked in full."""
    case = emitted(TinyBlocks(), LAYERS, SIZE, tmp_path / "model.onnx", dtype="bfloat16")
    model = onnx.load(case.path)
    assert model.opset_import[0].version >= 22
    assert onnx.TensorProto.BFLOAT16 in {tensor.data_type for tensor in model.graph.initializer}
    with pytest.raises(BundleError, match="cannot be opened"):
        GraphSession(case.path)
    with pytest.raises(UsageError, match="bfloat16 from 22 on"):
        emitted(TinyBlocks(), LAYERS, SIZE, tmp_path / "other.onnx", dtype="bfloat16", opset=18)


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dtype is 'int8'"):
        emitted(TinyBlocks(), LAYERS, SIZE, tmp_path / "model.onnx", dtype="int8")


def test_an_open_image_size(tmp_path: Path) -> None:
    """Convolutions and a mean take any size; tokens follow it."""
    case = emitted(Convolutions(), "stem,grouped,head", (3, 12, 12), tmp_path / "model.onnx", dynamic_size=True)
    session, twin = GraphSession(case.path), graft(case.module, case.splits)
    assert session.input_size == (3, "height", "width")
    for height, width in ((12, 12), (20, 14)):
        pixels = np.random.default_rng(1).standard_normal((2, 3, height, width)).astype(np.float32)
        with torch.no_grad():
            expected, sub_units = twin(torch.from_numpy(pixels)).numpy(), twin.sub_units(torch.from_numpy(pixels))
        result = session.run(pixels, inspect=True)
        np.testing.assert_allclose(result.output, expected, atol=1e-5)
        for name, value in sub_units.items():
            np.testing.assert_allclose(result.sub_units[name], value.numpy(), atol=1e-5)
        edits = case.edits(2, 2, 4, patches=(0, 3))
        with torch.no_grad(), twin.steer(edits):
            expected = twin(torch.from_numpy(pixels)).numpy()
        np.testing.assert_allclose(session.run(pixels, edits).output, expected, atol=1e-5)


def test_a_model_of_one_size_cannot_be_opened(tmp_path: Path) -> None:
    class Fixed(TinyBlocks):
        def __init__(self) -> None:
            super().__init__()
            self.position = torch.nn.Parameter(torch.zeros(1, 4, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.patch(x).flatten(2).transpose(1, 2) + self.position
            return self.head(self.blocks[1](self.blocks[0](x)).mean(1))

    with pytest.raises(UnsupportedLayerError, match="fixed image size"):
        emitted(Fixed(), LAYERS, SIZE, tmp_path / "model.onnx", dynamic_size=True)


@pytest.mark.parametrize("most", [8, 9, 20, 40, 64])
def test_any_number_of_parts(most: int, tmp_path: Path) -> None:
    """Masks take 1, 2, 4 or 8 bytes; the file computes the weights of elude.exporter.splitting.weights, bit for bit
    but for the sign of a zero.
    """
    module = TinyBlocks().eval()
    layers = find_layers(module, "blocks.1.mlp.fc2,patch")
    splits = [random_split(layer, 5, most) for layer in layers]
    path = tmp_path / "model.onnx"
    emit(module, splits, path, layers=layers, input_size=SIZE, source=SOURCE, preprocess=preprocess(SIZE))
    for layer, split, stored in zip(layers, splits, splits_of(path), strict=True):
        weight, bias = sub_unit_parameters(path, layer.name)
        np.testing.assert_array_equal(weight, sub_unit_weights(layer.module.weight.detach().numpy(), split))
        assert bias.tobytes() == sub_unit_bias(layer.module.bias.detach().numpy(), split).tobytes()  # type: ignore[union-attr]
        np.testing.assert_array_equal(stored.masks, split.masks)
    case = Emitted(
        module, layers, splits, path, np.random.default_rng(0).standard_normal((2, *SIZE)).astype(np.float32)
    )
    edits, twin = case.edits(0, 2, 6), graft(module, splits)
    with torch.no_grad(), twin.steer(edits):
        expected = twin(torch.from_numpy(case.pixels)).numpy()
    np.testing.assert_allclose(GraphSession(path).run(case.pixels, edits).output, expected, atol=1e-5)


def test_what_is_in_a_file(blocks: Emitted, tmp_path: Path) -> None:
    import hashlib

    found = describe(blocks.path)
    text = json.dumps(found.to_json())
    assert hashlib.sha256(blocks.path.read_bytes()).hexdigest() in text
    assert found.bytes == blocks.path.stat().st_size
    layers = GraphSession(blocks.path).layers
    with write_bundle(tmp_path / "bundle", source=SOURCE, layers=layers, parameters=1, versions={}) as folder:
        shutil.copy(blocks.path, folder / "model.onnx")
    assert describe(tmp_path / "bundle") == found  # a bundle's folder will do
    assert [value.name for value in found.inputs if value.optional] == [
        "inspect",
        *[f"steer_{key}" for key in ("sub_unit", "gain", "offset", "patches")],
    ]
    assert found.inputs[0].shape == ("batch", 3, 8, 8)
    assert [layer["sub_units"] for layer in found.layers] == [split.sub_units for split in blocks.splits]
    assert all(0 < layer["bytes"] < 500 for layer in found.layers)
    table = found.rows()
    assert "EF" in table["layer blocks.0.mlp.fc2"]
    assert "optional" in table["input inspect"]
    assert table["elude.dtype"] == "float32"
    outside = emitted(TinyBlocks(), LAYERS, SIZE, tmp_path / "model.onnx", external_above=100)
    assert set(describe(outside.path).sha256) == {"model.onnx", "model.onnx.data"}
    (tmp_path / "text.onnx").write_text("no model")
    for name in ("text.onnx", "absent.onnx"):
        with pytest.raises(BundleError, match=name):
            describe(tmp_path / name)


def test_a_file_is_verified_again_from_itself(blocks: Emitted) -> None:
    report = verify_file(blocks.path, model=loaded(blocks), count=4).to_json()
    assert report["passed"]
    page = html(report, "model.onnx")
    assert page.count("<tr") == 2 + len(summary(report)) - 1 + len(rows(report))
    assert {row["claim"] for row in rows(report)} == {"sums", "rewrite", "runtime"}
    assert {row["passed"] for row in rows(report)} == {"yes"}
    assert summary(report)["result"] == "equal"


def test_a_changed_file_fails_with_a_page_that_says_where(blocks: Emitted, tmp_path: Path) -> None:
    model = onnx.load(blocks.path)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "head.bias")
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + 1, "head.bias"))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(EquivalenceError, match="first off at node") as caught:
        verify_file(tmp_path / "model.onnx", model=loaded(blocks), count=4)
    assert "class=no" in html(caught.value.report, "x")
    assert "of head: " in summary(caught.value.report)["first off"]


def test_a_page_of_a_model_without_classes(tmp_path: Path) -> None:
    module = WindowedMaps()
    case = emitted(module, "maps", (3, 33, 24), tmp_path / "model.onnx")
    report = verify(
        case.module, graft(case.module, case.splits), case.path, case.splits, case.layers, case.pixels
    ).to_json()
    assert summary(report)["top-1 agreement"] == "–"
    assert {row["top1"] for row in rows(report)} == {"–"}
    assert "None" not in html(report, "x")


def test_other_weights_than_the_file_names_are_refused(blocks: Emitted) -> None:
    from dataclasses import replace

    other = replace(loaded(blocks), source=replace(SOURCE, weights_sha256="1" * 64))
    with pytest.raises(EquivalenceError, match="different weights"):
        verify_file(blocks.path, model=other)


def test_baking_half_numbers(tmp_path: Path) -> None:
    case = emitted(TinyBlocks(), LAYERS, SIZE, tmp_path / "model.onnx", dtype="float16")
    edits = [Edit.scale(0, 3.0), Edit.set(9, 1.0)]
    baked = raw_session(bake(case.path, edits, tmp_path / "baked.onnx")).run(None, {"pixel_values": case.pixels})[0]
    np.testing.assert_allclose(baked, GraphSession(case.path).run(case.pixels, [edits]).output, atol=0.02)
