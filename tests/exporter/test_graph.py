"""The emitted file: a drop-in for the plain export that inspects and steers like the torch twin."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from _graphs import Emitted, emitted, plain_session, raw_session
from _models import Convolutions, TinyBlocks
from torch import nn

import elude.exporter.models.torchvision_compat  # noqa: F401 - before timm
from elude.exporter.graph.plain import plain_export
from elude.exporter.rewrite import graft
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import UnsupportedLayerError, UsageError

CONV = "stem,pointwise,grouped,depthwise,head"


class WindowedMaps(nn.Module):
    """A linear layer on maps (N, h, w, C), one on windows folded into the batch, a strided grouped convolution, and
    batch norms.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=(1, 2), dilation=2)
        self.norm = nn.BatchNorm2d(8)
        with torch.no_grad():
            for values in (self.norm.weight, self.norm.bias, self.norm.running_mean):
                values.normal_()
            self.norm.running_var.uniform_(0.5, 2.0)
        self.grouped = nn.Conv2d(8, 12, (3, 2), stride=(2, 1), groups=4, dilation=(1, 2))
        self.down = nn.Conv2d(12, 4, 1, stride=2, bias=False)
        self.maps = nn.Linear(4, 6)
        self.windows = nn.Linear(6, 5, bias=False)
        self.num_classes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grouped(self.norm(self.stem(x)).relu()).relu()
        x = self.maps(self.down(x).permute(0, 2, 3, 1)).relu()
        folded = x.reshape(-1, 2, 6)
        return self.windows(folded).reshape(x.shape[0], -1, 5).mean(1)


def tiny_vit() -> nn.Module:
    import timm

    torch.manual_seed(0)
    sizes = {
        "img_size": 28,
        "patch_size": 4,
        "embed_dim": 96,
        "depth": 2,
        "num_heads": 3,
        "mlp_ratio": 4,
        "num_classes": 10,
    }
    return timm.create_model("vit_tiny_patch16_224", **sizes)


