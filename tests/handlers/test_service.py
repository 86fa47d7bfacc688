"""The service on a worked model: two units over four tokens, one split in two, whose answers are computed by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from _worked import LABELS, PICTURE, TEXT, Result, WorkedSession, ask, make_bundle, png, softmax
from numpy.typing import NDArray

from elude.handlers.bundle.edits import Edit
from elude.handlers.errors import BundleError
from elude.handlers.requests.calls import Answer, Call
from elude.handlers.service import Service
from elude.handlers.settings import Limits, Settings


def test_predict_by_hand(service: Service) -> None:
    status, answer = ask(service, PICTURE)
    assert status == 200
    assert list(answer) == ["bright", "odd", "black"]
    assert [answer[name] for name in LABELS] == pytest.approx(softmax(-0.25, 0.25, 0.25), rel=1e-6)
    assert ask(service, {"op": "predict", "image": TEXT, "top_k": 1})[1].keys() == {"bright"}


def test_predict_is_written_as_torchserve_writes_it(service: Service) -> None:
    body = service.answer([Call(PICTURE)])[0].body
    assert body == json.dumps(json.loads(body), indent=2).encode()


def test_a_batch_of_unlike_requests_is_one_pass_and_each_gets_its_own_answer(service: Service) -> None:
    calls = [
        Call(PICTURE),
        Call(b"not an image"),
        Call({"op": "steer", "image": TEXT, "edits": [{"id": "fc/u0.s0", "action": "ablate"}]}),
        Call({"op": "steer", "image": TEXT, "edits": [{"id": "fc/u9.s0", "action": "ablate"}]}),
        Call(PICTURE, explain=True),
        Call({"op": "search", "query": "green"}),
        Call({"op": "inspect", "image": TEXT, "layer": "none"}),
        Call(None, describe=True),
    ]
    alone = [service.answer([call])[0] for call in calls]
    session = service.session
    assert isinstance(session, WorkedSession)
    session.passes.clear()
    assert service.answer(calls) == alone
    assert session.passes == [(4, True)]
    assert [answer.status for answer in alone] == [200, 400, 200, 404, 200, 200, 404, 200]
    assert [answer.operation for answer in alone][:4] == ["predict", "predict", "steer", "steer"]


def test_invalid_requests_alone_need_no_pass(service: Service) -> None:
    assert all(answer.status == 400 for answer in service.answer([Call(b"x"), Call(None), Call(PICTURE[:30])]))
    assert isinstance(service.session, WorkedSession)
    assert service.session.passes == [(1, False)]  # the one when loading


def test_describe(service: Service) -> None:
    status, answer = ask(service, None, describe=True)
    assert status == 200
    assert answer["artefact_sha256"] == service.bundle.artefact_sha256
    assert answer["layers"] == [{"name": "fc", "kind": "linear", "units": 2, "sub_units": 3}]
    assert "verdict" not in answer


def test_describe_shows_the_verdict(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b").add({"verdict.json": b'{"passed": true}'})
    assert Service(bundle, WorkedSession()).describe()["verdict"] == {"passed": True}


def test_answers_that_are_not_finite_hurt_only_their_own_request(tmp_path: Path) -> None:
    class Overflows(WorkedSession):
        def run(self, *args: Any, **kwargs: Any) -> Result:
            result = super().run(*args, **kwargs)
            result.output[0] = np.inf
            return result

    first, second = Service(make_bundle(tmp_path / "b"), Overflows()).answer([Call(PICTURE), Call(PICTURE)])
    assert (first.status, second.status) == (422, 200)


def test_limits_apply(tmp_path: Path) -> None:
    small = Service(make_bundle(tmp_path / "b"), WorkedSession(), Settings(Limits(max_pixels=3)))
    status, answer = ask(small, PICTURE)
    assert (status, "2×2 pixels; at most 3" in answer["message"]) == (400, True)


def test_labels(tmp_path: Path) -> None:
    twice = Service(make_bundle(tmp_path / "a", ["x", "y", "x"]), WorkedSession())
    assert set(ask(twice, PICTURE)[1]) == {"x (0)", "y", "x (2)"}
    unknown = Service(make_bundle(tmp_path / "b", None), WorkedSession())
    assert set(ask(unknown, PICTURE)[1]) == {"0", "1", "2"}
    with pytest.raises(BundleError, match=r"labels\.json must be a list"):
        Service(make_bundle(tmp_path / "c", {"0": "x"}), WorkedSession())
    with pytest.raises(BundleError, match=r"labels\.json names 2 classes, the graph has 3"):
        Service(make_bundle(tmp_path / "d", ["x", "y"]), WorkedSession())


def test_a_catalogue_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="different sub-units"):
        Service(make_bundle(tmp_path / "b", names=2), WorkedSession())


def test_answer_is_json_for_every_error(service: Service) -> None:
    answer: Answer = service.answer([Call({"op": "nope"})])[0]
    assert json.loads(answer.body).keys() == {"code", "type", "message"}


class Breaks(WorkedSession):
    """Fails, with an error of ONNX Runtime, every pass that holds a white image."""

    def run(
        self, pixel_values: NDArray[np.float32], edits: Sequence[Sequence[Edit]] | None = None, inspect: bool = False
    ) -> Result:
        if any(pixels.min() == 1.0 for pixels in pixel_values):
            raise ort.capi.onnxruntime_pybind11_state.RuntimeException("a node failed")
        return super().run(pixel_values, edits, inspect)


def test_a_pass_that_fails_hurts_only_the_request_at_fault(tmp_path: Path) -> None:
    service = Service(make_bundle(tmp_path / "b"), Breaks())
    steer = {"op": "steer", "image": TEXT, "edits": [{"id": "fc/u0.s0", "action": "ablate"}]}
    calls = [Call(PICTURE), Call(png(np.full((2, 2, 3), 255))), Call(PICTURE, explain=True), Call(steer)]
    answers = service.answer(calls)
    assert [answer.status for answer in answers] == [200, 500, 200, 200]
    assert "could not be run on this request: RuntimeException" in json.loads(answers[1].body)["message"]
    assert [answers[i] for i in (0, 2, 3)] == [service.answer([calls[i]])[0] for i in (0, 2, 3)]


def test_a_programming_error_is_not_swallowed(tmp_path: Path) -> None:
    class Wrong(WorkedSession):
        def run(self, *args: Any, **kwargs: Any) -> Result:
            if self.passes:
                raise ZeroDivisionError
            return super().run(*args, **kwargs)

    with pytest.raises(ZeroDivisionError):
        Service(make_bundle(tmp_path / "b"), Wrong()).answer([Call(PICTURE)])


def test_kserve_forms(service: Service) -> None:
    one = ask(service, PICTURE)[1]
    assert ask(service, {"instances": [TEXT, {"image": {"b64": TEXT}}]}) == (200, {"predictions": [one, one]})
    status, answer = ask(service, {"instances": [TEXT, TEXT[:16]]})
    assert (status, answer["message"].startswith("instances[1]: image")) == (400, True)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
    status, answer = ask(service, {"inputs": [tensor], "id": "7"})
    assert (status, answer["id"], answer["model_name"], answer["outputs"][0]["data"]) == (200, "7", "elude", list(one))
    status, answer = ask(service, {"inputs": [tensor], "parameters": {"op": "inspect", "top_k": 1}})
    assert json.loads(answer["outputs"][0]["data"][0]) == ask(service, {"op": "inspect", "image": TEXT, "top_k": 1})[1]


def test_an_answer_that_is_too_large_is_refused(tmp_path: Path) -> None:
    service = Service(make_bundle(tmp_path / "b"), WorkedSession(), Settings(Limits(max_response=100)))
    assert ask(service, {"op": "predict", "image": TEXT, "top_k": 1})[0] == 200
    status, answer = ask(service, PICTURE, explain=True)
    assert (status, "at most 100 are allowed" in answer["message"]) == (422, True)
