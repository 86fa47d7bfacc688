"""The structure of an encoded image, read before a decoder sees it: format, size, and what decoding will cost.

A decoder's cost does not follow from the size of the file or of the picture: 6 MiB hold a JPEG of 147,000 scans, a
TIFF of a million strips, a PNG of half a million text chunks. So each format has a reader here that walks the file
once, refuses what no ordinary encoder writes, states the memory that decoding takes, and hands on a file that holds
nothing but what makes the pixels and their orientation: no comments, colour profiles, previews or further frames.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from elude.handlers.errors import ImageError
from elude.handlers.images.structure_tiff import orientation, read_tiff

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_MAX_SEGMENTS = 1000  # before the pixels of a JPEG; colour profile, preview and notes of a camera take some 100
_MAX_SCANS = 64  # of a JPEG; libjpeg's own progressive script has 10
_BLOCK = 2**18  # bytes of a JPEG that are looked through at once
_MAX_EXIF = 2**16  # bytes; holds the orientation, and a JPEG cannot hold more in one segment


class StructureError(Exception):
    """Why a file is refused, to be preceded by the image's name."""


@dataclass(frozen=True)
class Structure:
    """What decoding an image takes.

    Attributes:
        format: one of ``FORMATS``.
        width: pixels.
        height: pixels.
        data: the file without what does not make pixels.
        bytes_per_pixel: peak memory of decoding to RGB, without the coefficients.
        coefficient_bytes: memory per pixel of a JPEG whose scans are collected before pixels are made.
        scans: passes over the pixels.
    """

    format: str
    width: int
    height: int
    data: bytes
    bytes_per_pixel: int
    coefficient_bytes: float = 0.0
    scans: int = 1

    @property
    def pixels(self) -> int:
        """Pixels of the first frame."""
        return self.width * self.height

    @property
    def work(self) -> int:
        """Pixels over all scans, to which the time of decoding is proportional."""
        return self.pixels * self.scans

    def memory(self, shrink: int = 1) -> int:
        """Peak bytes of decoding at 1/``shrink`` of the width and height."""
        return int(self.pixels * (self.coefficient_bytes + self.bytes_per_pixel / shrink**2))


def read_structure(data: bytes, name: str = "image", formats: tuple[str, ...] = FORMATS) -> Structure:
    """Read the structure of one encoded image; decodes nothing.

    Args:
        data: the file.
        name: what to call the image in an error.
        formats: those that are accepted.

    Raises:
        ImageError: not an image of these formats, cut off, or built as no ordinary encoder builds it.
    """
    kind = next((kind for kind, signature in _SIGNATURES.items() if signature.match(data)), None)
    if kind is None or kind not in formats:
        raise ImageError(f"{name} is not an image of an accepted format.", f"Send one of {', '.join(formats)}.")
    try:
        structure = _READERS[kind](data)
    except (struct.error, IndexError) as error:
        raise ImageError(f"{name} is truncated: its {kind} structure ends early.", "Send the whole file.") from error
    except StructureError as error:
        raise ImageError(f"{name}: {error}.", "Save it anew with an ordinary encoder, e.g. as JPEG or PNG.") from error
    if structure.width < 1 or structure.height < 1:
        raise ImageError(f"{name} has {structure.width}×{structure.height} pixels.", "Send an image with pixels.")
    return structure


def _jpeg(data: bytes) -> Structure:
    """Markers up to the first scan; ITU-T T.81, annex B."""
    kept, at, frame, exif = [data[:2]], 2, b"", b""
    for _ in range(_MAX_SEGMENTS):
        marker, size = struct.unpack_from(">HH", data, at)
        end = at + 2 + size
        if marker == 0xFFFF:  # a byte of padding
            at += 1
            continue
        if marker < 0xFFC0 or size < 2 or end > len(data):
            raise StructureError("the markers of the JPEG are damaged")
        segment = data[at:end]
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            if frame or marker > 0xFFC2 or segment[4] != 8:
                raise StructureError("only baseline and progressive JPEGs of 8 bits are accepted")
            frame = segment
        if marker == 0xFFDA:
            scans, length = _scans(data[at:])
            pixels = b"".join([kept[0], exif, *kept[1:], data[at : at + length]])
            return _jpeg_frame(frame, segment, scans, orientation(exif[10:]) > 1, pixels)
        if marker == 0xFFE1 and not exif and segment[4:10] == b"Exif\0\0":
            exif = segment
        elif marker in _JPEG_KEPT:
            kept.append(segment)
        at = end
    raise StructureError(f"the JPEG has more than {_MAX_SEGMENTS} segments before its pixels")


