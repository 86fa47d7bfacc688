"""Images that a stranger sends to make a server work: small, and dear to a careless decoder."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

MOST = 6 * 2**20  # bytes of an image, the default limit


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(marker: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">HH", marker, len(data) + 2) + data


def filled(head: bytes, repeated: bytes, tail: bytes = b"", size: int = MOST) -> bytes:
    """A file of the largest size: the repeated part as often as it fits."""
    return head + repeated * ((size - len(head) - len(tail)) // len(repeated)) + tail


def scans(side: int, size: int = MOST, most: int = 10**9) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = encoded(Image.new("RGB", (side, side), "teal"), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * min(most, (size - len(data)) // len(last)) + data[-2:]


def jpegs() -> Iterator[tuple[str, bytes]]:
    plain = encoded(Image.new("RGB", (64, 64), "teal"), "JPEG")
    progressive = encoded(Image.new("RGB", (64, 64), "teal"), "JPEG", progressive=True)
    for side in (8, 64, 300, 1000, 3000, 4900):
        yield f"JPEG of {side}² with as many scans as fit", scans(side)
    for count in (60, 100, 1000, 10_000):
        for side in (1000, 3400):
            yield f"JPEG of {side}² with {count} more scans", scans(side, most=count)
    yield "JPEG of as many pixels and scans as are accepted", scans(1766, most=53)
    yield "JPEG of 4000² at full size", encoded(Image.new("RGB", (4000, 4000), "teal"), "JPEG")
    for side in (3500, 5000, 5001, 20_000, 65_500):
        yield (
            f"progressive JPEG of {side}²",
            scans(min(side, 5001), most=0) if side < 9999 else _sized(progressive, side),
        )
    yield "baseline JPEG that says 65,500²", _sized(plain, 65_500)
    for marker, name in ((0xFFE0, "APP0"), (0xFFE1, "APP1"), (0xFFED, "APP13"), (0xFFFE, "comments"), (0xFFDB, "DQT")):
        body = b"Photoshop 3.0\0" if marker == 0xFFED else b""
        yield f"JPEG with as many {name} as fit", filled(plain[:2], segment(marker, body), plain[2:])
    resources = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\0" * 5400
    yield "JPEG full of Photoshop resources", filled(plain[:2], segment(0xFFED, resources), plain[2:])
    yield "JPEG padded with FF", filled(plain[:2], b"\xff", plain[2:])
    yield "JPEG padded with FF00", filled(plain[:2], b"\xff\0", plain[2:])
    yield "JPEG with FF after its scan", filled(plain[:-2], b"\xff", plain[-2:])
    yield "JPEG with restarts", filled(plain[:-2], b"\xff\xd0", plain[-2:])
    yield "JPEG with Huffman tables after its scan", filled(progressive[:-2], _huffman(progressive), progressive[-2:])
    icc = b"ICC_PROFILE\0\x01\xff" + b"x" * 65_000
    yield "JPEG of colour profile", filled(plain[:2], segment(0xFFE2, icc), plain[2:])
    exif = segment(0xFFE1, b"Exif\0\0" + _directory(5000, 1))
    yield "JPEG with a long EXIF", plain[:2] + exif + plain[2:]
    yield "JPEG with many EXIF", filled(plain[:2], exif, plain[2:])
    yield "JPEG with EXIF that names itself", plain[:2] + segment(0xFFE1, b"Exif\0\0" + _loop()) + plain[2:]
    yield "JPEG with many pictures (MPO)", filled(plain[:2], segment(0xFFE2, b"MPF\0" + _directory(4000, 7)), plain[2:])
    for kind in (0xC3, 0xC5, 0xC9, 0xCA, 0xCB, 0xCF):
        yield f"JPEG of process {kind:02X}", plain.replace(b"\xff\xc0", bytes([0xFF, kind]))
    yield "JPEG of 12 bits", plain.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")
    yield "JPEG of ten components", plain.replace(plain[plain.index(b"\xff\xc0") :][9:10], b"\x0a", 1)
    yield "JPEG followed by a JPEG of as many scans as fit", plain + scans(64, size=MOST - len(plain))
    yield "cut JPEG", plain[:300]


def _sized(jpeg: bytes, side: int) -> bytes:
    at = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2"))
    return jpeg[: at + 5] + struct.pack(">HH", side, side) + jpeg[at + 9 :]


def _huffman(jpeg: bytes) -> bytes:
    at = jpeg.index(b"\xff\xc4")
    return jpeg[at : at + 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0]]


def _directory(entries: int, kind: int) -> bytes:
    rows = b"".join(struct.pack("<HHII", 0x9000 + i % 999, kind, 4, 0) for i in range(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", entries) + rows + b"\0\0\0\0"


def _loop() -> bytes:
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)  # the EXIF directory is this one
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + struct.pack("<I", 8)


def png(width: int, height: int, colour: int = 2, depth: int = 8, body: bytes = b"", interlaced: int = 0) -> bytes:
    """A PNG of zeros, with other chunks before its pixels."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = 1 + -(-width * samples * depth // 8)
    head = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    )
    palette = chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    pixels = zlib.compressobj(1)
    rows = 2 * height if interlaced else height  # seven passes have more rows, and no more pixels
    data = b"".join(pixels.compress(bytes(row * min(100, rows - y))) for y in range(0, rows, 100)) + pixels.flush()
    return head + palette + body + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def pngs() -> Iterator[tuple[str, bytes]]:
    for colour, name in ((0, "grey"), (2, "RGB"), (3, "palette"), (4, "grey and alpha"), (6, "RGBA")):
        yield f"flat {name} PNG of 25 million pixels", png(5000, 5000, colour)
    for colour, name in ((0, "grey"), (2, "RGB"), (6, "RGBA")):
        yield f"16-bit {name} PNG of 16 million pixels", png(4000, 4000, colour, 16)
    for width, height, colour, depth in (
        (3540, 3540, 2, 8),
        (3540, 3540, 2, 16),
        (2500, 2500, 6, 8),
        (2500, 2500, 6, 16),
    ):
        yield f"PNG as large as is accepted, colour {colour}, {depth} bits", png(width, height, colour, depth)
    for colour, depth in ((0, 1), (0, 8), (3, 8)):
        yield f"PNG as large as is accepted, colour {colour}, {depth} bits", png(3170, 3170, colour, depth)
    yield "PNG of 16-bit grey as large as is accepted", png(2890, 2890, 0, 16)
    yield "PNG of grey and alpha as large as is accepted", png(2500, 2500, 4)
    yield "PNG of 100 million pixels", png(10_000, 10_000, 0, 1)
    yield "interlaced PNG", png(3500, 3520, 2, interlaced=1)
    yield "PNG in one column", png(1, 5_000_000, 0)
    yield "PNG in one row", png(5_000_000, 1, 0)
    small = {"width": 8, "height": 8}
    bomb = zlib.compress(bytes(2**20 - 1))
    for kind, body in (
        (b"tEXt", b"a\0b"),
        (b"zTXt", b"a\0\0" + bomb),
        (b"iTXt", b"a\0\x01\0\0\0" + bomb),
        (b"iCCP", b"a\0\0" + bomb),
        (b"tRNS", bytes(6)),
        (b"PLTE", bytes(768)),
        (b"IDAT", b""),
        (b"fdAT", bytes(8)),
        (b"fcTL", bytes(26)),
        (b"eXIf", _directory(3000, 2)),
        (b"xxxx", b""),
    ):
        repeated = chunk(kind, body)
        yield f"PNG with as many {kind.decode()} as fit", png(**small, body=repeated * ((MOST - 999) // len(repeated)))
    yield "PNG of one long text", png(**small, body=chunk(b"tEXt", b"a\0" + b"b" * (MOST - 999)))
    yield "PNG of one long EXIF", png(**small, body=chunk(b"eXIf", _directory(60_000, 2)))
    yield "animated PNG", png(**small, body=chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)))
    yield "cut PNG", png(500, 500)[:-40]
    head = png(3000, 3000)[:33]
    yield "PNG that says more than it has", head + png(20, 20)[33:]


