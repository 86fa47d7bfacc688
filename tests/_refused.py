"""Requests that must be refused: wrong, odd, deep, huge or cut, as bodies with their content types."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import zlib

import numpy as np
from _serving import images
from PIL import Image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def hollow_png(width: int, height: int) -> bytes:
    """A PNG that says it is of that size and holds next to nothing."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def refused() -> dict[str, tuple[bytes, str]]:
    """Body and content type of what must be refused."""
    image = images(1)[0]
    text = base64.b64encode(image).decode()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    edit = {"id": "blocks.5.mlp.fc2/u0.s0", "action": "scale", "value": 1}
    steer = {"op": "steer", "image": text, "edits": [edit]}
    bodies: dict[str, object] = {
        "no image": {"op": "predict"},
        "wrong type": {"image": 7},
        "a list": [1, 2],
        "null": None,
        "unknown field": {"image": text, "x": 1},
        "unknown operation": {"op": "../../etc/passwd"},
        "nan": steer | {"edits": [edit | {"value": float("nan")}]},
        "infinity": steer | {"edits": [edit | {"value": float("inf")}]},
        "huge number": steer | {"edits": [edit | {"value": 10**300}]},
        "huge whole number": {"image": text, "top_k": 10**1000},
        "negative patches": steer | {"edits": [edit | {"patches": -5}]},
        "unknown sub-unit": steer | {"edits": [edit | {"id": "blocks.5.mlp.fc2/u999999.s0"}]},
        "path as sub-unit": {"op": "feature", "id": "../../../etc/passwd"},
        "url as image": {"image": "file:///etc/passwd"},
        "half a character": {"op": "search", "query": "\ud800"},
        "concept of half a character": steer | {"edits": [{"concept": "\ud800", "action": "ablate"}]},
        "SQL": {"op": "feature", "id": "x'; DROP TABLE sub_units; --"},
        "a million edits": steer | {"edits": [{}] * 10**6},
        "a million images": {"instances": [""] * 10**6},
        "many fields": {f"field {i}": i for i in range(10**5)},
        "long text": {"op": "x" * 10**6},
    }
    found = {name: (json.dumps(body).encode(), "application/json") for name, body in bodies.items()}
    found |= {
        "deep": (b"[" * 10**6, "application/json"),
        "deep object": (b'{"op":' * 10**5, "application/json"),
        "cut JSON": (json.dumps(steer).encode()[:-9], "application/json"),
        "not UTF-8": (b'{"op": "\xff\xfe"}', "application/json"),
        "NUL": (b"\0" * 1000, "application/json"),
        "empty": (b"", "application/json"),
        "empty image": (b"", "image/png"),
        "text": ("ж" * 1000, "text/plain"),  # type: ignore[dict-item]
        "cut PNG": (image[: len(image) // 2], "image/png"),
        "cut JPEG": (encoded(noise, "JPEG")[:2000], "image/jpeg"),
        "cut WebP": (encoded(noise, "WEBP")[:2000], "image/webp"),
        "cut GIF": (encoded(noise, "GIF")[:2000], "image/gif"),
        "cut TIFF": (encoded(noise, "TIFF")[:2000], "image/tiff"),
        "bomb": (hollow_png(20_000, 20_000), "image/png"),
        "bomb of 2^31": (hollow_png(2**31 - 1, 2**31 - 1), "image/png"),
        "hollow": (hollow_png(1000, 1000), "image/png"),
        "true bomb": (encoded(Image.new("L", (12_000, 12_000)), "PNG"), "image/png"),
        "bomb GIF": (encoded(Image.new("P", (16_000, 16_000)), "GIF"), "image/gif"),
        "thin": (encoded(Image.new("L", (1, 5000)), "PNG"), "image/png"),
        "very thin": (encoded(Image.new("1", (1, 2_000_000)), "TIFF"), "image/tiff"),
        "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/eps"),
        "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        "float TIFF": (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "image/tiff"),
        "7 MB of noise": (os.urandom(7 * 2**20), "image/png"),
        "broken multipart": (b"--x\r\nnonsense", "multipart/form-data; boundary=x"),
        "multipart without an image": (
            b'--x\r\nContent-Disposition: form-data; name="y"\r\n\r\n1\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
    }
    return {name: (body.encode() if isinstance(body, str) else body, kind) for name, (body, kind) in found.items()}
