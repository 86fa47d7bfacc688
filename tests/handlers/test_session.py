"""GraphSession: what it gives, and what it refuses before ONNX Runtime sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from _graphs import Emitted, emitted
from _models import TinyBlocks

from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import BundleError, RequestError, UsageError

LAYERS = "blocks.0.mlp.fc2,blocks.1.mlp.fc2"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    return emitted(TinyBlocks(), LAYERS, (3, 8, 8), tmp_path_factory.mktemp("session") / "model.onnx")


@pytest.fixture(scope="module")
def session(case: Emitted) -> GraphSession:
    return GraphSession(case.path)


def changed(case: Emitted, path: Path, **metadata: str | None) -> Path:
    """The file with metadata entries replaced, or dropped where None."""
    model = onnx.load(case.path)
    entries = {entry.key: entry.value for entry in model.metadata_props}
    for key, value in metadata.items():
        entries.pop(f"elude.{key}")
        if value is not None:
            entries[f"elude.{key}"] = value
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, path)
    return path


def test_reads_what_the_file_says(case: Emitted, session: GraphSession) -> None:
    assert [layer.name for layer in session.layers] == LAYERS.split(",")
    assert [layer.first for layer in session.layers] == [0, case.splits[0].sub_units]
    assert session.input_size == (3, 8, 8)
    assert session.output_name == "logits"
    assert session.provider == "CPUExecutionProvider"
    assert session.metadata["elude.schema_version"] == "1"


def test_runs_with_nothing_with_edits_and_with_inspection(case: Emitted, session: GraphSession) -> None:
    with torch.no_grad():
        expected = case.module(torch.from_numpy(case.pixels)).numpy()
    plain = session.run(case.pixels)
    np.testing.assert_allclose(plain.output, expected, atol=1e-5)
    assert plain.units == {}
    assert plain.sub_units == {}
    result = session.run(case.pixels, [[], [Edit.scale(0, 5.0)], [], []], inspect=True)
    assert result.sub_units["blocks.1.mlp.fc2"].shape == (4, 4, case.splits[1].sub_units)
    np.testing.assert_allclose(result.output[[0, 2, 3]], expected[[0, 2, 3]], atol=1e-5)
    assert np.abs(result.output[1] - expected[1]).max() > 1e-3
    # what an edit of the first layer does is seen in the second, not in the first
    before = session.run(case.pixels, inspect=True)
    np.testing.assert_array_equal(result.units["blocks.0.mlp.fc2"], before.units["blocks.0.mlp.fc2"])
    assert np.abs(result.units["blocks.1.mlp.fc2"][1] - before.units["blocks.1.mlp.fc2"][1]).max() > 1e-4


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 3, 8, 8)),
        np.zeros((1, 3, 8, 8), np.uint8),
        np.zeros((3, 8, 8), np.float32),
        np.zeros((1, 3, 8, 9), np.float32),
        np.zeros((1, 1, 8, 8), np.float32),
        np.zeros((0, 3, 8, 8), np.float32),
    ],
)
def test_refuses_pixels_of_another_kind(session: GraphSession, pixels: np.ndarray) -> None:
    with pytest.raises(RequestError, match=r"This model takes float32 \(N, 3, 8, 8\)"):
        session.run(pixels)


@pytest.mark.parametrize(
    ("edit", "message", "status"),
    [
        (Edit(10_000), "no sub-unit 10000", 404),
        (Edit(-2), "no sub-unit -2", 404),
        (Edit(0, float("nan")), "gain nan", 400),
        (Edit(0, 1.0, float("inf")), "offset inf", 400),
        (Edit(0, 1e39), "gain 1e\\+39", 400),
        (Edit(0, patches=-1), "-1 patches", 400),
    ],
)
def test_refuses_edits_that_mean_nothing(
    case: Emitted, session: GraphSession, edit: Edit, message: str, status: int
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        session.run(case.pixels, [[edit]])
    assert caught.value.status == status


def test_refuses_rows_that_do_not_fit(case: Emitted, session: GraphSession) -> None:
    with pytest.raises(RequestError, match="2 rows of edits for 4 images"):
        session.run(case.pixels, [[], []])


def test_refuses_files_that_are_not_ours(case: Emitted, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    cases = {
        "does not exist": tmp_path / "absent.onnx",
        "cannot be opened": tmp_path / "text.onnx",
        "not a file of elude": changed(case, tmp_path / "a.onnx", schema_version=None),
        "no elude.layers": changed(case, tmp_path / "b.onnx", layers=None),
        "version '2'": changed(case, tmp_path / "c.onnx", schema_version="2"),
        "not JSON": changed(case, tmp_path / "d.onnx", layers="["),
        "not a list": changed(case, tmp_path / "e.onnx", layers="{}"),
        "unknown|missing": changed(case, tmp_path / "f.onnx", layers='[{"name": "x"}]'),
    }
    for message, path in cases.items():
        with pytest.raises(BundleError, match=message):
            GraphSession(path)


def test_refuses_metadata_that_contradict_the_graph(case: Emitted, session: GraphSession, tmp_path: Path) -> None:
    text = session.metadata["elude.layers"]
    with pytest.raises(BundleError, match=r"lacks blocks\.7\.mlp\.fc2\.units"):
        GraphSession(changed(case, tmp_path / "a.onnx", layers=text.replace("blocks.1", "blocks.7")))
    with pytest.raises(BundleError, match="starts at index"):
        GraphSession(changed(case, tmp_path / "b.onnx", layers=text.replace('"first": 0', '"first": 1')))


def test_refuses_providers_that_are_not_there(case: Emitted) -> None:
    with pytest.raises(UsageError, match="NoSuchProvider"):
        GraphSession(case.path, providers=["NoSuchProvider"])
    with pytest.raises(UsageError, match="not available"):
        GraphSession(case.path, providers=[])
    with pytest.raises(UsageError, match="threads is 0"):
        GraphSession(case.path, threads=0)