def webps() -> Iterator[tuple[str, bytes]]:
    small = Image.new("RGB", (8, 8), "teal")
    for side in (1700, 1773, 2500, 5000, 16_000):
        yield f"flat lossless WebP of {side}²", encoded(Image.new("RGB", (side, side)), "WEBP", lossless=True, method=0)
    yield "lossy WebP of 25 million pixels", encoded(Image.new("RGB", (5000, 5000)), "WEBP", method=0)
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (1200, 1200, 4), np.uint8))
    yield "WebP of noise with alpha", encoded(noise, "WEBP", lossless=True, method=0)
    moving = encoded(
        small, "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(9)]
    )
    frame = moving[moving.index(b"ANMF") :]
    frame = frame[: 8 + struct.unpack("<I", frame[4:8])[0]]
    yield "WebP with as many frames as fit", _riff(filled(moving, frame))
    for kind in (b"EXIF", b"XMP ", b"ICCP", b"ANIM", b"xxxx"):
        extended = encoded(small, "WEBP", exif=_directory(3, 2))
        yield f"WebP with as many {kind.decode().strip()} as fit", _riff(filled(extended, kind + b"\0\0\0\0"))
    canvas = moving[:24] + b"\xff\xff\xff" * 2 + moving[30:]
    yield "WebP with a canvas of 2²⁴ by 2²⁴", canvas
    yield "cut WebP", moving[:60]


