"""Bundles on the Hub, against a stand-in of its HTTP interface: what comes back is what was pushed, or is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from _hub import Hub, serving
from _serving import images, make_bundle

import elude
from elude.handlers.admission.trust import SIGNATURE
from elude.handlers.errors import BundleError, EludeError, UsageError
from elude.hub import fetch
from elude.push_to_hub import push

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("hub") / "bundle").root


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The client's own settings point to the stand-in and to an empty cache."""
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
        yield hub


def pushed(hub: Hub, folder: Path) -> str:
    return push(folder, "hf://ada/bags", token="hf_good")


def fetched(hub: Hub, tmp_path: Path, address: str = "hf://ada/bags") -> Path:
    return fetch(address, tmp_path / "fetched")


def test_what_is_pushed_comes_back(hub: Hub, folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert pushed(hub, folder).startswith(f"{hub.url}/ada/bags/commit/")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    root = fetched(hub, tmp_path)
    assert elude.Bundle.open(root).artefact_sha256 == elude.Bundle.open(folder).artefact_sha256
    for name in before.keys() - {"README.md", "manifest.json"}:
        assert (root / name).read_bytes() == before[name]


def test_the_repository_shows_a_model_card(hub: Hub, folder: Path) -> None:
    pushed(hub, folder)
    card = hub.files("ada/bags")["README.md"].decode()
    _, head, text = card.split("---\n", 2)
    assert json.loads(head)["base_model"] == "embedded"
    assert text == (folder / "README.md").read_text()


def test_load_takes_the_address(hub: Hub, folder: Path) -> None:
    pushed(hub, folder)
    hub.tokens.clear()
    (picture,) = images(1)
    loaded, local = elude.load("hf://ada/bags"), elude.load(folder)
    assert loaded.predict(picture).to_dict() == local.predict(picture).to_dict()


def test_a_second_push_replaces_the_first_in_one_commit(hub: Hub, folder: Path, tmp_path: Path) -> None:
    pushed(hub, folder)
    hub.change("ada/bags", notes_html=b"left over")
    changed = elude.Bundle.open(shutil.copytree(folder, tmp_path / "changed"))
    changed.add({"README.md": b"# Second\n"})
    commits = len(hub.repositories["ada/bags"])
    pushed(hub, changed.root)
    assert len(hub.repositories["ada/bags"]) == commits + 1
    assert "notes.html" not in hub.files("ada/bags")
    assert "# Second" in (fetched(hub, tmp_path) / "README.md").read_text()


def test_a_revision_names_an_older_commit(hub: Hub, folder: Path, tmp_path: Path) -> None:
    url = pushed(hub, folder)
    hub.change("ada/bags", labels_json=b"[]")
    root = fetched(hub, tmp_path, f"hf://ada/bags@{url.rpartition('/')[2]}")
    assert (root / "labels.json").read_bytes() == (folder / "labels.json").read_bytes()


def test_a_changed_file_is_refused_by_its_name(hub: Hub, folder: Path, tmp_path: Path) -> None:
    pushed(hub, folder)
    hub.change("ada/bags", labels_json=b"[]")
    with pytest.raises(BundleError) as caught:
        fetched(hub, tmp_path)
    assert "labels.json" in str(caught.value)
    with pytest.raises(BundleError):
        elude.load("hf://ada/bags")


@pytest.mark.parametrize("name", ["../outside.json", "/tmp/outside.json", "setup.py", "model.pkl", "run", "a\\b.json"])
def test_a_manifest_that_names_what_no_bundle_holds_is_refused_before_it_is_fetched(
    hub: Hub, folder: Path, tmp_path: Path, name: str
) -> None:
    pushed(hub, folder)
    manifest = json.loads(hub.files("ada/bags")["manifest.json"])
    manifest["files"][name] = hashlib.sha256(b"print()").hexdigest()
    hub.repositories["ada/bags"].append(
        hub.files("ada/bags") | {"manifest.json": json.dumps(manifest).encode(), name: b"print()"}
    )
    with pytest.raises(BundleError) as caught:
        fetched(hub, tmp_path)
    assert repr(name).strip("'") in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*") if path.suffix in (".py", ".pkl") or "outside" in path.name] == []


def test_what_else_lies_in_a_repository_is_not_fetched(hub: Hub, folder: Path, tmp_path: Path) -> None:
    pushed(hub, folder)
    hub.change("ada/bags", setup_py=b"print()")
    assert not (fetched(hub, tmp_path) / "setup.py").exists()


def test_a_bundle_with_a_file_that_would_not_be_fetched_is_not_pushed(hub: Hub, folder: Path, tmp_path: Path) -> None:
    bundle = elude.Bundle.open(shutil.copytree(folder, tmp_path / "bundle"))
    bundle.add({"helper.py": b"print()"})
    with pytest.raises(BundleError) as caught:
        pushed(hub, bundle.root)
    assert "helper.py" in str(caught.value)
    assert hub.repositories == {}


def test_a_signed_bundle_is_pushed_as_it_is_or_not_at_all(hub: Hub, folder: Path, tmp_path: Path) -> None:
    bundle = elude.Bundle.open(shutil.copytree(folder, tmp_path / "bundle"))
    bundle.add({SIGNATURE: b"{}"})
    with pytest.raises(UsageError) as caught:
        pushed(hub, bundle.root)
    assert "elude card" in str(caught.value)
    bundle.add({"README.md": b"---\nlicense: mit\n---\n# Mine\n"})
    pushed(hub, bundle.root)
    assert hub.files("ada/bags")["README.md"].startswith(b"---\nlicense")


def test_what_the_hub_refuses_is_said_in_one_line(hub: Hub, folder: Path, tmp_path: Path) -> None:
    def refused(call: object, *words: str) -> None:
        with pytest.raises(EludeError) as caught:
            call()  # type: ignore[operator]
        assert "\n" not in str(caught.value)
        assert all(word in str(caught.value) for word in words), str(caught.value)

    refused(lambda: push(folder, "hf://ada/bags", token="hf_bad"), "hf auth login")
    refused(lambda: push(folder, "ada/bags"), "hf://")
    refused(lambda: push(folder, "hf://ada"), "OWNER/NAME")
    refused(lambda: fetched(hub, tmp_path), "hf://ada/bags")
    pushed(hub, folder)
    refused(lambda: fetched(hub, tmp_path, "hf://ada/bags@nothing"), "nothing")
    hub.repositories["ada/plain"] = [{"config.json": b"{}"}]
    refused(lambda: elude.load("hf://ada/plain"), "elude push")
    hub.repositories["ada/odd"] = [{"manifest.json": b"{"}]
    refused(lambda: elude.load("hf://ada/odd"), "manifest.json")
    refused(lambda: push(folder, "hf://ada/bags", token="hf_good", endpoint="http://127.0.0.1:9"), "network")


def test_a_fetched_bundle_loads_without_a_network(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(hub, folder)
    elude.load("hf://ada/bags")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert elude.load("hf://ada/bags").labels == elude.load(folder).labels
    with pytest.raises(UsageError) as caught:
        elude.load("hf://ada/others")
    assert "network" in str(caught.value)


def test_the_command(hub: Hub, folder: Path, tmp_path: Path) -> None:
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_good", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "elude", "push", str(folder), "hf://ada/bags", "--private"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{hub.url}/ada/bags/commit/")
    assert hub.private["ada/bags"]
    done = subprocess.run(
        [*command[:-2], "bags"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert "hf://OWNER/NAME" in done.stderr
