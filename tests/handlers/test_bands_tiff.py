"""Multi-band TIFF, compared with what tifffile and libtiff (by Pillow) write; what is damaged or hostile is refused."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elude.handlers.errors import ImageError
from elude.handlers.images.arrays import read_array, read_arrays
from elude.handlers.images.decode import Limits
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.images.read_pixels import pixel_readers, read_pixels

LIMITS = Limits()
SEVEN = Preprocess((7, 12, 16), "bilinear", 0.8, "center", (0.1,) * 7, (0.5,) * 7)
_SCALES = {"uint8": 255, "uint16": 65_535}


def bands(dtype: str, height: int = 31, width: int = 45, channels: int = 7) -> np.ndarray:
    values: np.ndarray = np.random.default_rng(0).normal(100, 20, (height, width, channels)).astype(dtype)
    return values


def written(values: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **{"photometric": "minisblack", **options})
    return buffer.getvalue()


def expected(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) / np.float32(_SCALES.get(values.dtype.name, 1))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_strips_tiles_and_planes_of_either_byte_order_are_read(
    dtype: str, compression: str | None, tile: tuple[int, int] | None, planar: str
) -> None:
    values = bands(dtype)
    layout = values if planar == "contig" else np.moveaxis(values, -1, 0)
    for order in "<>":
        data = written(
            layout,
            planarconfig=planar,
            compression=compression,
            byteorder=order,
            tile=tile,
            rowsperstrip=None if tile else 10,
        )
        np.testing.assert_array_equal(read_array(data, "image", 7, LIMITS), expected(values))


def test_a_band_per_directory_and_a_row_per_directory_are_read() -> None:
    """What ``tifffile.imwrite(path, array)`` writes of (C, H, W) and of (H, W, C)."""
    values = bands("float32")
    for layout in (values, np.moveaxis(values, -1, 0)):
        np.testing.assert_array_equal(read_array(written(layout), "image", 7, LIMITS), values)
    with pytest.raises(ImageError, match="first or last"):
        read_array(written(bands("uint8", 7, 9, 7)), "image", 7, LIMITS)


def test_of_several_samples_the_first_image_is_read_and_smaller_copies_are_passed_over() -> None:
    values, buffer = bands("uint16"), io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for layout, kind in ((values[::2, ::2], 1), (values, 0), (values[::2, ::2], 1)):
            writer.write(layout, photometric="minisblack", planarconfig="contig", subfiletype=kind)
    np.testing.assert_array_equal(read_array(buffer.getvalue(), "image", 7, LIMITS), expected(values))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK"])
def test_compressions_and_predictors_of_libtiff_are_undone(compression: str, predictor: int, mode: str) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 9, (61, 83, 3)).astype(np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", compression=compression, tiffinfo={317: predictor})
    read = read_array(buffer.getvalue(), "image", len(mode), LIMITS)
    np.testing.assert_array_equal(np.rint(read * 255).astype(np.uint8), np.asarray(image))


@pytest.mark.parametrize("predictor", [1, 2, 3])
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_predictors_of_floating_point_values_are_undone(compression: str, predictor: int) -> None:
    values, buffer = bands("float32", channels=1)[..., 0], io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF", compression=compression, tiffinfo={317: predictor})
    np.testing.assert_array_equal(read_array(buffer.getvalue(), "image", 1, LIMITS)[..., 0], values)


def tags(data: bytes, **changed: int) -> bytes:
    """A little-endian TIFF with the first value of tags of its first directory overwritten; ``t256=9``."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    result = bytearray(data)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from("<HHI", data, place)
        value = changed.pop(f"t{tag}", None)
        if value is not None:
            code = {3: "H", 4: "I"}[kind]
            where = place + 8 if number * struct.calcsize(code) <= 4 else struct.unpack_from("<I", data, place + 8)[0]
            struct.pack_into(f"<{code}", result, where, value)
    assert not changed
    return bytes(result)


