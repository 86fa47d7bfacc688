"""Whoever does the jobs, and however often they are stopped: the same report. Streaming states and endpoints measure the same too."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _serving import make_bundle

from handlers.bundle import Bundle
from handlers.errors import EvaluationError, UsageError
from handlers.preprocess import Preprocess
from handlers.service import Call, Service
from handlers.session import GraphSession
from handlers.settings import Settings
from handlers.torchserve.client import Client
from quality.dimensions.calibration_error import calibration_error
from quality.dimensions.object_focus import object_focus
from quality.dimensions.streaming import STREAMABLE, Streaming
from quality.evaluation.engines import run
from quality.evaluation.evaluate import evaluate
from quality.subjects.endpoint_subject import EndpointSubject, framed
from quality.subjects.onnx_subject import OnnxSubject
from quality.subjects.open_subject import open_subject, served
from quality.subjects.subject import CallableSubject
from quality.subjects.torch_subject import TorchSubject
from quality.suites.image_sets import PixelSet
from quality.suites.suite import Suite

PREPROCESS = Preprocess((3, 8, 8), "bilinear", 1.0, "center", (0.5,) * 3, (0.25,) * 3)
CLASSES = ("dark", "light")


def suite(images: int = 30) -> Suite:
    rng = np.random.default_rng(0)
    labels = np.arange(images) % 2
    pixels = np.clip(60 + 100 * labels[:, None, None, None] + rng.normal(0, 40, (images, 8, 8, 3)), 0, 255).astype(np.uint8)
    return Suite("test", PixelSet(pixels, labels.astype(np.int64), CLASSES), ("brightness", "gaussian_noise", "fog"), (1, 5))


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2))


def subject() -> TorchSubject:
    return TorchSubject(model(), PREPROCESS, labels=CLASSES, sha256="1" * 64)


def test_worker_processes_change_nothing() -> None:
    alone = evaluate(subject(), suite(), resamples=20, batch_size=8).to_bytes()
    assert evaluate(subject(), suite(), resamples=20, batch_size=8, workers=2).to_bytes() == alone


@pytest.mark.slow
def test_ray_changes_nothing() -> None:
    ray = pytest.importorskip("ray")
    alone = evaluate(subject(), suite(), resamples=20, batch_size=8).to_bytes()
    try:
        assert evaluate(subject(), suite(), resamples=20, batch_size=8, engine="ray", workers=2).to_bytes() == alone
        assert ray.cluster_resources()["CPU"] == 2
    finally:
        ray.shutdown()


def test_stopped_evaluation_goes_on(tmp_path: Path) -> None:
    calls: list[int] = []

    def function(pixels: np.ndarray) -> np.ndarray:
        calls.append(len(pixels))
        return np.stack([0.4 - pixels.mean(axis=(1, 2, 3)), np.zeros(len(pixels))], axis=1)

    one = CallableSubject(function, PREPROCESS, labels=CLASSES, sha256="2" * 64)
    alone = evaluate(one, suite(), resamples=20, batch_size=10).to_bytes()
    whole = len(calls)

    class Stop(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if done >= 20:
            raise Stop

    calls.clear()
    with pytest.raises(Stop):
        evaluate(one, suite(), resamples=20, batch_size=10, cache=tmp_path, progress=stop)
    told: list[int] = []
    resumed = evaluate(one, suite(), resamples=20, batch_size=10, cache=tmp_path, progress=lambda stage, done, total: told.append(done))
    assert resumed.to_bytes() == alone
    assert told == [20, 30]
    assert len(calls) == whole
    calls.clear()
    evaluate(one, suite(), resamples=20, batch_size=10, cache=tmp_path, seed=1)  # another seed is another evaluation
    assert len(calls) == whole
    with pytest.raises(UsageError, match="hash"):
        evaluate(CallableSubject(function, PREPROCESS, labels=CLASSES), suite(), cache=tmp_path)


def test_unknown_engine() -> None:
    with pytest.raises(UsageError, match="dask"):
        evaluate(subject(), suite(), engine="dask")
    assert run.__doc__


@pytest.mark.parametrize("dimension", ["accuracy", "calibration_error", "class_balance"])
def test_streaming_equals_the_function(dimension: str) -> None:
    rng = np.random.default_rng(0)
    outputs, labels = rng.normal(size=(100, 4)), rng.integers(4, size=100)
    parts = [Streaming(dimension), Streaming(dimension)]
    for start in range(0, 100, 17):
        parts[start % 2].update(outputs[start : start + 17], labels[start : start + 17])
    parts[0].merge(parts[1:])
    assert len(parts[0]) == 100
    whole = Streaming(dimension)
    whole.update(outputs, labels)
    assert parts[0].compute().value == pytest.approx(whole.compute().value, abs=1e-12)
    if dimension == "calibration_error":
        assert whole.compute(resamples=10) == calibration_error(outputs, labels, resamples=10)


def test_streaming_refuses() -> None:
    state = Streaming("object_focus")
    with pytest.raises(EvaluationError, match="no images"):
        state.compute()
    with pytest.raises(UsageError, match="same, rand"):
        state.update(np.ones(3, bool))
    state.update(np.array([True, True]), np.array([True, False]))
    assert state.compute() == object_focus(np.array([True, True]), np.array([True, False]))
    with pytest.raises(UsageError):
        state.merge([Streaming("accuracy")])
    with pytest.raises(UsageError, match="params_m"):
        Streaming("params_m")
    assert "shape_bias" in STREAMABLE


@pytest.mark.parametrize(
    ("size", "crop_pct", "mode"), [(28, 1.0, "center"), (28, 0.9, "center"), (33, 0.875, "center"), (28, 0.9, "squash")]
)
def test_a_frame_survives_resize_and_crop(size: int, crop_pct: float, mode: str) -> None:
    from PIL import Image

    preprocess = Preprocess((3, size, size), "bicubic", crop_pct, mode, (0.5,) * 3, (0.5,) * 3)
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    assert np.array_equal(preprocess.pixels(Image.fromarray(framed(pixels, preprocess))), pixels)


class Wire(Client):
    """A client whose server is in this process."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__("http://127.0.0.1:1")
        self.service = Service(bundle, GraphSession(bundle.path("model.onnx")), Settings())

    def send(self, path: str, body: bytes | None = None, content_type: str = "application/json", **options: Any) -> bytes:
        answer = self.service.answer([Call(json.loads(body or b"{}"))])[0].body
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("served") / "bundle")


