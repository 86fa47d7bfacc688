"""The catalogue of a bundle: statistics, names and top images of each unit and sub-unit, in one SQLite file opened
immutable.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.catalogue_schema import (
    SCHEMA,
    ConceptPortrait,
    ConceptRow,
    ImageRow,
    SubUnitRow,
    Top,
    UnitRow,
    clearest_first,
)
from elude.handlers.bundle.identifiers import SubUnitId, parse_id
from elude.handlers.errors import BundleError, UsageError

__all__ = [
    "CATALOGUE",
    "Catalogue",
    "ConceptPortrait",
    "ConceptRow",
    "ImageRow",
    "SubUnitRow",
    "Top",
    "UnitRow",
    "clearest_first",
    "write_catalogue",
]

CATALOGUE = "catalogue.sqlite"
_LOAD_S = 30  # seconds after which reading a file at the start is given up
_PORTRAITS = ("concepts", "concept_places", "concept_histograms", "concept_relations")
_STEPS = 10_000  # of SQLite's machine between two looks at the clock
# What FTS5 makes beside its table; the text differs between versions of SQLite, but never holds an expression.
_SHADOW = re.compile(r"CREATE TABLE 'names_\w+'\(([\w\s,]|KEY\([\w\s,]*\))*\)(\s*WITHOUT ROWID)?")
_SUB_UNIT = "id, layer, unit, part, rho, omega, active, mean, maximum, ms_score, share, name, name_method, name_score"
_Row = TypeVar("_Row")


def write_catalogue(
    path: str | Path,
    images: Iterable[ImageRow],
    units: Iterable[UnitRow],
    sub_units: Iterable[SubUnitRow],
    concepts: Iterable[ConceptRow] = (),
    portraits: Iterable[ConceptPortrait] = (),
) -> None:
    """Write a catalogue; the same rows give the same bytes. ``portraits`` are of ``concepts``.

    Raises:
        BundleError: ``path`` exists, an identifier or the name of a concept is used twice, a sub-unit is in
            two concepts, or a top image is not among ``images``.
    """
    path = Path(path)
    if path.exists():
        raise BundleError(f"{path} already exists.", "A catalogue is written once.")
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.executescript(
            "PRAGMA page_size=4096; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA foreign_keys=ON;" + SCHEMA
        )
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO images VALUES (?,?,?,?)", ((i.id, i.name, i.label, i.png) for i in images))
        for unit in units:
            cursor = connection.execute(
                "INSERT INTO units VALUES (NULL,?,?,?,?)", (unit.layer, unit.unit, unit.parts, unit.ms_score)
            )
            _insert_tops(connection, "unit", cursor.lastrowid, unit.tops)
        for s in sub_units:
            values = (
                s.index,
                s.layer,
                s.unit,
                s.part,
                s.rho,
                s.omega,
                s.active,
                s.mean,
                s.maximum,
                s.ms_score,
                s.share,
            )
            connection.execute(
                f"INSERT INTO sub_units VALUES ({','.join('?' * 14)})", (*values, s.name, s.name_method, s.name_score)
            )
            connection.execute(
                "INSERT INTO names (rowid, name, identifier) VALUES (?,?,?)", (s.index, s.name or "", s.id)
            )
            _insert_tops(connection, "sub_unit", s.index, s.tops)
        for concept in concepts:
            facts = (concept.number, concept.name, concept.agreement, concept.purity)
            connection.execute("INSERT INTO concepts VALUES (?,?,?,?)", facts)
            rows = ((index, concept.number, rank) for rank, index in enumerate(concept.members))
            connection.executemany("INSERT INTO concept_members VALUES (?,?,?)", rows)
        for portrait in portraits:
            _insert_portrait(connection, portrait)
        connection.execute("INSERT INTO names (names) VALUES ('optimize')")
        connection.execute("COMMIT")
        connection.execute("VACUUM")
    except sqlite3.IntegrityError as error:
        connection.close()
        path.unlink()
        raise BundleError(f"The rows of the catalogue contradict each other: {error}.") from error
    finally:
        connection.close()


def _insert_portrait(connection: sqlite3.Connection, portrait: ConceptPortrait) -> None:
    number = portrait.number
    connection.execute("INSERT INTO concept_places VALUES (?,?,?)", (number, *portrait.place))
    bins = ((number, place, images) for place, images in enumerate(portrait.histogram))
    connection.executemany("INSERT INTO concept_histograms VALUES (?,?,?)", bins)
    related = ((number, other, correlation) for other, correlation in portrait.related)
    connection.executemany("INSERT INTO concept_relations VALUES (?,?,?)", related)
    _insert_tops(connection, "concept", number, portrait.tops)


def _insert_tops(connection: sqlite3.Connection, kind: str, owner: int | None, tops: Iterable[Top]) -> None:
    rows = ((kind, owner, rank, top.image, top.token, top.activation) for rank, top in enumerate(tops))
    connection.executemany("INSERT INTO tops VALUES (?,?,?,?,?,?)", rows)


class Catalogue:
    """A catalogue opened read-only; usable from several threads. A bundle's is opened with ``of``.

    Args:
        path: the file.

    Raises:
        BundleError: it is not a catalogue, holds anything beside a catalogue's own tables, or takes too long to read.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path).resolve()
        deadline = time.monotonic() + _LOAD_S
        try:
            self._connection = sqlite3.connect(
                f"{path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            self._connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
            self._connection.execute("PRAGMA trusted_schema=OFF")
            _require_tables(self._connection, path.name)
            self._count = int(self._connection.execute("SELECT count(*) FROM sub_units").fetchone()[0])
            # Every answer repeats names; a query for each would cost more than reading the whole request.
            self._names: dict[int, str | None] = dict(self._connection.execute("SELECT id, name FROM sub_units"))
            self._concepts = self._read_concepts()
            self._portrayed = self._has_portraits()
            self._connection.set_progress_handler(None, 0)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise BundleError(f"{path.name} cannot be read as a catalogue: {error}.") from error

    @classmethod
    def of(cls, bundle: Bundle) -> Catalogue:
        """The catalogue of a bundle, from a private copy that was hashed as it was made.

        Raises:
            BundleError: as above, or the file is not as the manifest says.
        """
        with bundle.private(CATALOGUE) as folder:
            return cls(folder / CATALOGUE)  # the open file outlives its folder

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def count(self) -> int:
        """Number of sub-units."""
        return self._count

    def unit(self, layer: str, unit: int) -> UnitRow:
        """One unit; UsageError if there is none."""
        rows = self._connection.execute("SELECT * FROM units WHERE layer=? AND unit=?", (layer, unit))
        return self._unit(_only(rows.fetchone(), f"{layer}/u{unit}"))

    def sub_unit(self, index: int) -> SubUnitRow:
        """The sub-unit with that index over all layers; UsageError if there is none."""
        rows = self._connection.execute(f"SELECT {_SUB_UNIT} FROM sub_units WHERE id=?", (index,))
        return self._sub_unit(_only(rows.fetchone(), f"index {index}"))

    def sub_unit_by_id(self, identifier: str) -> SubUnitRow:
        """The sub-unit ``LAYER/u31.s4``; UsageError if the text is no such identifier or there is none."""
        parsed = parse_id(identifier)
        if not isinstance(parsed, SubUnitId):
            raise UsageError(
                f"{identifier!r} names a unit, not a sub-unit.", f"Its first sub-unit is '{identifier}.s0'."
            )
        query = f"SELECT {_SUB_UNIT} FROM sub_units WHERE layer=? AND unit=? AND part=?"
        rows = self._connection.execute(query, (parsed.layer, parsed.unit, parsed.part))
        return self._sub_unit(_only(rows.fetchone(), identifier))

    def parts_of(self, layer: str, unit: int) -> tuple[SubUnitRow, ...]:
        """The sub-units of one unit, in order; UsageError if there is no such unit."""
        query = f"SELECT {_SUB_UNIT} FROM sub_units WHERE layer=? AND unit=? ORDER BY part"
        rows = self._connection.execute(query, (layer, unit)).fetchall()
        _only(rows or None, f"{layer}/u{unit}")
        return tuple(self._sub_unit(row) for row in rows)

    def images(self) -> Iterator[ImageRow]:
        """All images, in order."""
        for row in self._connection.execute("SELECT id, name, label, png FROM images ORDER BY id"):
            yield ImageRow(*row)

    def units(self) -> list[UnitRow]:
        """All units, in the order of the bundle; much faster than one by one."""
        tops = self._all_tops("unit")
        rows = self._connection.execute("SELECT id, layer, unit, parts, ms_score FROM units ORDER BY id")
        return [UnitRow(*(*row[1:], tuple(tops.get(row[0], ())))) for row in rows]

    def sub_units(self) -> list[SubUnitRow]:
        """All sub-units, by index; much faster than one by one."""
        tops = self._all_tops("sub_unit")
        rows = self._connection.execute(f"SELECT {_SUB_UNIT} FROM sub_units ORDER BY id")
        return [SubUnitRow(*(*row, tuple(tops.get(row[0], ())))) for row in rows]

    def search(self, text: str, limit: int = 20) -> tuple[SubUnitRow, ...]:
        """Sub-units whose name or identifier has words that begin with each word of ``text``, best first."""
        words = re.findall(r"\w+", text)
        if not words:
            return ()
        query = " ".join(f'"{word}"*' for word in words)
        rows = self._connection.execute(
            "SELECT rowid FROM names WHERE names MATCH ? ORDER BY rank, rowid LIMIT ?", (query, limit)
        )
        return tuple(self.sub_unit(row[0]) for row in rows.fetchall())

    def named(self, name: str) -> tuple[int, ...]:
        """Indices of the sub-units with exactly that name, whatever its case: best score first, names lent by a
        neighbour last.
        """
        order = "name_method IS 'neighbour', name_score IS NULL, name_score DESC, id"
        rows = self._connection.execute(
            f"SELECT id FROM sub_units WHERE name=? COLLATE NOCASE ORDER BY {order}", (name,)
        )
        return tuple(row[0] for row in rows.fetchall())

    def concepts(self) -> tuple[ConceptRow, ...]:
        """All concepts, the one with the most members first; none in a catalogue of an earlier version."""
        return self._concepts

    def concept(self, text: str) -> ConceptRow | None:
        """The concept with that identifier or that name, whatever its case; None if there is none."""
        wanted = text.casefold()
        for row in self._concepts:
            if wanted in (row.id, (row.name or "").casefold()):
                return row
        return None

    def concept_of(self, index: int) -> ConceptRow | None:
        """The concept that the sub-unit with that index belongs to; None if it is in none."""
        number = self._concept_of.get(index)
        return None if number is None else self._concepts[number]

    def portrait(self, number: int) -> ConceptPortrait | None:
        """A concept beside the others; None in a catalogue of an earlier version, or made without images."""
        if not self._portrayed:
            return None
        ask = self._connection.execute
        place = ask("SELECT x, y FROM concept_places WHERE concept=?", (number,)).fetchone()
        if place is None:
            return None
        bins = ask("SELECT images FROM concept_histograms WHERE concept=? ORDER BY bin", (number,))
        related = ask(
            "SELECT other, correlation FROM concept_relations WHERE concept=? ORDER BY correlation DESC, other",
            (number,),
        )
        histogram, pairs = tuple(row[0] for row in bins), tuple((row[0], row[1]) for row in related)
        return ConceptPortrait(number, place, histogram, pairs, self._tops("concept", number))

    def portraits(self) -> tuple[ConceptPortrait, ...]:
        """Those of all concepts that have one, in order."""
        found = (self.portrait(row.number) for row in self._concepts)
        return tuple(portrait for portrait in found if portrait is not None)

    def search_concepts(self, text: str, limit: int = 20) -> tuple[ConceptRow, ...]:
        """Concepts with that identifier, or whose name has words that begin with each word of ``text``; the one with
        the most members first.
        """
        words = [word.casefold() for word in re.findall(r"\w+", text)]
        fitting = (row for row in self._concepts if words and (words == [row.id] or _begins(words, row.name or "")))
        return tuple(islice(fitting, limit))

    def name(self, index: int) -> str | None:
        """Name of the sub-unit with that index, None while unnamed; UsageError if there is none."""
        if index not in self._names:
            _only(None, f"index {index}")
        return self._names[index]

    def identifier(self, index: int) -> str:
        """Identifier of the sub-unit with that index; UsageError if there is none."""
        row = self._connection.execute("SELECT layer, unit, part FROM sub_units WHERE id=?", (index,)).fetchone()
        layer, unit, part = _only(row, f"index {index}")
        return f"{layer}/u{unit}.s{part}"

    def maxima(self) -> tuple[float, ...]:
        """Largest activation of each sub-unit over the probing images, by index."""
        return tuple(row[0] for row in self._connection.execute("SELECT maximum FROM sub_units ORDER BY id").fetchall())

    def image(self, image_id: int) -> ImageRow:
        """One image; UsageError if there is none."""
        rows = self._connection.execute("SELECT id, name, label, png FROM images WHERE id=?", (image_id,))
        return ImageRow(*_only(rows.fetchone(), f"image {image_id}"))

    def most_split(self, limit: int = 10) -> tuple[UnitRow, ...]:
        """The units with the most sub-units, most first; ties in catalogue order."""
        rows = self._connection.execute("SELECT * FROM units ORDER BY parts DESC, id LIMIT ?", (limit,)).fetchall()
        return tuple(self._unit(row) for row in rows)

    def _read_concepts(self) -> tuple[ConceptRow, ...]:
        """Concepts are asked for in every answer, and are few: they are read once."""
        self._concept_of: dict[int, int] = {}
        if not _has_tables(self._connection, "concepts", "concept_members"):
            return ()
        members: dict[int, list[int]] = {}
        query = "SELECT concept, sub_unit FROM concept_members ORDER BY concept, rank"
        for concept, index in self._connection.execute(query):
            members.setdefault(concept, []).append(index)
            self._concept_of[index] = concept
        rows = self._connection.execute("SELECT id, name, agreement, purity FROM concepts ORDER BY id").fetchall()
        concepts = tuple(ConceptRow(*(*row, tuple(members.get(row[0], ())))) for row in rows)
        if [row.number for row in concepts] != list(range(len(concepts))) or members.keys() != set(
            range(len(concepts))
        ):
            raise BundleError(
                "The catalogue's concepts are not numbered from 0 on, or one has no sub-unit.",
                "Export the bundle again.",
            )
        return concepts

    def _has_portraits(self) -> bool:
        if not _has_tables(self._connection, *_PORTRAITS):
            return False
        query = "SELECT count(*) FROM concept_relations WHERE other NOT IN (SELECT id FROM concepts)"
        if self._connection.execute(query).fetchone()[0]:
            raise BundleError("A concept is said to be like one that is not there.", "Export the bundle again.")
        return True

    def _all_tops(self, kind: str) -> dict[int, list[Top]]:
        found: dict[int, list[Top]] = {}
        query = "SELECT owner, image, token, activation FROM tops WHERE kind=? ORDER BY owner, rank"
        for owner, *top in self._connection.execute(query, (kind,)):
            found.setdefault(owner, []).append(Top(*top))
        return found

    def _tops(self, kind: str, owner: int) -> tuple[Top, ...]:
        query = "SELECT image, token, activation FROM tops WHERE kind=? AND owner=? ORDER BY rank"
        return tuple(Top(*row) for row in self._connection.execute(query, (kind, owner)))

    def _unit(self, row: tuple[Any, ...]) -> UnitRow:
        return UnitRow(*(*row[1:], self._tops("unit", row[0])))

    def _sub_unit(self, row: tuple[Any, ...]) -> SubUnitRow:
        return SubUnitRow(*(*row, self._tops("sub_unit", row[0])))


def _begins(words: Sequence[str], name: str) -> bool:
    """Whether each of the words begins a word of the name."""
    parts = [part.casefold() for part in re.findall(r"\w+", name)]
    return all(any(part.startswith(word) for part in parts) for word in words)


def _has_tables(connection: sqlite3.Connection, *names: str) -> bool:
    return set(names) <= {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}


def _one_line(statement: str) -> str:
    """Earlier versions broke the same statements at other columns."""
    return " ".join(statement.split())


def _require_tables(connection: sqlite3.Connection, name: str) -> None:
    """A view may stand for an endless query, and a trigger or a default for any other: only our own tables may be
    there.
    """
    expected = {_one_line(statement) for statement in SCHEMA.split(";")} - {""}
    present: set[str] = set()
    for kind, entry, sql in connection.execute("SELECT type, name, sql FROM sqlite_master"):
        if kind == "table" and _one_line(str(sql)) in expected:
            present.add(_one_line(str(sql)))
        elif not (kind == "index" and sql is None) and not (kind == "table" and _SHADOW.fullmatch(str(sql))):
            raise BundleError(f"{name} holds {entry!r}, which is not of a catalogue.", "Export the bundle again.")
    # Bundles of earlier versions have no tables of concepts, or not all of them.
    if missing := [sql for sql in expected - present if not sql.startswith("CREATE TABLE concept")]:
        raise BundleError(f"{name} lacks {len(missing)} tables of a catalogue.", "Export the bundle again.")


def _only(row: _Row | None, what: str) -> _Row:
    if row is None:
        raise UsageError(f"The catalogue has no {what}.", "Search it by name, or see the layers of the bundle.")
    return row
