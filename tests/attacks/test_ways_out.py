"""Folders that someone else may fill, a bundle and a store: no command writes or removes outside them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from _stores import admit, make

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError
from elude.model_store import places
from elude.model_store.store import Store

AT_ONCE = timedelta(0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """What lies elsewhere, and is to stay as it is."""
    home = tmp_path / "home"
    (home / "documents").mkdir(parents=True)
    (home / "documents" / "thesis").write_text("mine")
    (home / ".profile").write_text("mine")
    return home


def unharmed(home: Path) -> bool:
    texts = {path.relative_to(home).as_posix(): path.read_text() for path in home.rglob("*") if path.is_file()}
    return texts == {"documents/thesis": "mine", ".profile": "mine"}


def test_opening_a_bundle_writes_nothing_outside_it(tmp_path: Path, home: Path) -> None:
    """It holds an unfinished addition, as a crash leaves one, of a file in a folder that is a link."""
    bundle = make(tmp_path / "b")
    (bundle.root / "x").symlink_to(home)
    added = bundle.root / ".adding" / "x" / ".profile"
    added.parent.mkdir(parents=True)
    added.write_text("evil")
    with pytest.raises(BundleError, match="is a link"):
        Bundle.open(bundle.root)
    assert unharmed(home)
    assert added.read_text() == "evil"  # it was not even moved


def test_an_unfinished_addition_is_finished_where_nothing_is_a_link(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b")
    grown = Bundle.open(bundle.root).add({"notes/a.json": b"{}"})
    for name in ("notes/a.json", "manifest.json"):
        target = bundle.root / ".adding" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(bundle.root / name, target)
    assert Bundle.open(bundle.root).manifest == grown.manifest


@pytest.mark.parametrize("linked", ["versions", "versions/x", ".incoming"])
def test_removing_leftovers_of_a_store_removes_nothing_outside_it(tmp_path: Path, home: Path, linked: str) -> None:
    store = Store(tmp_path / "store")
    admit(store, make(tmp_path / "b"))
    place = tmp_path / "store" / linked
    if place.exists():
        place.rename(tmp_path / "elsewhere")
    place.symlink_to(home)
    with pytest.raises(BundleError, match="is a link"):
        store.gc(AT_ONCE)
    assert unharmed(home)


def test_a_link_that_takes_the_place_of_a_folder_meanwhile_is_not_followed(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the names has passed; then the folder is exchanged."""
    store = Store(tmp_path / "store")
    admit(store, make(tmp_path / "b"))
    (tmp_path / "store" / "versions" / "x" / "documents").mkdir(parents=True)
    changed = places.LocalPlace.changed

    def then_exchanged(self: places.LocalPlace, name: str) -> Any:
        instant = changed(self, name)
        (tmp_path / "store" / "versions" / "x").rename(tmp_path / "elsewhere")
        (tmp_path / "store" / "versions" / "x").symlink_to(home)
        return instant

    monkeypatch.setattr(places.LocalPlace, "changed", then_exchanged)
    with pytest.raises(OSError, match="x"):
        store.gc(AT_ONCE)
    assert unharmed(home)


@pytest.mark.parametrize("linked", ["record", "versions", "versions/tiny-model", ".incoming"])
def test_a_change_of_a_store_writes_nothing_outside_it(tmp_path: Path, home: Path, linked: str) -> None:
    store = Store(tmp_path / "store")
    admit(store, make(tmp_path / "b"))
    (tmp_path / "store" / linked).rename(tmp_path / "elsewhere")
    (tmp_path / "store" / linked).symlink_to(home)
    with pytest.raises(BundleError, match="is a link"):
        admit(store, make(tmp_path / "c", content=b"c"))
    assert unharmed(home)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("s3fs")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.parametrize("key", ["{folder}//{outside}", "{folder}/../../x", "{folder}/./x", "versions/m//x"])
def test_a_key_of_a_bucket_is_never_a_path_outside(tmp_path: Path, endpoint: str, key: str) -> None:
    """A key is any text; joined to a folder, one that begins with "/" is another file of the machine."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="x", aws_secret_access_key="y", region_name="us-east-1"
    )
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    store = Store(f"s3://{bucket}/store", endpoint_url=endpoint, key="x", secret="y")
    version = admit(store, make(tmp_path / "b"))
    outside = tmp_path / "outside"
    name = key.format(folder=version.admitted.folder, outside=str(outside)[1:])
    client.put_object(Bucket=bucket, Key=f"store/{name}", Body=b"evil")
    fetch = name.startswith(version.admitted.folder)
    with pytest.raises(BundleError, match="leaves the store"):
        store.fetch(version.id, tmp_path / "fetched") if fetch else store.gc(AT_ONCE)
    assert not outside.exists()
    assert not (tmp_path / "fetched").exists()
    client.delete_object(Bucket=bucket, Key=f"store/{name}")
    assert [v.id for v in store.verify()] == [version.id]
