"""Every command that writes, on a disk that is read-only, full or forbidden: a sentence, exit code 2, nothing half."""

from __future__ import annotations

import errno
import json
import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from _commands import run
from _disks import Disk, on_read_only_disk
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
# Their many writes go through the same few functions: here only the first one fails.
LONG = [
    "export embedded --images pictures --out made",
    "suite build pictures --out suite",
    "suite init pictures --out suite.toml",
    "evaluate embedded --quick --out q.json",
    "preset add b q --edit fc2/u0.s0=ablate",
    "bake b --out y.onnx",
    "demo --out d",
    "measure e --seeds 0 --max-images 100",
    "name e --top 5 --replace",
    "atlas e --out pages --max-images 50 --effect-images 0",
    "tune e calibration_error --tuning probe --pool 2 --preset tuned",
    "preset evaluate e --dimensions accuracy",
    "compare e e --html c.html",
]
KINDS = (errno.EROFS, errno.ENOSPC, errno.EACCES, errno.EDQUOT)


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


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the embedded model."""
    path = tmp_path_factory.mktemp("exported") / "e"
    assert run("export", "embedded", "--max-images", "100", "--out", path).code == 0
    assert run("preset", "add", path, "p", "--edit", "blocks.5.mlp.fc2/u0.s0=ablate").code == 0
    assert run("evaluate", path, "--dimensions", "accuracy").code == 0
    return path


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


@pytest.mark.slow
@pytest.mark.parametrize("command", LONG)
def test_a_place_that_cannot_be_written_is_reported_in_a_sentence(
    world: Path, exported: Path, tmp_path: Path, command: str
) -> None:
    """In a process of its own: what these load does not like to end beside Python's audit."""
    root = Path(shutil.copytree(world, tmp_path / "w"))
    assert run("samples", "--out", root / "pictures", "--per-class", "2").code == 0
    if "e" in command.split():
        shutil.copytree(exported, root / "e")
    count, outcome = on_read_only_disk(root, *command.split())
    assert count >= 1, outcome.error
    assert outcome.problem((2,)) == ""
    assert os.strerror(errno.EROFS) in outcome.error
