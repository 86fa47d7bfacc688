"""TIFF of any number of bands (TIFF 6.0), which Pillow does not read: samples side by side or in planes, in strips or
tiles, or one band per directory as microscopes write them.

Nothing is unpacked before the directories are found to be ordinary and their blocks' sizes are known, and of a block
no more than its size. LZW and PackBits are unpacked by libtiff, as a grey image whose pixels are the block's bytes.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elude.handlers.images.structure import StructureError
from elude.handlers.images.structure_tiff import (
    BITS,
    CODES,
    COMPRESSION,
    HEIGHT,
    MAX_TAGS,
    ROWS,
    SAMPLES,
    STRIPS,
    TILE_HEIGHT,
    TILE_WIDTH,
    TILES,
    WIDTH,
    Entry,
    byte_order,
    entries,
    entry_count,
)

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the latter two are BigTIFF
_KINDS = {1: "u", 2: "i", 3: "f"}  # of SampleFormat
_DEFLATE, _LIBTIFF = (8, 32946), (5, 32773)  # LZW, PackBits
_PREDICTED = (5, *_DEFLATE)  # elsewhere libtiff passes over the tag
_MAX_PAGES, _MAX_BLOCKS, _MAX_VALUES = 1024, 10_000, 50_000
_MAX_OPENED = 4_000  # blocks for libtiff, each of which takes 0.1 ms to open
_SUBFILE, _STRIP_BYTES, _PLANAR, _PREDICTOR, _TILE_BYTES, _FORMAT = 254, 279, 284, 317, 325, 339
_DEFAULTS = {_SUBFILE: 0, BITS: 1, COMPRESSION: 1, SAMPLES: 1, _PLANAR: 1, _PREDICTOR: 1, _FORMAT: 1}
_KNOWN = {*_DEFAULTS, WIDTH, HEIGHT, STRIPS, ROWS, _STRIP_BYTES, TILE_WIDTH, TILE_HEIGHT, TILES, _TILE_BYTES}
_DECODER_ERRORS = (OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, RuntimeError, MemoryError)
_Tags = dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Page:
    """One directory: where its blocks lie and how they are packed.

    Attributes:
        height, width, samples: of the image.
        dtype: of a sample, in the file's byte order.
        planar: each sample has blocks of its own.
        block: (rows, columns) of a strip or tile.
        places: (offset, bytes) of each block.
    """

    height: int
    width: int
    samples: int
    dtype: np.dtype[Any]
    compression: int
    predictor: int
    planar: bool
    tiled: bool
    block: tuple[int, int]
    places: tuple[tuple[int, int], ...]

    @property
    def planes(self) -> int:
        return self.samples if self.planar else 1

    @property
    def interleaved(self) -> int:
        """Samples side by side in a block."""
        return 1 if self.planar else self.samples

    @property
    def nbytes(self) -> int:
        """Of all blocks, unpacked."""
        rows, columns = self.block
        return len(self.places) * rows * columns * self.interleaved * self.dtype.itemsize

    def corners(self) -> Iterator[tuple[int, int, int]]:
        """Plane, first row and first column of each block."""
        rows, columns = self.block
        return itertools.product(range(self.planes), range(0, self.height, rows), range(0, self.width, columns))

    def read(self, data: bytes) -> NDArray[Any]:
        """(height, width, samples), in this machine's byte order."""
        planes = np.empty((self.planes, self.height, self.width, self.interleaved), self.dtype.newbyteorder("="))
        for (plane, top, left), (offset, size) in zip(self.corners(), self.places, strict=True):
            rows, columns = self.block
            rows = rows if self.tiled else min(rows, self.height - top)
            values = self._block(data[offset : offset + size], rows, columns)
            target = planes[plane, top : top + rows, left : left + columns]
            target[...] = values[: target.shape[0], : target.shape[1]]
        return np.moveaxis(planes[..., 0], 0, -1) if self.planar else planes[0]

    def _block(self, packed: bytes, rows: int, columns: int) -> NDArray[Any]:
        """(rows, columns, interleaved samples)."""
        width = columns * self.interleaved * self.dtype.itemsize
        content = _unpacked(packed, self.compression, rows, width)
        if len(content) < rows * width:
            raise StructureError("the TIFF is truncated: a strip or tile ends early")
        shape = (rows, columns, self.interleaved)
        if self.predictor == 3:
            return _undo_float_predictor(np.frombuffer(content, np.uint8, rows * width), shape, self.dtype.itemsize)
        values = np.frombuffer(content, self.dtype, rows * columns * self.interleaved).reshape(shape)
        if self.predictor == 2:
            # differences of whole numbers, also where they stand for floats
            whole = np.dtype(f"u{self.dtype.itemsize}")
            differences = values.view(whole.newbyteorder(self.dtype.byteorder))
            return np.cumsum(differences, axis=1, dtype=whole).view(self.dtype.newbyteorder("="))
        return values


