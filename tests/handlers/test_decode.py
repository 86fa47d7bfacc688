"""Decoding: every kind of image becomes RGB, everything else a clear error."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elude.handlers.errors import ImageError
from elude.handlers.images.decode import Limits, decode


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GRADIENT = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(4, 6, 3))


def test_rgb_is_kept_exactly() -> None:
    np.testing.assert_array_equal(np.asarray(decode(encode(GRADIENT))), np.asarray(GRADIENT))


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate 90° clockwise to view"
    turned = decode(encode(GRADIENT, exif=exif))
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(np.asarray(GRADIENT), -1))


def test_16_bit_grey_keeps_its_upper_byte() -> None:
    values = np.array([[0, 255, 256, 0x1234, 0xFFFF]], np.uint16)
    assert np.asarray(decode(encode(Image.fromarray(values))))[0, :, 0].tolist() == [0, 0, 1, 0x12, 0xFF]


def test_alpha_is_shown_over_white() -> None:
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 51))
    assert np.asarray(decode(encode(image)))[0].tolist() == [[255, 0, 0], [255, 255, 255], [204, 204, 204]]


def test_palette_with_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert np.asarray(decode(encode(image, transparency=1)))[0].tolist() == [[10, 20, 30], [255, 255, 255]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr"])
def test_other_modes(mode: str) -> None:
    kind = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    image = decode(encode(Image.new(mode, (3, 2)), kind))
    assert (image.mode, image.size) == ("RGB", (3, 2))


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data).getpixel((0, 0)) == (255, 0, 0)


def test_floats_are_refused() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        decode(encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "x.tif")


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>"])
def test_what_is_not_an_image_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"photo 7"):
        decode(data, "photo 7")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_images_are_refused(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    data = encode(noise, kind)
    with pytest.raises(ImageError, match="image"):
        decode(data[: len(data) // 2])


def test_limits() -> None:
    data = encode(GRADIENT)
    with pytest.raises(ImageError, match="6×4 pixels; at most 23"):
        decode(data, limits=Limits(max_pixels=23))
    with pytest.raises(ImageError, match="bytes; at most 10 "):
        decode(data, limits=Limits(max_bytes=10))
    assert decode(data, limits=Limits(max_pixels=24)).size == (6, 4)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_decompression_bomb_costs_no_memory() -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )
    tracemalloc.start()
    with pytest.raises(ImageError, match=r"pixels|bomb"):
        decode(bomb)
    assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    tracemalloc.stop()


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_images_decode_or_raise_image_error(kind: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(encode(GRADIENT, kind))
    for place, value in changes:
        data[int(place * len(data))] = value
    with contextlib.suppress(ImageError):
        assert decode(bytes(data), limits=Limits(max_pixels=10_000)).mode == "RGB"
