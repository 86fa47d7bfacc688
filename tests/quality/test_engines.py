"""Whoever does the jobs, and however often they are stopped: the same report. Endpoints measure the same too."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _serving import make_bundle

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import EvaluationError, UsageError
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.requests.calls import Call
from elude.handlers.service import Service
from elude.handlers.settings import Settings
from elude.handlers.torchserve.client import Client
from elude.quality.evaluation.engines import run
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.subjects.endpoint_subject import EndpointSubject, framed
from elude.quality.subjects.onnx_subject import OnnxSubject
from elude.quality.subjects.open_subject import open_subject, served
from elude.quality.subjects.subject import CallableSubject
from elude.quality.subjects.torch_subject import TorchSubject
from elude.quality.suites.image_sets import PixelSet
from elude.quality.suites.suite import Suite

PREPROCESS = Preprocess((3, 8, 8), "bilinear", 1.0, "center", (0.5,) * 3, (0.25,) * 3)
CLASSES = ("dark", "light")


def suite(images: int = 30) -> Suite:
    rng = np.random.default_rng(0)
    labels = np.arange(images) % 2
    pixels = np.clip(60 + 100 * labels[:, None, None, None] + rng.normal(0, 40, (images, 8, 8, 3)), 0, 255).astype(
        np.uint8
    )
    return Suite(
        "test", PixelSet(pixels, labels.astype(np.int64), CLASSES), ("brightness", "gaussian_noise", "fog"), (1, 5)
    )


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2))


def subject() -> TorchSubject:
    return TorchSubject(model(), PREPROCESS, labels=CLASSES, sha256="1" * 64)


def objects(images: int = 24) -> Suite:
    """Bars on black, lying or standing, from which shifts, backgrounds and cue conflict are made."""
    rng = np.random.default_rng(1)
    labels = np.arange(images) % 2
    pixels = np.zeros((images, 8, 8, 3), np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        texture = rng.integers(60, 255, (8, 8, 3))
        where = np.s_[1:7, 2:6] if label else np.s_[2:6, 1:7]
        image[where] = texture[where]
    return Suite("bars", PixelSet(pixels, labels.astype(np.int64), CLASSES), ("contrast",), (2,), dark_background=True)


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
        made = evaluate(subject(), objects(), resamples=20, batch_size=8, budget=20)
        assert {"ood_robustness", "object_focus", "shape_bias"} <= set(made.dimensions)
        assert (
            evaluate(subject(), objects(), resamples=20, batch_size=8, budget=20, engine="ray", workers=2).to_bytes()
            == made.to_bytes()
        )
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
        if done >= 20 * 7:
            raise Stop

    calls.clear()
    with pytest.raises(Stop):
        evaluate(one, suite(), resamples=20, batch_size=10, cache=tmp_path, progress=stop)
    told: list[int] = []
    resumed = evaluate(
        one, suite(), resamples=20, batch_size=10, cache=tmp_path, progress=lambda stage, done, total: told.append(done)
    )
    assert resumed.to_bytes() == alone
    # clean and six corrupted images of each; after the kill, one batch under one condition at a time
    assert told == [20 * 7, *(20 * 7 + 10 * (n + 1) for n in range(7))]
    assert len(calls) == whole
    calls.clear()
    evaluate(one, suite(), resamples=20, batch_size=10, cache=tmp_path, seed=1)  # another seed is another evaluation
    assert len(calls) == whole
    with pytest.raises(UsageError, match="hash"):
        evaluate(CallableSubject(function, PREPROCESS, labels=CLASSES), suite(), cache=tmp_path)


@pytest.mark.parametrize("passes", [5, 100])
def test_a_killed_evaluation_goes_on_among_the_made_images(passes: int, tmp_path: Path) -> None:
    """Stopped in the clean pass, or among the images that are made after it: the same bytes, and nothing is asked
    twice.
    """
    calls: list[int] = []

    def function(pixels: np.ndarray) -> np.ndarray:
        calls.append(len(pixels))
        return np.stack([0.4 - pixels[:, :, 3].mean(axis=(1, 2)), np.zeros(len(pixels))], axis=1)

    one = CallableSubject(function, PREPROCESS, labels=CLASSES, sha256="2" * 64, parameters=1)
    alone = evaluate(one, objects(), resamples=20, batch_size=10, budget=20).to_bytes()
    whole = sum(calls)
    calls.clear()

    class Killed(BaseException):
        pass

    stages: list[str] = []

    def kill(stage: str, done: int, total: int) -> None:
        stages.append(stage)
        if sum(calls) > passes:
            raise Killed

    with pytest.raises(Killed):
        evaluate(one, objects(), resamples=20, batch_size=10, budget=20, cache=tmp_path, progress=kill)
    assert ("made images" in stages) == (passes == 100)
    assert evaluate(one, objects(), resamples=20, batch_size=10, budget=20, cache=tmp_path).to_bytes() == alone
    assert sum(calls) == whole
    assert evaluate(one, objects(), resamples=20, batch_size=10, budget=20, cache=tmp_path).to_bytes() == alone
    assert sum(calls) == whole
    evaluate(
        one, objects(), resamples=20, batch_size=10, budget=16, cache=tmp_path
    )  # another budget is another evaluation
    assert sum(calls) > whole


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on(tmp_path: Path) -> None:
    """SIGKILL, then the same command again: the bytes of an undisturbed run."""
    command = [
        sys.executable,
        "-m",
        "elude",
        "evaluate",
        "embedded",
        "--budget",
        "30",
        "--dimensions",
        "accuracy,ood_robustness,object_focus",
    ]
    first = subprocess.Popen(
        [*command, "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "a.json")], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cache").glob("*/*.npz")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    first.kill()
    first.wait()
    finished = len(list((tmp_path / "cache").glob("*/*.npz")))
    assert finished >= 1
    subprocess.run(
        [*command, "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "a.json")],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    subprocess.run([*command, "--out", str(tmp_path / "b.json")], check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert len(list((tmp_path / "cache").glob("*/*.npz"))) > finished


def test_unknown_engine() -> None:
    with pytest.raises(UsageError, match="dask"):
        evaluate(subject(), suite(), engine="dask")
    assert run.__doc__


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

    def send(
        self, path: str, body: bytes | None = None, content_type: str = "application/json", **options: Any
    ) -> bytes:
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
