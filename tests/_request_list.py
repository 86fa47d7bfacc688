"""One list of requests, each in a form that some client sends, and the page that is made of it:

python tests/_request_list.py > docs/serving-requests.md
"""

from __future__ import annotations

import base64
import codecs
import json
import sys
from pathlib import Path
from typing import Any

from _serving import images

from elude.handlers.requests.routes import ROUTES, TORCHSERVE

PAGE = Path(__file__).parent.parent / "docs/serving-requests.md"
IMAGE = images(1)[0]
TEXT = base64.b64encode(IMAGE).decode()
WRAPPED = "\n".join(TEXT[i : i + 76] for i in range(0, len(TEXT), 76))


def as_json(**body: Any) -> tuple[bytes, str]:
    return json.dumps(body).encode(), "application/json"


def form(*fields: tuple[str, bytes]) -> tuple[bytes, str]:
    """A form as ``curl -F`` sends it; an image is a file."""
    parts = b""
    for name, value in fields:
        file = '; filename="x.png"\r\nContent-Type: image/png' if value == IMAGE else ""
        parts += f'--=x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + value + b"\r\n"
    return parts + b"--=x--\r\n", 'multipart/form-data; boundary="=x"'


V2_TENSOR = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
# name: path, (body, content type), status
REQUESTS: dict[str, tuple[str, tuple[bytes, str], int]] = {
    "image": ("/predictions/M", (IMAGE, "image/png"), 200),
    "octets": ("/predictions/M", (IMAGE, "application/octet-stream"), 200),
    "image without a content type": ("/predictions/M", (IMAGE, ""), 200),
    "image as text": ("/predictions/M", (IMAGE, "text/plain"), 200),
    "image as JSON": ("/predictions/M", (IMAGE, "application/json"), 200),
    "version": ("/predictions/M/1.0", (IMAGE, "image/png"), 200),
    "explanation": ("/explanations/M", (IMAGE, "image/png"), 200),
    "explanation of a version": ("/explanations/M/1.0", (IMAGE, "image/png"), 200),
    "base64 text": ("/predictions/M", (TEXT.encode(), "text/plain"), 200),
    "base64 octets": ("/predictions/M", (TEXT.encode(), "application/octet-stream"), 200),
    "wrapped base64": ("/predictions/M", (WRAPPED.encode(), "text/plain"), 200),
    "data URL": ("/predictions/M", as_json(image=f"data:image/png;base64,{TEXT}"), 200),
    "JSON": ("/predictions/M", as_json(op="predict", image=TEXT, top_k=2), 200),
    "JSON as text": ("/predictions/M", (as_json(image=TEXT)[0], "text/plain"), 200),
    "JSON as octets": ("/predictions/M", (as_json(image=TEXT)[0], "application/octet-stream"), 200),
    "JSON with a charset": ("/predictions/M", (as_json(image=TEXT)[0], "application/json; charset=utf-8"), 200),
    "JSON after a byte order mark": (
        "/predictions/M",
        (codecs.BOM_UTF8 + as_json(image=TEXT)[0], "application/json"),
        200,
    ),
    "JSON of an explanation": ("/explanations/M", as_json(image=TEXT, heat_map="none"), 200),
    "V1": ("/v1/models/M:predict", as_json(instances=[TEXT]), 200),
    "V1 explanation": ("/v1/models/M:explain", as_json(instances=[TEXT]), 200),
    "V1 b64": ("/v1/models/M:predict", as_json(instances=[{"b64": TEXT}, {"image": {"b64": TEXT}, "top_k": 1}]), 200),
    "V1 data": ("/v1/models/M:predict", as_json(instances=[{"data": TEXT}]), 200),
    "V1 image_bytes": ("/v1/models/M:predict", as_json(instances=[{"image_bytes": {"b64": TEXT}}]), 200),
    "V1 wrapped": ("/v1/models/M:predict", as_json(instances=[{"image": WRAPPED}]), 200),
    "V1 two images": ("/v1/models/M:predict", as_json(instances=[{"image": TEXT, "data": TEXT}]), 400),
    "V1 empty": ("/v1/models/M:predict", as_json(instances=[]), 400),
    "V2": ("/v2/models/M/infer", as_json(id="7", inputs=[V2_TENSOR], parameters={"top_k": 1}), 200),
    "V2 by the plain route": ("/predictions/M", as_json(inputs=[V2_TENSOR]), 200),
    "form": ("/predictions/M", form(("data", IMAGE)), 200),
    "form of another name": ("/predictions/M", form(("file", IMAGE)), 200),
    "form with options": ("/predictions/M", form(("data", IMAGE), ("top_k", b"2")), 200),
    "form with an operation": (
        "/predictions/M",
        form(("image", IMAGE), ("op", b"inspect"), ("top_k", b"1"), ("heat_map", b"none")),
        200,
    ),
    "form of two images": ("/predictions/M", form(("data", IMAGE), ("body", IMAGE)), 400),
    "form with an unknown field": ("/predictions/M", form(("data", IMAGE), ("topk", b"2")), 400),
    "form with a wrong number": ("/predictions/M", form(("data", IMAGE), ("top_k", b"two")), 400),
    "form without an image": ("/predictions/M", form(("top_k", b"2")), 400),
    "no body": ("/predictions/M", (b"", "image/png"), 400),
    "list": ("/predictions/M", (b"[1, 2]", "application/json"), 400),
    "many values": ("/predictions/M", (b"[" + b"1," * 200_000 + b"1]", "application/json"), 413),
    "unknown sub-unit": ("/predictions/M", as_json(op="feature", id="x/u1.s1"), 404),
    "unknown model": ("/predictions/none", (IMAGE, "image/png"), 404),
    "unknown version": ("/predictions/M/9.9", (IMAGE, "image/png"), 404),
}


def same_body(name: str) -> bool:
    """Whether both front ends must give the same body: not where a server's own words refuse an address."""
    path, _, status = REQUESTS[name]
    return status != 404 or path == "/predictions/M"


def document() -> str:
    """The page."""
    lines = [
        "# Requests and front ends",
        "",
        "*Every address, and every form in which a request may come.* Made from the list that the tests send to both",
        "front ends (`tests/_request_list.py`) and the routes (`handlers/requests/routes.py`). `M` is the model.",
        "",
        "## Requests",
        "",
        "Both front ends give this status and the same body, byte for byte; only the answers to an unknown model or",
        "version are in each server's own words.",
        "",
        "| request | address | content type | status |",
        "|---|---|---|---|",
    ]
    for name, (path, (_, kind), status) in REQUESTS.items():
        lines.append(f"| {name} | `{path}` | {kind.partition(';')[0] or 'none'} | {status} |")
    open_to_all = " and ".join(f"`{route.path}`" for route in ROUTES if not route.key)
    lines += ["", "## Addresses", "", f"The web front end answers all of them; all but {open_to_all} need the key."]
    lines += ["", "| address | asks | TorchServe |", "|---|---|---|"]
    for route in ROUTES:
        answered = "yes" if TORCHSERVE in route.fronts else "404"
        lines.append(f"| `{route.method} {route.path}` | {route.asks} | {answered} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
