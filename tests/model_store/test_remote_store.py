"""A store on an object store: memory, and S3 as moto's server speaks it."""

from __future__ import annotations

import importlib
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from _stores import admit, make, pack

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError, UsageError
from elude.model_store.places import RemotePlace, open_place
from elude.model_store.store import Store

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")
Open = Callable[[], Store]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["memory", "s3"])
def open_store(request: pytest.FixtureRequest) -> Open:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    if request.param == "memory":
        return lambda: Store(f"memory://{name}/store")
    options = {"endpoint_url": request.getfixturevalue("endpoint"), "key": "x", "secret": "y"}
    import fsspec

    fsspec.filesystem("s3", **options).mkdir(name)
    return lambda: Store(f"s3://{name}/store", **options)


def test_the_whole_life_of_a_version(tmp_path: Path, open_store: Open):
    store, bundle = open_store(), make(tmp_path / "b")
    first = admit(store, bundle, pack(tmp_path / "x.mar", bundle))
    assert admit(store, bundle, tmp_path / "x.mar").id == first.id == "tiny-model/1"
    admit(store, make(tmp_path / "c", content=b"c"))
    store.promote("tiny-model/1", who="a", why="b")
    store.promote("tiny-model/2", who="a", why="b")
    assert store.rollback("tiny-model", who="a", why="b").id == "tiny-model/1"
    other = open_store()
    assert [v.stages for v in other.verify()] == [("production",), ()]
    fetched = other.fetch("tiny-model/production", tmp_path / "served")
    assert Bundle.open(fetched.bundle).artefact_sha256 == bundle.artefact_sha256
    assert fetched.archive is not None
    assert Path(fetched.archive).read_bytes() == (tmp_path / "x.mar").read_bytes()
    assert "://" in first.bundle


def test_tampering_with_any_object_is_found(tmp_path: Path, open_store: Open):
    store, bundle = open_store(), make(tmp_path / "b")
    admit(store, bundle, pack(tmp_path / "x.mar", bundle))
    place = store.place
    assert isinstance(place, RemotePlace)
    system, names = place._system, [name for name in place._files("") if name != "store.json"]
    assert len(names) == len(bundle.manifest.files) + 3  # manifest, archive, entry
    for name in names:
        path = f"{place._root}/{name}"
        good = system.cat_file(path)
        system.pipe_file(path, good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(BundleError):
            open_store().verify()
        system.pipe_file(path, good)
    store.verify()


def test_concurrent_admissions_lose_none(tmp_path: Path, open_store: Open):
    bundles = [make(tmp_path / f"b{number}", content=bytes([number])) for number in range(4)]
    stores = [open_store() for _ in bundles]
    threads = [threading.Thread(target=admit, args=pair) for pair in zip(stores, bundles, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    store = open_store()
    assert [version.number for version in store.list()] == [1, 2, 3, 4]
    assert {v.admitted.artefact_sha256 for v in store.verify()} == {bundle.artefact_sha256 for bundle in bundles}


class Lost(BaseException):
    """The connection, or the process, is gone."""


@pytest.mark.parametrize("what", ["admit", "promote"])
def test_a_writer_lost_at_any_request_leaves_the_old_or_the_new_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    first, second = make(tmp_path / "b"), make(tmp_path / "c", content=b"c")
    outcomes = set()
    for step in range(1, 50):
        url = f"memory://{uuid.uuid4().hex}/store"
        admit(Store(url), first)
        store, count = Store(url), 0
        work: dict[str, Callable[[], Any]] = {
            "admit": lambda s=store: admit(s, second),
            "promote": lambda s=store: s.promote("tiny-model/1", who="a", why="b"),
        }
        with monkeypatch.context() as patch:
            for name in ("create", "publish"):
                original = getattr(RemotePlace, name)

                def lossy(self: RemotePlace, *args: Any, _original: Any = original, _step: int = step) -> None:
                    with patch.context() as inner:
                        for request in ("put_file", "pipe_file"):
                            send = getattr(self._system, request)

                            def counted(*given: Any, _send: Any = send, **kw: Any) -> None:
                                nonlocal count
                                count += 1
                                if count == _step:
                                    raise Lost
                                _send(*given, **kw)

                            inner.setattr(self._system, request, counted)
                        _original(self, *args)

                patch.setattr(RemotePlace, name, lossy)
            lost = False
            try:
                work[what]()
            except Lost:
                lost = True
        after = Store(url)
        outcomes.add(len(after.record()) - 1)
        assert len(after.record()) - 1 == (0 if lost else 1)
        if lost:
            work[what]()
        after.gc(timedelta(0))
        after.verify()
        if not lost:
            break
    assert outcomes == {0, 1}


def test_places_that_cannot_keep_the_promise_are_refused():
    with pytest.raises(UsageError, match="ftp"):
        open_place("ftp://host/store")


@pytest.mark.parametrize("missing", ["fsspec", "s3fs"])
def test_without_its_library_an_object_store_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
):
    loaded = importlib.import_module("fsspec.registry")._registry
    monkeypatch.delitem(loaded, "s3", raising=False)  # by a test before
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=r"elude\[s3\]"):
        open_place("s3://bucket/store")
    Store(tmp_path / "store").list()
