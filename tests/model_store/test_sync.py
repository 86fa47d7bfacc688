"""The folder of models of a stock TorchServe holds what is in a stage of the store, whatever lay in it before."""

from __future__ import annotations

from pathlib import Path

import pytest
from _forgeries import HANDLER, code, entries, listed, with_manifest, write
from _stores import make
from typer.testing import CliRunner

from elude.cli import app
from elude.handlers.errors import BundleError, UsageError
from elude.handlers.torchserve.archives import read_archive
from elude.model_store.store import Store
from elude.model_store.sync import sync


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    for number in (1, 2, 3):
        bundle = make(tmp_path / f"b{number}", content=bytes([number]))
        store.admit(bundle.root, who="a", why="b", name="m", make_archive=True)
    store.promote("m/1", who="a", why="b")
    store.promote("m/2", "candidate", who="a", why="b")
    return store


def test_it_holds_the_stages_versions_under_names_that_differ(store: Store, tmp_path: Path) -> None:
    both = sync(store, tmp_path / "models", ("production", "candidate"))
    assert [path.name for path in both] == ["m-1.0.mar", "m-2.0.mar"]
    for path, version in zip(both, ("m/1", "m/2"), strict=True):
        archive = store.show(version).archive
        assert archive is not None
        assert path.read_bytes() == Path(archive).read_bytes()
    store.promote("m/3", who="a", why="b")
    assert sync(store, tmp_path / "models") == [tmp_path / "models" / "m-3.0.mar"]
    assert list((tmp_path / "models").iterdir()) == [tmp_path / "models" / "m-3.0.mar"]


def test_what_the_guard_cannot_stop_is_gone_before_torchserve_looks(store: Store, tmp_path: Path) -> None:
    (right,) = sync(store, tmp_path / "models")
    content = right.read_bytes()
    foreign = entries(right) | {HANDLER: code(tmp_path / "ran")}
    write(tmp_path / "models" / "interpreter.mar", with_manifest(foreign, runtime="python3"))
    write(right, listed(foreign))
    assert sync(store, tmp_path / "models") == [right]
    assert right.read_bytes() == content
    assert list((tmp_path / "models").iterdir()) == [right]


def test_a_folder_with_other_things_is_left_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("x")
    (tmp_path / "home" / "mine.mar").write_text("x")
    with pytest.raises(UsageError, match=r"letter\.txt"):
        sync(store, tmp_path / "home")
    assert (tmp_path / "home" / "mine.mar").exists()


def test_a_version_that_was_changed_in_the_store_leaves_the_folder_as_it_was(store: Store, tmp_path: Path) -> None:
    before = sync(store, tmp_path / "models")
    archive = store.show("m/1").archive
    assert archive is not None
    Path(archive).chmod(0o644)
    write(Path(archive), listed(entries(Path(archive)) | {HANDLER: code(tmp_path / "ran")}))
    with pytest.raises(BundleError, match="was changed"):
        sync(store, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == before


def test_the_command(store: Store, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["store", "sync", "--store", str(tmp_path / "store"), "--out", str(tmp_path / "models")]
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [str(tmp_path / "models" / "m-1.0.mar")]


def test_versions_of_a_series_have_archives_of_their_own_version(store: Store, tmp_path: Path) -> None:
    archives = [store.show(f"m/{number}").archive for number in (1, 2, 3)]
    assert [read_archive(str(archive)).version for archive in archives] == ["1.0", "2.0", "3.0"]
    again = store.admit(tmp_path / "b2", who="a", why="b", name="m", make_archive=True)
    assert again.id == "m/2"  # the same bytes
    named = store.admit(tmp_path / "b2", who="a", why="b", name="m", make_archive=True, archive_version="2.1")
    assert (named.id, read_archive(str(named.archive)).version) == ("m/4", "2.1")
