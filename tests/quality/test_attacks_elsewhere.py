"""FGSM and PGD against another library, in pixel space, on the embedded model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elude.exporter.models.load import load_model
from elude.quality.evaluation.attacks import EPSILON, PGD_STEP, PGD_STEPS, fgsm, pgd
from elude.quality.subjects.torch_subject import TorchSubject
from elude.quality.suites.open_suite import embedded_suite

IMAGES = 60


@pytest.fixture(scope="module")
def attacked() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    loaded = load_model("embedded")
    assert loaded.labels is not None
    images = embedded_suite().images
    parts = [images.batch(loaded.preprocess, loaded.labels, n, n + 1) for n in range(0, 1000, 1000 // IMAGES)][:IMAGES]
    pixels = torch.from_numpy(np.concatenate([part.pixels for part in parts])).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(np.concatenate([part.labels for part in parts]))
    return TorchSubject(loaded.module, loaded.preprocess).on_pixels.eval(), pixels, labels


def success(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return float((model(images).argmax(1) != labels).float().mean())


def test_torchattacks(attacked: tuple[torch.nn.Module, torch.Tensor, torch.Tensor]) -> None:
    torchattacks = pytest.importorskip(
        "torchattacks", reason="pip install --no-deps torchattacks, whose pins are too old for this torch"
    )
    model, pixels, labels = attacked
    theirs = torchattacks.FGSM(model, eps=EPSILON)(pixels, labels)
    ours = fgsm(model, pixels, labels)
    assert (
        float((ours - theirs).abs().max()) < 1e-6 or float(((ours - theirs).abs() > 1e-6).float().mean()) < 1e-3
    )  # signs at 0
    assert float((ours - pixels).abs().max()) <= EPSILON + 1e-6
    torch.manual_seed(0)
    theirs = torchattacks.PGD(model, eps=EPSILON, alpha=PGD_STEP, steps=PGD_STEPS, random_start=True)(pixels, labels)
    torch.manual_seed(0)
    ours = pgd(
        model, pixels, labels, start=torch.empty_like(pixels).uniform_(-EPSILON, EPSILON)
    )  # the start that theirs draws
    assert float(((ours - theirs).abs() > 1e-6).float().mean()) < 1e-3  # signs at 0
    assert float((ours - pixels).abs().max()) <= EPSILON + 1e-6
    assert success(model, ours, labels) == pytest.approx(success(model, theirs, labels), abs=0.05)
    assert success(model, ours, labels) > success(model, pixels, labels)
