"""Several models, versions and labels in one web process, and their exchange while requests are answered."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from _stores import make
from _worked import PICTURE
from starlette.testclient import TestClient

from elude.handlers.admission.requirements import Requirements
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import EludeError, GateError
from elude.handlers.web.app import application
from elude.handlers.web.json_log import JsonLines
from elude.handlers.web.models import Models
from elude.handlers.web.plan import Plan
from elude.handlers.web.sources import plan_of
from elude.model_store.archive import package


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles ``a1``, ``a2`` and ``b``, whose labels name them, and the archive ``c.mar``, version 3.0 of ``c``."""
    root = tmp_path_factory.mktemp("models")
    for name in ("a1", "a2", "b", "c"):
        make(root / name, content=name.encode(), labels=[f"{name} {colour}" for colour in ("red", "green", "blue")])
    package(Bundle.open(root / "c"), root / "c.mar", name="c", version="3.0")
    return root


def plan(folder: Path, private: Path, *words: str, labels: tuple[str, ...] = ()) -> Plan:
    private.mkdir(exist_ok=True)
    placed = [f"{name}={folder / path}" if name else str(folder / path) for name, path in (w.split("=") for w in words)]
    return plan_of(placed, private, Requirements(), labels=labels)


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> Iterator[TestClient]:
    words = ("a@1.0=a1", "a@2.0=a2", "b=b", "=c.mar")
    models = Models.load(plan(folder, tmp_path / "p", *words, labels=("a/canary=2.0", "a/stable=1.0")))
    with TestClient(application(models, None)) as client:
        yield client


def answering(client: TestClient, path: str, body: bytes = PICTURE) -> str:
    """Which bundle answers, by its labels; the message where it is refused."""
    response = client.post(path, content=body)
    if response.status_code != 200:
        return f"{response.status_code} {response.json()['message']}"
    return next(word for word in ("a1", "a2", "b", "c") if f'"{word} ' in response.text.replace("\\", ""))


V1 = b'{"instances": ["%s"]}'


@pytest.mark.parametrize(
    ("path", "answers"),
    [
        ("/predictions/a", "a1"),
        ("/predictions/a/2.0", "a2"),
        ("/explanations/a/2.0", "a2"),
        ("/predictions/b", "b"),
        ("/predictions/b/1.0", "b"),
        ("/predictions/c", "c"),
        ("/predictions/c/3.0", "c"),
        ("/v1/models/a:predict", "a1"),
        ("/v1/models/a/versions/2.0:predict", "a2"),
        ("/v1/models/a/versions/2.0:explain", "a2"),
        ("/v1/models/a/labels/canary:predict", "a2"),
        ("/v1/models/a/labels/stable:explain", "a1"),
        ("/v2/models/a/infer", "a1"),
        ("/v2/models/a/versions/2.0/infer", "a2"),
        ("/v2/models/a/versions/2.0/explain", "a2"),
        ("/predictions/none", "404"),
        ("/predictions/a/3.0", "404"),
        ("/predictions/b/2.0", "404"),
        ("/v1/models/a/labels/latest:predict", "404"),
        ("/v1/models/b/labels/canary:predict", "404"),
        ("/v1/models/a/versions/canary:predict", "404"),
    ],
)
def test_an_address_is_answered_by_the_version_that_it_names(client: TestClient, path: str, answers: str) -> None:
    assert answering(client, path).startswith(answers)


def test_models_and_versions_are_listed(client: TestClient) -> None:
    assert client.get("/v1/models").json() == {"models": ["a", "b", "c"]}
    status = client.get("/v1/models/a").json()
    assert [(entry["version"], entry["state"]) for entry in status["model_version_status"]] == [
        ("1.0", "AVAILABLE"),
        ("2.0", "AVAILABLE"),
    ]
    assert status["labels"] == {"canary": "2.0", "stable": "1.0"}
    one = client.get("/v1/models/a/labels/canary").json()
    assert [entry["version"] for entry in one["model_version_status"]] == ["2.0"]
    assert client.get("/v2/models/a/versions/2.0").json()["versions"] == ["1.0", "2.0"]
    hashes = {client.get(path).json()["artefact_sha256"] for path in ("/models/a", "/models/a/2.0", "/models/b")}
    assert len(hashes) == 3


