"""Archives with foreign code, handed to a real TorchServe: none of that code runs.

That each attack is one is shown first: on a TorchServe that nobody guards it leaves its trace.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from _forgeries import (
    CONFIG,
    HANDLER,
    cached,
    code,
    compiled,
    entries,
    listed,
    with_hidden_entry,
    with_manifest,
    write,
)
from _stock import stock
from _stores import make

from elude.handlers.admission.requirements import ENVIRONMENT, Requirements
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import EludeError
from elude.handlers.torchserve.guard import write_guard
from elude.handlers.torchserve.server import Server, ServerSettings
from elude.model_store.admission import contents_sha256
from elude.model_store.archive import package
from elude.model_store.store import Store

pytestmark = pytest.mark.server
SERVICE = "elude/handlers/service.py"
Forge = Callable[[Path, Path, Path], Path]


def compiled_service(archive: Path, target: Path, trace: Path) -> Path:
    """Nothing that is listed is changed: beside a module lies a compiled form of it."""
    return write(target, entries(archive) | {cached(SERVICE): compiled(code(trace))})


def compiled_handler(archive: Path, target: Path, trace: Path) -> Path:
    return write(target, entries(archive) | {cached(HANDLER): compiled(code(trace))})


def start_up_module(archive: Path, target: Path, trace: Path) -> Path:
    """Python imports it from the path before anything else."""
    return write(target, entries(archive) | {"sitecustomize.py": code(trace)})


def hidden_entry(archive: Path, target: Path, trace: Path) -> Path:
    """Python reads the table at the end, Java the headers from the start: only Java sees this module."""
    return with_hidden_entry(archive, target, "sitecustomize.py", code(trace))


def foreign_handler(archive: Path, target: Path, trace: Path) -> Path:
    return write(target, listed(entries(archive) | {HANDLER: code(trace)}))


def other_interpreter(archive: Path, target: Path, trace: Path) -> Path:
    """Not the program that TorchServe was told to run, but ``python3``: the guard is never asked."""
    return write(target, with_manifest(entries(archive) | {HANDLER: code(trace)}, runtime="python3"))


def other_launcher(archive: Path, target: Path, trace: Path) -> Path:
    """``torchrun`` in place of the guard."""
    files = entries(archive) | {HANDLER: code(trace)}
    configuration = json.loads(files[CONFIG]) | {"parallelType": "pp", "torchrun": {"nproc-per-node": 1}}
    return write(target, listed(files | {CONFIG: json.dumps(configuration).encode()}))


def handler_by_function(archive: Path, target: Path, trace: Path) -> Path:
    """The handler of the archive is there as it should be; the manifest names another file."""
    files = entries(archive) | {"elude/other.py": code(trace)}
    return write(target, with_manifest(files, handler="elude/other.py:handle"))


ATTACKS: list[Forge] = [
    compiled_service,
    compiled_handler,
    start_up_module,
    hidden_entry,
    foreign_handler,
    other_interpreter,
    other_launcher,
    handler_by_function,
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with one version in production; its model answers nothing, as no attack needs one that does."""
    root = tmp_path_factory.mktemp("attacked")
    store = Store(root / "store")
    version = store.admit(make(root / "b").root, who="Ada", why="release", name="admitted", make_archive=True)
    store.promote(version.id, who="Ada", why="release")
    return store


@pytest.fixture(scope="module")
def admitted(store: Store) -> Path:
    archive = store.show("admitted/production").archive
    assert archive is not None
    return Path(archive)


@pytest.fixture
def required(store: Store) -> Requirements:
    return store.serving_requirements()


def start(archive: Path | list[Path], settings: ServerSettings, folder: Path) -> EludeError:
    """What refuses it, wherever that is: before anything starts, or in the worker."""
    with pytest.raises(EludeError) as caught, Server(archive, settings, folder=folder):
        pass
    return caught.value


def folder_of_attacks(bundle: Bundle, forges: Sequence[Forge], folder: Path) -> tuple[list[Path], Requirements]:
    """``models/`` with an archive of each attack, all under names of their own; the traces that they would leave, and
    requirements that list the archives that they were made of.
    """
    (folder / "models").mkdir()
    traces, contents = [], []
    for forge in forges:
        name = forge.__name__.replace("_", "-")
        right = package(bundle, folder, name=name, version="1.0")
        traces.append(folder / f"{name}.ran")
        contents.append(contents_sha256(right))
        forge(right, folder / "models" / f"{name}.mar", traces[-1])
    return traces, Requirements(verdict=True, archives=tuple(contents))


