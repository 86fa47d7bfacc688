"""The concepts on held-out images, which neither the split nor the names saw: content of ``held_out.json``.

The strength of a concept on an image is that of ``elude.exporter.naming.concept_portraits.strengths``. Its purity is
the part of the 16 images with the largest strength that are of one class.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from elude.exporter.atlas.fill_catalogue import image_rows
from elude.exporter.images import ImageSource
from elude.exporter.naming.concept_choice import SEED, clearest, random_sample
from elude.exporter.naming.concept_portraits import strengths
from elude.exporter.naming.concepts import purity_of
from elude.exporter.scoring.activity import Activity
from elude.handlers.bundle.catalogue_schema import ConceptRow, ImageRow, Top
from elude.handlers.errors import BundleError
from elude.handlers.images.preprocess import Preprocess

HELD_OUT = "held_out.json"
TOPS = 8


@dataclass(frozen=True)
class HeldOut:
    """What held-out images show of the concepts.

    Attributes:
        images: how many there are.
        purities: of each concept, by its number; None without classes, or with fewer than two images of each.
        clearest: numbers of the concepts that are clearest on these images.
        random: numbers of concepts drawn from all with equal probability, with ``seed``.
        tops: strongest held-out images of the concepts in ``clearest`` and ``random``; ``activation`` is the strength,
            ``token`` that of the most typical member.
        pictures: the images that ``tops`` names, by number.
    """

    images: int
    purities: tuple[float | None, ...]
    clearest: tuple[int, ...]
    random: tuple[int, ...]
    seed: int
    tops: Mapping[int, tuple[Top, ...]]
    pictures: Mapping[int, ImageRow]

    def to_json(self) -> dict[str, Any]:
        """As the content of ``held_out.json``."""
        tops = {str(number): [[top.image, top.token, top.activation] for top in of] for number, of in self.tops.items()}
        pictures = {
            str(row.id): {"name": row.name, "label": row.label, "png": base64.b64encode(row.png).decode()}
            for row in self.pictures.values()
        }
        facts = {"images": self.images, "purities": list(self.purities), "seed": self.seed}
        shown = {"clearest": list(self.clearest), "random": list(self.random)}
        return {"schema_version": 1, **facts, **shown, "tops": tops, "pictures": pictures}

    @classmethod
    def from_json(cls, value: Any, concepts: int) -> HeldOut:
        """From the content of ``held_out.json``, of a catalogue with that many concepts.

        Raises:
            BundleError: it is not such a content.
        """
        try:
            read = cls(
                int(value["images"]),
                tuple(None if purity is None else float(purity) for purity in value["purities"]),
                tuple(map(int, value["clearest"])),
                tuple(map(int, value["random"])),
                int(value["seed"]),
                {int(number): tuple(_top(*top) for top in tops) for number, tops in value["tops"].items()},
                {int(number): _picture(int(number), row) for number, row in value["pictures"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise _unusable(f"it is not of the expected form ({error!r})") from error
        shown = (*read.clearest, *read.random)
        images = {top.image for number in shown for top in read.tops.get(number, ())}
        if len(read.purities) != concepts or not set(shown) <= set(range(concepts)) & set(read.tops):
            raise _unusable("it names other concepts than the catalogue")
        if not images <= set(read.pictures):
            raise _unusable("a picture that it names is missing")
        return read


def held_out_concepts(
    concepts: Sequence[ConceptRow], activity: Sequence[Activity], images: ImageSource, preprocess: Preprocess
) -> HeldOut:
    """What held-out images show of the concepts.

    Args:
        concepts: all of the catalogue, by number.
        activity: of the sub-units of each layer, in the order that numbers them.
        images: those that ``activity`` counts.
        preprocess: of the model.
    """
    peak = np.concatenate([layer.peak for layer in activity], axis=1)
    token = np.concatenate([layer.token for layer in activity], axis=1)
    strength, classes = strengths(peak, concepts), [entry.label for entry in images.entries]
    purities = [purity_of(strength[:, row], classes) for row in range(len(concepts))]
    judged = [replace(concept, purity=purity) for concept, purity in zip(concepts, purities, strict=True)]
    chosen, drawn = clearest(judged), random_sample(judged)
    tops = {}
    for concept in (*chosen, *drawn):
        values, where = strength[:, concept.number], token[:, concept.members[0]]
        order = np.argsort(-values, kind="stable")[:TOPS].tolist()
        tops[concept.number] = tuple(Top(i, int(where[i]), float(values[i])) for i in order if values[i] > 0)
    used = sorted({top.image for of in tops.values() for top in of})
    pictures = {row.id: row for row in image_rows(used, images, preprocess)}
    first, second = (tuple(concept.number for concept in shown) for shown in (chosen, drawn))
    return HeldOut(len(images), tuple(purities), first, second, SEED, tops, pictures)


def _top(image: Any, token: Any, activation: Any) -> Top:
    return Top(int(image), int(token), float(activation))


def _picture(number: int, row: Mapping[str, Any]) -> ImageRow:
    label = row["label"]
    return ImageRow(
        number, str(row["name"]), None if label is None else str(label), base64.b64decode(row["png"], validate=True)
    )


def _unusable(reason: str) -> BundleError:
    return BundleError(f"{HELD_OUT} cannot be used: {reason}.", "Measure the bundle again: elude measure --held-out.")