def _riff(data: bytes) -> bytes:
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def gifs() -> Iterator[tuple[str, bytes]]:
    small = encoded(Image.new("P", (8, 8)), "GIF")
    at = 13 + 3 * 2 ** ((small[10] & 7) + 1) if small[10] & 0x80 else 13
    head, rest = small[:at], small[at:]
    yield "GIF of 25 million pixels", encoded(Image.new("P", (5000, 5000)), "GIF")
    yield "GIF as large as is accepted", encoded(Image.new("P", (2500, 2500)), "GIF")
    yield "GIF that says 65,535²", small[:6] + b"\xff" * 4 + small[10:]
    frame = rest.index(b"\x2c")
    yield "GIF with a frame far outside", head + rest[:frame] + b"\x2c" + b"\xff" * 8 + rest[frame + 9 :]
    yield "GIF with a long comment", filled(head + b"\x21\xfe", b"\xff" + b"x" * 255, b"\0" + rest)
    yield "GIF with a comment letter by letter", filled(head + b"\x21\xfe", b"\x01x", b"\0" + rest)
    yield "GIF with as many comments as fit", filled(head, b"\x21\xfe\x01x\0", rest)
    yield "GIF with as many empty extensions as fit", filled(head, b"\x21\xff\0", rest)
    yield "GIF with as many frames as fit", filled(small[:-1], rest[frame:-1], b";")
    yield "GIF with codes byte by byte", filled(head + rest[frame : frame + 11], b"\x01\0", b"\0;")
    yield "GIF of zeros", filled(small[:6], b"\0")
    yield "cut GIF", small[:-8]


