"""Whatever lies in a file that a command reads, the command ends with one sentence and not with a traceback."""

from __future__ import annotations

import json
import os
import random
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from _commands import damaged, not_a_file, run
from _stores import make

from elude.handlers.bundle.bundle import CORE_FILES, Bundle
from elude.handlers.bundle.manifest import Manifest
from elude.model_store.archive import package
from elude.model_store.signing import keygen
from elude.model_store.store import Store
from elude.quality.policies.policy import DEFAULT_POLICY

# Commands on the files of a world, and the files whose damage each is tried with.
COMMANDS = {
    "graph b": ["b/model.onnx", "b/manifest.json"],
    "graph b/model.onnx": ["b/model.onnx"],
    "gate b --policy policy.toml --waivers waivers.toml --baseline base": [
        *("policy.toml", "waivers.toml", "base/quality.json", "base/manifest.json"),
        *("b/quality.json", "b/equivalence.json"),
    ],
    "report b": ["b/quality.json", "b/verdict.json", "b/equivalence.json", "b/measures.json"],
    "compare b q.json": ["q.json", "b/quality.json"],
    "score values.json": ["values.json"],
    "policy explain policy.toml": ["policy.toml"],
    "policy init b --out new.toml": ["b/quality.json"],
    "preset list b": ["b/presets.json", "b/verdict.json", "b/presets_quality.json"],
    "package b --out out/x.mar": ["b/manifest.json", "b/presets.json", "out"],
    "admit b --store store --who a --sign-key ada.pem": [
        *("b/verdict.json", "b/quality.json", "ada.pem"),
        *("store/store.json", "store/record/00000000.json", "store/record"),
    ],
    "admit b --store store --who a --archive x.mar": ["x.mar"],
    "card b": ["b/quality.json", "b/manifest.json"],
    "provenance b --sign-key ada.pem": ["ada.pem", "b/manifest.json"],
    "store list --store store": ["store/record/00000000.json", "store/store.json", "store", "admission.json"],
    "store show tiny-model/1 --store store": ["store/record/00000001.json"],
    "store verify --store store": ["store/versions", "store/record/00000001.json"],
    "store promote tiny-model/1 --store store --who a": ["store/record/00000000.json", "store/versions/tiny-model"],
    "store rollback tiny-model --store store --who a": ["store/record/00000001.json"],
    "store gc --keep 0 --store store --who a": ["store/versions", "store/.incoming"],
    "store requirements --store store --out r.json": ["r.json", "store/versions"],
    "store fetch tiny-model/1 --store store --out f/f": ["f", "store/versions"],
    "serve x.mar --store store": ["x.mar", "store/record/00000000.json"],
    "call steer image.png --fields fields.json --url http://127.0.0.1:9": ["fields.json", "image.png"],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of every file that the commands read."""
    root = tmp_path_factory.mktemp("world")
    bundle = make(root / "b")
    bundle.add({"presets.json": b"{}", "measures.json": b"{}", "presets_quality.json": b"{}"})
    make(root / "base", content=b"base")
    shutil.copyfile(bundle.path("quality.json"), root / "q.json")
    (root / "values.json").write_text(json.dumps({"accuracy": 0.9}))
    (root / "policy.toml").write_bytes(DEFAULT_POLICY.read_bytes())
    (root / "waivers.toml").write_text(
        'schema_version = 1\n[[waiver]]\ncheck = "accuracy"\nreason = "r"\nowner = "a"\nuntil = 2099-01-01\n'
    )
    keygen(root / "ada.pem", owner="ada")
    store = Store(root / "store")
    version = store.admit(make(root / "first").root, who="a", why="b", make_archive=True)
    store.promote(version.id, who="a", why="b")
    package(bundle, root / "x.mar", name="x", version="1.0")
    (root / "fields.json").write_text("{}")
    (root / "image.png").write_bytes(b"\x89PNG")
    (root / "admission.json").write_text(json.dumps({"schema_version": 1, "policies": ["a"]}))
    for name in ("out", "f"):
        (root / name).mkdir()
    return root


def put(root: Path, name: str, content: bytes) -> None:
    """Write a file of the world; one of a bundle is entered in its manifest, or its reader would never see it."""
    folder, _, file = name.partition("/")
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    if (root / name).exists():
        (root / name).chmod(0o644)
    if file and file != "manifest.json" and (root / folder / "manifest.json").is_file():
        bundle = Bundle.open(root / folder, verify=False)
        if file not in CORE_FILES:
            bundle.add({file: content})
            return
        (root / name).write_bytes(content)
        manifest: Manifest = bundle.manifest.with_files(bundle.manifest.files | {file: sha256(content)})
        (root / folder / "manifest.json").write_bytes(manifest.to_bytes())
        return
    (root / name).write_bytes(content)


def sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def worlds(world: Path, tmp_path: Path, name: str) -> Iterator[Path]:
    """Copies of the world in which one file is damaged, each in its own way."""
    rng, number = random.Random(zlib.crc32(name.encode())), 0

    def fresh() -> Path:
        nonlocal number
        shutil.rmtree(tmp_path / f"w{number}", ignore_errors=True)
        number += 1
        return Path(shutil.copytree(world, tmp_path / f"w{number}", symlinks=True))

    if (world / name).is_file():
        for content in damaged(rng, (world / name).read_bytes()):
            root = fresh()
            put(root, name, content)
            yield root
    for index in range(5):
        root = fresh()
        list(not_a_file(root / name))[index]()
        yield root


CASES = [(command, file) for command, files in COMMANDS.items() for file in files]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "file"), CASES)
def test_a_damaged_file_ends_in_one_sentence(
    world: Path, tmp_path: Path, command: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = []
    for root in worlds(world, tmp_path, file):
        monkeypatch.chdir(root)
        if file == "admission.json":
            monkeypatch.setenv("ELUDE_ADMISSION", "admission.json")
        outcome = run(*command.split())
        if problem := outcome.problem():
            problems.append(problem)
        monkeypatch.chdir(tmp_path)
    assert not problems, f"{len(problems)} times, first: {problems[0]}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("store", "requirements", "--store", "store", "--out", "missing/r.json"),
        ("admit", "b", "--store", "store", "--archive", "missing.mar"),
        ("admit", "b", "--store", "policy.toml"),
        ("admit", "b", "--store", "s3://no-such-bucket-of-elude/x"),
        ("keygen", "missing/ada.pem", "--owner", "ada"),
        ("provenance", "b", "--sign-key", "missing.pem"),
        ("gate", "b", "--policy", "missing.toml"),
        ("gate", "b", "--junit", "missing/j.xml"),
        ("gate", "b", "--markdown", "missing/j.md"),
        ("compare", "b", "missing"),
        ("compare", "b", "q.json", "--html", "missing/x.html"),
        ("score", "missing.json"),
        ("policy", "explain", "missing.toml"),
        ("policy", "init", "b", "--out", "missing/p.toml"),
        ("store", "gc", "--store", "store", "--days", "nan"),
        ("store", "gc", "--store", "store", "--days", "1e300"),
        ("store", "show", "", "--store", "store"),
        ("store", "show", "/", "--store", "store"),
        ("store", "fetch", "tiny-model/1", "--store", "store", "--out", "policy.toml/x"),
        ("store", "list", "--store", "\0"),
        ("graph", "missing.onnx"),
        ("serve", "missing.mar"),
        ("serve", "x.mar", "--port", "99999"),
        ("call", "predict", "b"),
        ("call", "describe", "--url", "http://127.0.0.1:9"),
        ("call", "describe", "--url", "http://[::1"),
        ("call", "describe", "--url", "http://a b/"),
        ("call", "describe", "--url", "http://127.0.0.1:99999"),
        ("explore", "missing"),
    ],
)
def test_what_a_user_can_cause_has_exit_code_2(
    world: Path, tmp_path: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(world, tmp_path / "w"))
    monkeypatch.chdir(root)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "ELUDE_ADMISSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    outcome = run(*arguments)
    assert outcome.problem((2,)) == ""
    assert outcome.error.strip()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_told(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write fails as on a full disk, at each of the places where a command writes."""
    root = Path(shutil.copytree(world, tmp_path / "w"))
    monkeypatch.chdir(root)
    monkeypatch.setattr(os, "fsync", full)
    for arguments in (
        ("admit", "b", "--store", "store", "--who", "a"),
        ("store", "promote", "tiny-model/1", "--stage", "candidate", "--store", "store", "--who", "a"),
        ("store", "requirements", "--store", "store", "--out", "r.json"),
        ("gate", "b", "--policy", "policy.toml"),
    ):
        outcome = run(*arguments)
        assert outcome.problem((2,)) == ""
        assert "No space left" in outcome.error
    assert not (root / "r.json").exists()


def full(descriptor: int) -> None:
    raise OSError(28, os.strerror(28))
