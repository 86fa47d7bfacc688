"""The bundle: written whole or not at all, opened only when nothing in it was touched."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from elude.handlers.bundle import bundle as bundle_module
from elude.handlers.bundle.bundle import Bundle, LayerInfo, Manifest, Source, write_bundle
from elude.handlers.errors import BundleError, UsageError

SOURCE = Source("embedded", "1", "vit_tiny", "ab" * 32)
LAYERS = (
    LayerInfo("blocks.0.mlp.fc2", "linear", 3, 4, (1, 2, 3), 0),
    LayerInfo("blocks.1.mlp.fc2", "linear", 1, 4, (2,), 6),
)


def make(path: Path, overwrite: bool = False, model: bytes = b"graph") -> Bundle:
    with write_bundle(
        path, source=SOURCE, layers=LAYERS, parameters=7, versions={"b": "2", "a": "1"}, overwrite=overwrite
    ) as folder:
        (folder / "model.onnx").write_bytes(model)
        (folder / "labels.json").write_text('["cat"]')
    return Bundle.open(path)


def test_round_trip_and_hashes(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b")
    assert bundle.manifest.layers == LAYERS
    assert bundle.manifest.source == SOURCE
    assert bundle.manifest.expansion_factor == 8 / 4
    assert bundle.json("labels.json") == ["cat"]
    assert bundle.manifest.files["model.onnx"] == hashlib.sha256(b"graph").hexdigest()
    assert Manifest.from_json(json.loads((tmp_path / "b/manifest.json").read_text())) == bundle.manifest
    assert sorted(os.listdir(tmp_path)) == ["b"]


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = make(tmp_path / "x"), make(tmp_path / "y")
    assert (first.root / "manifest.json").read_bytes() == (second.root / "manifest.json").read_bytes()
    assert first.artefact_sha256 == second.artefact_sha256


def test_artefact_hash_follows_behaviour_only(tmp_path: Path) -> None:
    bundle = make(tmp_path / "x")
    assert bundle.add({"quality.json": b"{}"}).artefact_sha256 == bundle.artefact_sha256
    assert make(tmp_path / "y", model=b"other").artefact_sha256 != bundle.artefact_sha256


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with write_bundle(tmp_path / "b", source=SOURCE, layers=(), parameters=0, versions={}) as folder:
            (folder / "model.onnx").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert os.listdir(tmp_path) == []


def test_overwrites_bundles_only_and_only_when_asked(tmp_path: Path) -> None:
    make(tmp_path / "b")
    with pytest.raises(UsageError, match="already exists"):
        make(tmp_path / "b")
    assert make(tmp_path / "b", overwrite=True, model=b"new").path("model.onnx").read_bytes() == b"new"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not a bundle"):
        make(tmp_path / "mine", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["b", "mine"]


def test_links_written_into_a_bundle_are_refused(tmp_path: Path) -> None:
    def link() -> None:
        with write_bundle(tmp_path / "b", source=SOURCE, layers=(), parameters=0, versions={}) as folder:
            (folder / "model.onnx").symlink_to("/etc/hostname")

    with pytest.raises(BundleError, match=r"model\.onnx is a link"):
        link()
    assert os.listdir(tmp_path) == []


def test_every_changed_byte_is_refused_with_the_name(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b")
    for name in bundle.manifest.files:
        original = bundle.path(name).read_bytes()
        for position in range(len(original)):
            changed = bytearray(original)
            changed[position] ^= 1
            bundle.path(name).write_bytes(changed)
            with pytest.raises(BundleError, match=f"{name} was changed"):
                Bundle.open(tmp_path / "b")
        bundle.path(name).write_bytes(original)
    Bundle.open(tmp_path / "b")


def test_missing_extra_and_linked_files_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "b").root
    (root / "evil.py").write_text("")
    with pytest.raises(BundleError, match=r"evil\.py is not in the manifest"):
        Bundle.open(root, verify=False)
    (root / "evil.py").unlink()
    (root / "labels.json").rename(tmp_path / "labels.json")
    with pytest.raises(BundleError, match=r"labels\.json is missing"):
        Bundle.open(root, verify=False)
    (root / "labels.json").symlink_to(tmp_path / "labels.json")
    with pytest.raises(BundleError, match=r"labels\.json is a link"):
        Bundle.open(root)


@pytest.mark.parametrize("name", ["/etc/passwd", "../b2/model.onnx", "a/../../x", "a\\b", "C:x", "", "./a"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    root = make(tmp_path / "b").root
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["files"][name] = "0" * 64
    (root / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="not a name inside a bundle"):
        Bundle.open(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version 2"),
        ({"schema_version": True}, "schema_version True"),
        ({"surprise": 1}, "'surprise' is unknown"),
        ({"parameters": "7"}, "'parameters' must be int"),
        ({"files": {"model.onnx": 1}}, "must hold texts"),
        (
            {"layers": [{"name": "x", "kind": "linear", "units": 2, "inputs": 1, "parts": [1], "first": 0}]},
            "2 positive whole",
        ),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    root = make(tmp_path / "b").root
    manifest = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(BundleError, match=message):
        Bundle.open(root)


def test_add_refuses_core_files_and_bad_names(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b")
    for name in ("model.onnx", "manifest.json", "../x"):
        with pytest.raises(BundleError, match=r"decides|not a name"):
            bundle.add({name: b""})
    added = bundle.add({"quality.json": b"{}"}).add({"quality.json": b"[]", "report.html": b"<p>"})
    assert Bundle.open(bundle.root).manifest == added.manifest
    assert added.json("quality.json") == []


def test_add_keeps_what_was_added_since_the_bundle_was_opened(tmp_path: Path) -> None:
    first = make(tmp_path / "b")
    Bundle.open(first.root).add({"quality.json": b"{}"})
    first.add({"verdict.json": b"{}"})
    assert Bundle.open(first.root).json("quality.json") == {}


def test_add_refuses_a_bundle_that_was_replaced(tmp_path: Path) -> None:
    old = make(tmp_path / "b")
    make(tmp_path / "b", overwrite=True, model=b"another")
    with pytest.raises(BundleError, match="another bundle than when it was opened"):
        old.add({"quality.json": b"{}"})


def test_an_interrupted_add_is_finished_on_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make(tmp_path / "b").add({"quality.json": b"old"})
    replace, left = os.replace, [1]

    def killed(source: Path, target: Path) -> None:
        if left.pop(0) == 0:
            raise KeyboardInterrupt
        left.append(0)
        replace(source, target)

    monkeypatch.setattr(bundle_module.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        bundle.add({"quality.json": b"new", "report.html": b"<p>"})
    monkeypatch.undo()
    opened = Bundle.open(bundle.root)
    assert opened.path("quality.json").read_bytes() == b"new"
    assert opened.path("report.html").read_bytes() == b"<p>"
    assert sorted(os.listdir(tmp_path)) == ["b"]


def test_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        Bundle.open(tmp_path / "none")
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        Bundle.open(tmp_path)
    with pytest.raises(BundleError, match=r"has no graph\.md; it has: labels\.json, model\.onnx"):
        make(tmp_path / "b").path("graph.md")
