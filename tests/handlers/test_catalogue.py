"""The catalogue: what is written is read, the same rows give the same bytes, search finds by name and identifier."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elude.handlers.bundle.catalogue import (
    Catalogue,
    ConceptPortrait,
    ConceptRow,
    ImageRow,
    SubUnitRow,
    Top,
    UnitRow,
    clearest_first,
    write_catalogue,
)
from elude.handlers.errors import BundleError, UsageError

LAYER = "blocks.5.mlp.fc2"
IMAGES = [ImageRow(0, "cat.png", "cat", b"\x89PNG0"), ImageRow(7, "x.png", None, b"\x89PNG7")]
TOPS = (Top(7, 3, 2.5), Top(0, 0, 1.0))
UNITS = [UnitRow(LAYER, 0, 1, 0.5, TOPS), UnitRow(LAYER, 1, 3, None, TOPS[:1])]


def sub_unit(index: int, unit: int, part: int, name: str | None) -> SubUnitRow:
    method = None if name is None else "labels"
    return SubUnitRow(
        index, LAYER, unit, part, 0.35, 0.25, 0.1, 0.01, 3.5, 0.7, 0.3, name, method, 0.9 if name else None, TOPS
    )


ROWS = [
    sub_unit(0, 0, 0, None),
    sub_unit(1, 1, 0, "dog's ear"),
    sub_unit(2, 1, 1, "ear of wheat"),
    sub_unit(3, 1, 2, "shoe"),
]


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    write_catalogue(tmp_path / "c.sqlite", IMAGES, UNITS, ROWS)
    return Catalogue(tmp_path / "c.sqlite")


def test_round_trip(catalogue: Catalogue) -> None:
    assert catalogue.count() == 4
    assert [catalogue.sub_unit(i) for i in range(4)] == ROWS
    assert catalogue.unit(LAYER, 1) == UNITS[1]
    assert catalogue.parts_of(LAYER, 1) == tuple(ROWS[1:])
    assert catalogue.sub_unit_by_id(f"{LAYER}/u1.s2") == ROWS[3]
    assert ROWS[3].id == f"{LAYER}/u1.s2"
    assert catalogue.image(7) == IMAGES[1]
    assert catalogue.most_split(1) == (UNITS[1],)


def test_short_look_ups(catalogue: Catalogue) -> None:
    assert [catalogue.name(i) for i in range(4)] == [None, "dog's ear", "ear of wheat", "shoe"]
    assert catalogue.named("SHOE") == (3,)
    assert catalogue.named("ear") == ()
    assert catalogue.maxima() == (3.5,) * 4
    with pytest.raises(UsageError):
        catalogue.name(4)


def test_search(catalogue: Catalogue) -> None:
    assert {row.index for row in catalogue.search("ear")} == {1, 2}
    assert [row.index for row in catalogue.search("whe EAR")] == [2]
    assert [row.index for row in catalogue.search("u1.s2")] == [3]
    assert len(catalogue.search("ear", 1)) == 1
    assert catalogue.search("zebra") == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_text_can_be_searched(catalogue: Catalogue, text: str) -> None:
    assert len(catalogue.search(text)) <= 4


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    write_catalogue(tmp_path / "a", IMAGES, UNITS, ROWS)
    write_catalogue(tmp_path / "b", IMAGES, UNITS, ROWS)
    write_catalogue(tmp_path / "c", IMAGES, UNITS, [replace(ROWS[0], mean=0.02), *ROWS[1:]])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.parametrize(
    "identifier", [f"{LAYER}/u9.s0", "other/u0.s0", f"{LAYER}/u1", "nonsense", f"{LAYER}/u1.s2; DROP TABLE units"]
)
def test_unknown_identifiers(catalogue: Catalogue, identifier: str) -> None:
    with pytest.raises(UsageError, match=r"no |identifier|names a unit"):
        catalogue.sub_unit_by_id(identifier)


def test_unknown_rows(catalogue: Catalogue) -> None:
    for look_up in (
        lambda: catalogue.sub_unit(4),
        lambda: catalogue.unit(LAYER, 5),
        lambda: catalogue.parts_of("x", 0),
        lambda: catalogue.image(1),
    ):
        with pytest.raises(UsageError, match="no "):
            look_up()


def test_contradictions_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    for images, units, rows in (
        (IMAGES[:1], UNITS, ROWS),
        (IMAGES, UNITS, [ROWS[0], replace(ROWS[1], index=0)]),
        (IMAGES, [UNITS[0]] * 2, ROWS),
    ):
        with pytest.raises(BundleError, match="contradict"):
            write_catalogue(tmp_path / "c", images, units, rows)
        assert not (tmp_path / "c").exists()


def test_reading_changes_nothing_and_a_broken_file_is_refused(tmp_path: Path, catalogue: Catalogue) -> None:
    catalogue.search("ear")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.sqlite"]
    (tmp_path / "bad.sqlite").write_bytes(b"not a database, certainly not one" * 40)
    with pytest.raises(BundleError, match=r"bad\.sqlite"):
        Catalogue(tmp_path / "bad.sqlite")


CONCEPTS = [ConceptRow(0, "ear", 0.9, 0.5, (2, 1)), ConceptRow(1, None, 1.0, None, (3,))]


def test_concepts_round_trip_and_are_found_by_name_identifier_and_member(tmp_path: Path) -> None:
    write_catalogue(tmp_path / "c.sqlite", IMAGES, UNITS, ROWS, CONCEPTS)
    catalogue = Catalogue(tmp_path / "c.sqlite")
    assert catalogue.concepts() == tuple(CONCEPTS)
    assert catalogue.concept("EAR") == catalogue.concept("c0") == catalogue.concept_of(1) == CONCEPTS[0]
    assert catalogue.concept("shoe") is None
    assert catalogue.concept_of(0) is None
    assert catalogue.search_concepts("ea") == (CONCEPTS[0],)
    assert catalogue.search_concepts("heat") == catalogue.search_concepts(" ") == ()


PORTRAITS = [
    ConceptPortrait(0, (0.25, -1.0), (0, 5, 2), ((1, -0.5),), TOPS),
    ConceptPortrait(1, (0.0, 0.5), (7, 0, 0), ((0, -0.5),), ()),
]


def test_portraits_round_trip(tmp_path: Path) -> None:
    write_catalogue(tmp_path / "c.sqlite", IMAGES, UNITS, ROWS, CONCEPTS, PORTRAITS)
    catalogue = Catalogue(tmp_path / "c.sqlite")
    assert catalogue.portraits() == tuple(PORTRAITS)
    assert catalogue.portrait(1) == PORTRAITS[1]


def test_a_catalogue_without_portraits_has_none(tmp_path: Path) -> None:
    write_catalogue(tmp_path / "c.sqlite", IMAGES, UNITS, ROWS, CONCEPTS)
    assert Catalogue(tmp_path / "c.sqlite").portrait(0) is None
    with sqlite3.connect(tmp_path / "c.sqlite") as connection:
        for table in ("places", "histograms", "relations"):
            connection.execute(f"DROP TABLE concept_{table}")
    assert Catalogue(tmp_path / "c.sqlite").portraits() == ()


def test_a_portrait_that_names_an_unknown_concept_is_refused(tmp_path: Path) -> None:
    write_catalogue(tmp_path / "c.sqlite", IMAGES, UNITS, ROWS, CONCEPTS, PORTRAITS)
    with sqlite3.connect(tmp_path / "c.sqlite") as connection:
        connection.execute("UPDATE concept_relations SET other=9 WHERE concept=0")
    with pytest.raises(BundleError, match="not there"):
        Catalogue(tmp_path / "c.sqlite")


def test_the_clearest_concepts_come_first() -> None:
    facts = [("one of one", 1.0, (1,)), ("vague", 0.4, (2, 3)), ("clear", 0.9, (4, 5)), (None, 1.0, (6, 7))]
    facts.append(("clear and large", 0.9, (8, 9, 10)))
    rows = [ConceptRow(i, name, 0.9, purity, members) for i, (name, purity, members) in enumerate(facts)]
    assert [row.number for row in clearest_first(rows)] == [4, 2, 1, 3, 0]


def test_a_catalogue_of_an_earlier_version_has_no_concepts(tmp_path: Path) -> None:
    write_catalogue(tmp_path / "c.sqlite", IMAGES, UNITS, ROWS)
    with sqlite3.connect(tmp_path / "c.sqlite") as connection:
        connection.executescript("DROP TABLE concept_members; DROP TABLE concepts")
    catalogue = Catalogue(tmp_path / "c.sqlite")
    assert catalogue.concepts() == ()
    assert catalogue.concept_of(1) is None


def test_a_catalogue_whose_tables_were_written_in_other_lines_is_read(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    write_catalogue(path, IMAGES, UNITS, ROWS)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    changed = connection.execute("UPDATE sqlite_master SET sql = replace(sql, ', ', ',' || char(10) || '   ')")
    assert changed.rowcount
    connection.commit()
    connection.close()
    assert Catalogue(path).count() == len(ROWS)


@pytest.mark.parametrize(
    "concepts",
    [
        [ConceptRow(0, "ear", 1.0, None, (1,)), ConceptRow(1, "ear", 1.0, None, (2,))],
        [ConceptRow(0, "ear", 1.0, None, (1,)), ConceptRow(1, None, 1.0, None, (1,))],
        [ConceptRow(0, "ear", 1.0, None, (9,))],
    ],
    ids=["one name twice", "a member of two", "an unknown member"],
)
def test_concepts_that_contradict_each_other_are_refused(tmp_path: Path, concepts: list[ConceptRow]) -> None:
    with pytest.raises(BundleError):
        write_catalogue(tmp_path / "c.sqlite", IMAGES, UNITS, ROWS, concepts)
    assert not (tmp_path / "c.sqlite").exists()