def tiff(tags: dict[int, tuple[int, list[int]]], body: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory."""
    at, rows, extra = 8 + 2 + 12 * len(tags) + 4, [], []
    for tag, (kind, values) in sorted(tags.items()):
        code = {1: "B", 3: "H", 4: "I"}[kind]
        packed = struct.pack(f"<{len(values)}{code}", *values)
        where = at + sum(map(len, extra))
        if len(packed) > 4:
            extra.append(packed)
        rows.append(
            struct.pack("<HHI", tag, kind, len(values))
            + (packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", where))
        )
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(rows) + b"\0\0\0\0" + b"".join(extra) + body


def _grey(width: int, height: int, **other: tuple[int, list[int]]) -> dict[int, tuple[int, list[int]]]:
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1]), 277: (3, [1])}
    return (
        tags
        | {273: (4, [8]), 278: (4, [height]), 279: (4, [width * height])}
        | {int(k[1:]): v for k, v in other.items()}
    )


def tiffs() -> Iterator[tuple[str, bytes]]:
    for count in (20_000, 700_000):
        rows = _grey(1, count, t273=(4, [8] * count), t278=(4, [1]), t279=(4, [1] * count))
        yield f"TIFF of {count} strips", tiff(rows)
        squared = _grey(1000, count, t273=(4, [8] * count), t278=(4, [1]), t279=(4, [1] * count), t259=(3, [8]))
        yield f"deflated TIFF of {count} strips", tiff(squared)
    tiles = {322: (4, [65_536]), 323: (4, [65_536]), 324: (4, [8]), 325: (4, [64])}
    base = {k: v for k, v in _grey(64, 64).items() if k not in (273, 278, 279)}
    for compression in (1, 5, 8, 7, 50_001):
        yield f"TIFF of a tile of 65,536², compression {compression}", tiff(base | tiles | {259: (3, [compression])})
    yield "TIFF of 65,535 samples", tiff(_grey(64, 64, t277=(3, [65_535])), bytes(4096))
    many = struct.pack("<H", 65_535) + b"".join(struct.pack("<HHII", i, 7, 6_000_000, 8) for i in range(65_535))
    yield "TIFF of 65,535 tags that overlap", filled(b"II*\0\x08\0\0\0" + many, b"\0")
    few = struct.pack("<H", 150) + b"".join(struct.pack("<HHII", 40_000 + i, 3, 3_000_000, 8) for i in range(150))
    yield "TIFF of 150 tags that overlap", filled(b"II*\0\x08\0\0\0" + few, b"\0")
    yield (
        "TIFF of a directory that follows itself",
        tiff(_grey(8, 8), bytes(64))[:-68] + struct.pack("<I", 8) + bytes(64),
    )
    yield (
        "TIFF of strips that are the whole image",
        tiff(_grey(5000, 5000, t259=(3, [8])), zlib.compress(bytes(25_000_000))),
    )
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield (
            f"TIFF as large as is accepted by {name}",
            encoded(Image.new("RGB", (2100, 2100)), "TIFF", compression=name)[:MOST],
        )
        yield f"TIFF by {name}", encoded(Image.new("RGB", (4000, 4000)), "TIFF", compression=name)[:MOST]
    yield "TIFF by group 4", encoded(Image.new("1", (5000, 5000)), "TIFF", compression="group4")
    yield "TIFF of floats", encoded(Image.fromarray(np.ones((2000, 700), np.float32)), "TIFF")
    yield "BigTIFF", b"II+\0\x08\0\0\0" + bytes(64)
    yield "cut TIFF", tiff(_grey(64, 64))[:40]


def band_files() -> Iterator[tuple[str, bytes]]:
    """Files of arrays and of many bands, for models of more channels than a picture has."""
    strips = {273: (4, [8]), 278: (4, [1]), 279: (4, [40])}
    for compression in (1, 5, 8, 32_773):
        many = {273: (4, [8] * 9_999), 278: (4, [1]), 279: (4, [40] * 9_999), 259: (3, [compression])}
        yield f"9,999 strips, compression {compression}", tiff(_grey(20, 9_999) | many, bytes(400))
        whole = zlib.compress(bytes(MOST)) if compression == 8 else bytes(MOST // 2)
        base = _grey(900, 900) | {259: (3, [compression]), 277: (3, [7]), 279: (4, [len(whole)]), 273: (4, [400])}
        yield f"seven samples, compression {compression}", tiff(base, whole)
        tiles = {322: (4, [512]), 323: (4, [512]), 324: (4, [8] * 9_999), 325: (4, [400] * 9_999)}
        narrow = {k: v for k, v in _grey(1, 512 * 9_999).items() if k not in strips}
        yield (
            f"tiles far wider than the image, {compression}",
            tiff(narrow | tiles | {259: (3, [compression])}, bytes(999)),
        )
    one = tiff(_grey(64, 64, t258=(3, [8] * 9_999)), bytes(4096))
    (count,) = struct.unpack_from("<H", one, 8)
    end = 10 + 12 * count
    yield "a directory of many values that follows itself", one[:end] + struct.pack("<I", 8) + one[end + 4 :]
    for size in (16, 4_000_000_000):
        head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': (7, {size}, 1), }}".encode() + b"\n"
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file, file.open("a.npy", "w") as member:
            member.write(content)
            for _ in range(400):
                member.write(bytes(1 << 20))
        yield f"400 MiB zipped as {size} rows", buffer.getvalue()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for number in range(60_000):
            file.writestr(f"{number}.npy", b"")
    yield "a zip of 60,000 files", buffer.getvalue()


def others() -> Iterator[tuple[str, bytes]]:
    yield "PPM in figures", filled(b"P3\n1000 1000\n255\n", b"1 ")
    yield "PGM in figures", filled(b"P2\n3000 1000\n255\n", b"1 ")
    yield "PBM in figures", filled(b"P1\n3000 1000\n", b"1 ")
    yield "PPM with values up to 100", filled(b"P6\n1400 1400\n100\n", b"\1")
    yield "PGM with values up to 1000", filled(b"P5\n1700 1700\n1000\n", b"\0\1")
    yield "PPM with a long comment", filled(b"P6\n#", b"x", b"\n2 2\n255\n" + bytes(12))
    yield "PPM with as many comments as fit", filled(b"P6\n", b"#\n", b"2 2\n255\n" + bytes(12))
    yield "PPM with spaces", filled(b"P6", b" ", b"2 2 255\n" + bytes(12))
    yield "PBM of 50 million pixels", filled(b"P4\n7000 7000\n", b"\0")
    yield "PBM as large as is accepted", filled(b"P4\n2500 2500\n", b"\0", size=800_000)
    yield "PGM of 16 bits as large as is accepted", filled(b"P5\n1700 1700\n65535\n", b"\0\1")
    yield "PAM", b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 3\nMAXVAL 255\nENDHDR\n" + bytes(12)
    for compression in (1, 2, 4, 5):
        head = struct.pack("<IiiHHIIiiII", 40, 2000, 2000, 1, 8 if compression == 1 else 4, compression, 0, 0, 0, 0, 0)
        yield (
            f"BMP of compression {compression}",
            filled(b"BM" + bytes(8) + b"\x36\4\0\0" + head + bytes(1024), b"\1\0"),
        )
    head = struct.pack("<IiiHHIIiiII", 40, 7000, 7000, 1, 1, 0, 0, 0, 0, 0, 0)
    yield "BMP of 49 million pixels", filled(b"BM" + bytes(8) + b"\x3e\0\0\0" + head + bytes(8), b"\0")
    head = struct.pack("<IiiHHIIiiII", 40, 2000, 2000, 1, 8, 0, 0, 0, 0, 65_536, 0)
    yield "BMP of a long palette", filled(b"BM" + bytes(8) + b"\x36\0\0\0" + head, b"\0")
    yield (
        "BMP that says 2³¹",
        b"BM" + bytes(8) + b"\x36\0\0\0" + struct.pack("<IiiHHIIiiII", 40, 2**31 - 1, 2**31 - 1, 1, 24, *[0] * 6),
    )
    yield "EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9999 9999\n" + b"x" * 999_999
    yield "SVG", b"<svg xmlns='http://www.w3.org/2000/svg' width='99999' height='99999'/>"
    rng = random.Random(0)
    for signature in (
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\x60\0WEBP",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"P6 ",
    ):
        yield f"noise after {signature[:4]!r}", signature + rng.randbytes(MOST - 20)
        yield f"zeros after {signature[:4]!r}", signature + bytes(MOST - 20)


KINDS: dict[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
    "JPEG": jpegs,
    "PNG": pngs,
    "WebP": webps,
    "GIF": gifs,
    "TIFF": tiffs,
    "others": others,
}
