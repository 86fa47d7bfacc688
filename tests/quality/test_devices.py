"""Where models run: names, refusals, the same results on every device, and the plan before it starts."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from elude.cli import app
from elude.handlers.errors import UsageError
from elude.handlers.images.preprocess import Preprocess
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.evaluation.forecast import Forecast, forecast
from elude.quality.evaluation.jobs import Work
from elude.quality.subjects.devices import at_once, corrupting_workers, onnx_device, resolve
from elude.quality.subjects.subject import CallableSubject
from elude.quality.subjects.torch_subject import TorchSubject
from elude.quality.suites.image_sets import PixelSet
from elude.quality.suites.suite import Suite

PREPROCESS = Preprocess((3, 8, 8), "bilinear", 1.0, "center", (0.5,) * 3, (0.25,) * 3)
OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(not there, reason=f"there is no {name} device here"))
    for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
]


def suite(images: int = 24) -> Suite:
    rng = np.random.default_rng(0)
    labels = np.arange(images) % 2
    pixels = np.clip(60 + 100 * labels[:, None, None, None] + rng.normal(0, 40, (images, 8, 8, 3)), 0, 255)
    return Suite("test", PixelSet(pixels.astype(np.uint8), labels, ("dark", "light")), ("fog", "contrast"), (1, 5))


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2))


def test_names() -> None:
    assert resolve("cpu") == "cpu"
    assert resolve("auto") in ("cpu", "cuda", "mps")
    assert onnx_device("cpu") == onnx_device("mps") == "cpu"
    assert at_once("cpu") == 1
    assert corrupting_workers("cpu") == 0
    assert corrupting_workers("cuda") >= 1
    assert at_once("cuda:1") == at_once("cuda") > 1
    with pytest.raises(UsageError, match="gpu"):
        resolve("gpu")
    for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if not there:
            with pytest.raises(UsageError, match=name):
                resolve(name)


def test_an_onnx_file_runs_on_the_gpu_where_the_runtime_has_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider, device in (("CPUExecutionProvider", "cpu"), ("CUDAExecutionProvider", "cuda:1")):
        monkeypatch.setattr(onnxruntime, "get_available_providers", partial(list, [provider]))
        assert onnx_device("cuda:1") == device


@pytest.mark.parametrize("device", OTHERS)
def test_the_same_results_on_every_device(device: str) -> None:
    labels = ("dark", "light")
    here = evaluate(TorchSubject(model(), PREPROCESS, labels=labels), suite(), resamples=0)
    there = evaluate(TorchSubject(model(), PREPROCESS, labels=labels, device=device), suite(), resamples=0)
    assert there.settings["devices"] == {"torch": device}
    assert there.values == pytest.approx(here.values, abs=1e-3)


def test_mixed_precision_is_only_used_if_asked_for_and_is_recorded() -> None:
    pixels = np.random.default_rng(0).random((4, 3, 8, 8)).astype(np.float32)
    full, mixed = (TorchSubject(model(), PREPROCESS, precision=p) for p in ("float32", "bfloat16"))
    exact = model()(torch.from_numpy((pixels - 0.5) / 0.25)).detach().numpy()
    assert np.allclose(full.outputs(pixels), exact, atol=1e-6)
    gap = np.abs(mixed.outputs(pixels) - exact).max()
    assert 1e-4 < gap < 0.1
    named = TorchSubject(model(), PREPROCESS, labels=("dark", "light"), precision="bfloat16")
    assert evaluate(named, suite(), dimensions=["accuracy"]).settings["precisions"] == {"torch": "bfloat16"}


def planned(budget: int | None = None, images: int = 24) -> tuple[Forecast, list[int]]:
    """The forecast, and the images of each pass that the model was then asked for."""
    calls: list[int] = []
    forecasts: list[Forecast] = []

    def function(pixels: np.ndarray) -> np.ndarray:
        calls.append(len(pixels))
        return np.stack([0.4 - pixels.mean(axis=(1, 2, 3)), np.zeros(len(pixels))], axis=1)

    def before(work: Work) -> None:
        forecasts.append(forecast(work))
        calls.clear()

    subject = CallableSubject(function, PREPROCESS, labels=("dark", "light"))
    evaluate(subject, suite(images), budget=budget, resamples=0, before=before)
    return forecasts[0], calls


def test_the_plan_is_what_is_done() -> None:
    plan, calls = planned(budget=10)
    assert (plan.clean, plan.corrupted, plan.attacked, plan.gradients) == (24, 40, 0, 0)
    assert plan.clean + plan.corrupted == sum(calls)
    assert plan.budget is None  # ten images are few already
    many, _ = planned(images=300)
    assert many.budget == 200
    assert many.seconds_with_budget < many.seconds


@pytest.mark.parametrize(("published", "attacked", "gradients"), [(False, 24, 132), (True, 12, 66)])
def test_attacks_are_planned(published: bool, attacked: int, gradients: int) -> None:
    """Two strengths by default, the published one alone."""
    plans: list[Forecast] = []
    subject = TorchSubject(model(), PREPROCESS, labels=("dark", "light"))
    report = evaluate(
        subject,
        suite(),
        budget=6,
        resamples=0,
        published=published,
        before=lambda work: plans.append(forecast(work)),
    )
    assert (plans[0].attacked, plans[0].gradients) == (attacked, gradients)
    assert plans[0].clean + plans[0].corrupted + plans[0].attacked == report.settings["forward_passes"]


def test_dry_run_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["evaluate", "embedded", "--budget", "20", "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["clean"] == 1000
    assert plan["corrupted"] == 20 * 75
    assert plan["gradients"] == 20 * 22
    assert not list(tmp_path.iterdir())
