"""The gallery of concepts: the clearest named ones, and beside them a fair random sample of all, so that nobody takes
the best for the usual.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

from elude.exporter.atlas.token_places import Layout
from elude.handlers.bundle.catalogue import Catalogue, ConceptRow, clearest_first
from elude.quality.report.atlas import Strip, strip

SEED = 0
SHOWN = 6  # concepts of each kind
_IMAGES = 8


@dataclass(frozen=True)
class ConceptCard:
    """One concept with the top images of its most typical sub-unit, ``typical``."""

    identifier: str
    name: str | None
    members: int
    agreement: float
    purity: float | None
    typical: str
    strip: Strip


@dataclass(frozen=True)
class Gallery:
    """Concepts to show.

    Attributes:
        chosen: the clearest named ones, as ``clearest_first`` orders them; of namesakes the first.
        random: drawn from all with equal probability, whether among the chosen or not.
        total: number of all concepts.
        named: number of those with a name.
        seed: of the drawing.
    """

    chosen: tuple[ConceptCard, ...]
    random: tuple[ConceptCard, ...]
    total: int
    named: int
    seed: int


def gallery(catalogue: Catalogue, layout: Layout | None, *, shown: int = SHOWN, seed: int = SEED) -> Gallery | None:
    """The gallery of a catalogue; None if it holds no concepts."""
    concepts = catalogue.concepts()
    if not concepts:
        return None
    named = [row for row in concepts if row.name is not None]
    clearest: dict[str, ConceptRow] = {}
    for row in clearest_first(named):
        clearest.setdefault(_word(row), row)
    chosen = list(clearest.values())[:shown]
    drawn = random.Random(seed).sample(concepts, min(shown, len(concepts)))
    cards = [_cards(catalogue, rows, layout) for rows in (chosen, drawn)]
    return Gallery(cards[0], cards[1], len(concepts), len(named), seed)


def _word(row: ConceptRow) -> str:
    """The name without the number that tells namesakes apart: ``trouser`` of ``trouser 2``."""
    return re.sub(r" \d+$", "", row.name or "")


def _cards(catalogue: Catalogue, concepts: Iterable[ConceptRow], layout: Layout | None) -> tuple[ConceptCard, ...]:
    cards = []
    for row in concepts:
        typical = catalogue.sub_unit(row.members[0])
        pictures = strip(catalogue, typical.id, typical, _IMAGES, layout)
        facts = (row.id, row.name, len(row.members), row.agreement, row.purity)
        cards.append(ConceptCard(*facts, typical.id, pictures))
    return tuple(cards)
