"""What a server may do with a released bundle, decided by its verdict and by requirements that lie outside it."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from _released import released
from _serving import images
from _stores import TODAY
from starlette.testclient import TestClient

from elude.handlers.admission.requirements import ENVIRONMENT, Requirements
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import GateError
from elude.handlers.requests.calls import Call
from elude.handlers.service import Service
from elude.handlers.settings import Settings
from elude.handlers.web import app as web
from elude.handlers.web import run
from elude.quality.steering.presets import add_preset

VERDICT = Requirements(verdict=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return released(tmp_path_factory.mktemp("released") / "b")


def steer(service: Service, **how: Any) -> tuple[int, Any]:
    body = {"op": "steer", "image": base64.b64encode(images(1)[0]).decode(), **how}
    answer = service.answer([Call(json.dumps(body).encode())])[0]
    return answer.status, json.loads(answer.body)


def answers(service: Service) -> tuple[int, int, int]:
    return tuple(steer(service, **how)[0] for how in ({"preset": "kind"}, {"preset": "harmful"}, {"edits": []}))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        (Requirements(), (200, 403, 200)),  # what the gate stopped stays stopped, where there is a verdict
        (VERDICT, (200, 403, 403)),
        (Requirements(verdict=True, free_steering=True), (200, 403, 200)),
        (Requirements(free_steering=False), (200, 403, 403)),
    ],
)
def test_only_admitted_presets_are_served_and_free_steering_where_it_is_allowed(
    bundle: Bundle, requirements: Requirements, expected: tuple[int, int, int]
) -> None:
    assert answers(Service.open(bundle.root, requirements=requirements)) == expected


def test_the_reason_is_told_and_described(bundle: Bundle) -> None:
    service = Service.open(bundle.root, requirements=VERDICT)
    assert "accuracy" in steer(service, preset="harmful")[1]["message"]
    assert steer(service, edits=[])[1]["message"] == "Only presets may be served here. Use one of kind."
    described = service.describe()
    assert list(described["presets"]) == ["kind"]
    assert described["steering"] == "presets"
    state = described["admission"]
    assert (state["admitted"], state["required"], state["signature"], state["free_steering"]) == (
        True,
        True,
        "not signed",
        False,
    )
    assert state["presets"] == ["kind"]
    assert "accuracy" in state["refused_presets"]["harmful"]
    assert described["verdict"]["passed"]


def test_a_preset_that_changed_after_it_was_judged_is_not_served(bundle: Bundle, tmp_path: Path) -> None:
    copy = Bundle.open(shutil.copytree(bundle.root, tmp_path / "b"))
    edits = copy.json("presets.json")["kind"]
    changed = add_preset(add_preset(copy, "kind", [edits[0] | {"value": -9.0}]), "new", edits)
    status, answer = steer(Service.open(changed.root, requirements=VERDICT), preset="kind")
    assert (status, "not about it as it is now" in answer["message"]) == (403, True)
    status, answer = steer(Service.open(changed.root, requirements=VERDICT), preset="new")
    assert (status, "does not rule on it" in answer["message"]) == (403, True)


def test_the_served_preset_must_be_admitted_too(bundle: Bundle) -> None:
    assert Service.open(bundle.root, Settings(preset="kind"), requirements=VERDICT).settings.preset == "kind"
    with pytest.raises(GateError, match="'harmful' may not be served"):
        Service.open(bundle.root, Settings(preset="harmful"), requirements=VERDICT)


def test_without_a_verdict_nothing_is_served_that_must_have_one(bundle: Bundle, tmp_path: Path) -> None:
    copy = Bundle.open(shutil.copytree(bundle.root, tmp_path / "b")).add({"verdict.json": b"{}"})
    with pytest.raises(GateError, match="cannot be used"):
        Service.open(copy.root, requirements=VERDICT)
    service = Service.open(copy.root)
    assert answers(service) == (200, 200, 200)  # nothing is proved and nothing is required; 'describe' says so
    assert not service.describe()["admission"]["admitted"]


def test_a_verdict_that_ends_ends_the_service(bundle: Bundle) -> None:
    service = Service.open(bundle.root, requirements=VERDICT)
    image = images(1)[0]
    service.admission = replace(service.admission, valid_until=TODAY)
    assert service.answer([Call(image)])[0].status == 200
    with TestClient(web.application(service, None)) as client:
        assert client.get("/ping").status_code == 200
        service.admission = replace(service.admission, valid_until=TODAY - timedelta(days=1))
        assert client.get("/ping").status_code == 500
        refused = client.post("/predictions/elude", content=image)
        assert (refused.status_code, "ended on" in refused.json()["message"]) == (503, True)
        described = client.get("/models/elude").json()["admission"]
    assert (described["admitted"], "ended on" in described["reason"]) == (False, True)
    with pytest.raises(GateError, match="ended on"):
        service.admission.require_current()
    service.admission = replace(service.admission, required=False)
    assert service.answer([Call(image)])[0].status == 200


def test_the_second_front_end_asks_the_same(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(web.uvicorn, "run", lambda application, **_: started.append(application))
    monkeypatch.setenv("ELUDE_TOKEN", "x")
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "required.json"))

    def required(**content: Any) -> None:
        (tmp_path / "required.json").write_text(json.dumps({"schema_version": 1, **content}))

    required(require_verdict=True)
    run.main([str(bundle.root)])
    assert len(started) == 1
    for content, words in (
        ({"policies": ["0" * 64]}, "does not count here"),
        ({"archives": []}, "listed archives only"),
    ):
        required(**content)
        with pytest.raises(GateError, match=words):
            run.main([str(bundle.root)])
    assert len(started) == 1
