"""The fifteen corruptions: each against an independent formula where there is one, and properties all of them must
have.
"""

from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import convolve as direct_convolve

from elude.handlers.errors import UsageError
from elude.quality.suites.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from elude.quality.suites.corruptions.kernels import convolve, disk, motion, plasma


def pictures(side: int = 28, count: int = 6) -> np.ndarray:
    """Smooth coloured scenes with an edge."""
    y, x = np.mgrid[:side, :side] / side
    rng = np.random.default_rng(0)
    waves = [
        0.5 + 0.3 * np.sin(2 * np.pi * (rng.uniform(1, 3) * x + rng.uniform(1, 3) * y) + p) for p in range(count * 3)
    ]
    images = np.stack(waves).reshape(count, 3, side, side).transpose(0, 2, 3, 1)
    images[:, side // 3 : side // 2, side // 3 :] *= 0.4
    return np.rint(images * 255).astype(np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_properties(name: str) -> None:
    images = pictures()
    before = images.copy()
    last = 0.0
    for severity in SEVERITIES:
        result = corrupt(images, name, severity, seed=3)
        assert result.dtype == np.uint8
        assert result.shape == images.shape
        assert np.array_equal(result, corrupt(images, name, severity, seed=3))
        # neither the batch nor the order matters
        alone = np.concatenate([corrupt(images[i : i + 1], name, severity, numbers=[i], seed=3) for i in (4, 2)])
        assert np.abs(alone.astype(int) - result[[4, 2]]).max() <= 1
        last = float(np.abs(result.astype(float) - images).mean())
        assert last > 0.3, "the corruption does nothing"
    if name not in (
        "elastic_transform",
        "glass_blur",
    ):  # published severities 1 and 2 of these are not milder in pixels
        assert last > float(np.abs(corrupt(images, name, 1, seed=3).astype(float) - images).mean())
    assert np.array_equal(images, before)


@pytest.mark.parametrize("shape", [(20, 33), (64, 48), (4, 4)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_any_size(name: str, shape: tuple[int, int]) -> None:
    assert corrupt(np.full((2, *shape, 3), 90, np.uint8), name, 5).shape == (2, *shape, 3)


def test_random_ones_differ_between_images_and_seeds() -> None:
    same = np.repeat(pictures()[:1], 2, axis=0)
    for name in ("gaussian_noise", "motion_blur", "frost", "elastic_transform", "glass_blur"):
        result = corrupt(same, name, 4)
        assert not np.array_equal(result[0], result[1])
        assert not np.array_equal(result, corrupt(same, name, 4, seed=1))


def test_brightness_is_hsv() -> None:
    images = pictures(8, 2)
    images[0, 0, 0] = 0
    expected = np.empty(images.shape)
    for index in np.ndindex(images.shape[:3]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(images[index] / 255))
        expected[index] = colorsys.hsv_to_rgb(hue, saturation, min(value + 0.3, 1))
    assert np.abs(corrupt(images, "brightness", 3) - expected * 255).max() <= 0.51


def test_glass_blur_copies_as_the_published_code_does() -> None:
    """Its swap assigns views of one array: the second half of the swap reads what the first has just written."""
    from scipy.ndimage import gaussian_filter

    from elude.quality.suites.corruptions import blur

    class Fixed(np.random.Generator):
        """Draws what the reference below is given."""

        def __init__(self, values: np.ndarray) -> None:
            super().__init__(np.random.PCG64(0))
            self.values = values

        def integers(self, low, high=None, size=None, **options):  # type: ignore[no-untyped-def]
            assert self.values.shape == tuple(size)
            assert (low, high) == (-2, 2)
            return self.values

    image = pictures(224, 1)[0].astype(np.float32) / 255
    shifts = np.random.default_rng(1).integers(-2, 2, (3, 224, 224, 2))
    x = gaussian_filter(image, (1.0, 1.0, 0))
    for r in range(3):
        for h in range(224 - 2, 2, -1):
            for w in range(224 - 2, 2, -1):
                dy, dx = shifts[r, h, w]
                x[h, w], x[h + dy, w + dx] = x[h + dy, w + dx], x[h, w]  # as published, on views
    expected = gaussian_filter(x, (1.0, 1.0, 0))
    result = blur.glass_blur(image[None], 2, [Fixed(shifts)])[0]
    assert np.abs(result - expected).max() < 1e-6


def test_contrast_and_jpeg_and_pixelate() -> None:
    images = pictures()
    unit = images / 255
    means = unit.mean(axis=(1, 2), keepdims=True)
    assert np.abs(corrupt(images, "contrast", 5) - ((unit - means) * 0.05 + means) * 255).max() <= 0.51
    file = io.BytesIO()
    Image.fromarray(images[0]).save(file, "JPEG", quality=15)
    assert np.array_equal(corrupt(images, "jpeg_compression", 3)[0], np.asarray(Image.open(file)))
    blocks = corrupt(pictures(32), "pixelate", 2)  # half the side: mean of 2 x 2
    means4 = pictures(32)[0].reshape(16, 2, 16, 2, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(blocks[0, ::2, ::2] - means4).max() <= 1


def test_noise_has_the_published_size() -> None:
    grey = np.full((4, 64, 64, 3), 128, np.uint8)
    assert corrupt(grey, "gaussian_noise", 1).std() / 255 == pytest.approx(0.08, rel=0.03)
    assert corrupt(grey, "shot_noise", 1).std() / 255 == pytest.approx(np.sqrt(0.502 / 60), rel=0.03)
    assert (corrupt(grey, "impulse_noise", 5) != 128).mean() == pytest.approx(0.27, rel=0.05)


def test_kernels() -> None:
    for kernel in (disk(0.375), disk(3.0), motion(15, 8, 0.125, 30), motion(10, 3, 1, -90)):
        assert kernel.sum() == pytest.approx(1)
        assert kernel.min() >= 0
    # second moment of a disk, r² / 4 an axis, plus what interpolation adds
    y = np.arange(21) - 10
    assert (disk(10.0).sum(axis=1) * y**2).sum() == pytest.approx(25, rel=0.02)
    image = np.random.default_rng(0).random((1, 20, 17, 1)).astype(np.float32)
    kernel = motion(10, 3, 0.4, 20)
    direct = direct_convolve(image[0, ..., 0].astype(float), kernel, mode="mirror")
    assert np.abs(convolve(image, kernel)[0, ..., 0] - direct).max() < 1e-5


def test_lengths_scale_with_the_image() -> None:
    """A twice as large picture, corrupted and shrunk, is what the small picture looks like corrupted."""
    large = pictures(112)
    small = large.reshape(6, 56, 2, 56, 2, 3).mean(axis=(2, 4)).round().astype(np.uint8)
    for name in ("defocus_blur", "zoom_blur"):
        shrunk = corrupt(large, name, 4).reshape(6, 56, 2, 56, 2, 3).mean(axis=(2, 4))
        assert np.abs(shrunk - corrupt(small, name, 4)).mean() < 3


def test_plasma_fills_the_range() -> None:
    clouds = plasma(28, 30, 1.7, np.random.default_rng(0))
    assert clouds.shape == (28, 30)
    assert clouds.min() >= 0
    assert clouds.max() <= 1


@pytest.mark.parametrize(
    ("name", "severity", "pixels"),
    [
        ("rain", 1, pictures()),
        ("fog", 0, pictures()),
        ("fog", 6, pictures()),
        ("fog", 1, pictures() / 255),
        ("fog", 1, pictures()[0]),
        ("fog", 1, np.zeros((1, 2, 2, 3), np.uint8)),
    ],
)
def test_refuses(name: str, severity: int, pixels: np.ndarray) -> None:
    with pytest.raises(UsageError):
        corrupt(pixels, name, severity)