def read_pages(data: bytes) -> tuple[Page, ...]:
    """The directories that hold bands: one of several samples, or all full-size ones of a single sample.

    Raises:
        StructureError: it is built as no ordinary encoder builds it, or in a way that is not read here.
    """
    if data[2:3] == b"+":
        raise StructureError("it is a BigTIFF, which is not read")
    order = byte_order(data)
    pages: list[Page] = []
    try:
        for tags in _directories(data, order):
            if tags.get(_SUBFILE, (0,))[0] & 5 == 0:  # neither a smaller copy nor a mask
                pages.append(_page(tags, order))
            if pages and pages[0].samples > 1:
                break
    except struct.error as error:
        raise StructureError("the TIFF is truncated: a directory ends early") from error
    if not pages or len({(page.height, page.width, page.samples, page.dtype, page.compression) for page in pages}) > 1:
        raise StructureError("the TIFF's directories hold no image, or images of different shapes")
    most = _MAX_OPENED if pages[0].compression in _LIBTIFF else _MAX_BLOCKS
    if sum(len(page.places) for page in pages) > most:
        raise StructureError(f"the TIFF has more than {most} strips or tiles")
    return tuple(pages)


def _directories(data: bytes, order: str) -> Iterator[_Tags]:
    (at,) = struct.unpack_from(order + "I", data, 4)
    values = 0
    for _ in range(_MAX_PAGES):
        if at == 0:
            return
        if (count := entry_count(data, order, at)) > MAX_TAGS:
            raise StructureError(f"the TIFF has {count} tags; at most {MAX_TAGS} are accepted")
        tags = {
            entry.tag: _values(data, order, entry) for entry in entries(data, order, at, count) if entry.tag in _KNOWN
        }
        values += sum(map(len, tags.values()))
        if values > _MAX_VALUES:
            raise StructureError(f"the TIFF's tags have more than {_MAX_VALUES} values")
        yield tags
        (at,) = struct.unpack_from(order + "I", data, at + 2 + 12 * count)
    raise StructureError(f"the TIFF has more than {_MAX_PAGES} directories")


def _values(data: bytes, order: str, entry: Entry) -> tuple[int, ...]:
    tag, kind, number, place = entry
    if kind not in CODES or not 1 <= number <= _MAX_BLOCKS:
        raise StructureError(f"the TIFF's tag {tag} has {number} values of type {kind}")
    code = f"{order}{number}{CODES[kind]}"
    if struct.calcsize(code) > 4:
        (place,) = struct.unpack_from(order + "I", data, place)
    return struct.unpack_from(code, data, place)


