"""Removing versions: only what nothing holds, entered in the record first, and whole at any crash."""

from __future__ import annotations

import shutil
import signal
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from _crashes import exit_code_of
from _stores import admit, make

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError, UsageError
from elude.model_store.store import Store

AT_ONCE = timedelta(0)


def filled(url: Path | str, folder: Path, count: int) -> Store:
    store = Store(url)
    for number in range(1, count + 1):
        admit(store, make(folder / f"b{number}", content=bytes([number])))
    return store


def numbers(store: Store) -> list[int]:
    return [version.number for version in store.list()]


def test_what_is_in_a_stage_or_would_come_back_or_is_young_stays(tmp_path: Path):
    store = filled(tmp_path / "store", tmp_path, 6)
    for number in (1, 2, 4):
        store.promote(f"tiny-model/{number}", who="a", why="b")
    store.promote("tiny-model/3", "candidate", who="a", why="b")
    gone = store.gc(keep=1, who="Ada", why="disk")
    assert numbers(store) == [2, 3, 4, 6]  # 4 in production, 2 before it, 3 candidate, 6 the last
    assert len(gone) == 2
    removed = store.record()[-2:]
    assert [(e.action, e.version, e.who, e.why) for e in removed] == [
        ("remove", "tiny-model/1", "Ada", "disk"),
        ("remove", "tiny-model/5", "Ada", "disk"),
    ]
    assert all(not (tmp_path / "store" / entry.folder).exists() for entry in removed)
    store.verify()
    assert store.rollback("tiny-model", who="a", why="b").number == 2
    with pytest.raises(UsageError, match="no version 'tiny-model/1'"):  # the one before was removed
        store.rollback("tiny-model", who="a", why="b")
    for wrong in ("tiny-model/1", "tiny-model/5"):
        with pytest.raises(UsageError, match="no version"):
            store.promote(wrong, who="a", why="b")
        with pytest.raises(UsageError, match="no version"):
            store.show(wrong)


def test_without_a_number_to_keep_no_version_goes(tmp_path: Path):
    store = filled(tmp_path / "store", tmp_path, 3)
    assert store.gc(AT_ONCE) == ()
    assert numbers(store) == [1, 2, 3]
    assert store.gc(AT_ONCE, keep=3, who="a", why="b") == ()
    assert store.gc(AT_ONCE, keep=9, who="a", why="b") == ()
    with pytest.raises(UsageError, match="keep is -1"):
        store.gc(keep=-1, who="a", why="b")
    with pytest.raises(UsageError, match="who"):
        store.gc(keep=1)
    assert numbers(store) == [1, 2, 3]
    store.gc(keep=0, who="a", why="b")
    assert numbers(store) == []
    assert store.verify() == ()


def test_the_same_bytes_may_come_back_under_a_new_number_and_place(tmp_path: Path):
    store = filled(tmp_path / "store", tmp_path, 2)
    first = store.show("tiny-model/1")
    store.gc(keep=1, who="a", why="b")
    again = admit(store, Bundle.open(tmp_path / "b1"))
    assert again.id == "tiny-model/3"
    assert again.location != first.location
    assert again.admitted.manifest_sha256 == first.admitted.manifest_sha256
    assert admit(store, Bundle.open(tmp_path / "b1")).id == "tiny-model/3"
    store.verify()
    store.gc(keep=0, who="a", why="b")
    assert admit(store, Bundle.open(tmp_path / "b1")).admitted.generation == 2


def test_an_admission_that_meets_its_own_removal_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = filled(tmp_path / "store", tmp_path, 1)
    publish = store.place.publish

    def remove_first(staged: Path, name: str) -> None:
        publish(staged, name)
        Store(tmp_path / "store").gc(keep=0, who="eve", why="meanwhile")

    monkeypatch.setattr(store.place, "publish", remove_first)
    with pytest.raises(BundleError, match="was removed while"):
        admit(store, Bundle.open(tmp_path / "b1"))
    monkeypatch.undo()
    assert admit(store, Bundle.open(tmp_path / "b1")).id == "tiny-model/2"
    store.verify()


def test_killed_at_any_write_the_store_is_whole(tmp_path: Path):
    base = filled(tmp_path / "base", tmp_path, 3)
    before, states = len(base.record()), set()
    for step in range(1, 200):
        root = tmp_path / f"s{step}"
        shutil.copytree(tmp_path / "base", root)
        code = exit_code_of(step, lambda r=root: Store(r).gc(keep=1, who="a", why="b"))
        assert code in (0, -signal.SIGKILL)
        after = Store(root)
        removals = len(after.record()) - before
        assert numbers(after) == [1, 2, 3][removals:]
        states.add(removals)
        for version in after.list():  # what the record holds is there, whole
            Bundle.open(version.bundle)
        after.gc(AT_ONCE, keep=1, who="a", why="b")
        assert [version.number for version in after.verify()] == [3]
        assert len(after.record()) == before + 2
        shutil.rmtree(root)
        if code == 0:
            break
    assert code == 0
    assert states == {0, 1, 2}


def test_on_an_object_store(tmp_path: Path):
    pytest.importorskip("fsspec")
    store = filled(f"memory://{uuid.uuid4().hex}/store", tmp_path, 3)
    store.promote("tiny-model/1", who="a", why="b")
    assert len(store.gc(keep=1, who="a", why="b")) == 1
    assert [version.number for version in store.verify()] == [1, 3]
