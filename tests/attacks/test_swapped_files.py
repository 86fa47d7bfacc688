"""The bytes that were hashed are the bytes that are used: files that change between the check and the use, and model
files that point elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from _serving import images, make_bundle
from _stores import admit, make
from onnx import TensorProto, numpy_helper

from elude.handlers.bundle import bundle as bundle_module
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.bundle.external_data import check_external_data, external_files, private_model
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import BundleError
from elude.handlers.requests.calls import Call
from elude.handlers.service import Service
from elude.model_store import store as store_module
from elude.model_store.archive import package
from elude.model_store.serving import StoreSource
from elude.model_store.store import Store


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("served") / "b")


@pytest.fixture
def bundle(served: Bundle, tmp_path: Path) -> Bundle:
    return Bundle.open(shutil.copytree(served.root, tmp_path / "b"))


def other_model(path: Path) -> bytes:
    """The same graph with its first large weight set to zero."""
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(weight)), weight.name))
    return model.SerializeToString()


@pytest.mark.parametrize("name", ["model.onnx", "catalogue.sqlite", "labels.json", "preprocess.json", "presets.json"])
def test_a_file_that_is_replaced_after_the_check_is_not_loaded(bundle: Bundle, name: str) -> None:
    content = other_model(bundle.path(name)) if name == "model.onnx" else bundle.path(name).read_bytes() + b" "
    bundle.path(name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} was changed"):
        Service(bundle, GraphSession.of(bundle))


def test_a_running_service_answers_from_what_it_loaded(bundle: Bundle) -> None:
    service, image = Service.open(bundle.root), Call(images(1)[0])
    before, described = service.answer([image])[0].body, service.describe()
    feature = Call(b'{"op": "search", "query": "concept 3"}')
    rows = service.answer([feature])[0].body
    for name in bundle.manifest.files:
        bundle.path(name).write_bytes(b"something else entirely" * 1000)
    assert service.answer([image])[0].body == before
    assert service.answer([feature])[0].body == rows
    assert service.describe() == described


def test_the_manifest_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest that is swapped behind the reading of it: the hash that the store compares is of what was read."""
    bundle = make(tmp_path / "b")
    good = (bundle.root / "manifest.json").read_bytes()
    read = bundle_module.read_plain

    def swapping(path: Path, *arguments: Any, **options: Any) -> bytes:
        content = read(path, *arguments, **options)
        Path(path).write_bytes(b"{}")
        return content

    monkeypatch.setattr(bundle_module, "read_plain", swapping)
    assert Bundle.open(bundle.root, verify=False).manifest_sha256 == hashlib.sha256(good).hexdigest()