CASES = {
    "vit": (tiny_vit, "blocks.0.mlp.fc1,blocks.1.attn.proj,blocks.1.mlp.fc2,head", (3, 28, 28)),
    "blocks": (TinyBlocks, "blocks.0.mlp.fc2,blocks.1.mlp.fc2", (3, 8, 8)),
    "convolutions": (Convolutions, CONV, (3, 12, 12)),
    "maps": (WindowedMaps, "stem,grouped,down,maps,windows", (3, 33, 24)),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    make, pattern, size = CASES[request.param]
    return emitted(make(), pattern, size, tmp_path_factory.mktemp(request.param) / "model.onnx")


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    return emitted(
        TinyBlocks(), "blocks.0.mlp.fc2,blocks.1.mlp.fc2", (3, 8, 8), tmp_path_factory.mktemp("blocks") / "model.onnx"
    )


def test_unedited_output_is_bit_identical_to_the_plain_export(case: Emitted, tmp_path: Path) -> None:
    plain = plain_session(case.module, case.pixels.shape[1:], tmp_path / "plain.onnx")
    for batch in (1, 4):
        expected = plain.run(None, {"pixel_values": case.pixels[:batch]})[0]
        session = raw_session(case.path)
        assert session.get_outputs()[0].name == ("embedding" if isinstance(case.module, WindowedMaps) else "logits")
        got = session.run([session.get_outputs()[0].name], {"pixel_values": case.pixels[:batch]})[0]
        assert got.tobytes() == expected.tobytes()


def test_optimised_output_is_equal_within_rounding(case: Emitted, tmp_path: Path) -> None:
    plain = plain_session(case.module, case.pixels.shape[1:], tmp_path / "plain.onnx", optimise=True)
    expected = plain.run(None, {"pixel_values": case.pixels})[0]
    got = GraphSession(case.path).run(case.pixels).output
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("optimise", [False, True])
def test_inspection_equals_the_twin_and_sums_to_the_units(case: Emitted, optimise: bool) -> None:
    twin = graft(case.module, case.splits)
    with torch.no_grad():
        units, sub_units = twin.units(torch.from_numpy(case.pixels)), twin.sub_units(torch.from_numpy(case.pixels))
    result = GraphSession(case.path, optimise=optimise).run(case.pixels, inspect=True)
    assert list(result.units) == [layer.name for layer in case.layers]
    for split in case.splits:
        name = split.layer
        np.testing.assert_allclose(result.units[name], units[name].numpy(), rtol=1e-5, atol=5e-6)
        np.testing.assert_allclose(result.sub_units[name], sub_units[name].numpy(), rtol=1e-5, atol=5e-6)
        merged = np.add.reduceat(result.sub_units[name].astype(np.float64), split.first, axis=2)
        np.testing.assert_allclose(merged, result.units[name], rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("optimise", [False, True])
def test_steering_equals_the_twin_in_every_layer(case: Emitted, optimise: bool) -> None:
    session, twin = GraphSession(case.path, optimise=optimise), graft(case.module, case.splits)
    plain = session.run(case.pixels).output
    for seed in range(3):
        edits = case.edits(seed, 4, 8, patches=(0, 1, 3, 10_000))
        with torch.no_grad(), twin.steer(edits):
            expected = twin(torch.from_numpy(case.pixels)).numpy()
        got = session.run(case.pixels, edits).output
        assert np.abs(got - plain).max() > 1e-3
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_shapes_are_checked_in_full_and_the_batch_is_dynamic(case: Emitted) -> None:
    model = onnx.load(case.path)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 18
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    assert shapes["pixel_values"] == ["batch", *case.pixels.shape[1:]]
    assert shapes["inspect"] == []
    result = GraphSession(case.path).run(case.pixels, inspect=True)
    for value in list(model.graph.output)[1:]:
        declared = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        layer, kind = value.name.rsplit(".", 1)
        got = getattr(result, kind)[layer].shape
        assert declared[0] == "inspected"
        assert declared[2] == got[2]
        assert declared[1] in (got[1], f"{layer}.tokens")
        assert value.doc_string


def test_names_are_stable_and_nothing_of_the_exporting_machine_is_inside(blocks: Emitted) -> None:
    model = onnx.load(blocks.path)
    names = [f"blocks.{i}.mlp.fc2.{kind}" for i in (0, 1) for kind in ("units", "sub_units")]
    assert [value.name for value in model.graph.output] == ["logits", *names]
    assert [value.name for value in model.graph.input] == [
        "pixel_values", "inspect", "steer_sub_unit", "steer_gain", "steer_offset", "steer_patches",
    ]  # fmt: skip
    assert all(value.doc_string for value in model.graph.input)
    assert model.doc_string
    assert b".py" not in model.SerializeToString()


def test_metadata_describe_the_layers(blocks: Emitted) -> None:
    metadata = {entry.key: entry.value for entry in onnx.load(blocks.path).metadata_props}
    assert set(metadata) == {
        f"elude.{key}"
        for key in ("schema_version", "source", "preprocess", "layers", "split_sha256", "dtype", "output_kind")
    }
    layers = json.loads(metadata["elude.layers"])
    assert [layer["first"] for layer in layers] == [0, blocks.splits[0].sub_units]
    assert [layer["parts"] for layer in layers] == [split.parts.tolist() for split in blocks.splits]
    assert json.loads(metadata["elude.source"])["model"] == "tiny"


def test_two_emissions_give_the_same_bytes(blocks: Emitted, tmp_path: Path) -> None:
    again = emitted(TinyBlocks(), "blocks.0.mlp.fc2,blocks.1.mlp.fc2", (3, 8, 8), tmp_path / "model.onnx")
    assert again.path.read_bytes() == blocks.path.read_bytes()


def test_large_weights_go_beside_the_file(blocks: Emitted, tmp_path: Path) -> None:
    again = emitted(
        TinyBlocks(), "blocks.0.mlp.fc2,blocks.1.mlp.fc2", (3, 8, 8), tmp_path / "model.onnx", external_above=100
    )
    assert (tmp_path / "model.onnx.data").is_file()
    edits = blocks.edits(0, 4, 3)
    expected = GraphSession(blocks.path).run(blocks.pixels, edits, inspect=True)
    got = GraphSession(again.path).run(blocks.pixels, edits, inspect=True)
    np.testing.assert_array_equal(got.output, expected.output)
    np.testing.assert_array_equal(got.sub_units["blocks.1.mlp.fc2"], expected.sub_units["blocks.1.mlp.fc2"])


def test_later_opsets_give_the_same(blocks: Emitted, tmp_path: Path) -> None:
    again = emitted(TinyBlocks(), "blocks.0.mlp.fc2,blocks.1.mlp.fc2", (3, 8, 8), tmp_path / "model.onnx", opset=20)
    assert onnx.load(again.path).opset_import[0].version == 20
    edits = blocks.edits(1, 4, 3, patches=(0, 2))
    np.testing.assert_allclose(
        GraphSession(again.path).run(blocks.pixels, edits).output,
        GraphSession(blocks.path).run(blocks.pixels, edits).output,
        atol=1e-5,
    )


def test_what_cannot_be_emitted_is_refused(tmp_path: Path) -> None:
    class Twice(TinyBlocks):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.patch(x).flatten(2).transpose(1, 2)
            return self.head(self.blocks[0](self.blocks[0](x)).mean(1))

    class Pair(TinyBlocks):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
            return super().forward(x), x

    with pytest.raises(UsageError, match="opset 17"):
        emitted(TinyBlocks(), "head", (3, 8, 8), tmp_path / "a.onnx", opset=17)
    with pytest.raises(UnsupportedLayerError, match=r"blocks\.0\.mlp\.fc2 has 2 outputs"):
        emitted(Twice(), "blocks.0.mlp.fc2", (3, 8, 8), tmp_path / "a.onnx")
    with pytest.raises(UnsupportedLayerError, match=r"blocks\.1\.mlp\.fc2 has 0 outputs"):
        emitted(Twice(), "blocks.1.mlp.fc2", (3, 8, 8), tmp_path / "a.onnx")
    with pytest.raises(UnsupportedLayerError, match="exactly one tensor"):
        plain_export(Pair().eval(), (3, 8, 8))
    assert not list(tmp_path.iterdir())
