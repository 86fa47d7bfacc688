"""The gallery of concepts: the clearest named ones, and beside them a fair random sample of all; on held-out images,
where the bundle has been shown some.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from elude.exporter.atlas.held_out import HeldOut
from elude.exporter.atlas.token_places import Layout
from elude.exporter.naming.concept_choice import SEED, SHOWN, clearest, random_sample
from elude.handlers.bundle.catalogue import Catalogue, ConceptRow
from elude.quality.report.atlas import Picture, classes, pictures

_IMAGES = 8


@dataclass(frozen=True)
class ConceptCard:
    """One concept with its strongest images and the classes among them.

    Attributes:
        purity: part of the 16 strongest images that are of one class; None where that is not known.
        seen_purity: the same of the images that the split was made from, on a card of held-out images.
        typical: identifier of its most typical sub-unit.
    """

    identifier: str
    name: str | None
    members: int
    agreement: float
    purity: float | None
    seen_purity: float | None
    typical: str
    labels: tuple[tuple[str, int], ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """Concepts to show.

    Attributes:
        chosen: the clearest named ones, as ``clearest_first`` orders them; of namesakes the first.
        random: drawn from all with equal probability, whether among the chosen or not.
        total: number of all concepts.
        named: number of those with a name.
        seed: of the drawing.
        held_out: number of held-out images that both lists show; None: they show the images of the split.
        purities: mean purity of the concepts, on the held-out images and on those of the split; None where not known.
    """

    chosen: tuple[ConceptCard, ...]
    random: tuple[ConceptCard, ...]
    total: int
    named: int
    seed: int
    held_out: int | None
    purities: tuple[float, float] | None


def gallery(
    catalogue: Catalogue,
    layout: Layout | None,
    held_out: HeldOut | None = None,
    *,
    shown: int = SHOWN,
    seed: int = SEED,
) -> Gallery | None:
    """The gallery of a catalogue; None if it holds no concepts.

    Args:
        catalogue: of the bundle.
        layout: to mark the places on the thumbnails.
        held_out: what held-out images show of the concepts; None: show the images of the catalogue. It says itself
            which concepts are ``shown``, and how they were drawn.
        shown: concepts of each kind.
        seed: of the drawing.
    """
    concepts = catalogue.concepts()
    if not concepts:
        return None
    named = sum(row.name is not None for row in concepts)
    if held_out is None:
        lists = clearest(concepts, shown), random_sample(concepts, shown, seed)
        chosen, drawn = (tuple(_seen(catalogue, row, layout) for row in rows) for rows in lists)
        return Gallery(chosen, drawn, len(concepts), named, seed, None, None)
    chosen, drawn = (
        tuple(_unseen(catalogue, concepts[number], held_out, layout) for number in numbers)
        for numbers in (held_out.clearest, held_out.random)
    )
    means = _mean(held_out.purities), _mean(row.purity for row in concepts)
    purities = None if means[0] is None or means[1] is None else (means[0], means[1])
    return Gallery(chosen, drawn, len(concepts), named, held_out.seed, held_out.images, purities)


def _seen(catalogue: Catalogue, row: ConceptRow, layout: Layout | None) -> ConceptCard:
    """A card of the images that drive the most typical sub-unit most."""
    typical = catalogue.sub_unit(row.members[0])
    tops = [(top, catalogue.image(top.image)) for top in typical.tops[:_IMAGES]]
    facts = (row.id, row.name, len(row.members), row.agreement, row.purity, None, typical.id)
    return ConceptCard(*facts, classes(image for _, image in tops), pictures(tops, typical.id, typical.layer, layout))


def _unseen(catalogue: Catalogue, row: ConceptRow, held_out: HeldOut, layout: Layout | None) -> ConceptCard:
    """A card of held-out images."""
    typical = catalogue.sub_unit(row.members[0])
    tops = [(top, held_out.pictures[top.image]) for top in held_out.tops[row.number][:_IMAGES]]
    purity = held_out.purities[row.number]
    facts = (row.id, row.name, len(row.members), row.agreement, purity, row.purity, typical.id)
    return ConceptCard(*facts, classes(image for _, image in tops), pictures(tops, row.id, typical.layer, layout))


def _mean(purities: Iterable[float | None]) -> float | None:
    known = [purity for purity in purities if purity is not None]
    return sum(known) / len(known) if known else None
