"""Preprocessing equals timm's evaluation transform, pixel for pixel."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elude.handlers.errors import BundleError, ImageError
from elude.handlers.images.preprocess import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

if importlib.util.find_spec("elude.exporter.models.torchvision_compat"):
    import elude.exporter.models.torchvision_compat  # noqa: F401
create_transform = pytest.importorskip("timm.data", exc_type=(ImportError, RuntimeError)).create_transform


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@settings(max_examples=150, deadline=None)
@given(
    sides=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size=st.sampled_from([(28, 28), (24, 32), (17, 9), (1, 1)]),
    mode=st.sampled_from(["center", "squash", "border"]),
    crop=st.sampled_from([0.875, 0.9, 0.95, 1.0]),
    interpolation=st.sampled_from(["bilinear", "bicubic", "nearest", "lanczos"]),
)
def test_equals_timm(sides: tuple[int, int], size: tuple[int, int], mode: str, crop: float, interpolation: str) -> None:
    ours = Preprocess((3, *size), interpolation, crop, mode, MEAN, STD)
    options = {"mean": MEAN, "std": STD, "interpolation": interpolation, "crop_pct": crop, "crop_mode": mode}
    image = picture(*sides)
    try:
        expected = create_transform((3, *size), is_training=False, **options)(image).numpy()
    except ValueError:  # timm rounds a side of a thin image to 0 pixels; ours keeps 1
        assert min(sides) < max(sides)
        return
    np.testing.assert_array_equal(ours.normalise(ours.pixels(image)), expected)


def test_normalise_unit_is_the_second_half_of_normalise() -> None:
    ours = Preprocess((3, 4, 4), "bilinear", 1.0, "center", MEAN, STD)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    result = ours.normalise(pixels)
    assert result.shape == (5, 3, 4, 4)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    unit = pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(result, ours.normalise_unit(unit))
    by_hand = (pixels[2, 1, 3, 0] / 255 - MEAN[0]) / STD[0]
    assert abs(result[2, 0, 1, 3] - by_hand) < 1e-6


def test_json_round_trip() -> None:
    ours = Preprocess((3, 28, 28), "bicubic", 0.9, "center", MEAN, STD)
    assert Preprocess.from_json(ours.to_json()) == ours


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_size", [1, 4, 4]),
        ("interpolation", "magic"),
        ("crop_pct", 0),
        ("crop_mode", "x"),
        ("std", [0, 1, 1]),
        ("mean", "abc"),
        ("new", 1),
    ],
)
def test_what_cannot_be_used_is_refused(field: str, value: object) -> None:
    good = Preprocess((3, 28, 28), "bicubic", 0.9, "center", MEAN, STD).to_json()
    with pytest.raises(BundleError, match=r"[Pp]reprocess"):
        Preprocess.from_json(good | {field: value})


def test_a_needle_is_refused_before_it_grows() -> None:
    ours = Preprocess((3, 28, 28), "bicubic", 0.9, "center", MEAN, STD)
    with pytest.raises(ImageError, match="1×101"):
        ours.pixels(Image.new("RGB", (1, 101)))
