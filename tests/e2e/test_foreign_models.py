"""From somebody's own model to a served, gated bundle on the command line: a factory, an ONNX file, and a model whose
images are arrays of twelve channels.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tifffile
import torch
from _fronts import MODEL, Web
from PIL import Image

import elude
from elude.cli import main
from elude.exporter.models.load import ModelOptions, load_model
from elude.handlers.errors import EludeError
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.torchserve.client import Client

pytestmark = pytest.mark.slow
FACTORY = """
import torch
from torch import nn

def make(channels):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
    )

def colour():
    return make(3)

def twelve():
    return make(12)
"""
COLOUR = Preprocess((3, 16, 16), "bilinear", 1.0, "squash", (0.5,) * 3, (0.5,) * 3)
TWELVE = Preprocess((12, 16, 16), "bilinear", 1.0, "center", (0.05,) * 12, (0.02,) * 12)
QUICK = ("--max-images", 30, "--tokens", 6, "--top-k", 60)
MEASURES = ("--suite", "images", "--dimensions", "accuracy,calibration_error,params_m")


def run(*arguments: object) -> int:
    """Exit code of ``elude ARGUMENTS``, in this process."""
    with mock.patch.object(sys, "argv", ["elude", *map(str, arguments)]):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module ``mine`` and the names of two classes."""
    (tmp_path / "mine.py").write_text(FACTORY)
    (tmp_path / "labels.txt").write_text("dark\nlight\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


def described(preprocess: Preprocess) -> tuple[object, ...]:
    """The options that say what a model does not."""
    Path("preprocess.json").write_text(json.dumps(preprocess.to_json()))
    return "--preprocess", "preprocess.json", "--labels", "labels.txt", "--images", "images", *QUICK


def pictures() -> list[Path]:
    rng, paths = np.random.default_rng(0), []
    for number in range(30):
        path = Path("images", ("dark", "light")[number % 2], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 128, (16, 16, 3)) + 128 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        paths.append(path)
    return paths


def expected(factory: str, preprocess: Preprocess, pixels: np.ndarray) -> np.ndarray:
    """Probabilities of (N, H, W, channels) pixels by torch alone."""
    module = load_model(factory, options=ModelOptions(preprocess=preprocess, labels=["dark", "light"])).module
    with torch.no_grad():
        probabilities: np.ndarray = module(torch.from_numpy(preprocess.normalise(pixels))).softmax(1).numpy()
    return probabilities


@contextmanager
def served(archive: str) -> Iterator[Client]:
    web = Web(Path(archive))
    try:
        yield web.client()
    finally:
        web.stop()


def asked(client: Client, **request: Any) -> list[float]:
    answer = json.loads(client.ask(json.dumps({"op": "predict", "top_k": 2, **request}).encode()))
    return [answer["dark"], answer["light"]]


def asked_v2(client: Client, tensor: dict[str, Any]) -> list[list[float]]:
    body = json.dumps({"inputs": [tensor], "parameters": {"top_k": 2}}).encode()
    labels, probabilities = json.loads(client.send(f"/v2/models/{MODEL}/infer", body))["outputs"]
    pairs = zip(labels["data"], probabilities["data"], strict=True)
    by_label = sorted(enumerate(pairs), key=lambda pair: (pair[0] // 2, pair[1][0]))
    return np.reshape([probability for _, (_, probability) in by_label], (-1, 2)).tolist()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def released(bundle: str, baseline: str) -> None:
    """Gate, report and archive, as a first release that is its own baseline."""
    assert run("policy", "init", bundle, "--out", "policy.toml") == 0
    assert run("gate", bundle, "--policy", "policy.toml", "--baseline", baseline) == 0
    assert run("report", bundle) == 0
    assert run("package", bundle, "--out", "model.mar", "--name", MODEL) == 0


def test_a_model_from_a_factory_is_gated_and_served() -> None:
    paths = pictures()
    assert run("export", "mine:colour", *described(COLOUR), "--out", "bundle") == 0
    assert run("evaluate", "bundle", *MEASURES) == 2  # a bundle starts no code by itself
    assert run("evaluate", "bundle", "--model", "mine:colour", *MEASURES) == 0
    released("bundle", "bundle")
    wanted = expected("mine:colour", COLOUR, np.stack([np.asarray(Image.open(path)) for path in paths[:2]]))
    with served("model.mar") as client:
        for path, row in zip(paths, wanted[:2], strict=False):
            np.testing.assert_allclose(asked(client, image=text(path.read_bytes())), row, atol=1e-5)


def test_a_file_of_someone_else_is_measured_beside_its_bundle_gated_and_served(
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = pictures()
    module = load_model("mine:colour", options=ModelOptions(preprocess=COLOUR, kind="classes")).module
    axes = {"x": {0: "n"}, "y": {0: "n"}}
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
    torch.onnx.export(module, (torch.zeros(2, *COLOUR.input_size),), "theirs.onnx", dynamo=False, **names)
    assert run("export", "theirs.onnx", *described(COLOUR), "--out", "bundle") == 0
    assert run("evaluate", "bundle", *MEASURES) == 0
    assert json.loads(Path("bundle/quality.json").read_text())["lossless"] is None
    assert run("policy", "init", "bundle", "--out", "early.toml") == 0
    capsys.readouterr()
    assert run("gate", "bundle", "--policy", "early.toml", "--baseline", "bundle") == 1
    assert "--model" in capsys.readouterr().out  # says how the comparison is measured
    assert run("evaluate", "bundle", "--model", "theirs.onnx", *MEASURES) == 0
    forms = json.loads(Path("bundle/quality.json").read_text())["lossless"]
    assert set(forms) == {"original", "disentangled", "served"}
    assert forms["disentangled"] == forms["original"]  # not optimised: the same bits
    released("bundle", "bundle")
    wanted = expected("mine:colour", COLOUR, np.asarray(Image.open(paths[0]))[None])
    with served("model.mar") as client:
        np.testing.assert_allclose(asked(client, image=text(paths[0].read_bytes())), wanted[0], atol=1e-5)


def test_another_file_is_not_taken_for_the_original(folder: Path) -> None:
    pictures()
    options = ModelOptions(preprocess=COLOUR, kind="classes")
    module = load_model("mine:colour", options=options).module
    names = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
    for name in ("theirs", "other"):
        torch.onnx.export(module, (torch.zeros(2, *COLOUR.input_size),), f"{name}.onnx", dynamo=False, **names)
        with torch.no_grad():
            module[0].weight *= 2
    assert run("export", "theirs.onnx", *described(COLOUR), "--out", "bundle") == 0
    assert run("evaluate", "bundle", "--model", "other.onnx", *MEASURES) == 3
    assert not (folder / "bundle" / "quality.json").exists()


def test_a_model_of_twelve_channels_is_exported_measured_gated_served_and_steered() -> None:
    rng, values, paths = np.random.default_rng(0), [], []
    for number in range(30):
        path = Path("images", ("dark", "light")[number % 2], f"{number}.npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        values.append(rng.integers(0, 6000 + 3000 * (number % 2), (12, 16, 16)).astype(np.uint16))
        np.save(path, values[-1])
        paths.append(path)
    assert run("export", "mine:twelve", *described(TWELVE), "--out", "bundle") == 0
    assert run("evaluate", "bundle", "--model", "mine:twelve", "--suite", "images") == 0
    left_out = json.loads(Path("bundle/quality.json").read_text())["settings"]["not_measured"]
    assert {"corruption_robustness", "adversarial_robustness"} <= set(left_out)
    assert "12 channels" in left_out["corruption_robustness"]
    released("bundle", "bundle")
    unit = np.stack([np.moveaxis(image, 0, -1) for image in values[:3]]).astype(np.float32) / np.float32(65_535)
    wanted = expected("mine:twelve", TWELVE, unit)
    buffer = io.BytesIO()
    np.save(buffer, unit[1])  # channels last, float32: the same image
    zipped, tiff = Path("second.npz"), Path("second.tif")
    np.savez_compressed(zipped, values[1])
    tifffile.imwrite(tiff, values[1], photometric="minisblack", planarconfig="separate", compression="zlib")
    with served("model.mar") as client:
        np.testing.assert_allclose(asked(client, image=text(paths[0].read_bytes())), wanted[0], atol=1e-5)
        for data in (buffer.getvalue(), zipped.read_bytes(), tiff.read_bytes()):
            np.testing.assert_allclose(asked(client, image=text(data)), wanted[1], atol=1e-5)
        for kind, sent in (("FP32", unit[:2]), ("UINT16", np.stack(values[:2]))):
            tensor = {"name": "image", "datatype": kind, "shape": list(sent.shape), "data": sent.ravel().tolist()}
            answer = asked_v2(client, tensor)
            np.testing.assert_allclose(answer, wanted[:2], atol=1e-5)
        with pytest.raises(EludeError, match="12 channels"):
            asked_v2(client, {"name": "image", "datatype": "FP32", "shape": [3, 16, 16], "data": [0.5] * 768})
    model = elude.load("bundle")
    assert model.predict(zipped).to_dict() == model.predict(tiff).to_dict() == model.predict(paths[1]).to_dict()
    for image in (paths[2], values[2], torch.from_numpy(unit[2].transpose(2, 0, 1)), paths[2].read_bytes()):
        answer = model.predict(image).probabilities
        np.testing.assert_allclose([answer["dark"], answer["light"]], wanted[2], atol=1e-5)
    seen = model.inspect(values[0], top_k=1)
    assert "<img" in seen._repr_html_()
    steered = model.steer(values[0], {seen.sub_units[0].id: 20.0})
    assert steered.before is not None
    assert steered.before.probabilities != steered.after.probabilities
    with pytest.raises(EludeError, match="12 channels"):
        model.predict(Image.new("RGB", (16, 16)))
    with pytest.raises(EludeError, match="12 channels"):
        model.predict(values[0][:4])
