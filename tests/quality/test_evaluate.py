"""A whole evaluation: one decode, one clean pass, the same pixels for all forms, and a report that says what it
knows.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from elude.exporter.images import ImageSource
from elude.handlers.errors import EvaluationError, UsageError
from elude.handlers.images.preprocess import Preprocess, unit_of
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.scores.pool import Pool
from elude.quality.subjects.subject import CallableSubject, Forms
from elude.quality.subjects.torch_subject import TorchSubject
from elude.quality.suites.corruptions import corrupt
from elude.quality.suites.image_sets import PixelSet
from elude.quality.suites.open_suite import EMBEDDED, embedded_suite, open_suite
from elude.quality.suites.suite import Suite

PREPROCESS = Preprocess((3, 8, 8), "bilinear", 1.0, "center", (0.5,) * 3, (0.25,) * 3)
CLASSES = ("dark", "light")


def dark_or_light(images: int = 60, seed: int = 0) -> PixelSet:
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    pixels = np.clip(60 + 130 * labels[:, None, None, None] + rng.normal(0, 25, (images, 8, 8, 3)), 0, 255)
    return PixelSet(pixels.astype(np.uint8), labels.astype(np.int64), CLASSES)


class MeanModel(torch.nn.Module):
    """logits (-s, s) * mean of the normalised image."""

    def __init__(self, scale: float = 2.0) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([-mean, mean], dim=1) * self.scale


def suite(images: int = 60) -> Suite:
    return Suite("test", dark_or_light(images), ("brightness", "gaussian_noise"), (1, 5))


def subject(**options: object) -> TorchSubject:
    return TorchSubject(MeanModel(), PREPROCESS, labels=CLASSES, **options)  # type: ignore[arg-type]


def test_values_are_those_of_a_plain_loop() -> None:
    report = evaluate(subject(), suite(), batch_size=7, resamples=50)
    images = dark_or_light()
    model = MeanModel()

    def hits(pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return (model(torch.from_numpy((unit_of(pixels) - 0.5) / 0.25)).argmax(1).numpy() == images.labels).mean()

    clean = hits(images.pixels)
    expected = [
        hits(corrupt(images.pixels, name, severity)) / clean
        for name in ("brightness", "gaussian_noise")
        for severity in (1, 5)
    ]
    assert report.values["accuracy"] == pytest.approx(clean)
    assert report.values["corruption_robustness"] == pytest.approx(np.mean(expected))
    assert report.values["corruption_robustness"] < 1  # brightness turns dark into light: the test can fail
    assert report.values["params_m"] == 1e-6


def test_batches_and_other_dimensions_change_nothing() -> None:
    whole = evaluate(subject(), suite(), batch_size=60, resamples=20).to_json()
    pieces = evaluate(subject(), suite(), batch_size=7, resamples=20).to_json()
    assert whole == pieces
    alone = evaluate(subject(), suite(), dimensions=["corruption_robustness"], resamples=20)
    assert alone.to_json()["dimensions"]["corruption_robustness"] == whole["dimensions"]["corruption_robustness"]
    assert set(alone.dimensions) == {"corruption_robustness"}


def test_one_decode_and_one_clean_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = dark_or_light(12)
    for i, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        folder = tmp_path / CLASSES[label]
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    decoded: list[str] = []
    from elude.quality.suites import image_sets

    real = image_sets.decode
    monkeypatch.setattr(
        image_sets, "decode", lambda data, name, limits: decoded.append(name) or real(data, name, limits)
    )
    seen = []

    def function(pixels: np.ndarray) -> np.ndarray:
        seen.append(len(pixels))
        return np.stack([-pixels.mean(axis=(1, 2, 3)), pixels.mean(axis=(1, 2, 3)) - 1], axis=1)

    report = evaluate(
        CallableSubject(function, PREPROCESS, labels=CLASSES), open_suite(tmp_path).quick(), budget=5, resamples=0
    )
    assert len(decoded) == 12
    assert sum(seen) == 12 + 5 * 5 * 5 == report.settings["forward_passes"]
    assert report.dimensions["accuracy"].images == 12
    assert report.dimensions["corruption_robustness"].images == 5
    assert "params_m" in report.settings["not_measured"]
    assert report.subject["kind"] == "callable"


def test_forms_of_a_bundle_are_compared() -> None:
    same = Forms("m", "a" * 64, subject(), subject(), subject())
    report = evaluate(same, suite(), resamples=10)
    assert report.lossless is not None
    assert report.lossless["original"] == report.lossless["disentangled"] == report.lossless["served"] == report.values
    assert report.subject == {"kind": "bundle", "model": "m", "artefact_sha256": "a" * 64}
    worse = TorchSubject(MeanModel(-2.0), PREPROCESS, labels=CLASSES)
    damaged = evaluate(Forms("m", "a" * 64, subject(), subject(), worse), suite(), dimensions=["accuracy"])
    assert damaged.lossless is not None
    assert damaged.lossless["served"]["accuracy"] < damaged.lossless["original"]["accuracy"]
    assert damaged.values["accuracy"] == damaged.lossless["served"]["accuracy"]  # the report is about what is served


def test_no_absolute_score_on_own_data() -> None:
    report = evaluate(subject(), suite(), resamples=0)
    assert report.score is None
    assert "ImageNet-1k" in report.settings["no_score"]
    pretended = Suite("test", dark_or_light(), ("brightness",), (1,), protocol="imagenet-1k")
    assert evaluate(subject(), pretended, resamples=0).score is None
    pool = Pool.of("releases", {"v1": {"accuracy": 0.5}, "v2": {"accuracy": 0.9}})
    relative = evaluate(subject(), suite(), resamples=0, pool=pool)
    assert relative.score is not None
    assert relative.score["reference"] == "releases"
    assert relative.score["partial"]
    assert relative.score["of"] == 2


def test_report_round_trip_and_bytes() -> None:
    report = evaluate(subject(), suite(), resamples=10)
    data = json.loads(report.to_bytes())
    assert data["schema_version"] == 2
    assert (
        QualityReport.from_json(data).to_bytes()
        == report.to_bytes()
        == evaluate(subject(), suite(), resamples=10).to_bytes()
    )
    for damaged in (
        {**data, "schema_version": 1},
        {**data, "schema_version": 3},
        {k: v for k, v in data.items() if k != "suite"},
        [],
        {**data, "dimensions": {"accuracy": {}}},
    ):
        with pytest.raises(UsageError):
            QualityReport.from_json(damaged)


def test_model_keeps_its_mode() -> None:
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(3), MeanModel())
    module.train()
    module[0].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    evaluate(TorchSubject(module, PREPROCESS, labels=CLASSES), suite(), resamples=0)
    assert (module.training, module[0].training, module[1].training) == (True, False, True)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_probabilities_are_noticed() -> None:
    def function(pixels: np.ndarray) -> np.ndarray:
        p = pixels.mean(axis=(1, 2, 3))
        return np.stack([1 - p, p], axis=1)

    report = evaluate(CallableSubject(function, PREPROCESS, labels=CLASSES), suite(), resamples=0)
    assert report.settings["outputs"] == "probabilities"
    assert evaluate(subject(), suite(), resamples=0).settings["outputs"] == "logits"


def test_errors_say_what_to_do() -> None:
    with pytest.raises(UsageError, match="not a dimension"):
        evaluate(subject(), suite(), dimensions=["speed"])
    with pytest.raises(UsageError, match="budget"):
        evaluate(subject(), suite(), budget=0)
    unknown = CallableSubject(lambda pixels: np.zeros((len(pixels), 2)), PREPROCESS)
    with pytest.raises(EvaluationError, match="params_m"):
        evaluate(unknown, suite(), dimensions=["params_m"])
    with pytest.raises(EvaluationError, match="shape"):
        evaluate(CallableSubject(lambda pixels: np.zeros(2), PREPROCESS, labels=CLASSES), suite())
    with pytest.raises(EvaluationError, match="NaN"):
        evaluate(CallableSubject(lambda pixels: np.full((len(pixels), 2), np.nan), PREPROCESS, labels=CLASSES), suite())
    with pytest.raises(EvaluationError, match="no class"):
        evaluate(CallableSubject(lambda pixels: np.zeros((len(pixels), 2)), PREPROCESS, labels=("cat", "dog")), suite())
    with pytest.raises(EvaluationError, match="takes"):
        evaluate(
            CallableSubject(
                lambda pixels: np.zeros((len(pixels), 2)),
                Preprocess((3, 9, 9), "bilinear", 1.0, "center", (0.0,) * 3, (1.0,) * 3),
                labels=CLASSES,
            ),
            suite(),
        )


def test_images_need_a_class(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(EvaluationError, match=r"a\.png"):
        open_suite(tmp_path)


def test_suite_hash_follows_content() -> None:
    first = suite()
    assert first.sha256() == suite().sha256()
    assert first.sha256() != Suite("test", dark_or_light(seed=1), ("brightness", "gaussian_noise"), (1, 5)).sha256()
    assert first.sha256() != Suite("test", dark_or_light(), ("brightness",), (1, 5)).sha256()


def test_embedded_suite() -> None:
    embedded = embedded_suite()
    assert EMBEDDED.is_file()
    assert len(embedded.images) == 1000
    assert len(embedded.images.classes) == 10
    preprocess = Preprocess((3, 28, 28), "bilinear", 1.0, "center", (0.0,) * 3, (1.0,) * 3)
    batch = next(iter(embedded.images.batches(preprocess, embedded.images.classes, 20)))
    assert batch.pixels.shape == (20, 28, 28, 3)
    assert isinstance(embedded.images.source, ImageSource)  # type: ignore[attr-defined]
    example = embedded.images.source[3]  # type: ignore[attr-defined]
    assert np.array_equal(batch.pixels[3], np.asarray(Image.open(io.BytesIO(example.data)).convert("RGB")))
    assert embedded.images.classes[batch.labels[3]] == example.label


def test_progress_is_told() -> None:
    calls: list[tuple[str, int, int]] = []
    evaluate(subject(), suite(), resamples=0, batch_size=25, progress=lambda *call: calls.append(call))
    each = (
        1 + 4 + 2 * (2 + 3 * 11)
    )  # clean, four corrupted, and at two strengths two attacked and eleven gradients, which take three times as long
    assert {(stage, total) for stage, _, total in calls} == {("images × passes", 60 * each)}
    done = [number for _, number, _ in calls]
    assert done == sorted(done)
    assert {0, 25, 25 + 25, 25 * each, 50 * each, 60 * each} <= set(done)  # a batch alone, with one corruption, whole


def test_corrupted_pixels_are_not_resized_again() -> None:
    """Fault 4: corruptions come after resize and crop, so the subject gets exactly the corrupted pixels."""
    seen: list[np.ndarray] = []

    def function(pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels)
        return np.stack([-pixels.mean(axis=(1, 2, 3)), pixels.mean(axis=(1, 2, 3)) - 1], axis=1)

    cropped = Preprocess(
        (3, 8, 8), "bicubic", 0.5, "center", (0.5,) * 3, (0.25,) * 3
    )  # would double the size and cut again
    evaluate(
        CallableSubject(function, cropped, labels=CLASSES),
        Suite("test", dark_or_light(12), ("contrast",), (2,)),
        resamples=0,
    )
    assert len(seen) == 2
    assert np.array_equal(seen[1], unit_of(corrupt(dark_or_light(12).pixels, "contrast", 2)))
