"""No crash and no neighbour tears a store: it is always the old or the new state, and two writers lose nothing."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from _crashes import FORK, exit_code_of
from _stores import admit, make

from elude.handlers.bundle.bundle import Bundle
from elude.model_store.store import Store


@pytest.mark.parametrize("what", ["admit", "promote", "rollback"])
def test_killed_at_any_write_the_store_is_old_or_new(tmp_path: Path, what: str):
    first, second = make(tmp_path / "b"), make(tmp_path / "c", content=b"c")
    base = Store(tmp_path / "base")
    admit(base, first)
    if what == "rollback":
        admit(base, second)
        base.promote("tiny-model/1", who="a", why="b")
        base.promote("tiny-model/2", who="a", why="b")
    before = len(base.record())
    outcomes = set()
    for step in range(1, 200):
        root = tmp_path / f"s{step}"
        shutil.copytree(tmp_path / "base", root)
        store = Store(root)
        work: dict[str, Callable[[], object]] = {
            "admit": lambda s=store: admit(s, second),
            "promote": lambda s=store: s.promote("tiny-model/1", who="a", why="b"),
            "rollback": lambda s=store: s.rollback("tiny-model", who="a", why="b"),
        }
        code = exit_code_of(step, work[what])
        assert code in (0, -signal.SIGKILL)
        after = Store(root)
        changes = len(after.record()) - before
        assert changes in (0, 1)
        outcomes.add(changes)
        for version in after.list():
            Bundle.open(version.bundle)
        if changes == 0:  # the next writer goes on as if nothing had happened
            Store(root).admit(second.root, who="a", why="b") if what == "admit" else work[what]()
        assert len(after.record()) == before + 1
        after.gc(timedelta(0))
        after.verify()
        assert not list((root / ".incoming").iterdir())
        shutil.rmtree(root)
        if code == 0:
            break
    assert code == 0
    assert step > 2
    assert outcomes == {0, 1}


def test_concurrent_admissions_lose_none(tmp_path: Path):
    bundles = [make(tmp_path / f"b{number}", content=bytes([number])) for number in range(6)]
    children = [FORK.Process(target=admit, args=(Store(tmp_path / "store"), bundle)) for bundle in bundles]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    store = Store(tmp_path / "store")
    assert [version.number for version in store.list()] == [1, 2, 3, 4, 5, 6]
    assert {v.admitted.artefact_sha256 for v in store.verify()} == {bundle.artefact_sha256 for bundle in bundles}