def _scans(data: bytes) -> tuple[int, int]:
    """How many scans there are up to the end of the image, and where that is; other pictures and films may follow."""
    values = np.frombuffer(data, np.uint8)
    scans = padding = 0
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK + 1]  # the last byte of a pair may be the next block's first
        places = np.flatnonzero(block[:-1] == 0xFF)
        codes = block[places + 1]
        ends = np.flatnonzero(codes == 0xD9)
        codes = codes[: ends[0]] if len(ends) else codes
        scans += int(np.count_nonzero(codes == 0xDA))
        padding += int(np.count_nonzero(codes == 0xFF))
        if padding > _MAX_SEGMENTS:
            raise StructureError("the scans of the JPEG are padded")
        if len(ends):
            return scans, start + int(places[ends[0]]) + 2
    return scans, len(data)  # it is cut off; the decoder says so


def _jpeg_frame(frame: bytes, scan: bytes, scans: int, turned: bool, data: bytes) -> Structure:
    if not frame:
        raise StructureError("the JPEG has a scan before its frame header")
    if scans > _MAX_SCANS:
        raise StructureError(f"the JPEG has {scans} scans; at most {_MAX_SCANS} are accepted")
    height, width, components = struct.unpack_from(">HHB", frame, 5)
    factors = [(frame[11 + 3 * i] >> 4, frame[11 + 3 * i] & 15) for i in range(components)]
    if components not in (1, 3, 4) or not all(1 <= h <= 4 and 1 <= v <= 4 for h, v in factors):
        raise StructureError("the JPEG has components that no ordinary encoder writes")
    collected = frame[1] == 0xC2 or scan[4] != components  # scans that only together make the pixels
    largest = max(h for h, _ in factors) * max(v for _, v in factors)
    samples = sum(h * v for h, v in factors) / largest if collected else 0.0
    copies = 8 if components != 3 or turned else 4
    return Structure("JPEG", width, height, data, copies, 2 * samples, scans if collected else 1)