def test_metrics_are_labelled_by_model_and_version(client: TestClient) -> None:
    client.post("/predictions/a/2.0", content=PICTURE)
    lines = client.get("/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith("elude_requests_total")]
    assert len(counted) == 1
    assert 'model_name="a",model_version="2.0"' in counted[0]


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (("a=a1", "a=a2"), ()),
        (("a@1.0=a1", "a@1=a2", "a@1=b"), ()),
        (("a/b=a1",), ()),
        (("a@new=a1",), ()),
        (("a@=a1",), ()),
        (("a=none",), ()),
        (("=none.mar",), ()),
        (("a=a1",), ("a/x=2.0",)),
        (("a=a1",), ("b/x=1.0",)),
        (("a=a1",), ("x",)),
        (("a=a1",), ("a/..%2f=1.0",)),
        (("a@1=a1", "a@2=a2"), ("a/x=1", "a/x=2")),
    ],
)
def test_what_cannot_be_served_together_is_refused(
    folder: Path, tmp_path: Path, words: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    with pytest.raises(EludeError) as caught:
        plan(folder, tmp_path / "p", *words, labels=labels)
    assert caught.value.exit_code == 2


def test_where_archives_are_listed_neither_a_bundle_nor_another_archive_is_served(folder: Path, tmp_path: Path) -> None:
    for path in ("a1", "c.mar"):
        with pytest.raises(GateError):
            plan_of([str(folder / path)], tmp_path, Requirements(archives=("0" * 64,)))


def test_a_plan_is_read_as_it_was_written(folder: Path, tmp_path: Path) -> None:
    written = plan(folder, tmp_path / "p", "a@1.0=a1", "=c.mar", labels=("a/x=1.0",))
    written = replace(written, problems={"a": "broken"}, requirements=Requirements(verdict=True, free_steering=False))
    written.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == written


def test_a_bundle_that_was_exchanged_since_the_plan_is_not_loaded(folder: Path, tmp_path: Path) -> None:
    made = plan(folder, tmp_path / "p", "a=a1")
    exchanged = replace(made.versions[0], bundle=str(folder / "a2"))
    with pytest.raises(EludeError, match="another bundle"):
        Models.load(replace(made, versions=(exchanged,)))


def test_a_version_is_exchanged_and_the_old_one_ends_after_its_last_request(folder: Path, tmp_path: Path) -> None:
    models = Models.load(plan(folder, tmp_path / "p", "a@1.0=a1", "b=b"))
    old, kept = models.table.find("a"), models.table.find("b")
    with TestClient(application(models, None)) as client, old.in_use():
        table, failed = models.successor(plan(folder, tmp_path / "p", "a@2.0=a2", "b=b"))
        assert answering(client, "/predictions/a") == "a1"
        models.exchange(table)
        assert failed == {}
        assert [answering(client, path)[:3] for path in ("/predictions/a", "/predictions/a/2.0")] == ["a2", "a2"]
        assert answering(client, "/predictions/a/1.0").startswith("404")
        assert models.table.find("b") is kept
        assert client.portal is not None
        assert client.portal.call(old.batches.answer, _call()).status == 200  # who is being answered still is
    with pytest.raises(RuntimeError):
        client_of(old)


def _call() -> object:
    from elude.handlers.requests.calls import Call

    return Call(PICTURE)


def client_of(served: object) -> None:
    """Ask a version that has ended."""
    import asyncio

    asyncio.run(served.batches.answer(_call()))  # type: ignore[attr-defined]


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_and_is_reported(folder: Path, tmp_path: Path) -> None:
    models = Models.load(plan(folder, tmp_path / "p", "a@1.0=a1"))
    new = plan(folder, tmp_path / "p", "a@2.0=a2", "b=b", labels=("a/canary=2.0",))
    broken = replace(new.versions[0], settings={"preset": "none"})
    table, failed = models.successor(replace(new, versions=(broken, *new.versions[1:])))
    models.exchange(table)
    assert list(failed) == ["a"]
    with TestClient(application(models, None)) as client:
        assert answering(client, "/predictions/a") == "a1"
        assert answering(client, "/predictions/b") == "b"  # the others go on
        assert "none" in client.get("/v1/models/a").json()["reload"]
        assert client.get("/ping").json() == {"status": "Healthy", "reload": {"a": failed["a"]}}
        assert client.get("/v2/health/ready").status_code == 200
        table, failed = models.successor(new)
        models.exchange(table)
        assert (failed, answering(client, "/v1/models/a/labels/canary:predict")) == ({}, "a2")
        assert "reload" not in client.get("/ping").json()


def test_a_log_line_is_one_json_object() -> None:
    record = logging.LogRecord("elude.web", logging.INFO, "x.py", 1, "two\nlines %s", ("é",), None)
    record.fields = {"model": "a\nb", "status": 200}
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line) | {"message": "two\nlines é", "model": "a\nb", "level": "info"} == json.loads(line)
