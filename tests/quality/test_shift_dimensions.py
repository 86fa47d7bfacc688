"""Out-of-distribution robustness, object focus and shape bias: by hand, and end to end on models that look at shape
or texture only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from _scenes import scenes
from PIL import Image

from elude.exporter.images import open_images
from elude.handlers.errors import EvaluationError
from elude.handlers.images.preprocess import Preprocess
from elude.quality.dimensions import DIMENSIONS
from elude.quality.dimensions.object_focus import object_focus
from elude.quality.dimensions.ood_robustness import category_predictions, ood_robustness, subset_predictions
from elude.quality.dimensions.shape_bias import shape_bias
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.subjects.subject import CallableSubject
from elude.quality.suites.image_sets import EncodedSet, PixelSet
from elude.quality.suites.suite import ShiftedSet, Suite

PREPROCESS = Preprocess((3, 20, 20), "nearest", 1.0, "center", (0.0,) * 3, (1.0,) * 3)
CLASSES = ("lying", "standing")


def pictures(count: int = 40) -> PixelSet:
    return PixelSet(*scenes(count), CLASSES)


def by_shape(x: np.ndarray) -> np.ndarray:
    """Is the column through the middle brighter than the row?"""
    tall = x[:, 0, :, 10].mean(axis=1) - x[:, 0, 10, :].mean(axis=1)
    return np.stack([-tall, tall], axis=1) * 50


def by_texture(x: np.ndarray) -> np.ndarray:
    bright = x[:, 0, 10, 10] - 140 / 255
    return np.stack([-bright, bright], axis=1) * 50


def by_background(x: np.ndarray) -> np.ndarray:
    """Looks at the corner where there is a background, else at the object."""
    corner = np.where(x[:, 0, 0, 0] > 0, x[:, 0, 0, 0], x[:, 0, 10, 10]) - 140 / 255
    return np.stack([-corner, corner], axis=1) * 50


def run(function: object, **options: object) -> dict[str, float]:
    subject = CallableSubject(function, PREPROCESS, labels=CLASSES, parameters=1)  # type: ignore[arg-type]
    suite = Suite("scenes", pictures(), (), dark_background=True)
    return evaluate(subject, suite, resamples=20, **options).values  # type: ignore[arg-type]


def test_models_that_look_at_one_cue() -> None:
    shape, texture, background = run(by_shape), run(by_texture), run(by_background)
    assert shape["accuracy"] == texture["accuracy"] == background["accuracy"] == 1
    assert (shape["shape_bias"], texture["shape_bias"]) == (1.0, 0.0)
    assert texture["object_focus"] == 1.0
    assert background["object_focus"] == 0.0  # right on the same class's background, never on another's
    assert shape["ood_robustness"] > 0.75  # an outline has nothing in its middle row and column
    assert texture["ood_robustness"] < shape["ood_robustness"]  # a white silhouette is "bright" whatever it is


def test_budget_bounds_the_made_images() -> None:
    subject = CallableSubject(by_shape, PREPROCESS, labels=CLASSES, parameters=1)
    report = evaluate(subject, Suite("scenes", pictures(), (), dark_background=True), budget=10, resamples=0)
    assert report.dimensions["object_focus"].images == 10
    assert report.dimensions["ood_robustness"].images == 30
    assert report.dimensions["accuracy"].images == 40
    assert set(report.settings["not_measured"]) == {"adversarial_robustness", "corruption_robustness"}
    assert set(report.dimensions) | set(report.settings["not_measured"]) == set(DIMENSIONS)


def test_without_masks_nothing_is_made() -> None:
    subject = CallableSubject(by_shape, PREPROCESS, labels=CLASSES)
    plain = Suite("plain", pictures(), ())
    report = evaluate(subject, plain, resamples=0)
    assert {"shape_bias", "object_focus", "ood_robustness"} <= set(report.settings["not_measured"])
    with pytest.raises(EvaluationError, match="shape_bias"):
        evaluate(subject, plain, dimensions=["shape_bias"])


def test_ood_by_hand() -> None:
    clean = np.array([True, True, True, False])
    result = ood_robustness(
        clean, {"edge": np.array([True, True, False, False]), "sketch": np.array([True, False])}, resamples=100
    )
    assert result.factors == pytest.approx({"edge": 2 / 3, "sketch": 2 / 3, "clean_accuracy": 0.75})
    assert result.value == pytest.approx(2 / 3)
    assert result.tables["accuracy"] == {"edge": 0.5, "sketch": 0.5}
    assert result.interval is not None
    with pytest.raises(EvaluationError):
        ood_robustness(clean, {})
    with pytest.raises(EvaluationError):
        ood_robustness(~clean & clean, {"edge": clean})


def test_decisions_by_category_and_by_subset() -> None:
    outputs = np.log(np.array([[0.4, 0.05, 0.05, 0.5], [0.1, 0.2, 0.3, 0.4]]))
    # mean over the category's classes: (0.4 + 0.05) / 2 < 0.5, whichever class is best
    assert category_predictions(outputs, [[0, 1], [3]]).tolist() == [1, 1]
    assert category_predictions(outputs, [[0], [1, 2]]).tolist() == [0, 1]
    assert subset_predictions(outputs, [2, 0]).tolist() == [0, 2]


def test_object_focus_is_not_divided_by_clean_accuracy() -> None:
    same, rand = np.array([True, True, False, False]), np.array([True, False, False, False])
    result = object_focus(same, rand)
    assert result.value == pytest.approx(0.75)
    assert result.factors == {"mixed_same": 0.5, "mixed_rand": 0.25}
    with pytest.raises(EvaluationError):
        object_focus(same, rand[:2])


def test_shape_bias_by_hand() -> None:
    shapes, textures = np.array([0, 0, 1, 1]), np.array([1, 2, 2, 0])
    result = shape_bias(np.array([0, 2, 1, 2]), shapes, textures, ["a", "b", "c"])
    assert result.value == pytest.approx(2 / 3)
    assert result.factors == pytest.approx({"shape": 0.5, "texture": 0.25, "neither": 0.25})
    assert result.tables["per_shape"] == {"a": 0.5, "b": 1.0}
    with pytest.raises(EvaluationError, match="undefined"):
        shape_bias(np.array([2]), np.array([0]), np.array([1]))
    with pytest.raises(EvaluationError, match="different"):
        shape_bias(shapes, shapes, shapes)


def test_ready_sets_from_disk(tmp_path: Path) -> None:
    """Laid out like the published sets: categories coarser than classes, textures in the names, two backgrounds."""
    pixels = pictures(8)
    for folder, names in (
        ("sketch", "{k}/{i}.png"),
        ("same", "{k}/{i}.png"),
        ("rand", "{k}/{i}.png"),
        ("cues", "{k}/{k}{i}-{t}{i}.png"),
    ):
        for i, (image, label) in enumerate(zip(pixels.pixels, pixels.labels, strict=True)):
            shape, texture = ("flat", "tall")[label], ("flat", "tall")[i // 4]
            path = tmp_path / folder / names.format(k=shape, i=i, t=texture)
            path.parent.mkdir(parents=True, exist_ok=True)
            shown = 255 - image if folder == "rand" else image
            Image.fromarray(shown).save(path)
    categories = (("flat", ("lying",)), ("tall", ("standing", "upright")))
    sets = {
        f: ShiftedSet(f, EncodedSet(open_images(tmp_path / f)), categories) for f in ("sketch", "same", "rand", "cues")
    }
    suite = Suite(
        "ready", pixels, (), shifted=(sets["sketch"],), mixed=(sets["same"], sets["rand"]), cue_conflict=sets["cues"]
    )

    def three(x: np.ndarray) -> np.ndarray:
        return np.concatenate([by_shape(x), by_shape(x)[:, 1:]], axis=1)

    subject = CallableSubject(three, PREPROCESS, labels=("lying", "standing", "upright"))
    report = evaluate(subject, suite, resamples=0)
    assert report.values["ood_robustness"] == 1.0
    assert report.values["object_focus"] == 0.0  # inverted pictures turn its answer round
    assert report.values["shape_bias"] == 1.0
    assert report.dimensions["shape_bias"].images == 4  # the four without a conflict are left out


@pytest.mark.parametrize(
    ("model", "shape", "texture", "neither", "published"),
    [
        ("AlexNet", 283, 376, 541, 42.9),
        ("GoogLeNet", 228, 503, 469, 31.2),
        ("VGG-16", 130, 625, 445, 17.2),
        ("ResNet-50", 162, 572, 466, 22.1),
    ],
)
def test_published_shape_biases(model: str, shape: int, texture: int, neither: int, published: float) -> None:
    """Answers to the 1,200 cue-conflict images of Geirhos et al. (ICLR 2019) that have a conflict, counted in
    raw-data/style-transfer-512-nomask-experiment of github.com/rgeirhos/texture-vs-shape (CC BY 4.0).
    """
    answers = np.repeat([0, 1, 2], [shape, texture, neither])
    shapes, textures = np.zeros(1200, np.int64), np.ones(1200, np.int64)
    assert 100 * shape_bias(answers, shapes, textures).value == pytest.approx(published, abs=0.05)