def test_what_the_store_gives_out_is_what_it_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own files change after each check: neither a fetched version nor a list of archives shows it."""
    store = Store(tmp_path / "store")
    version = store.admit(make(tmp_path / "b").root, who="a", why="b", make_archive=True)
    store.promote(version.id, who="a", why="b")
    assert version.archive is not None
    good, archive = Path(version.archive).read_bytes(), Path(version.archive)
    expected = store.serving_requirements().archives
    evil = package(make(tmp_path / "e", content=b"evil"), tmp_path / "evil.mar", name="tiny-model", version="1.0")
    check = store_module.verified_copy

    def then_swapped(*arguments: Any) -> Path:
        root = check(*arguments)
        archive.chmod(0o644)
        archive.write_bytes(evil.read_bytes())
        return root

    monkeypatch.setattr(store_module, "verified_copy", then_swapped)
    assert store.serving_requirements().archives == expected
    archive.write_bytes(good)
    fetched = store.fetch(version.id, tmp_path / "served")
    assert fetched.archive is not None
    assert Path(fetched.archive).read_bytes() == good


def test_an_archive_that_changes_after_it_was_recognised_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    version = store.admit(make(tmp_path / "b").root, who="a", why="b", make_archive=True)
    given = Path(shutil.copyfile(str(version.archive), tmp_path / "given.mar"))
    evil = package(make(tmp_path / "e", content=b"evil"), tmp_path / "evil.mar", name="x", version="1.0").read_bytes()
    expected = store.requirements_for([given]).archives
    copy = store_module.copy_plain

    def then_swapped(*arguments: Any, **options: Any) -> str:
        sha256 = copy(*arguments, **options)
        given.write_bytes(evil)
        return sha256

    monkeypatch.setattr(store_module, "copy_plain", then_swapped)
    assert store.requirements_for([given]).archives == expected


def external(path: Path, location: str, where: Callable[[onnx.ModelProto], TensorProto] | None = None) -> Path:
    """A model with one tensor that says it lies in ``location``."""
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["w"], ["y"])],
            "g",
            [],
            [onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
            [numpy_helper.from_array(np.ones(2, np.float32), "w")],
        )
    )
    tensor = where(model) if where else model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    return path


def in_attribute(model: onnx.ModelProto) -> TensorProto:
    node = onnx.helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(2, np.float32), "c"))
    model.graph.node.append(node)
    return model.graph.node[-1].attribute[0].t


def in_subgraph(model: onnx.ModelProto) -> TensorProto:
    inner = onnx.helper.make_graph([], "inner", [], [], [numpy_helper.from_array(np.ones(2, np.float32), "v")])
    model.graph.node.append(onnx.helper.make_node("If", ["y"], ["z"], then_branch=inner, else_branch=inner))
    return model.graph.node[-1].attribute[1].g.initializer[0]


def in_function(model: onnx.ModelProto) -> TensorProto:
    node = onnx.helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(2, np.float32), "c"))
    model.functions.append(onnx.helper.make_function("d", "f", [], ["c"], [node], []))
    return model.functions[-1].node[0].attribute[0].t


def in_sparse(model: onnx.ModelProto) -> TensorProto:
    sparse = model.graph.sparse_initializer.add()
    return sparse.values


OUTSIDE = ["../outside.bin", "/etc/hostname", "a/../../outside.bin", "..", ".", "", "sub/x.bin", "*/_ORT_MEM_ADDR_/*"]


@pytest.mark.parametrize("location", OUTSIDE)
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "outside.bin").write_bytes(b"\0" * 8)
    (tmp_path / "m" / "sub").mkdir(parents=True)
    (tmp_path / "m" / "sub" / "x.bin").write_bytes(b"\0" * 8)
    path = external(tmp_path / "m" / "model.onnx", location)
    with pytest.raises(BundleError, match="takes weights from"):
        GraphSession(path)
    with pytest.raises(BundleError, match="takes weights from"), private_model(path):
        pass


@pytest.mark.parametrize("where", [in_attribute, in_subgraph, in_function, in_sparse])
def test_they_are_found_wherever_a_tensor_may_be(tmp_path: Path, where: Callable[[Any], TensorProto]) -> None:
    path = external(tmp_path / "model.onnx", "/etc/hostname", where)
    assert external_files(path) == {"/etc/hostname"}
    with pytest.raises(BundleError, match="takes weights from"):
        check_external_data(path)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "nothing"])
def test_weights_that_are_no_plain_file_are_refused(tmp_path: Path, kind: str) -> None:
    path, data = external(tmp_path / "model.onnx", "w.bin"), tmp_path / "w.bin"
    if kind == "link":
        data.symlink_to("/etc/hostname")
    elif kind == "pipe":
        os.mkfifo(data)
    elif kind == "folder":
        data.mkdir()
    with pytest.raises(BundleError, match="takes weights from"):
        GraphSession(path)


def test_in_a_bundle_only_the_manifests_file_may_hold_weights(tmp_path: Path) -> None:
    """A file that is listed but decides no hash of the artefact must not decide what the model answers."""
    from elude.handlers.bundle.bundle import Source, write_bundle

    with write_bundle(
        tmp_path / "b", source=Source("m", "1", "a", "0" * 64), layers=(), parameters=1, versions={}
    ) as folder:
        external(folder / "model.onnx", "more.bin")
    bundle = Bundle.open(tmp_path / "b").add({"more.bin": b"\0" * 8})
    with pytest.raises(BundleError, match=r"takes weights from 'more\.bin'"):
        GraphSession.of(bundle)


@pytest.mark.parametrize("content", [b"", b"\x0f", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 40, b"\x3a\x05abc"])
def test_what_is_no_protobuf_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(BundleError):
        GraphSession(tmp_path / "model.onnx")


def test_another_catalogue_than_the_checked_one_cannot_answer(bundle: Bundle, tmp_path: Path) -> None:
    catalogue = Catalogue.of(bundle)
    name = catalogue.name(3)
    connection = sqlite3.connect(bundle.path("catalogue.sqlite"))
    connection.execute("UPDATE sub_units SET name = 'harmless'")
    connection.commit()
    connection.close()
    assert catalogue.sub_unit(3).name == name
    with pytest.raises(BundleError, match=r"catalogue\.sqlite was changed"):
        Catalogue.of(bundle)


def test_no_private_copy_is_left_behind(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    service = Service.open(bundle.root)
    assert list((tmp_path / "t").iterdir()) == []
    assert service.answer([Call(images(1)[0])])[0].status == 200


def test_admission_and_archive_agree(tmp_path: Path) -> None:
    """The list for a server names the archive that the record names."""
    store = Store(tmp_path / "store")
    version = store.admit(make(tmp_path / "b").root, who="a", why="b", make_archive=True)
    with zipfile.ZipFile(str(version.archive)) as archive:
        contents = hashlib.sha256(archive.read("contents.json")).hexdigest()
    assert store.requirements_for([str(version.archive)]).archives == (contents,)
    assert admit(store, make(tmp_path / "c", content=b"c")).archive is None


@pytest.mark.parametrize("linked", ["", "bundle", "tiny-model.mar"])
def test_a_version_that_is_a_link_is_not_given_out(tmp_path: Path, linked: str) -> None:
    """Its copy would be a link too, to files that may change after the check."""
    store = Store(tmp_path / "store")
    version = store.admit(make(tmp_path / "b").root, who="a", why="b", make_archive=True)
    store.promote(version.id, who="a", why="b")
    place = Path(version.location, linked)
    Path(version.location).chmod(0o755)
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    for use in (store.verify, store.serving_requirements, lambda: store.fetch(version.id, tmp_path / "out")):
        with pytest.raises(BundleError, match="is a link"):
            use()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["link", "pipe", "device"])
def test_an_entry_that_is_no_plain_file_is_refused(tmp_path: Path, kind: str) -> None:
    store = Store(tmp_path / "store")
    store.admit(make(tmp_path / "b").root, who="a", why="b")
    entry = tmp_path / "store" / "record" / "00000000.json"
    entry.rename(tmp_path / "entry.json")
    if kind == "pipe":
        os.mkfifo(entry)
    else:
        entry.symlink_to(tmp_path / "entry.json" if kind == "link" else "/dev/zero")
    with pytest.raises(BundleError, match="was changed"):
        store.record()


def test_a_record_whose_end_is_cut_off_takes_no_running_server_back(tmp_path: Path) -> None:
    """Every entry that is left is genuine, signed and chained: only who saw the end knows that it is missing."""
    store = Store(tmp_path / "store")
    for number in (1, 2):
        version = admit(store, make(tmp_path / f"b{number}", content=bytes([number])))
        store.promote(version.id, who="a", why="b")
    running, source = Store(tmp_path / "store"), StoreSource(Store(tmp_path / "store"))
    assert running.show("tiny-model/production").number == 2
    assert [entry.version for entry in source(tmp_path / "served").versions] == ["2.0"]
    (tmp_path / "store" / "record" / "00000003.json").unlink()
    with pytest.raises(BundleError, match="entry 3"):
        running.show("tiny-model/production")
    plan = source(tmp_path / "served")
    assert [entry.version for entry in plan.versions] == ["2.0"]
    assert "entry 3" in plan.problems["tiny-model"]
    Store(tmp_path / "store").promote("tiny-model/1", "candidate", who="a", why="another entry in its place")
    with pytest.raises(BundleError, match="entry 3"):
        running.list()
