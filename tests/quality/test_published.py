"""Measuring as the published code does, for the score among its models only."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from elude.exporter.images import open_images
from elude.handlers.images.preprocess import Preprocess
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.evaluation.published import PublishedAttacks, as_published, not_comparable
from elude.quality.subjects.subject import CallableSubject
from elude.quality.subjects.torch_subject import TorchSubject
from elude.quality.suites.image_sets import EncodedSet, PixelSet
from elude.quality.suites.suite import IMAGENET_1K, Suite

PREPROCESS = Preprocess((3, 4, 4), "bilinear", 1.0, "center", (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


class Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.linspace(-1, 1, 48).reshape(3, 4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = (x * self.w).sum(dim=(1, 2, 3))
        return torch.stack([z, -z], dim=1)


def attacked(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """The adversarial images as the model sees them: normalised."""
    attacks = PublishedAttacks(TorchSubject(model, PREPROCESS).on_pixels, PREPROCESS, 0)
    made = attacks(x.numpy(), y.numpy(), np.arange(len(x)))
    return {kind: torch.from_numpy(PREPROCESS.normalise_unit(images)) for kind, images in made.items()}


def pixels(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 2


def test_attacks_on_a_linear_model_by_hand() -> None:
    model, (x, y) = Linear().eval(), pixels()
    normalised = torch.from_numpy(PREPROCESS.normalise_unit(x.numpy()))
    sign = torch.where(y == 0, -1.0, 1.0).view(-1, 1, 1, 1) * model.w.detach().sign()
    expected = (normalised + 8 / 255 * sign).clamp(0, 1)  # the clamp cuts off what is darker than the mean
    made = attacked(model, x, y)
    assert torch.allclose(made["fgsm"], expected, atol=1e-5)
    assert torch.allclose(made["pgd"], expected, atol=1e-5)  # ten steps of 2/255 reach the same corner
    assert bool((normalised < -0.5).any())
    assert float(made["fgsm"].min()) >= -1e-5


def test_torchattacks_on_normalised_images() -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="pip install --no-deps torchattacks")
    model, (x, y) = Linear().eval(), pixels()
    normalised = torch.from_numpy(PREPROCESS.normalise_unit(x.numpy()))
    made = attacked(model, x, y)
    assert torch.allclose(torchattacks.FGSM(model, eps=8 / 255)(normalised, y), made["fgsm"], atol=1e-5)
    assert torch.allclose(torchattacks.PGD(model)(normalised, y), made["pgd"], atol=1e-5)


def test_images_are_neither_turned_nor_left_uncut(tmp_path: Path) -> None:
    """A photograph with an EXIF orientation, and a stimulus that has the model's size already."""
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG", exif=exif)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(data.getvalue())
    preprocess = replace(PREPROCESS, input_size=(3, 8, 8), crop_pct=0.5, interpolation="nearest")
    images = EncodedSet(open_images(tmp_path), ready=True)
    suite = Suite("one", images, ())
    right = images.pixels(0, preprocess)
    published = as_published(suite).images
    assert isinstance(published, EncodedSet)
    assert np.array_equal(right, picture[::-1])
    assert np.array_equal(published.pixels(0, preprocess), preprocess.pixels(Image.fromarray(picture)))
    assert suite.sha256() != as_published(suite).sha256()


def test_what_is_not_comparable_is_named() -> None:
    suite = Suite("one", PixelSet(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1]), ("a", "b")), ())
    plain = not_comparable(suite, Linear(), None)
    assert set(plain) == {"corruption_robustness", "ood_robustness", "object_focus", "shape_bias"}
    for layer in (torch.nn.BatchNorm2d(3), torch.nn.Dropout(0.1)):
        reason = not_comparable(suite, torch.nn.Sequential(layer, Linear()), None)["adversarial_robustness"]
        assert "train mode" in reason
    assert "adversarial_robustness" not in not_comparable(
        suite, torch.nn.Sequential(torch.nn.Dropout(0.0), Linear()), None
    )
    assert "5 images" in not_comparable(suite, Linear(), 5)["adversarial_robustness"]


def test_only_the_published_mode_has_a_score_among_the_published_models() -> None:
    names = tuple(f"class {n}" for n in range(1000))
    labels = np.arange(50_000) % 1000
    images = PixelSet(np.zeros((50_000, 2, 2, 3), np.uint8), labels, names)
    images.pixels[:, 0, 0, 0], images.pixels[:, 0, 0, 1] = labels // 256, labels % 256

    def function(pixels: np.ndarray) -> np.ndarray:
        return 9 * np.eye(1000)[np.rint(pixels[:, :2, 0, 0] * 255).astype(int) @ [256, 1]]

    subject = CallableSubject(function, replace(PREPROCESS, input_size=(3, 2, 2)), labels=names, parameters=10)
    suite = Suite("all", images, (), protocol=IMAGENET_1K)
    wanted = ["accuracy", "params_m"]
    right = evaluate(subject, suite, dimensions=wanted, resamples=0)
    assert right.values["accuracy"] == 1.0
    assert right.score is None
    assert "--published" in right.settings["no_score"]
    assert right.settings["published"] is None
    published = evaluate(subject, suite, dimensions=wanted, resamples=0, published=True)
    assert published.score is not None
    assert set(published.score["per_dimension"]) == set(wanted)
    assert published.score["of"] == 326
    assert "attacks" in published.settings["published"]["settings"]
    own = evaluate(subject, replace(suite, protocol="own"), dimensions=wanted, resamples=0, published=True)
    assert own.score is None