def test_an_endpoint_measures_what_its_graph_does(bundle: Bundle) -> None:
    preprocess = Preprocess.from_json(bundle.json("preprocess.json"))
    labels = tuple(bundle.json("labels.json"))
    endpoint = EndpointSubject(Wire(bundle), preprocess, labels, parameters=bundle.manifest.parameters, connections=1)
    graph = OnnxSubject(bundle.path("model.onnx"), preprocess, labels=labels)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 28, 28)).astype(np.float32) / np.float32(255)
    outputs = graph.outputs(pixels)
    expected = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    assert np.allclose(endpoint.outputs(pixels), expected / expected.sum(axis=1, keepdims=True), atol=1e-6)
    with pytest.raises(EvaluationError, match="labels"):
        EndpointSubject(Wire(bundle), preprocess, (*labels[1:], "hat"), connections=1).outputs(pixels)
    copy = pickle.loads(pickle.dumps(graph))  # as an engine sends it to another process
    assert np.array_equal(copy.outputs(pixels), outputs)


def test_subjects_by_their_address(bundle: Bundle, tmp_path: Path) -> None:
    assert isinstance(open_subject(str(bundle.root)), Bundle)
    graph = open_subject(str(bundle.path("model.onnx")))
    assert isinstance(graph, OnnxSubject)
    assert graph.labels == tuple(bundle.json("labels.json"))
    endpoint = served(Wire(bundle))
    assert endpoint.labels == graph.labels
    assert endpoint.preprocess == graph.preprocess
    assert endpoint.sha256 == bundle.artefact_sha256
    loaded = open_subject("embedded")
    assert isinstance(loaded, TorchSubject)
    assert loaded.sha256
    with pytest.raises(UsageError, match="No answer"):
        open_subject("http://127.0.0.1:1")
    with pytest.raises(UsageError, match=r"preprocess\.json"):
        open_subject(str(tmp_path / "alone.onnx"))
