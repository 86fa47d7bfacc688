"""The directories of a TIFF (TIFF 6.0): what decoding the first will take, and whether it is built as usual."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAX_TAGS = 200
WIDTH, HEIGHT, BITS, COMPRESSION, STRIPS, SAMPLES, ROWS = 256, 257, 258, 259, 273, 277, 278
TILE_WIDTH, TILE_HEIGHT, TILES = 322, 323, 324
CODES = {1: "B", 3: "H", 4: "I"}  # of whole numbers, by type, as ``struct`` calls them
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # bytes of a value, by type
_COMPRESSIONS = {1: "none", 3: "CCITT 3", 4: "CCITT 4", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits"}
_MAX_STRIPS = 10_000  # a strip for each row of a large scan
_ORIENTATION = 274


class Entry(NamedTuple):
    """A tag of a directory: its number, the type and number of its values, and where they or their offset lie."""

    tag: int
    kind: int
    number: int
    place: int


def byte_order(data: bytes) -> str:
    """Of a file's numbers, as ``struct`` writes it."""
    return "<" if data.startswith(b"II") else ">"


def entry_count(data: bytes, order: str, at: int) -> int:
    """How many entries the directory at ``at`` says it has, at most 65,535."""
    count: int = struct.unpack_from(order + "H", data, at)[0]
    return count


def entries(data: bytes, order: str, at: int, count: int) -> Iterator[Entry]:
    """The first ``count`` entries of the directory at ``at``; struct.error where the file ends early."""
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, place)
        yield Entry(tag, kind, number, place + 8)


def read_tiff(data: bytes, refused: type[Exception]) -> tuple[int, int, int]:
    """Width, height, and bytes of memory per pixel at the peak of decoding.

    Raises:
        Exception: of the type ``refused``, saying what the directory holds that no ordinary encoder writes.
        struct.error: the file ends early.
    """
    order = byte_order(data)
    (at,) = struct.unpack_from(order + "I", data, 4)
    if (count := entry_count(data, order, at)) > MAX_TAGS:
        raise refused(f"the TIFF has {count} tags; at most {MAX_TAGS} are accepted")
    counts, values, total = {}, {}, 0
    for tag, kind, number, place in entries(data, order, at, count):
        if kind not in _SIZES or tag in counts:
            raise refused(f"the TIFF's tag {tag} is of an unknown type or stands twice")
        total += number * _SIZES[kind]
        counts[tag] = number
        values[tag] = _first(data, order, kind, number, place)
        if number > _MAX_STRIPS and kind not in (1, 2, 6, 7):
            raise refused(f"the TIFF's tag {tag} has {number} values; at most {_MAX_STRIPS} are accepted")
    if total > len(data):
        raise refused("the TIFF's tags overlap")
    return _cost(counts, values, refused)


def orientation(exif: bytes) -> int:
    """The orientation that EXIF states (1 to 8), 1 if it states none."""
    order = byte_order(exif)
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        for tag, kind, number, place in entries(exif, order, at, min(entry_count(exif, order, at), MAX_TAGS)):
            if tag == _ORIENTATION:
                return _first(exif, order, kind, number, place)
    except struct.error:
        return 1
    return 1


def _first(data: bytes, order: str, kind: int, number: int, at: int) -> int:
    """The first value of a tag if it is a whole number, otherwise 0."""
    code = CODES.get(kind)
    if code is None or number == 0:
        return 0
    if number * _SIZES[kind] > 4:
        (at,) = struct.unpack_from(order + "I", data, at)
    value: int = struct.unpack_from(order + code, data, at)[0]
    return value


def _cost(counts: dict[int, int], values: dict[int, int], refused: type[Exception]) -> tuple[int, int, int]:
    width, height = values.get(WIDTH, 0), values.get(HEIGHT, 0)
    samples, bits = values.get(SAMPLES, 1), values.get(BITS, 1)
    if values.get(COMPRESSION, 1) not in _COMPRESSIONS:
        raise refused(f"the TIFF must be compressed by one of {', '.join(dict.fromkeys(_COMPRESSIONS.values()))}")
    if not 1 <= samples <= 5 or bits > 32:
        raise refused(f"the TIFF has {samples} samples per pixel of {bits} bits")
    if max(counts.get(STRIPS, 0), counts.get(TILES, 0)) > _MAX_STRIPS:
        raise refused(f"the TIFF has more than {_MAX_STRIPS} strips")
    for tag, size in ((TILE_WIDTH, width), (TILE_HEIGHT, height)):
        if values.get(tag, 0) > size + 512:
            raise refused("the TIFF's tiles are larger than the image")
    return width, height, 8 + -(-samples * bits // 8)  # decoded, converted to RGB, and at worst one strip of all