@pytest.mark.slow
def test_on_an_unguarded_torchserve_each_attack_runs_its_code(store: Store, tmp_path: Path) -> None:
    """All but one: the handler itself refuses a compiled form of another module."""
    bundle = Bundle.open(store.show("admitted/1").bundle)
    traces, _ = folder_of_attacks(bundle, ATTACKS, tmp_path)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    with stock(tmp_path, {"PATH": path}) as server:
        alone = traces.pop(ATTACKS.index(compiled_service))
        server.wait(lambda: all(trace.exists() for trace in traces), 200)
        server.wait(lambda: "The archive is damaged: elude/handlers/__pycache__" in server.log(), 200)
        assert not alone.exists()


@pytest.mark.slow
def test_the_guard_of_a_stock_torchserve_runs_none_of_it(store: Store, tmp_path: Path) -> None:
    """The other attacks choose a program of their own in its place: for them the folder of models is filtered."""
    bundle = Bundle.open(store.show("admitted/1").bundle)
    guarded = [compiled_service, compiled_handler, start_up_module, hidden_entry, foreign_handler, handler_by_function]
    traces, required = folder_of_attacks(bundle, guarded, tmp_path)
    (tmp_path / "admission.json").write_text(json.dumps(required.to_json()))
    with stock(tmp_path, {ENVIRONMENT: str(tmp_path / "admission.json")}, str(write_guard(tmp_path))) as server:
        refused = "_1.0-stderr MODEL_LOG - Failed to load model: "
        server.wait(lambda: all(f"{trace.stem}{refused}" in server.log() for trace in traces), 200)
    assert not [trace for trace in traces if trace.exists()]


@pytest.mark.parametrize("forge", ATTACKS, ids=lambda forge: forge.__name__)
def test_elude_serve_runs_none_of_it(forge: Forge, admitted: Path, required: Requirements, tmp_path: Path) -> None:
    archive = forge(admitted, tmp_path / "forged.mar", tmp_path / "ran")
    for settings in (ServerSettings(admission=required), ServerSettings(admission=Requirements())):
        assert "did not start" not in str(start(archive, settings, tmp_path / "run"))  # it was refused before
        assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / "run").glob("**/*.mar"))


def test_a_line_break_in_a_version_writes_no_line_of_configuration(
    admitted: Path, required: Requirements, tmp_path: Path
) -> None:
    """With its own line an archive could switch keys off and have its ``setup.py`` run."""
    files = entries(admitted) | {
        "setup.py": f"open({str(tmp_path / 'ran')!r}, 'w')\nimport setuptools\nsetuptools.setup()\n".encode(),
        "requirements.txt": b"--no-index\n.\n",
    }
    version = "1.0\ninstall_py_dep_per_model=true\ndisable_token_authorization=true\nx=1"
    archive = write(
        tmp_path / "forged.mar", with_manifest(files, modelVersion=version, requirementsFile="requirements.txt")
    )
    for settings in (ServerSettings(admission=required), ServerSettings(admission=Requirements())):
        assert repr(version) in start(archive, settings, tmp_path / "run").message
    assert not (tmp_path / "ran").exists()
    assert not list(tmp_path.glob("run/**/config.properties"))


@pytest.mark.parametrize("name", ["../../outside", "/tmp/elude-outside", "..", "a/../../outside", "m\x00", "m\n"])
def test_a_name_that_is_a_path_writes_nothing_outside(
    name: str, admitted: Path, required: Requirements, tmp_path: Path
) -> None:
    archive = write(tmp_path / "forged.mar", with_manifest(entries(admitted), modelName=name))
    before = set(tmp_path.rglob("*"))
    for settings in (ServerSettings(admission=required), ServerSettings(admission=Requirements())):
        assert repr(name) in start(archive, settings, tmp_path / "a" / "b").message
    assert not [path for path in set(tmp_path.rglob("*")) - before if path.is_file()]
    assert not list(Path("/tmp").glob("elude-outside*"))


@pytest.mark.parametrize("forge", ATTACKS, ids=lambda forge: forge.__name__)
def test_a_store_admits_no_archive_that_it_would_not_make(
    forge: Forge, admitted: Path, store: Store, tmp_path: Path
) -> None:
    """The bundle in it is the right one, which passed the gate."""
    before = store.list()
    archive = forge(admitted, tmp_path / "forged.mar", tmp_path / "ran")
    with pytest.raises(EludeError):
        store.admit(admitted.parent / "bundle", archive, who="Eve", why="release", name="other")
    assert store.list() == before


def test_an_archive_that_is_exchanged_after_the_check_is_not_served(
    admitted: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store looks at the file, the server opens it again: in between someone puts another one there."""
    archive = Path(shutil.copyfile(admitted, tmp_path / "admitted.mar"))
    required = store.requirements_for([archive])
    other_interpreter(admitted, archive, tmp_path / "ran")
    error = start(archive, ServerSettings(admission=required), tmp_path / "run")
    assert "never admitted" in str(error)
    assert "did not start" not in str(error)
    assert not (tmp_path / "ran").exists()
