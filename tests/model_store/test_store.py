"""The store: only proven bundles enter, nothing that entered changes unseen, and no crash or neighbour tears it."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from _stores import TODAY, admit, make, pack

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError, GateError, UsageError
from elude.model_store.archive import package
from elude.model_store.places import LocalPlace
from elude.model_store.records import RECORD, read_record
from elude.model_store.store import Store
from elude.quality.policies.policy import load_policy


def test_admission_keeps_the_bytes_and_says_who_and_why(tmp_path: Path):
    bundle = make(tmp_path / "b")
    store = Store(tmp_path / "store")
    version = admit(store, bundle, pack(tmp_path / "x.mar", bundle))
    assert version.id == "tiny-model/1"
    assert Bundle.open(version.bundle).artefact_sha256 == bundle.artefact_sha256 == version.admitted.artefact_sha256
    assert version.archive is not None
    assert Path(version.archive).read_bytes() == (tmp_path / "x.mar").read_bytes()
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
        (
            lambda at: rewrite_verdict(make(at, accuracy=0.5), lambda v: v.update(passed=True)),
            "stopped this bundle|one of its checks failed",
        ),
        (
            lambda at: rewrite_verdict(make(at), lambda v: v.update(checks=[])),
            "stopped this bundle|one of its checks failed",
        ),
        (lambda at: rewrite_verdict(make(at), lambda v: v.update(schema_version=9)), "schema_version"),
        (
            lambda at: rewrite_verdict(make(at), lambda v: v["subject"].update(artefact_sha256="0" * 64)),
            "about artefact 000000000000",
        ),
        (
            lambda at: rewrite_verdict(make(at), lambda v: v["subject"].update(quality_sha256="0" * 64)),
            "other measurements",
        ),
        (
            lambda at: rewrite_verdict(make(at), lambda v: v["subject"].update(equivalence_sha256="0" * 64)),
            "other measurements",
        ),
        (lambda at: make(at).add({"quality.json": b"{}"}), "other measurements"),
        (lambda at: make(at).add({"verdict.json": b"[]"}), "cannot be used"),
        (lambda at: make(at).add({"verdict.json": b"{"}), "cannot be used"),
        (lambda at: make(at, accuracy=0.7, waive_until=TODAY - timedelta(days=1)), "waiver that ended"),
        (lambda at: rewrite_verdict(make(at), lambda v: v.update(valid_until="soon")), "cannot be used"),
    ],
)
def test_unproven_bundles_are_refused_and_leave_nothing(tmp_path: Path, prepare: Callable[[Path], Bundle], words: str):
    store = Store(tmp_path / "store")
    with pytest.raises(GateError, match=words):
        admit(store, prepare(tmp_path / "b"))
    assert store.list() == ()
    assert not list((tmp_path / "store").glob("versions/*/*"))
    assert not list((tmp_path / "store").glob(".incoming/*"))


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
    with pytest.raises(UsageError, match="not a model archive"):
        admit(store, bundle, tmp_path / "empty.mar")
    with (
        zipfile.ZipFile(pack(tmp_path / "twice.mar", bundle), "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("bundle/model.onnx", bundle.path("model.onnx").read_bytes())
    with pytest.raises(BundleError, match="twice"):
        admit(store, bundle, tmp_path / "twice.mar")
    with zipfile.ZipFile(pack(tmp_path / "more.mar", bundle), "a") as archive:
        archive.writestr("model.onnx.data", b"extra weights")
    with pytest.raises(BundleError, match=r"model\.onnx\.data differs"):
        admit(store, bundle, tmp_path / "more.mar")
    for name in ("verdict_json", "quality_json", "manifest_json"):
        with pytest.raises(BundleError, match=f"{name[:-5]}.json differs"):
            admit(store, bundle, pack(tmp_path / "other.mar", bundle, **{name: b"{}"}))
    (tmp_path / "text.mar").write_text("no")
    with pytest.raises(UsageError, match="not a model archive"):
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
    files = [
        path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.name not in (".lock", "store.json")
    ]
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
    admit(Store(tmp_path / "store"), make(tmp_path / "b"))
    place = LocalPlace(tmp_path / "store")
    path = tmp_path / "store" / RECORD / "00000000.json"
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(BundleError):
            read_record(place)
    path.write_bytes(good[:-1])
    with pytest.raises(BundleError):
        read_record(place)


def test_every_entry_of_the_record_is_chained(tmp_path: Path):
    store = Store(tmp_path / "store")
    for number in range(3):
        admit(store, make(tmp_path / f"b{number}", content=bytes([number])))
    folder, place = tmp_path / "store" / RECORD, LocalPlace(tmp_path / "store")
    entries = [path.read_bytes() for path in sorted(folder.iterdir())]

    def write(contents: list[bytes], names: list[str] | None = None) -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        for number, content in enumerate(contents):
            (folder / (names[number] if names else f"{number:08d}.json")).write_bytes(content)

    one, two, three = entries
    for broken in (
        [two, three],
        [one, three],
        [two, one, three],
        [*entries, three],
        [*entries, b"{}\n"],
        [*entries, b"[]\n"],
    ):
        write(broken)
        with pytest.raises(BundleError, match="record"):
            read_record(place)
    write([one, three], ["00000000.json", "00000002.json"])
    with pytest.raises(BundleError, match=r"00000001\.json should be here"):
        read_record(place)
    write([one.replace(b"Ada", b"Eve"), two, three])
    with pytest.raises(BundleError, match=r"00000000\.json was changed"):
        read_record(place)
    write([one, two])  # a shortened record is a valid chain, but leaves a version that is not in it
    with pytest.raises(BundleError, match="not in the record"):
        store.verify()


def test_the_archive_that_package_makes_is_accepted(tmp_path: Path):
    bundle, store = make(tmp_path / "b"), Store(tmp_path / "store")
    archive = package(bundle, tmp_path, name="tiny", version="1.0")
    version = admit(store, bundle, archive)
    assert version.archive is not None
    assert Path(version.archive).read_bytes() == archive.read_bytes()
    with pytest.raises(BundleError, match="was not made from this bundle"):
        admit(store, make(tmp_path / "c", content=b"c"), archive)
