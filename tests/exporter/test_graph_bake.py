"""Edits in the weights equal live steering, on every kind of layer; and what weights cannot do is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from _graphs import Emitted, raw_session
from _serving import make_bundle
from test_graph import CASES, emitted

from elude.exporter.graph.bake import bake
from elude.exporter.graph.triton import triton_model
from elude.handlers.bundle.edits import Edit, pack
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import BundleError, UsageError


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    make, pattern, size = CASES[request.param]
    return emitted(make(), pattern, size, tmp_path_factory.mktemp(request.param) / "model.onnx")


@pytest.mark.parametrize("optimise", [False, True])
def test_baked_edits_equal_live_steering(case: Emitted, optimise: bool, tmp_path: Path) -> None:
    edits = [*case.edits(4, 1, 12)[0], Edit(-1, 5.0, 5.0), Edit.ablate(0), Edit.set(1, 2.0), Edit.add(2, -1.5)]
    first = np.cumsum([0, *[split.sub_units for split in case.splits]])[:-1]
    edits += [Edit(int(index), 1.7, 0.3) for index in first]  # one in every layer
    path = bake(case.path, edits, tmp_path / "baked.onnx")
    baked, live = raw_session(path, optimise=optimise), raw_session(case.path, optimise=optimise)
    assert [value.name for value in baked.get_inputs()] == ["pixel_values"]
    assert [value.name for value in baked.get_overridable_initializers()] == []
    (output,) = [value.name for value in baked.get_outputs()]
    for batch in (1, 4):
        pixels = case.pixels[:batch]
        expected = live.run([output], {"pixel_values": pixels, **pack([edits])})[0]
        got = baked.run(None, {"pixel_values": pixels})[0]
        assert np.abs(expected - live.run([output], {"pixel_values": pixels})[0]).max() > 1e-2
        np.testing.assert_allclose(got, expected, atol=2e-5 * np.abs(expected).max())


def test_a_baked_file_holds_nothing_else(case: Emitted, tmp_path: Path) -> None:
    path = bake(case.path, [Edit.scale(0, 2.0)], tmp_path / "baked.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert not [node.name for node in model.graph.node if node.op_type == "If" or "elude" in node.name]
    assert not [
        tensor.name for tensor in model.graph.initializer if "elude" in tensor.name or "sub_units" in tensor.name
    ]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["elude.baked"]) == [{"index": 0, "gain": 2.0, "offset": 0.0, "patches": 0}]
    assert path.stat().st_size < case.path.stat().st_size


def test_no_edit_gives_the_plain_model(case: Emitted, tmp_path: Path) -> None:
    path = bake(case.path, [], tmp_path / "baked.onnx")
    live = raw_session(case.path)
    expected = live.run([live.get_outputs()[0].name], {"pixel_values": case.pixels})[0]
    assert raw_session(path).run(None, {"pixel_values": case.pixels})[0].tobytes() == expected.tobytes()


def test_without_edits_only_the_place_is_needed(case: Emitted, tmp_path: Path) -> None:
    assert (
        bake(case.path, out=tmp_path / "a.onnx").read_bytes() == bake(case.path, [], tmp_path / "b.onnx").read_bytes()
    )
    with pytest.raises(UsageError, match="out="):
        bake(case.path)


def test_the_file_for_triton_answers_as_the_one_with_optional_inputs(case: Emitted, tmp_path: Path) -> None:
    """Bit for bit: plain, steered and inspected, all inputs given; without one of them it does not run."""
    folder = triton_model(case.path, tmp_path / "models" / "cat")
    required = raw_session(folder / "1" / "model.onnx", optimise=False)
    live = raw_session(case.path, optimise=False)
    assert required.get_overridable_initializers() == []
    nothing = {name: values[:1] for name, values in pack([[Edit(-1)]]).items()} | {"inspect": np.array(False)}
    edits, pixels = pack(case.edits(4, 1, 12)), case.pixels
    feed = {"pixel_values": pixels, **nothing}
    outputs = [value.name for value in live.get_outputs()]
    for given in ({}, edits, {"inspect": np.array(True)}, {**edits, "inspect": np.array(True)}):
        expected = live.run(outputs, {"pixel_values": pixels, **given})
        got = required.run(outputs, {**feed, **given})
        assert [value.tobytes() for value in got] == [value.tobytes() for value in expected]
    with pytest.raises(ValueError, match="inspect"):
        required.run(outputs, {name: value for name, value in feed.items() if name != "inspect"})


def test_the_configuration_for_triton_declares_what_the_file_has(case: Emitted, tmp_path: Path) -> None:
    """Names, types and shapes as ONNX Runtime reads them; a scalar is one number that is reshaped."""
    folder = triton_model(case.path, tmp_path / "cat")
    session, config = raw_session(folder / "1" / "model.onnx"), (folder / "config.pbtxt").read_text()
    assert 'name: "cat"' in config
    types = {"tensor(float)": "FP32", "tensor(int64)": "INT64", "tensor(bool)": "BOOL"}
    entry = (
        r'(input|output) \{\s+name: "(.*)"\s+data_type: TYPE_(\w+)\s+dims: \[ (.*) \]'
        r"(\s+reshape \{ shape: \[ \] \})?\s+\}"
    )
    declared = [
        (kind, name, dtype, [] if scalar else [int(size) for size in sizes.split(", ")])
        for kind, name, dtype, sizes, scalar in re.findall(entry, config)
    ]
    there = [("input", value) for value in session.get_inputs()] + [("output", v) for v in session.get_outputs()]
    assert declared == [
        (kind, value.name, types[value.type], [size if isinstance(size, int) else -1 for size in value.shape])
        for kind, value in there
    ]


def test_a_folder_for_triton_is_whole_or_not_there(case: Emitted, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for out in (tmp_path / "there", tmp_path / "a b", None):
        with pytest.raises(UsageError):
            triton_model(case.path, out)
    with pytest.raises(BundleError):
        triton_model(tmp_path / "none.onnx", tmp_path / "cat")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_what_cannot_be_baked_is_refused(case: Emitted, tmp_path: Path) -> None:
    out = tmp_path / "baked.onnx"
    with pytest.raises(UsageError, match="limited to 3 patches, which depend on the image"):
        bake(case.path, [Edit.scale(0, 2.0, patches=3)], out)
    with pytest.raises(UsageError, match="no sub-unit 100000"):
        bake(case.path, [Edit.scale(100_000, 2.0)], out)
    with pytest.raises(UsageError, match="gain nan"):
        bake(case.path, [Edit.scale(0, float("nan"))], out)
    with pytest.raises(UsageError, match="preset 'calm' is named, but not its bundle"):
        bake(case.path, "calm", out)
    with pytest.raises(BundleError, match="does not exist"):
        bake(tmp_path / "none.onnx", [], out)
    assert not list(tmp_path.iterdir())
    out.write_text("something")
    with pytest.raises(UsageError, match="already exists"):
        bake(case.path, [], out)


def test_a_preset_of_a_bundle_is_baked(tmp_path: Path) -> None:
    """By its name, and to the answers of live steering with the edits it lists."""
    bundle = make_bundle(tmp_path / "bundle")
    path = bake(bundle.root, "a", tmp_path / "baked.onnx")
    second = bundle.manifest.layers[0].parts[0]  # preset "a" multiplies the first sub-unit of the first two units by -3
    edits = [Edit.scale(0, -3.0), Edit.scale(second, -3.0)]
    session = GraphSession(bundle.path("model.onnx"))
    pixels = np.random.default_rng(0).standard_normal((4, *session.input_size)).astype(np.float32)
    live = session.run(pixels, [edits] * len(pixels)).output
    np.testing.assert_allclose(
        raw_session(path).run(None, {"pixel_values": pixels})[0], live, atol=2e-5 * np.abs(live).max()
    )
    assert np.abs(live - session.run(pixels).output).max() > 1e-3
    with pytest.raises(UsageError, match=r"no preset 'calm'.*It has: a, b"):
        bake(bundle.root, "calm", tmp_path / "other.onnx")


def test_a_preset_by_concept_is_baked(tmp_path: Path) -> None:
    """Concepts are names of the catalogue, which the bundle holds."""
    bundle = make_bundle(tmp_path / "bundle")
    bundle = bundle.add({"presets.json": b'{"c": [{"concept": "concept 3", "action": "scale", "value": -3}]}'})
    path = bake(bundle, "c", tmp_path / "baked.onnx")
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert [edit["index"] for edit in json.loads(metadata["elude.baked"])] == [3]
