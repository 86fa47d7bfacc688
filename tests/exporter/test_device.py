"""Devices are chosen by name; one that is not there is an error, never replaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from _graphs import emitted
from _images import noise, plain
from _models import Convolutions, TinyBlocks

from elude.exporter.models.device import choose_device, device_of, on_device
from elude.exporter.models.layers import find_layers
from elude.exporter.probing.probe import collect
from elude.exporter.rewrite import graft
from elude.exporter.verify.check import verify
from elude.handlers.bundle.device import CPU, CUDA, provider_options, providers_of
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import UsageError
from elude.handlers.settings import Settings

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is there")
no_gpu_runtime = pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="ONNX Runtime has CUDA")


@no_gpu
def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:3"):
        with pytest.raises(UsageError, match="sees 0 GPUs"):
            choose_device(name)


@pytest.mark.parametrize("name", ["tpu", "gpu", "", "meta", "cuda:x"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"cuda:NUMBER"):
        choose_device(name)
    with pytest.raises(UsageError, match=r"cuda:NUMBER"):
        providers_of(name)
    with pytest.raises(UsageError, match=r"cuda:NUMBER"):
        Settings.from_json({"device": name})


@no_gpu_runtime
def test_a_runtime_without_cuda_is_refused_and_not_replaced(tmp_path: Path) -> None:
    case = emitted(TinyBlocks(), "blocks.1.mlp.fc2", (3, 8, 8), tmp_path / "model.onnx")
    assert providers_of("auto") == providers_of("cpu") == (CPU,)
    with pytest.raises(UsageError, match=r"CUDAExecutionProvider is not available.*onnxruntime-gpu"):
        GraphSession(case.path, providers=providers_of("cuda:1"))


def test_a_gpu_is_named_by_its_number_and_computes_in_full_precision() -> None:
    assert provider_options(providers_of("cuda:2")[0]) == (CUDA, {"device_id": "2", "use_tf32": "0"})
    assert provider_options(providers_of("cuda")[0])[1]["device_id"] == "0"
    assert provider_options(CPU) == (CPU, {})


def test_further_providers_are_compared_too(tmp_path: Path) -> None:
    """The path that a GPU takes, with the CPU in its place."""
    case = emitted(TinyBlocks(), "blocks.1.mlp.fc2", (3, 8, 8), tmp_path / "model.onnx")
    twin = graft(case.module, case.splits)
    report = verify(case.module, twin, case.path, case.splits, case.layers, case.pixels, providers=[CPU]).to_json()
    settings = {row["setting"] for row in report["claims"]["runtime"]["outputs"]}
    assert settings == {"optimised", "not optimised", f"optimised, {CPU}"}
    assert report["passed"]


def test_a_model_comes_back_from_its_device_whatever_happens() -> None:
    model, precise = Convolutions(), torch.backends.cudnn.allow_tf32
    with pytest.raises(ZeroDivisionError), on_device(model, torch.device("cpu")):
        raise ZeroDivisionError
    assert device_of(model).type == "cpu"
    assert torch.backends.cudnn.allow_tf32 == precise


@gpu
@pytest.mark.gpu
def test_what_a_gpu_collects_equals_what_the_cpu_collects(tmp_path: Path) -> None:
    images, model = noise(tmp_path, 12, 12), Convolutions().eval()
    layers = find_layers(model, "stem,grouped,head")
    on_cpu = collect(model, layers, images, plain(12), tokens_per_image=3, seed=0)
    with on_device(model, choose_device("cuda")):
        on_gpu = collect(model, layers, images, plain(12), tokens_per_image=3, seed=0)
    for name, probe in on_cpu.items():
        np.testing.assert_array_equal(on_gpu[name].token, probe.token)
        np.testing.assert_allclose(on_gpu[name].z, probe.z, atol=1e-4 * np.abs(probe.z).max())
