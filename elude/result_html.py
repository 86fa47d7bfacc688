"""The pieces of a result's page in a notebook: plain HTML with pictures inside, no script, no address."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elude.handlers.images.decode import Limits

LIMITS = Limits(max_bytes=1 << 30, max_pixels=1 << 28)  # the caller's own images, not a stranger's
_SIDE = 112  # pixels of a shown image
_HEAT = (255, 80, 0)  # colour of the strongest place
_CELL = "padding:4px 8px;vertical-align:middle;text-align:left;border:0"


def picture(image: Image.Image | None, activations: NDArray[np.float32] | None = None) -> str:
    """An image, with a heat map over it: the more active a place, the more it is coloured, the others darker.

    Args:
        image: nothing is shown for None.
        activations: float32 (rows, columns), at least 0.
    """
    if image is None:
        return ""
    image = image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    if activations is not None and activations.max(initial=0) > 0:
        scaled = Image.fromarray((activations / activations.max() * 255).astype(np.uint8))
        strength = np.asarray(scaled.resize(image.size, Image.Resampling.BILINEAR), np.float32)[..., None] / 255
        dimmed = np.asarray(image, np.float32) * (0.45 + 0.55 * strength)
        image = Image.fromarray((dimmed * (1 - 0.5 * strength) + np.array(_HEAT) * 0.5 * strength).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return _img(buffer.getvalue(), _SIDE)


def thumbnails(pngs: Sequence[bytes], titles: Sequence[str | None] = ()) -> str:
    """Small images in a row."""
    texts = [*titles, *[None] * (len(pngs) - len(titles))]
    return "".join(_img(png, 48, title or "") for png, title in zip(pngs, texts, strict=True))


def bars(values: Mapping[str, float], caption: str = "") -> str:
    """Numbers as bars whose full width is the largest of them and 1."""
    most = max(1.0, *values.values()) if values else 1.0
    rows = "".join(
        f'<tr style="background:none"><td style="{_CELL}">{escape(name)}</td><td style="{_CELL};width:130px">'
        f'<div style="background:#4878d0;height:12px;width:{max(0.0, value) / most * 120:.0f}px"></div></td>'
        f'<td style="{_CELL}">{value:.3f}</td></tr>'
        for name, value in values.items()
    )
    head = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{head}{rows}</table>"


def title(name: str | None, identifier: str, text: str) -> str:
    """A sub-unit's name, identifier and one line."""
    return (
        f"<div><b>{escape(name or 'unnamed')}</b><br><code>{escape(identifier)}</code><br>"
        f"<small>{escape(text)}</small></div>"
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Cells that are HTML already."""
    lines = (
        f'<tr style="background:none">{"".join(f"<td style={_CELL!r}>{cell}</td>" for cell in row)}</tr>'
        for row in rows
    )
    return f"<table>{''.join(lines)}</table>"


def beside(*parts: str) -> str:
    """Parts next to each other."""
    return f'<div style="display:flex;gap:16px;align-items:center">{"".join(parts)}</div>'


def note(text: str) -> str:
    """A line of text."""
    return f"<div><small>{escape(text)}</small></div>"


def read_png(data: bytes) -> list[list[int]]:
    """The values of a greyscale PNG as rows."""
    values: Any = np.asarray(Image.open(io.BytesIO(data)).convert("L")).tolist()
    rows: list[list[int]] = values
    return rows


def _img(png: bytes, side: int, title: str = "") -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<img src="data:image/png;base64,{data}" width="{side}" height="{side}" alt="{escape(title)}" '
        f'title="{escape(title)}" style="object-fit:contain;display:inline-block;margin:1px">'
    )
