"""The store: only proven bundles enter, nothing that entered changes unseen, and no crash or neighbour tears it."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from handlers.bundle import Bundle, LayerInfo, Source, write_bundle
from handlers.errors import BundleError, GateError, UsageError
from model_store.archive import package
from model_store.records import RECORD, read_record
from model_store.store import Store
from quality.gate import judge
from quality.policy import load_policy
from quality.verdict_formats import verdict_json
from quality.waivers import Waiver

FORK = multiprocessing.get_context("fork")
TODAY = datetime.now(UTC).date()


def make(root: Path, *, content: bytes = b"graph", accuracy: float = 0.9, waive_until: date | None = None, verdict: bool = True) -> Bundle:
    layers = (LayerInfo("fc2", "linear", 2, 4, (2, 1), 0),)
    with write_bundle(root, source=Source("Tiny/Model", "1", "vit", "f" * 64), layers=layers, parameters=9, versions={}) as folder:
        (folder / "model.onnx").write_bytes(content)
        claims = {"sums": {"layers": [{"passed": True}]}} | {c: {"outputs": [{"passed": True}]} for c in ("rewrite", "runtime")}
        equivalence = {"schema_version": 1, "passed": True, "summary": dict.fromkeys(claims, 0.0), "claims": claims}
        (folder / "equivalence.json").write_text(json.dumps(equivalence))
    bundle = Bundle.open(root)
    values = {"accuracy": accuracy, "calibration_error": 0.05, "class_balance": 0.8, "corruption_robustness": 0.7, "params_m": 0.6}
    dimensions = {
        name: {"value": value, "interval": [value, value], "higher_is_better": name not in ("calibration_error", "params_m")}
        for name, value in values.items()
    }
    quality = {
        "schema_version": 1,
        "subject": {"artefact_sha256": bundle.artefact_sha256},
        "suite": {"name": "s", "sha256": "c" * 64, "images": 1000},
        "dimensions": dimensions,
        "lossless": {form: values for form in ("original", "disentangled", "served")},
    }
    bundle = bundle.add({"quality.json": json.dumps(quality).encode()})
    if not verdict:
        return bundle
    waivers = [] if waive_until is None else [Waiver("accuracy", "known", "Ada", waive_until, bundle.artefact_sha256)]
    day = TODAY if waive_until is None else min(TODAY, waive_until)
    return bundle.add({"verdict.json": verdict_json(judge(bundle, load_policy(), waivers=waivers, today=day))})


def pack(path: Path, bundle: Bundle, **replaced: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in bundle.manifest.files:
            archive.writestr(f"bundle/{name}", replaced.get(name.replace(".", "_"), bundle.path(name).read_bytes()))
        archive.writestr("handler.py", b"pass")
    return path


def admit(store: Store, bundle: Bundle, archive: Path | None = None) -> Any:
    return store.admit(bundle.root, archive, who="Ada", why="release")


def test_admission_keeps_the_bytes_and_says_who_and_why(tmp_path: Path):
    bundle = make(tmp_path / "b")
    store = Store(tmp_path / "store")
    version = admit(store, bundle, pack(tmp_path / "x.mar", bundle))
    assert version.id == "tiny-model/1"
    assert Bundle.open(version.bundle).artefact_sha256 == bundle.artefact_sha256 == version.admitted.artefact_sha256
    assert version.archive is not None
    assert version.archive.read_bytes() == (tmp_path / "x.mar").read_bytes()
    assert (version.admitted.who, version.admitted.why, version.admitted.action) == ("Ada", "release", "admit")
    assert version.admitted.policy_sha256 == load_policy().sha256
    assert Store(tmp_path / "store").verify() == (version,)
    assert store.show("tiny-model/1") == version
    assert store.list() == (version,)


def test_the_same_twice_is_one_version_and_another_is_the_next(tmp_path: Path):
    store, bundle = Store(tmp_path / "store"), make(tmp_path / "b")
    assert admit(store, bundle).id == admit(store, bundle).id == "tiny-model/1"
    assert len(store.record()) == 1
    assert admit(store, make(tmp_path / "c", content=b"other")).id == "tiny-model/2"
    assert store.admit(bundle.root, who="a", why="b", name="other").id == "other/1"
    assert [version.id for version in store.list()] == ["tiny-model/1", "tiny-model/2", "other/1"]
    store.verify()


def rewrite_verdict(bundle: Bundle, change: Callable[[dict[str, Any]], None]) -> Bundle:
    document = bundle.json("verdict.json")
    change(document)
    return bundle.add({"verdict.json": json.dumps(document).encode()})


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda at: make(at, verdict=False), "has no verdict"),
        (lambda at: make(at, accuracy=0.5), "The gate stopped this bundle"),
        (lambda at: rewrite_verdict(make(at, accuracy=0.5), lambda v: v.update(passed=True)), "its checks say False"),
        (lambda at: rewrite_verdict(make(at), lambda v: v.update(checks=[])), "its checks say False"),
        (lambda at: rewrite_verdict(make(at), lambda v: v.update(schema_version=9)), "schema_version"),
        (lambda at: rewrite_verdict(make(at), lambda v: v["subject"].update(artefact_sha256="0" * 64)), "about artefact 000000000000"),
        (lambda at: rewrite_verdict(make(at), lambda v: v["subject"].update(quality_sha256="0" * 64)), "other measurements"),
        (lambda at: rewrite_verdict(make(at), lambda v: v["subject"].update(equivalence_sha256="0" * 64)), "other measurements"),
        (lambda at: make(at).add({"quality.json": b"{}"}), "other measurements"),
        (lambda at: make(at).add({"verdict.json": b"[]"}), "cannot be used"),
        (lambda at: make(at).add({"verdict.json": b"{"}), "cannot be used"),
        (lambda at: make(at, accuracy=0.7, waive_until=TODAY - timedelta(days=1)), "waiver that ended"),
        (lambda at: rewrite_verdict(make(at), lambda v: v.update(valid_until="soon")), "not a date"),
    ],
)
def test_unproven_bundles_are_refused_and_leave_nothing(tmp_path: Path, prepare: Callable[[Path], Bundle], words: str):
    store = Store(tmp_path / "store")
    with pytest.raises(GateError, match=words):
        admit(store, prepare(tmp_path / "b"))
    assert store.list() == ()
    assert not list((tmp_path / "store").glob("versions/*/*"))
    assert not (tmp_path / "store" / ".incoming").exists()


def test_a_waived_bundle_enters_while_the_waiver_holds(tmp_path: Path):
    assert admit(Store(tmp_path / "store"), make(tmp_path / "b", accuracy=0.7, waive_until=TODAY)).number == 1


def test_a_changed_bundle_is_refused(tmp_path: Path):
    bundle = make(tmp_path / "b")
    (bundle.root / "model.onnx").write_bytes(b"worse")
    with pytest.raises(BundleError, match=r"model\.onnx was changed"):
        admit(Store(tmp_path / "store"), bundle)


def test_archives_of_other_bytes_are_refused(tmp_path: Path):
    bundle, store = make(tmp_path / "b"), Store(tmp_path / "store")
    with pytest.raises(BundleError, match=r"model\.onnx differs"):
        admit(store, bundle, pack(tmp_path / "other.mar", bundle, model_onnx=b"worse"))
    with zipfile.ZipFile(tmp_path / "empty.mar", "w"):
        pass
    with pytest.raises(BundleError, match="differs"):
        admit(store, bundle, tmp_path / "empty.mar")
    with zipfile.ZipFile(pack(tmp_path / "twice.mar", bundle), "a") as archive:
        archive.writestr("model.onnx", bundle.path("model.onnx").read_bytes())
    with pytest.raises(BundleError, match="twice"):
        admit(store, bundle, tmp_path / "twice.mar")
    with zipfile.ZipFile(pack(tmp_path / "more.mar", bundle), "a") as archive:
        archive.writestr("model.onnx.data", b"extra weights")
    with pytest.raises(BundleError, match=r"model\.onnx\.data differs"):
        admit(store, bundle, tmp_path / "more.mar")
    (tmp_path / "text.mar").write_text("no")
    with pytest.raises(BundleError, match="not an archive"):
        admit(store, bundle, tmp_path / "text.mar")
    assert store.list() == ()


@pytest.mark.parametrize("arguments", [{"who": " "}, {"why": ""}, {"name": "../up"}, {"name": "UP"}, {"name": "a/b"}])
def test_bad_arguments_are_usage_errors(tmp_path: Path, arguments: dict[str, str]):
    with pytest.raises(UsageError):
        Store(tmp_path / "store").admit(make(tmp_path / "b").root, **({"who": "a", "why": "b"} | arguments))


def test_a_folder_that_is_no_store_is_not_made_one(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="is not a store"):
        Store(tmp_path)
    (tmp_path / "store.json").write_text('{"schema_version": 9}')
    with pytest.raises(UsageError, match="schema_version"):
        Store(tmp_path)


def test_promotion_and_rollback(tmp_path: Path):
    store = Store(tmp_path / "store")
    for number in range(3):
        admit(store, make(tmp_path / f"b{number}", content=bytes([number])))
    with pytest.raises(UsageError, match="no version in stage production"):
        store.show("tiny-model/production")
    for number in (1, 2, 3):
        assert store.promote(f"tiny-model/{number}", who="a", why="b").stages == ("production",)
    assert store.rollback("tiny-model", who="a", why="bad").id == "tiny-model/2"
    assert store.show("tiny-model/production").id == "tiny-model/2"
    assert store.rollback("tiny-model", who="a", why="bad").id == "tiny-model/1"
    with pytest.raises(UsageError, match="no earlier version"):
        store.rollback("tiny-model", who="a", why="bad")
    with pytest.raises(UsageError, match="no version 'tiny-model/9'"):
        store.promote("tiny-model/9", who="a", why="b")
    with pytest.raises(UsageError, match="no stage"):
        store.promote("tiny-model/1", "live", who="a", why="b")
    assert [entry.action for entry in store.record()] == ["admit"] * 3 + ["promote"] * 3 + ["rollback"] * 2
    store.verify()


def test_tampering_is_found_in_every_position(tmp_path: Path):
    bundle = make(tmp_path / "b")
    store = Store(tmp_path / "store")
    admit(store, bundle, pack(tmp_path / "x.mar", bundle))
    admit(store, make(tmp_path / "c", content=b"c"))
    store.promote("tiny-model/1", who="a", why="b")
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.name not in (".lock", "store.json")]
    assert len(files) >= 2 * len(bundle.manifest.files)
    for path in files:
        good = path.read_bytes()
        for at in {0, len(good) // 2, len(good) - 1}:
            path.chmod(0o644)
            path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            with pytest.raises((BundleError, GateError)):
                Store(tmp_path / "store").verify()
        path.write_bytes(good)
    store.verify()


def test_no_byte_of_the_record_can_be_changed(tmp_path: Path):
    admit(Store(tmp_path), make(tmp_path.with_name("b")))
    path = tmp_path / RECORD
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(BundleError):
            read_record(tmp_path)
    path.write_bytes(good[:-1])
    with pytest.raises(BundleError, match="newline"):
        read_record(tmp_path)


def test_every_line_of_the_record_is_chained(tmp_path: Path):
    store = Store(tmp_path / "store")
    for number in range(3):
        admit(store, make(tmp_path / f"b{number}", content=bytes([number])))
    path = tmp_path / "store" / RECORD
    lines = path.read_bytes().splitlines(keepends=True)
    for broken in (lines[1:], [lines[0], lines[2]], [lines[1], lines[0], lines[2]], [*lines, lines[2]], [*lines, b"{}\n"], [*lines, b"\n"]):
        path.write_bytes(b"".join(broken))
        with pytest.raises(BundleError, match="line"):
            read_record(tmp_path / "store")
    path.write_bytes(lines[0].replace(b"Ada", b"Eve") + lines[1] + lines[2])
    with pytest.raises(BundleError, match="line 1"):
        read_record(tmp_path / "store")
    path.write_bytes(b"".join(lines[:2]))  # a shortened record is a valid chain, but leaves a version that is not in it
    with pytest.raises(BundleError, match="not in the record"):
        store.verify()


def _die_at(step: int, work: Callable[[], object]) -> None:
    """Run ``work`` and kill the process, without any clean-up, right before its ``step``-th write to the file system."""
    count = 0
    for module, name in ((os, "replace"), (os, "rename"), (os, "fsync"), (os, "mkdir"), (shutil, "copyfile")):
        original = getattr(module, name)

        def counted(*args: Any, _original: Any = original, **kw: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                os._exit(9)
            return _original(*args, **kw)

        setattr(module, name, counted)
    work()
    os._exit(0)


def _in_child(step: int, work: Callable[[], object]) -> int | None:
    child = FORK.Process(target=_die_at, args=(step, work))
    child.start()
    child.join(30)
    return child.exitcode


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
        code = _in_child(step, work[what])
        assert code in (0, 9)
        after = Store(root)
        changes = len(after.record()) - before
        assert changes in (0, 1)
        outcomes.add(changes)
        for version in after.list():
            Bundle.open(version.bundle)
        work[what]() if changes == 0 else None  # the next writer goes on as if nothing had happened
        assert len(after.record()) == before + 1
        after.verify()
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


def test_the_archive_that_package_makes_is_accepted(tmp_path: Path):
    bundle, store = make(tmp_path / "b"), Store(tmp_path / "store")
    archive = package(bundle, tmp_path, name="tiny", version="1.0")
    version = admit(store, bundle, archive)
    assert version.archive is not None
    assert version.archive.read_bytes() == archive.read_bytes()
    with pytest.raises(BundleError, match="was not made from this bundle"):
        admit(store, make(tmp_path / "c", content=b"c"), archive)
