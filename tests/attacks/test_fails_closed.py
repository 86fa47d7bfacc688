"""What is missing, empty, ambiguous or endless is refused: it never means that less is required."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from _stores import make
from _worked import make_bundle
from typer.testing import CliRunner

from elude.cli import app
from elude.handlers.admission.requirements import ENVIRONMENT, Requirements
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.errors import BundleError, EludeError, UsageError
from elude.handlers.files import MAX_DEPTH, open_plain, parse_json, read_plain
from elude.handlers.settings import OVERRIDES, read_settings
from elude.model_store.store import Store


def run(*arguments: object) -> str:
    """Standard output of a command; its own error is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify",),
        ("list",),
        ("show", "a/1"),
        ("promote", "a/1"),
        ("rollback", "a"),
        ("gc",),
        ("requirements", "--out", "r.json"),
        ("fetch", "a/1", "--out", "f"),
    ],
)
def test_a_store_that_is_not_there_is_not_an_empty_one(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="is not a store"):
        run("store", *arguments, "--store", tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_nothing_is_admitted_to_a_store_that_ends_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="memory"):
        run("admit", make(tmp_path / "b").root, "--store", "memory://x", "--who", "a")


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_variable_does_not_require_nothing(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="empty"):
        Requirements.load({ENVIRONMENT: value})
    monkeypatch.setenv(OVERRIDES, value)
    with pytest.raises(UsageError, match=OVERRIDES):
        read_settings({})


@pytest.mark.parametrize(
    "text",
    [
        '{"schema_version": 1, "require_signature": true, "require_signature": false}',
        '{"schema_version": 1, "policies": ["a"], "policies": []}',
        '{"schema_version": 1, "archives": [], "archives": null}',
        '{"schema_version": 1, "free_steering": false, "free_steering": true}',
    ],
)
def test_of_two_equal_keys_none_wins(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UsageError, match="twice"):
        Requirements.load({ENVIRONMENT: str(tmp_path / "r.json")})


@pytest.mark.parametrize("name", ["manifest.json", "verdict.json"])
def test_of_two_equal_keys_none_wins_in_a_bundle(tmp_path: Path, name: str) -> None:
    bundle = make(tmp_path / "b")
    text = (bundle.root / name).read_text().replace('"schema_version": 1', '"schema_version": 9, "schema_version": 1')
    assert text.count('"schema_version"') > 1
    if name == "manifest.json":
        (bundle.root / name).write_text(text)
        with pytest.raises(BundleError, match="twice"):
            Bundle.open(bundle.root)
    else:
        with pytest.raises(BundleError, match="twice"):
            bundle.add({name: text.encode()}).json(name)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)])
def test_deep_documents_are_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"deeper|Expecting"):
        parse_json(text)


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "Infinity", "[1e400]", '{"a": -Infinity}'])
def test_numbers_without_a_value_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        parse_json(text)


def test_documents_as_deep_as_allowed_are_read() -> None:
    text = "[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH
    assert json.dumps(parse_json(text)) == text


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link", "dangling"])
def test_a_manifest_that_is_no_plain_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    bundle = make(tmp_path / "b")
    manifest = bundle.root / "manifest.json"
    good = tmp_path / "good.json"
    manifest.rename(good)
    if kind == "pipe":
        os.mkfifo(manifest)
    elif kind == "folder":
        manifest.mkdir()
    else:
        manifest.symlink_to({"device": "/dev/zero", "link": str(good), "dangling": "/nowhere"}[kind])
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(bundle.root)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/random", "/"])
def test_devices_are_not_read(path: str) -> None:
    with pytest.raises(OSError, match="plain"):
        open_plain(path)


def test_files_beyond_the_limit_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_plain(tmp_path / "x", 5) == b"12345"
    with pytest.raises(OSError, match="Larger"):
        read_plain(tmp_path / "x", 4)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE sub_units; CREATE VIEW sub_units AS WITH RECURSIVE n(id, name) AS (VALUES (0, 'x') UNION ALL "
        "SELECT id + 1, name FROM n) SELECT * FROM n",
        "CREATE VIEW more AS SELECT 1",
        "CREATE TABLE more (x)",
        "CREATE TRIGGER t AFTER INSERT ON units BEGIN SELECT 1; END",
        "CREATE INDEX i ON units (layer)",
        "ALTER TABLE units ADD COLUMN more TEXT DEFAULT 'x'",
        "ALTER TABLE units ADD COLUMN more BLOB AS (zeroblob(1000000000))",
        "CREATE TABLE names_more (x DEFAULT (randomblob(1000000000)))",
        "DROP TABLE images",
    ],
)
def test_a_catalogue_that_holds_more_or_less_than_its_tables_is_refused(tmp_path: Path, statement: str) -> None:
    path = make_bundle(tmp_path / "b").path("catalogue.sqlite")
    connection = sqlite3.connect(path)
    connection.executescript(statement)
    connection.close()
    with pytest.raises(BundleError, match="catalogue"):
        Catalogue(path)


def test_a_name_of_a_series_stays_inside_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for name in ("../x", "a/../b", "", ".", "..", "a\n", "A"):
        with pytest.raises(EludeError):
            store.admit(make(tmp_path / f"b{len(list(tmp_path.iterdir()))}").root, who="a", why="b", name=name)
    assert not (tmp_path / "x").exists()
