"""Images of any number of channels: arrays are read, scaled, cut and refused by rules that NumPy and Pillow confirm."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elude.handlers.errors import ImageError
from elude.handlers.images.arrays import read_array
from elude.handlers.images.decode import Limits
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.images.read_pixels import picture, pixel_readers, read_pixels

LIMITS = Limits()
FIVE = Preprocess((5, 12, 16), "bilinear", 0.8, "center", (0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.6, 0.7, 0.8, 0.9))
COLOUR = Preprocess((3, 12, 16), "bilinear", 0.8, "center", (0.5,) * 3, (0.5,) * 3)


def saved(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def zipped(*arrays: np.ndarray, packed: bool = True) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, *arrays)
    return buffer.getvalue()


def archive(name: str, content: bytes, extra: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
        for number in range(extra):
            file.writestr(str(number), b"")
    return buffer.getvalue()


def sixteen_bits(height: int = 31, width: int = 23, channels: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**16, (height, width, channels), dtype=np.uint16)


def test_channels_may_stand_first_or_last_and_bytes_in_any_order() -> None:
    values = sixteen_bits()
    expected = values.astype(np.float32) / np.float32(65_535)
    first = np.ascontiguousarray(np.moveaxis(values, -1, 0))
    for layout in (values, first, np.asfortranarray(values), values.astype(">u2")):
        np.testing.assert_array_equal(read_array(saved(layout), "image", 5, LIMITS), expected)
    np.testing.assert_array_equal(
        read_array(saved((values >> 8).astype(np.uint8)), "image", 5, LIMITS), (values >> 8) / np.float32(255)
    )
    for packed in (True, False):
        np.testing.assert_array_equal(read_array(zipped(first, packed=packed), "image", 5, LIMITS), expected)
    as_they_are = values.astype(np.float64) - 30_000
    np.testing.assert_array_equal(read_array(saved(as_they_are), "image", 5, LIMITS), as_they_are.astype(np.float32))


def test_each_channel_is_cut_as_pillow_cuts_it_and_scaled_by_its_own_mean() -> None:
    values = sixteen_bits().astype(np.float32)
    pixels = FIVE.normalise(read_pixels(saved(values), "image", FIVE, LIMITS))
    assert pixels.shape == (5, 12, 16)
    for channel in range(5):  # 15 × 20 is filled with 1.15 pixels in one, which takes 27 × 20; then the middle is taken
        resized = Image.fromarray(values[..., channel]).resize((20, 27), Image.Resampling.BILINEAR)
        cut = np.asarray(resized)[8:20, 2:18]
        expected = (cut - np.float32(FIVE.mean[channel])) / np.float32(FIVE.std[channel])
        np.testing.assert_allclose(pixels[channel], expected, rtol=1e-6)


def test_an_array_of_three_channels_goes_the_way_of_a_picture() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (40, 27, 3), dtype=np.uint8)
    unit = colours.astype(np.float32) / np.float32(255)
    difference = COLOUR.bands(unit) - COLOUR.pixels(Image.fromarray(colours)) / 255
    assert np.abs(difference).max() < 1.01 / 255  # Pillow rounds 8-bit values after each of two passes


def header(text: str) -> bytes:
    body = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n", "not a NumPy array"),
        (saved(sixteen_bits())[:-2], "does not hold as many values"),
        (saved(sixteen_bits())[:40], "not a NumPy array"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (5, 2, 2), }"), "holds object"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (5, 999999, 999999), }"), "does not hold as many"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (5, -1, 2), }"), "does not hold as many"),
        (header("(" * 900), "not a NumPy array"),
        (header("__import__('os').system('false')"), "not a NumPy array"),
        (b"\x93NUMPY\x03\x00" + bytes(20), "not a NumPy array"),
        (saved(np.zeros((5, 4, 4), np.int32)), "holds int32"),
        (zipped(np.zeros((5, 4, 4), np.int32)), "holds int32"),
        (zipped(sixteen_bits(), sixteen_bits()), "2 arrays"),
        (zipped(sixteen_bits())[:-30], "not a .npz"),
        (zipped(sixteen_bits())[30:], "not a NumPy array"),
        (zipped(sixteen_bits())[:300] + bytes(8) + zipped(sixteen_bits())[308:], "cannot be unpacked"),
        (archive("word/document.xml", b"<w/>"), "not a NumPy array"),
        (archive("a.npy", b"x", extra=200), "not a .npz"),
        (archive("a.npy", header("{'descr': '|O', 'fortran_order': False, 'shape': (5, 2, 2), }")), "holds object"),
        (archive("a.npy", saved(sixteen_bits())[:-2]), "does not hold as many"),
        (saved(np.zeros((5, 4, 4), np.complex64)), "holds complex64"),
        (saved(np.full((5, 4, 4), np.nan)), "not finite"),
        (saved(np.full((5, 4, 4), 1e300)), "not finite"),
        (saved(np.zeros((4, 4, 4), np.uint8)), r"takes 5 channels.*\(5, H, W\)"),
        (saved(np.zeros((5, 4, 5), np.uint8)), "first or last"),
        (saved(np.zeros((2, 5, 4, 4), np.uint8)), "batch"),
        (saved(np.zeros((5, 0, 4), np.uint8)), "takes 5 channels"),
        (saved(np.zeros((5, 1, 500), np.uint8)), "longer one way"),
    ],
)
def test_what_is_no_image_of_the_model_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=rf"bands\.npy.*{message}"):
        read_pixels(data, "bands.npy", FIVE, LIMITS)
    with pytest.raises(ImageError, match=rf"bands\.npy.*{message}"):
        pixel_readers([("bands.npy", data)], FIVE, LIMITS)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(6, 130), byte=st.binary(min_size=1, max_size=4))
def test_damaged_headers_are_read_or_refused(at: int, byte: bytes) -> None:
    data = saved(np.zeros((5, 14, 14), np.float32))
    with contextlib.suppress(ImageError):
        assert read_pixels(data[:at] + byte + data[at + len(byte) :], "image", FIVE, LIMITS).shape == (12, 16, 5)


def test_limits_hold_for_arrays_too() -> None:
    data = saved(sixteen_bits())
    with pytest.raises(ImageError, match="bytes"):
        read_pixels(data, "image", FIVE, Limits(max_bytes=len(data) - 1))
    with pytest.raises(ImageError, match="31 pixels"):
        read_pixels(data, "image", FIVE, Limits(max_pixels=31 * 23 - 1))
    with pytest.raises(ImageError, match="unpacked"):
        read_pixels(zipped(np.zeros((31, 23, 5), np.uint16)), "image", FIVE, Limits(max_bytes=31 * 23 * 10))
    with pytest.raises(ImageError, match="together"):
        pixel_readers([("a", data), ("b", data)], FIVE, Limits(max_pixels=31 * 23 + 1))


def test_of_a_zip_no_more_is_unpacked_than_an_image_may_have() -> None:
    bomb = archive("a.npy", bytes(24 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="unpacked"):
            read_array(bomb, "image", 5, Limits(max_bytes=1 << 20))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_model_of_pictures_takes_no_array() -> None:
    values = np.zeros((20, 20, 3), np.uint8)
    for data in (saved(values), zipped(values)):
        with pytest.raises(ImageError, match=r"a\.npy is a NumPy array.*3 channels"):
            read_pixels(data, "a.npy", COLOUR, LIMITS)
        with pytest.raises(ImageError, match=r"a\.npy is a NumPy array.*3 channels"):
            pixel_readers([("a.npy", data)], COLOUR, LIMITS)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (7, "RGB")])
def test_an_array_is_shown_by_its_first_channels_stretched(channels: int, mode: str) -> None:
    values = np.random.default_rng(2).normal(5000, 900, (50, 40, channels)).astype(np.float32)
    values[..., 0] = np.arange(2000, dtype=np.float32).reshape(50, 40)
    shown = picture(values)
    assert (shown.mode, shown.size) == (mode, (40, 50))
    first: Any = np.asarray(shown).reshape(2000, -1)[:, 0]
    assert (first[:40] == 0).all()  # 2 % of 2,000 places
    assert (first[-40:] == 255).all()
    assert (np.diff(first.astype(int)) >= 0).all()
    flat = np.asarray(picture(np.full((4, 4, channels), 7.0, np.float32)))
    assert (flat == 0).all()


def test_a_grey_picture_is_shown_as_grey() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    np.testing.assert_array_equal(np.asarray(picture(grey)), grey[..., 0])
