"""The rows of the catalogue, and their tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageRow:
    """One image that some unit or sub-unit follows: its thumbnail as PNG, its name and, if known, its label."""

    id: int
    name: str
    label: str | None
    png: bytes


@dataclass(frozen=True)
class Top:
    """One strong instance: an image, the token of it, and the activation there."""

    image: int
    token: int
    activation: float


@dataclass(frozen=True)
class UnitRow:
    """One unit: in how many parts it is split, its MS-Score before the split, and its top instances, strongest
    first.
    """

    layer: str
    unit: int
    parts: int
    ms_score: float | None
    tops: tuple[Top, ...]


@dataclass(frozen=True)
class SubUnitRow:
    """One sub-unit.

    Attributes:
        index: its row over all layers of the bundle.
        layer: path of the module.
        unit: its parent.
        part: its number within the unit.
        rho: margin found for its unit, None for a whole unit.
        omega: its share of the bias.
        active: fraction of the probing instances where it is above 0.
        mean: mean activation over the probing instances.
        maximum: largest activation over the probing instances.
        ms_score: how alike its top images are, None where it is active too rarely.
        share: mean share of the unit's weights.
        name: a concept, None while unnamed.
        name_method: how the name was found.
        name_score: how well it fits, in the method's own measure.
        tops: its top instances, strongest first.
    """

    index: int
    layer: str
    unit: int
    part: int
    rho: float | None
    omega: float
    active: float
    mean: float
    maximum: float
    ms_score: float | None
    share: float
    name: str | None
    name_method: str | None
    name_score: float | None
    tops: tuple[Top, ...]

    @property
    def id(self) -> str:
        """Its identifier, e.g. ``blocks.11.mlp.fc2/u31.s4``."""
        return f"{self.layer}/u{self.unit}.s{self.part}"


@dataclass(frozen=True)
class ConceptRow:
    """A set of sub-units, of whatever unit, that answer to the same images.

    Attributes:
        number: its row over all layers of the bundle.
        name: used by no other concept of the bundle, None while unnamed.
        agreement: mean correlation of its members' activations with their mean, over the atlas images.
        purity: part of the images where it is strongest that are of one class, None without classes.
        members: indices of its sub-units over all layers, most typical first.
    """

    number: int
    name: str | None
    agreement: float
    purity: float | None
    members: tuple[int, ...]

    @property
    def id(self) -> str:
        """Its identifier, e.g. ``c12``."""
        return f"c{self.number}"


def clearest_first(concepts: Iterable[ConceptRow]) -> list[ConceptRow]:
    """The order in which concepts are shown: those of several sub-units, of these the named, of these the purest,
    of these the largest. One of a single sub-unit says no more than that sub-unit.
    """

    def key(row: ConceptRow) -> tuple[bool, bool, float, int, int]:
        return len(row.members) < 2, row.name is None, -(row.purity or 0.0), -len(row.members), row.number

    return sorted(concepts, key=key)


@dataclass(frozen=True)
class ConceptPortrait:
    """A concept beside the others, over the atlas images. Its strength on an image is the mean over its members of
    the largest activation above 0, divided by the member's largest on all atlas images.

    Attributes:
        number: of the concept.
        place: on a map of all concepts, each coordinate from -1 to 1; near ones answer to like images.
        histogram: number of images whose strength is in each of equally wide bins from 0 to 1.
        related: other concepts with the correlation of their strengths: the most similar first, the most
            opposite last.
        tops: where it is strongest; ``activation`` is the strength, ``token`` that of the most typical member.
    """

    number: int
    place: tuple[float, float]
    histogram: tuple[int, ...]
    related: tuple[tuple[int, float], ...]
    tops: tuple[Top, ...]


SCHEMA = """
CREATE TABLE images (id INTEGER PRIMARY KEY, name TEXT NOT NULL, label TEXT, png BLOB NOT NULL) STRICT;
CREATE TABLE units (id INTEGER PRIMARY KEY, layer TEXT NOT NULL, unit INTEGER NOT NULL, parts INTEGER NOT NULL,
  ms_score REAL, UNIQUE (layer, unit)) STRICT;
CREATE TABLE sub_units (id INTEGER PRIMARY KEY, layer TEXT NOT NULL, unit INTEGER NOT NULL, part INTEGER NOT NULL,
  rho REAL, omega REAL NOT NULL, active REAL NOT NULL, mean REAL NOT NULL, maximum REAL NOT NULL, ms_score REAL,
  share REAL NOT NULL, name TEXT, name_method TEXT, name_score REAL, UNIQUE (layer, unit, part)) STRICT;
CREATE TABLE tops (kind TEXT NOT NULL, owner INTEGER NOT NULL, rank INTEGER NOT NULL,
  image INTEGER NOT NULL REFERENCES images (id), token INTEGER NOT NULL, activation REAL NOT NULL,
  PRIMARY KEY (kind, owner, rank)) STRICT, WITHOUT ROWID;
CREATE TABLE concepts (id INTEGER PRIMARY KEY, name TEXT UNIQUE, agreement REAL NOT NULL, purity REAL) STRICT;
CREATE TABLE concept_members (sub_unit INTEGER PRIMARY KEY REFERENCES sub_units (id),
  concept INTEGER NOT NULL REFERENCES concepts (id), rank INTEGER NOT NULL, UNIQUE (concept, rank)) STRICT;
CREATE TABLE concept_places (concept INTEGER PRIMARY KEY REFERENCES concepts (id),
  x REAL NOT NULL, y REAL NOT NULL) STRICT;
CREATE TABLE concept_histograms (concept INTEGER NOT NULL REFERENCES concepts (id), bin INTEGER NOT NULL,
  images INTEGER NOT NULL, PRIMARY KEY (concept, bin)) STRICT, WITHOUT ROWID;
CREATE TABLE concept_relations (concept INTEGER NOT NULL REFERENCES concepts (id),
  other INTEGER NOT NULL REFERENCES concepts (id), correlation REAL NOT NULL,
  PRIMARY KEY (concept, other)) STRICT, WITHOUT ROWID;
CREATE VIRTUAL TABLE names USING fts5 (name, identifier, tokenize='unicode61');
"""
