"""Every command that writes, on a disk that is read-only, full or forbidden: a sentence, exit code 2, nothing half."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from _commands import run
from _stores import make

from elude.model_store.archive import package
from elude.model_store.signing import keygen
from elude.model_store.store import Store
from elude.quality.policies.policy import DEFAULT_POLICY

COMMANDS = [
    "gate b --policy policy.toml",
    "gate b --policy policy.toml --junit j.xml --markdown j.md",
    "report b",
    "policy init b --out new.toml",
    "preset remove b p",
    "package b --out new/x.mar",
    "admit base --store store --who a",
    "admit base --store other --who a --sign-key ada.pem",
    "keygen bob.pem --owner bob",
    "store promote tiny-model/1 --store store --who a",
    "store rollback tiny-model --stage candidate --store store --who a",
    "store gc --keep 0 --store store --who a",
    "store requirements --store store --out r.json",
    "store fetch tiny-model/1 --store store --out fetched",
    "store sync --store store --out models --stage candidate",
    "samples --out pictures --per-class 1",
]
KINDS = (errno.EROFS, errno.ENOSPC, errno.EACCES, errno.EDQUOT)
EVENTS = ("os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.truncate")


class Disk:
    """Fails at the n-th write inside a folder, as seen by Python's audit events; harmless while ``step`` is 0."""

    def __init__(self) -> None:
        self.root, self.step, self.count, self.kind = "", 0, 0, 0
        sys.addaudithook(self._event)  # for ever: such a hook cannot be taken away

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.step or not self._writes(event, arguments):
            return
        paths = [os.fspath(value) for value in arguments[:2] if isinstance(value, str | os.PathLike)]
        if not any(str(Path(self.root, path)).startswith(f"{self.root}/") for path in paths):
            return
        self.count += 1
        if self.count == self.step:
            raise OSError(self.kind, os.strerror(self.kind), paths[0])

    @staticmethod
    def _writes(event: str, arguments: tuple[Any, ...]) -> bool:
        if event != "open":
            return event in EVENTS
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    @contextmanager
    def failing(self, root: Path, step: int, kind: int) -> Iterator[None]:
        self.root, self.step, self.count, self.kind = str(root), step, 0, kind
        try:
            yield
        finally:
            self.step = 0


@pytest.fixture(scope="module")
def disk() -> Disk:
    return Disk()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    bundle = make(root / "b").add({"presets.json": json.dumps({"p": []}).encode()})
    make(root / "base", content=b"base")
    store = Store(root / "store")
    for number in (1, 2, 3):
        version = store.admit(
            make(root / f"s{number}", content=bytes([number])).root, who="a", why="b", make_archive=True
        )
        if number < 3:
            store.promote(version.id, "candidate", who="a", why="b")
    keygen(root / "ada.pem", owner="ada")
    package(bundle, root / "x.mar", name="x", version="1.0")
    (root / "policy.toml").write_bytes(DEFAULT_POLICY.read_bytes())
    (root / "new").mkdir()
    return root


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_write_that_fails_is_reported_in_a_sentence(
    world: Path, tmp_path: Path, disk: Disk, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = 0
    for step in range(1, 400):
        root = Path(shutil.copytree(world, tmp_path / f"w{step}"))
        monkeypatch.chdir(root)
        kind = KINDS[step % len(KINDS)]
        with disk.failing(root, step, kind):
            outcome = run(*command.split())
        struck = disk.count >= step
        if struck and outcome.code != 0:  # what is only tidying may fail without a word
            failed += 1
            assert outcome.problem((2,)) == "", (step, command)
            assert os.strerror(kind) in outcome.error
            if "store" in command.split():
                left = Store(root / "store")
                left.gc(timedelta(0))  # what a change that failed leaves
                left.verify()
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(root)
        if not struck:
            assert outcome.code == 0, outcome.error
            break
    else:
        raise AssertionError("it writes without end")
    assert failed > 0
