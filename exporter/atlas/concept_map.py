"""The map of concepts as SVG text: a circle for each, the larger the more sub-units, in the colour of its name's
first word. Each is a link, so that the map works without a script and by keyboard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

WIDTH, HEIGHT, MARGIN = 1000, 560, 46
LABELS = 22  # names that are written on the map, at most
LETTER, LINE = 9.5, 18  # size of a letter on the map


@dataclass(frozen=True)
class Spot:
    """One concept: where it lies (each coordinate from -1 to 1), where it leads, and what it is called."""

    place: tuple[float, float]
    href: str
    title: str
    word: str | None
    members: int


def concept_map(spots: Sequence[Spot], label: str) -> Markup:
    """All spots, large ones below small ones; the names of the largest that have room are written beside them."""
    hues = _hues(spots)
    ordered = sorted(_filling(spots), key=lambda spot: -spot.members)
    circles = "".join(_circle(spot, hues) for spot in ordered)
    head = f'<svg class="map" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{escape(label)}">'
    return Markup(head + circles + _labels(ordered) + "</svg>")


def _filling(spots: Sequence[Spot]) -> list[Spot]:
    """The spots moved apart so that they fill the map both ways."""
    sides = [(min(axis), max(axis)) for axis in zip(*(spot.place for spot in spots), strict=True)]

    def filled(value: float, low: float, high: float) -> float:
        return 0.0 if high == low else 2 * (value - low) / (high - low) - 1

    return [replace(spot, place=(filled(spot.place[0], *sides[0]), filled(spot.place[1], *sides[1]))) for spot in spots]


def _hues(spots: Sequence[Spot]) -> dict[str, int]:
    words = sorted({spot.word for spot in spots if spot.word})
    return {word: round(360 * number / len(words)) for number, word in enumerate(words)}


def _point(spot: Spot) -> tuple[float, float]:
    across, up = WIDTH / 2 - MARGIN, HEIGHT / 2 - MARGIN
    return WIDTH / 2 + across * spot.place[0], HEIGHT / 2 - up * spot.place[1]


def _radius(spot: Spot) -> float:
    return min(5 + 2.6 * math.sqrt(spot.members), 30)


def _circle(spot: Spot, hues: dict[str, int]) -> str:
    x, y = _point(spot)
    hue = f' style="--hue:{hues[spot.word]}"' if spot.word else ' class="unnamed"'
    circle = f'<circle{hue} cx="{x:.1f}" cy="{y:.1f}" r="{_radius(spot):.1f}"/>'
    title = escape(spot.title)
    return f'<a href="{escape(spot.href)}" aria-label="{title}"><title>{title}</title>{circle}</a>'


def _labels(ordered: Sequence[Spot]) -> str:
    """The first spot of each word, as long as its name covers no other's."""
    taken: list[tuple[float, float, float, float]] = []
    texts: list[str] = []
    words: set[str] = set()
    for spot in ordered:
        if not spot.word or spot.word in words or len(texts) == LABELS:
            continue
        x, y = _point(spot)
        half = len(spot.word) * LETTER / 2
        middle = min(max(x, half + 2), WIDTH - half - 2)
        box = (middle - half, y - LINE / 2, middle + half, y + LINE / 2)
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            continue
        words.add(spot.word)
        taken.append(box)
        texts.append(f'<text aria-hidden="true" x="{middle:.1f}" y="{y + 5:.1f}">{escape(spot.word)}</text>')
    return "".join(texts)