PLAIN = written(bands("uint8"), planarconfig="contig")
PACKED = written(bands("uint8"), planarconfig="contig", compression="zlib")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PLAIN[:4], "truncated"),
        (PLAIN[:-9], "truncated"),
        (PACKED[:-9], "truncated"),
        (tags(PLAIN, t256=46), "truncated"),
        (tags(PLAIN, t257=0), "0 pixels"),
        (tags(PLAIN, t278=1), "strips or tiles"),
        (tags(PLAIN, t259=7), "compression 7"),
        (tags(PACKED, t259=1), "truncated"),
        (tags(PACKED, t259=5), "unpacked"),
        (tags(PLAIN, t259=8), "unpacked"),
        (tags(PLAIN, t258=16), "bits"),
        (tags(written(bands("float32"), planarconfig="contig"), t339=6), "formats"),
        (tags(PLAIN, t277=5), "channels"),
        (PLAIN[:4] + struct.pack("<I", len(PLAIN)) + PLAIN[8:], "truncated"),
        (PLAIN[:4] + bytes(4) + PLAIN[8:], "no image"),
        (written(bands("uint8"), planarconfig="contig", bigtiff=True), "BigTIFF"),
        (written(bands("int16"), planarconfig="contig"), "int16"),
        (written(bands("uint8")[..., :5], planarconfig="contig"), "7 channels"),
        (written(bands("uint8", 2, 500), planarconfig="contig"), "longer one way"),
    ],
)
def test_what_is_no_image_of_the_model_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=rf"bands\.tif.*({message})"):
        read_pixels(data, "bands.tif", SEVEN, LIMITS)
    with pytest.raises(ImageError, match=rf"bands\.tif.*({message})"):
        pixel_readers([("bands.tif", data)], SEVEN, LIMITS)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 400), content=st.binary(min_size=1, max_size=4), packed=st.booleans())
def test_damaged_files_are_read_or_refused(at: int, content: bytes, packed: bool) -> None:
    data = PACKED if packed else PLAIN
    with contextlib.suppress(ImageError):
        read = read_pixels(data[:at] + content + data[at + len(content) :], "image", SEVEN, LIMITS)
        assert read.shape == (12, 16, 7)


def looped() -> bytes:
    """One band, whose directory follows itself."""
    data = written(bands("uint8", channels=1)[..., 0])
    (at,) = struct.unpack_from("<I", data, 4)
    end = at + 2 + 12 * int(struct.unpack_from("<H", data, at)[0])
    return data[:end] + struct.pack("<I", at) + data[end + 4 :]


def bomb(declared: int) -> bytes:
    """24 MiB of zeros in one strip of an image that declares ``declared`` rows of 64 pixels of 7 samples."""
    data = written(bands("uint8", 64, 64), planarconfig="contig", compression="zlib")
    packed = zlib.compress(bytes(24 << 20))
    return tags(data + packed, t257=declared, t278=declared, t273=len(data), t279=len(packed))


def test_no_more_is_unpacked_than_the_limits_allow() -> None:
    limits, packed = Limits(max_bytes=6 << 20), bomb(64)
    refused = (bomb(65_000), tags(PACKED, t256=2**16 - 1, t257=2**16 - 1, t278=2**16 - 1), looped())
    tracemalloc.start()
    begin = time.thread_time()
    try:
        assert read_array(packed, "image", 7, limits).shape == (64, 64, 7)
        for data in refused:
            with pytest.raises(ImageError):
                read_array(data, "image", 7, limits)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert time.thread_time() - begin < 5
    with pytest.raises(ImageError, match="pixels"):
        read_array(PACKED, "image", 7, Limits(max_pixels=31 * 45 - 1))
    with pytest.raises(ImageError, match="unpacked"):
        read_array(PACKED, "image", 7, Limits(max_bytes=31 * 45 * 7 - 1))
    with pytest.raises(ImageError, match="together"):
        read_arrays([("a", PACKED)] * 3, 7, Limits(max_bytes=31 * 45 * 7))


def test_a_server_that_takes_no_tiff_takes_none_of_many_bands() -> None:
    with pytest.raises(ImageError):
        read_array(PLAIN, "image", 7, Limits(formats=("JPEG", "PNG")))
