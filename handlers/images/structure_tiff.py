"""The first directory of a TIFF (TIFF 6.0): what decoding it will take, and whether it is built as usual."""

from __future__ import annotations

import struct

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # bytes of a value, by type
_COMPRESSIONS = {1: "none", 3: "CCITT 3", 4: "CCITT 4", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits"}
_MAX_TAGS = 200
_MAX_STRIPS = 10_000  # a strip for each row of a large scan
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIPS, _SAMPLES, _ROWS = 256, 257, 258, 259, 273, 277, 278
_ORIENTATION, _TILE_WIDTH, _TILE_HEIGHT, _TILES = 274, 322, 323, 324


def read_tiff(data: bytes, refused: type[Exception]) -> tuple[int, int, int]:
    """Width, height, and bytes of memory per pixel at the peak of decoding.

    Raises:
        Exception: of the type ``refused``, saying what the directory holds that no ordinary encoder writes.
        struct.error: the file ends early.
    """
    order = "<" if data.startswith(b"II") else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    if count > _MAX_TAGS:
        raise refused(f"the TIFF has {count} tags; at most {_MAX_TAGS} are accepted")
    counts, values, total = {}, {}, 0
    for i in range(count):
        tag, kind, number = struct.unpack_from(order + "HHI", data, at + 2 + 12 * i)
        if kind not in _SIZES or tag in counts:
            raise refused(f"the TIFF's tag {tag} is of an unknown type or stands twice")
        total += number * _SIZES[kind]
        counts[tag] = number
        values[tag] = _first(data, order, kind, number, at + 10 + 12 * i)
        if number > _MAX_STRIPS and kind not in (1, 2, 6, 7):
            raise refused(f"the TIFF's tag {tag} has {number} values; at most {_MAX_STRIPS} are accepted")
    if total > len(data):
        raise refused("the TIFF's tags overlap")
    return _cost(counts, values, refused)


def orientation(exif: bytes) -> int:
    """The orientation that EXIF states (1 to 8), 1 if it states none."""
    order = "<" if exif.startswith(b"II") else ">"
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, at)
        for i in range(min(count, _MAX_TAGS)):
            tag, kind, number = struct.unpack_from(order + "HHI", exif, at + 2 + 12 * i)
            if tag == _ORIENTATION:
                return _first(exif, order, kind, number, at + 10 + 12 * i)
    except struct.error:
        return 1
    return 1


def _first(data: bytes, order: str, kind: int, number: int, at: int) -> int:
    """The first value of a tag if it is a whole number, otherwise 0."""
    code = {1: "B", 3: "H", 4: "I"}.get(kind)
    if code is None or number == 0:
        return 0
    if number * _SIZES[kind] > 4:
        (at,) = struct.unpack_from(order + "I", data, at)
    value: int = struct.unpack_from(order + code, data, at)[0]
    return value


def _cost(counts: dict[int, int], values: dict[int, int], refused: type[Exception]) -> tuple[int, int, int]:
    width, height = values.get(_WIDTH, 0), values.get(_HEIGHT, 0)
    samples, bits = values.get(_SAMPLES, 1), values.get(_BITS, 1)
    if values.get(_COMPRESSION, 1) not in _COMPRESSIONS:
        raise refused(f"the TIFF must be compressed by one of {', '.join(dict.fromkeys(_COMPRESSIONS.values()))}")
    if not 1 <= samples <= 5 or bits > 32:
        raise refused(f"the TIFF has {samples} samples per pixel of {bits} bits")
    if max(counts.get(_STRIPS, 0), counts.get(_TILES, 0)) > _MAX_STRIPS:
        raise refused(f"the TIFF has more than {_MAX_STRIPS} strips")
    for tag, size in ((_TILE_WIDTH, width), (_TILE_HEIGHT, height)):
        if values.get(tag, 0) > size + 512:
            raise refused("the TIFF's tiles are larger than the image")
    return width, height, 8 + -(-samples * bits // 8)  # decoded, converted to RGB, and at worst one strip of all