def _png(data: bytes) -> Structure:
    """Chunks; the PNG specification, section 5."""
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if data[8:16] != b"\0\0\0\rIHDR":
        raise StructureError("the PNG does not begin with its header")
    kept, at = [data[:33]], 33
    turned = clear = False
    for _ in range(_MAX_SEGMENTS + len(data) // 1024):
        if at == len(data):  # no end: the decoder says whether pixels are missing
            break
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        clear |= kind == b"tRNS"
        if kind in (b"IDAT", b"PLTE", b"tRNS", b"IEND") or (kind == b"eXIf" and size <= _MAX_EXIF):
            turned |= kind == b"eXIf" and orientation(data[at + 8 : end]) > 1
            kept.append(data[at:end])
        if kind == b"IEND" or end > len(data):
            break
        at = end
    else:
        raise StructureError("the PNG has more chunks than an ordinary encoder writes")
    stored = {0: 2 if depth == 16 else 1, 3: 1}.get(colour, 4)
    plain = colour == 2 and not clear
    return Structure(
        "PNG", width, height, b"".join(kept), max(stored * (2 if turned else 1), stored if plain else stored + 4)
    )


def _webp(data: bytes) -> Structure:
    """RIFF chunks up to the first frame; the WebP container specification."""
    kept: list[bytes] = []
    at, size = 12, (0, 0)
    for _ in range(_MAX_SEGMENTS):
        if at + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length + length % 2
        body = data[at:end]
        if kind == b"VP8X":
            width, height = (1 + int.from_bytes(body[i : i + 3], "little") for i in (12, 15))
            size = size if kept else (width, height)
            body = body[:8] + bytes([body[8] & ~0x24]) + body[9:]  # neither colour profile nor XMP
        elif kind == b"VP8L" and not kept:
            bits = int.from_bytes(body[9:13], "little")
            size = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif kind == b"VP8 " and not kept:
            width, height = struct.unpack_from("<HH", body, 14)
            size = width & 0x3FFF, height & 0x3FFF
        if kind in (b"VP8X", b"VP8L", b"VP8 ", b"ALPH", b"ANIM", b"ANMF") or (kind == b"EXIF" and length <= _MAX_EXIF):
            frames = (b"VP8L", b"VP8 ", b"ANMF")
            if not (kind in frames and any(chunk.startswith(frames) for chunk in kept)):
                kept.append(body)
        at = end
    else:
        raise StructureError("the WebP has more chunks than an ordinary still image or short animation")
    content = b"WEBP" + b"".join(kept)
    return Structure("WEBP", *size, b"RIFF" + struct.pack("<I", len(content)) + content, 16)


def _gif(data: bytes) -> Structure:
    """Blocks up to the first frame; GIF89a."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)
    kept = [data[:at]]
    steps = _MAX_SEGMENTS + len(data) // 64
    while steps > 0:
        start, kind = at, data[at]
        if kind == 0x3B:
            raise StructureError("the GIF holds no frame")
        if kind == 0x2C:
            left, top, w, h, local = struct.unpack_from("<HHHHB", data, at + 1)
            at += 11 + (3 * 2 ** ((local & 7) + 1) if local & 0x80 else 0)
            width, height = max(width, left + w), max(height, top + h)
        elif kind == 0x21:
            at += 2
        else:
            raise StructureError("the GIF holds an unknown block")
        while steps > 0 and at < len(data) and (length := data[at]):
            at, steps = at + 1 + length, steps - 1
        at, steps = at + 1, steps - 1
        if kind == 0x2C or data[start + 1] == 0xF9:  # the frame, and what says which colour is transparent
            kept.append(data[start:at])
        if kind == 0x2C and steps > 0:
            return Structure("GIF", width, height, b"".join(kept) + b";", 8)
    raise StructureError("the GIF has more blocks than an ordinary encoder writes")


def _bmp(data: bytes) -> Structure:
    """The header; run-length coding is refused, as it is decoded pixel by pixel."""
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        return Structure("BMP", width, height, data, 8)
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if header < 40 or compression not in (0, 3) or bits > 32:
        raise StructureError("only uncompressed BMPs are accepted")
    return Structure("BMP", width, abs(height), data, 8)


_PPM_HEADER = re.compile(rb"P[456](?:\s|#[^\n]{0,200}\n){1,20}(\d{1,6})\s+(\d{1,6})(?:\s+(\d{1,5}))?\s", re.ASCII)


def _ppm(data: bytes) -> Structure:
    """The header; numbers written as text and values of an odd maximum are refused, as they are read one by one."""
    bitmap = data.startswith(b"P4")
    header = _PPM_HEADER.match(data[:4096])
    if header is None or (not bitmap and header[3] not in (b"255", b"65535")):
        raise StructureError("only binary PPMs with values up to 255 or 65535 are accepted")
    if header[3] == b"65535" and data.startswith(b"P6"):
        raise StructureError("a colour PPM must have values up to 255")
    return Structure("PPM", int(header[1]), int(header[2]), data, 8)


def _tiff(data: bytes) -> Structure:
    width, height, stored = read_tiff(data, StructureError)
    return Structure("TIFF", width, height, data, stored)


_JPEG_KEPT = (0xFFC0, 0xFFC1, 0xFFC2, 0xFFC4, 0xFFDB, 0xFFDD, 0xFFE0, 0xFFEE)  # frame, tables, restarts, colour space
_SIGNATURES = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II\*\0|MM\0\*"),
    "PPM": re.compile(rb"P[1-6]\s"),
}
_READERS: dict[str, Callable[[bytes], Structure]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "GIF": _gif,
    "BMP": _bmp,
    "TIFF": _tiff,
    "PPM": _ppm,
}