def _page(tags: _Tags, order: str) -> Page:
    value = {tag: numbers[0] for tag, numbers in tags.items()}
    value = _DEFAULTS | value
    height, width, samples = value.get(HEIGHT, 0), value.get(WIDTH, 0), value[SAMPLES]
    tiled = TILES in tags
    rows = value.get(TILE_HEIGHT, 0) if tiled else min(value.get(ROWS, height), height)
    columns = value.get(TILE_WIDTH, 0) if tiled else width
    if min(height, width, samples, rows, columns) < 1:
        raise StructureError(f"the TIFF has {width}×{height} pixels of {samples} samples")
    offsets, sizes = (tags.get(tag, ()) for tag in ((TILES, _TILE_BYTES) if tiled else (STRIPS, _STRIP_BYTES)))
    page = Page(
        height,
        width,
        samples,
        _dtype(tags, order),
        value[COMPRESSION],
        value[_PREDICTOR] if value[COMPRESSION] in _PREDICTED else 1,
        value[_PLANAR] == 2 and samples > 1,
        tiled,
        (rows, columns),
        tuple(zip(offsets, sizes, strict=False)),
    )
    blocks = page.planes * -(-height // rows) * -(-width // columns)
    if not len(offsets) == len(sizes) == blocks:
        raise StructureError(f"the TIFF has {len(offsets)} strips or tiles where {blocks} are needed")
    _require_packing(page)
    return page


def _require_packing(page: Page) -> None:
    if page.compression not in (1, *_DEFLATE, *_LIBTIFF):
        raise StructureError(f"the TIFF's compression {page.compression} is none of none, LZW, deflate and PackBits")
    fits = {1: "iuf", 2: "iuf", 3: "f"}.get(page.predictor, "")
    if page.dtype.kind not in fits:
        raise StructureError(f"the TIFF's predictor {page.predictor} does not fit {page.dtype}")


def _dtype(tags: _Tags, order: str) -> np.dtype[Any]:
    bits, formats = set(tags.get(BITS, (1,))), set(tags.get(_FORMAT, (1,)))
    kind = _KINDS.get(next(iter(formats)))
    if len(bits) > 1 or len(formats) > 1 or kind is None or next(iter(bits)) % 8:
        raise StructureError(f"the TIFF's samples have {sorted(bits)} bits of the formats {sorted(formats)}")
    try:
        return np.dtype(f"{order}{kind}{next(iter(bits)) // 8}")
    except TypeError as error:
        raise StructureError(f"the TIFF's samples have {next(iter(bits))} bits") from error


def _unpacked(packed: bytes, compression: int, rows: int, width: int) -> bytes:
    """At most ``rows`` · ``width`` bytes."""
    if compression == 1:
        return packed
    if compression in _DEFLATE:
        try:
            return zlib.decompressobj().decompress(packed, rows * width)
        except zlib.error as error:
            raise StructureError(f"a strip or tile of the TIFF cannot be unpacked: {error}") from error
    try:
        with Image.open(io.BytesIO(_grey(packed, compression, rows, width)), formats=("TIFF",)) as image:
            return image.tobytes()
    except _DECODER_ERRORS as error:
        raise StructureError(f"a strip or tile of the TIFF cannot be unpacked: {error}") from error


def _grey(packed: bytes, compression: int, rows: int, width: int) -> bytes:
    """A TIFF of one strip of grey bytes."""
    values = {WIDTH: width, HEIGHT: rows, BITS: 8, COMPRESSION: compression, 262: 1, SAMPLES: 1, ROWS: rows}
    values |= {STRIPS: 8 + 2 + 12 * (len(values) + 2) + 4, _STRIP_BYTES: len(packed)}
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + tags + bytes(4) + packed


def _undo_float_predictor(content: NDArray[np.uint8], shape: tuple[int, int, int], itemsize: int) -> NDArray[Any]:
    """Adobe's floating-point predictor: differences of bytes, which lie in planes, the most significant first."""
    rows, columns, samples = shape
    bytes_ = np.cumsum(content.reshape(rows, itemsize * columns, samples), axis=1, dtype=np.uint8)
    together = bytes_.reshape(rows, itemsize, columns * samples).transpose(0, 2, 1)
    return np.ascontiguousarray(together).view(f">f{itemsize}").reshape(shape)
