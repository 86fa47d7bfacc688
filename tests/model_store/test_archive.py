"""The archive: same bundle, same bytes; runs from an unpacked folder alone, without torch; any changed byte is
refused by name.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from elude.handlers.admission.requirements import Requirements
from elude.handlers.bundle.bundle import Bundle, LayerInfo, Source, write_bundle
from elude.handlers.errors import BundleError, GateError, UsageError
from elude.handlers.settings import Limits, Settings
from elude.handlers.torchserve.archives import ArchiveInfo, bytes_source, read_archive, write_archive
from elude.handlers.torchserve.check_archive import take_in
from elude.handlers.torchserve.configuration import ServerSettings, configuration
from elude.handlers.torchserve.handler import check_contents, contents_bytes
from elude.handlers.torchserve.server import Server
from elude.model_store.archive import package


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    layers = [LayerInfo("fc", "linear", 1, 1, (1,), 0)]
    with write_bundle(
        tmp_path / "b", source=Source("m", "1", "a", "0" * 64), layers=layers, parameters=1, versions={}
    ) as folder:
        (folder / "model.onnx").write_bytes(bytes(range(256)) * 20)
        (folder / "labels.json").write_text("null")
    return Bundle.open(tmp_path / "b")


@pytest.fixture
def unpacked(bundle: Bundle, tmp_path: Path) -> Path:
    with zipfile.ZipFile(package(bundle, tmp_path, name="m", version="2.1")) as archive:
        archive.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


def test_same_bundle_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    first = package(bundle, tmp_path / "x", name="m", version="1.0")
    second = package(bundle, tmp_path / "y/z.mar", name="m", version="1.0")
    assert (first.name, second.name) == ("m.mar", "z.mar")
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["m.mar"]


def test_what_it_holds(bundle: Bundle, unpacked: Path, tmp_path: Path) -> None:
    assert Bundle.open(unpacked / "bundle").artefact_sha256 == bundle.artefact_sha256
    manifest = json.loads((unpacked / "MAR-INF/MANIFEST.json").read_text())
    assert manifest["model"]["modelName"] == "m"
    assert read_archive(tmp_path / "m.mar").version == "2.1"
    code = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*.py")}
    assert {
        "elude_handler.py",
        "elude/handlers/service.py",
        "elude/handlers/bundle/session.py",
        "elude/handlers/errors.py",
    } <= code
    assert not any("torchserve" in name for name in code)
    assert (
        json.loads((unpacked / "model-config.yaml").read_text())["elude"]["limits"]["max_edits"] == Limits().max_edits
    )
    check_contents(unpacked)


def test_it_runs_alone_and_without_torch(unpacked: Path) -> None:
    code = (
        "import sys, inspect, elude_handler, elude.handlers.service\n"
        "import elude.handlers\n"
        "assert elude.handlers.__file__.startswith(sys.argv[1]), elude.handlers.__file__\n"
        "assert not {'torch', 'timm', 'onnx', 'elude.exporter'} & set(sys.modules)\n"
        "own = [c for _, c in inspect.getmembers(elude_handler, inspect.isclass) if c.__module__ == 'elude_handler']\n"
        "assert [c.__name__ for c in own] == ['EludeHandler']\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(unpacked)], cwd=unpacked, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_changed_byte_in_any_file_is_named(unpacked: Path) -> None:
    listed = json.loads((unpacked / "contents.json").read_text())
    assert len(listed) > 10
    present = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert set(listed) == present  # contents.json and TorchServe's manifest too
    for name in listed:
        path = unpacked / name
        original = path.read_bytes()
        path.write_bytes(bytes([original[0] ^ 1]) + original[1:] if original else b"x")
        with pytest.raises(RuntimeError, match=f"{name} (was changed|cannot be read)"):
            check_contents(unpacked)
        path.unlink()
        with pytest.raises(RuntimeError, match=f"{name} (is missing|cannot be read)"):
            check_contents(unpacked)
        path.write_bytes(original)
    (unpacked / "numpy.py").write_text("")
    with pytest.raises(RuntimeError, match=r"numpy\.py does not belong"):
        check_contents(unpacked)


def test_no_byte_of_contents_can_change_unnoticed(unpacked: Path) -> None:
    path = unpacked / "contents.json"
    original = path.read_bytes()
    for i in range(0, len(original), 7):
        path.write_bytes(original[:i] + bytes([original[i] ^ 1]) + original[i + 1 :])
        with pytest.raises(RuntimeError, match=r"contents\.json"):
            check_contents(unpacked)
    path.write_bytes(original + b"\n")
    with pytest.raises(RuntimeError, match=r"contents\.json was changed"):
        check_contents(unpacked)


def test_a_changed_byte_of_the_packed_archive_is_named(bundle: Bundle, tmp_path: Path) -> None:
    path = package(bundle, tmp_path, name="m", version="2.1")
    copy = take_in(path, tmp_path / "copy.mar")
    assert (copy.name, copy.version, copy.path.read_bytes()) == ("m", "2.1", path.read_bytes())
    original = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    for entry in entries:
        if not entry.file_size:
            continue
        place = entry.header_offset + 30 + len(entry.filename.encode()) + entry.file_size // 2
        path.write_bytes(original[:place] + bytes([original[place] ^ 1]) + original[place + 1 :])
        with pytest.raises(UsageError, match=entry.filename):
            take_in(path, tmp_path / "other.mar")
        assert not (tmp_path / "other.mar").exists()
        path.write_bytes(original)


def test_settings_travel_in_the_archive(bundle: Bundle, tmp_path: Path) -> None:
    settings = Settings(Limits(max_edits=3), steering="presets", preset="a")
    with pytest.raises(UsageError, match="no preset 'a'"):
        package(bundle, tmp_path, name="m", version="1.0", settings=settings)
    path = package(bundle.add({"presets.json": b'{"a": []}'}), tmp_path, name="m", version="1.0", settings=settings)
    with zipfile.ZipFile(path) as archive:
        configured = json.loads(archive.read("model-config.yaml"))
    assert Settings.from_json(configured["elude"]) == settings
    assert configured["maxRetryTimeoutInSec"] == 30


@pytest.mark.parametrize(
    ("name", "version"), [("a/b", "1.0"), ("", "1.0"), ("../m", "1.0"), ("m", "one"), ("m", "1.0-rc")]
)
def test_names_torchserve_does_not_take(bundle: Bundle, tmp_path: Path, name: str, version: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        package(bundle, tmp_path, name=name, version=version)


def test_a_tampered_bundle_is_not_packed(bundle: Bundle, tmp_path: Path) -> None:
    bundle.path("labels.json").write_text("[]")
    with pytest.raises(BundleError, match=r"labels\.json was changed"):
        package(bundle, tmp_path / "out", name="m", version="1.0")
    assert not (tmp_path / "out").exists()


def test_an_archive_of_an_earlier_version_is_refused_with_the_way_out(bundle: Bundle, tmp_path: Path) -> None:
    """Its code lay in ``handlers/``; everything else was as today."""
    with zipfile.ZipFile(package(bundle, tmp_path, name="m", version="1.0")) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != "contents.json"}
    earlier = {name.removeprefix("elude/"): content for name, content in files.items() if name != "elude/__init__.py"}
    earlier["contents.json"] = contents_bytes({name: sha256(content) for name, content in earlier.items()})
    with zipfile.ZipFile(tmp_path / "old.mar", "w") as archive:
        for name, content in earlier.items():
            archive.writestr(name, content)
    for requirements in (Requirements(), Requirements(archives=(sha256(earlier["contents.json"]),))):
        with pytest.raises(UsageError, match="earlier version") as caught:
            take_in(tmp_path / "old.mar", tmp_path / "copy.mar", requirements)
        assert "elude package" in caught.value.remedy


def test_code_of_another_version_is_served_only_if_it_is_listed(bundle: Bundle, tmp_path: Path) -> None:
    with zipfile.ZipFile(package(bundle, tmp_path, name="m", version="1.0")) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != "contents.json"}
    files["elude/handlers/errors.py"] += b"# of another version"
    files["elude/handlers/more.py"] = b"# a module that this version does not have"
    files["contents.json"] = contents_bytes({name: sha256(content) for name, content in files.items()})
    other = tmp_path / "other.mar"
    write_archive(other, {name: bytes_source(content) for name, content in files.items()})
    with pytest.raises(UsageError, match=r"errors\.py differs"):
        take_in(other, tmp_path / "copy.mar")
    with pytest.raises(GateError, match="never admitted"):
        take_in(other, tmp_path / "copy.mar", Requirements(archives=("0" * 64,)))
    listed = Requirements(archives=(sha256(files["contents.json"]),))
    assert take_in(other, tmp_path / "copy.mar", listed).path.read_bytes() == other.read_bytes()


def test_two_archives_of_one_name_and_version_are_not_served_together(bundle: Bundle, tmp_path: Path) -> None:
    first, second = (package(bundle, tmp_path / name, name="m", version="1.0") for name in ("a", "b"))
    with pytest.raises(UsageError, match=r"both version 1\.0 of m"):
        Server([first, second])


def test_the_configuration_is_one_line_per_setting_whatever_the_paths_are(tmp_path: Path) -> None:
    archive = ArchiveInfo(tmp_path / "a, b\nallowed_urls=.*" / "Ü\\u0041.mar", "m", "1.0")
    ports = dict.fromkeys(("inference", "management", "metrics", "grpc_inference", "grpc_management"), 1)
    plain = (
        configuration([ArchiveInfo(Path("/a.mar"), "m", "1.0")], ports, ServerSettings()).decode("ascii").splitlines()
    )
    lines = configuration([archive], ports, ServerSettings()).decode("ascii").splitlines()
    assert [line.partition("=")[0] for line in lines] == [line.partition("=")[0] for line in plain]
    (allowed,) = [line for line in lines if line.startswith("allowed_urls=")]
    assert allowed.count(",") == 0
    pattern = allowed.partition("=")[2]
    assert re.fullmatch(pattern, f"file://{archive.path}", re.DOTALL)
    for other in ("%2e%2e/evil.mar", "x/../../evil.mar", "other.mar"):
        assert not re.fullmatch(pattern, f"file://{archive.path.parent}/{other}")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
