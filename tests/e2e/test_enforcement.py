"""Nothing unproven is served, by TorchServe as anyone starts it: what the operator requires lies outside the
archives and decides.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from _released import POLICY, released
from _serving import images
from _stock import stock
from _stores import TODAY

from elude.handlers.admission.requirements import ENVIRONMENT
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import EvaluationError, GateError, RequestError
from elude.handlers.torchserve.guard import write_guard
from elude.handlers.torchserve.handler import CONTENTS, contents_bytes
from elude.handlers.torchserve.server import Server, ServerSettings
from elude.model_store.archive import package
from elude.model_store.signing import keygen
from elude.model_store.store import Store
from elude.quality.gate.judge import judge
from elude.quality.gate.verdict_formats import verdict_json
from elude.quality.gate.waivers import Waiver
from elude.quality.policies.policy import parse_policy

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return released(tmp_path_factory.mktemp("released") / "b")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def steer(**how: object) -> bytes:
    return json.dumps({"op": "steer", "image": base64.b64encode(images(1)[0]).decode(), **how}).encode()


def ended(bundle: Bundle, root: Path) -> Bundle:
    """The same bundle, let through by a waiver that ended yesterday."""
    copy = Bundle.open(shutil.copytree(bundle.root, root))
    yesterday = TODAY - timedelta(days=1)
    strict = parse_policy(POLICY.text.replace("min = 0.8", "min = 0.99").encode())
    waiver = Waiver("accuracy", "for now", "Ada", yesterday, copy.artefact_sha256)
    return copy.add({"verdict.json": verdict_json(judge(copy, strict, waivers=[waiver], today=yesterday))})


def foreign(archive: Path, target: Path, trace: Path) -> None:
    """The same archive in all but the handler, which is someone else's and asks nobody; its hashes are right."""
    with zipfile.ZipFile(archive) as old:
        files = {name: old.read(name) for name in old.namelist() if name != CONTENTS}
    files["MAR-INF/MANIFEST.json"] = files["MAR-INF/MANIFEST.json"].replace(b'"copied"', b'"foreign"')
    files["elude_handler.py"] = f"open({str(trace)!r}, 'w')\nclass Handler:\n    handle = lambda *_: ['1']\n".encode()
    files[CONTENTS] = contents_bytes({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
    with zipfile.ZipFile(target, "w") as new:
        for name, content in files.items():
            new.writestr(name, content)


def test_an_archive_that_was_copied_in_without_admission_does_not_load(
    bundle: Bundle, models: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    version = store.admit(bundle.root, who="a", why="b", name="admitted", make_archive=True)
    store.promote(version.id, who="a", why="b")
    assert version.archive is not None
    shutil.copyfile(version.archive, models / "admitted.mar")
    package(bundle, models / "copied.mar", name="copied", version="1.0")  # passed the gate, but was never admitted
    foreign(models / "copied.mar", models / "foreign.mar", tmp_path / "ran")
    required = tmp_path / "admission.json"
    required.write_text(json.dumps(store.serving_requirements().to_json()))
    (tmp_path / "ts").mkdir()
    models.rename(tmp_path / "ts" / "models")
    guard = write_guard(tmp_path)
    with stock(tmp_path / "ts", {ENVIRONMENT: str(required)}, str(guard)) as server:
        refused = "-stderr MODEL_LOG - Failed to load model: GateError: This archive was never admitted"
        server.wait(lambda: all(f"{name}_1.0{refused}" in server.log() for name in ("copied", "foreign")))
        server.wait(lambda: server.ask("admitted", images(1)[0])[0] == 200)
        assert server.ask("copied", images(1)[0])[0] != 200
        assert server.ask("foreign", images(1)[0])[0] != 200
        assert not (tmp_path / "ran").exists()
        kind, harmful = (server.ask("admitted", steer(preset=name), "application/json") for name in ("kind", "harmful"))
        free = server.ask("admitted", steer(edits=[]), "application/json")
    assert kind[0] == 200
    assert (harmful[0], free[0]) == (403, 403)
    assert "accuracy" in harmful[1]["message"]
    assert "Only presets" in free[1]["message"]


def test_without_the_guard_the_handler_itself_asks(bundle: Bundle, models: Path, tmp_path: Path) -> None:
    unproven = Bundle.open(shutil.copytree(bundle.root, tmp_path / "u")).add({"verdict.json": b"{}"})
    package(unproven, models / "unproven.mar", name="unproven", version="1.0")
    package(ended(bundle, tmp_path / "e"), models / "ended.mar", name="ended", version="1.0")
    package(bundle, models / "proven.mar", name="proven", version="1.0")
    required = tmp_path / "admission.json"
    required.write_text(json.dumps({"schema_version": 1, "require_verdict": True}))
    with stock(tmp_path, {ENVIRONMENT: str(required)}) as server:
        server.wait(lambda: all(words in server.log() for words in ("cannot be used", "a waiver that ended")))
        server.wait(lambda: server.ask("proven", images(1)[0])[0] == 200)
        assert server.ask("unproven", images(1)[0])[0] != 200
        assert server.ask("ended", images(1)[0])[0] != 200


def test_what_our_own_server_was_told_to_require(bundle: Bundle, tmp_path: Path) -> None:
    entry = keygen(tmp_path / "ada.pem", owner="Ada")
    store = Store(tmp_path / "store")
    version = store.admit(bundle.root, who="a", why="b", make_archive=True)
    own = package(bundle, tmp_path / "own.mar", name="own", version="1.0")
    with pytest.raises(GateError, match="never admitted"):
        store.requirements_for([own])
    assert version.archive is not None
    admission = store.requirements_for([version.archive])
    with pytest.raises(GateError, match="This archive was never admitted"):
        Server(own, ServerSettings(admission=admission)).start()
    with Server(version.archive, ServerSettings(admission=admission)) as server:
        client = server.client()
        described = server.describe()
        assert described["admission"]["admitted"]
        assert described["admission"]["required"]
        assert described["admission"]["signature"] == "not signed"
        assert described["verdict"]["policy"]["name"] == "accuracy"
        assert list(described["presets"]) == ["kind"]
        assert "accuracy" in described["admission"]["refused_presets"]["harmful"]
        assert client.predict(images(1)[0])
        with pytest.raises(RequestError, match="may not be served"):
            client.steer(images(1)[0], preset="harmful")
    required = tmp_path / "admission.json"
    required.write_text(json.dumps({"schema_version": 1, "require_signature": True, "trust": [entry]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, str(required))
        with pytest.raises(EvaluationError, match="is not signed"):
            Server(version.archive).start()
