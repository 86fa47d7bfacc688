"""The service on a worked model: two units over four tokens, one split in two, whose answers are computed by hand."""

from __future__ import annotations

import base64
import io
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image

from handlers.bundle import Bundle, LayerInfo, Source, write_bundle
from handlers.calls import Answer, Call
from handlers.catalogue import ImageRow, SubUnitRow, Top, UnitRow, write_catalogue
from handlers.edits import Edit
from handlers.errors import BundleError, UsageError
from handlers.passes import Row, effects_of, run_rows
from handlers.preprocess import Preprocess
from handlers.service import Service
from handlers.settings import Limits, Settings

LAYER = "fc"
LAYERS = (LayerInfo(LAYER, "linear", 2, 3, (1, 2), 0),)
LABELS = ["black", "bright", "odd"]
SIDE = 2  # a 2×2 image, one token a pixel


@dataclass(frozen=True)
class Result:
    output: NDArray[np.float32]
    units: dict[str, NDArray[np.float32]]
    sub_units: dict[str, NDArray[np.float32]]


class WorkedSession:
    """Sub-unit 0 = red, 1 = green, 2 = blue - green; unit 0 = red, unit 1 = blue. Logits: token means of (-red, red, unit 1)."""

    layers, output_name = LAYERS, "logits"

    def __init__(self) -> None:
        self.passes: list[tuple[int, bool]] = []

    def run(self, pixel_values: NDArray[np.float32], edits: Sequence[Sequence[Edit]] | None = None, inspect: bool = False) -> Result:
        self.passes.append((len(pixel_values), inspect))
        red, green, blue = (pixel_values[:, c].reshape(len(pixel_values), -1) for c in range(3))
        sub = np.stack([red, green, blue - green], axis=-1)
        before = np.stack([sub[..., 0], sub[..., 1] + sub[..., 2]], axis=-1)
        edited = sub.copy()
        for row, row_edits in enumerate(edits or []):
            for e in row_edits:
                edited[row, :, e.index] = e.gain * sub[row, :, e.index] + e.offset
        unit0, unit1 = edited[..., 0], edited[..., 1] + edited[..., 2]
        output = np.stack([-unit0.mean(1), unit0.mean(1), unit1.mean(1)], axis=1).astype(np.float32)
        return Result(output, {LAYER: before} if inspect else {}, {LAYER: sub} if inspect else {})


def png(values: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.array(values, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


PIXELS = [[[255, 0, 0], [0, 0, 0]], [[0, 51, 255], [0, 0, 0]]]
PICTURE = png(PIXELS)
TEXT = base64.b64encode(PICTURE).decode()


def make_bundle(path: Path, labels: Any = LABELS, names: int = 3) -> Bundle:
    with write_bundle(path, source=Source("m", "1", "a", "0" * 64), layers=LAYERS, parameters=9, versions={}) as folder:
        (folder / "model.onnx").write_bytes(b"not used here")
        preprocess = Preprocess((3, SIDE, SIDE), "nearest", 1.0, "center", (0.0,) * 3, (1.0,) * 3)
        (folder / "preprocess.json").write_text(json.dumps(preprocess.to_json()))
        (folder / "labels.json").write_text(json.dumps(labels))
        tops = (Top(0, 1, 0.5),)
        rows = [
            SubUnitRow(i, LAYER, u, p, None, 0.5, 0.5, 0.1, 1.0, None, 0.5, n, "labels" if n else None, None, tops)
            for i, (u, p, n) in enumerate([(0, 0, "red thing"), (1, 0, "green thing"), (1, 1, None)][:names])
        ]
        units = [UnitRow(LAYER, 0, 1, None, tops), UnitRow(LAYER, 1, 2, None, tops)]
        write_catalogue(folder / "catalogue.sqlite", [ImageRow(0, "a.png", "black", PICTURE)], units, rows)
    return Bundle.open(path)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(make_bundle(tmp_path / "b"), WorkedSession())


def ask(service: Service, body: Any, **route: bool) -> tuple[int, Any]:
    answer = service.answer([Call(body, **route)])[0]
    return answer.status, json.loads(answer.body)


def softmax(*logits: float) -> list[float]:
    exponents = np.exp(logits)
    return (exponents / exponents.sum()).tolist()


def test_predict_by_hand(service: Service) -> None:
    status, answer = ask(service, PICTURE)
    assert status == 200
    assert list(answer) == ["bright", "odd", "black"]
    assert [answer[name] for name in LABELS] == pytest.approx(softmax(-0.25, 0.25, 0.25), rel=1e-6)
    assert ask(service, {"op": "predict", "image": TEXT, "top_k": 1})[1].keys() == {"bright"}


def test_predict_is_written_as_torchserve_writes_it(service: Service) -> None:
    body = service.answer([Call(PICTURE)])[0].body
    assert body == json.dumps(json.loads(body), indent=2).encode()


def test_inspect_by_hand(service: Service) -> None:
    status, answer = ask(service, PICTURE, explain=True)
    assert status == 200
    first, second, third = answer["sub_units"]
    assert (first["id"], first["name"], first["activation"], first["token"]) == ("fc/u0.s0", "red thing", 1.0, 0)
    assert first["unit"] == {"id": "fc/u0", "parts": 1, "activation": 1.0}
    assert first["heat_map"] == {"rows": 2, "columns": 2, "maximum": 1.0, "values": [[255, 0], [0, 0]]}
    assert (second["id"], second["index"], second["token"], second["name"]) == ("fc/u1.s1", 2, 2, None)
    assert second["activation"] == pytest.approx(0.8)
    assert second["unit"]["activation"] == 1.0
    assert third["id"] == "fc/u1.s0"
    assert answer["sum_check"]["fc"]["max_residual"] < 1e-7
    assert answer["prediction"] == ask(service, PICTURE)[1]


def test_the_sum_check_can_fail(tmp_path: Path) -> None:
    class Wrong(WorkedSession):
        def run(self, *args: Any, **kwargs: Any) -> Result:
            result = super().run(*args, **kwargs)
            for values in result.sub_units.values():
                values[:, 1, 1] += 0.125
            return result

    assert ask(Service(make_bundle(tmp_path / "b"), Wrong()), PICTURE, explain=True)[1]["sum_check"]["fc"]["max_residual"] == 0.125


def test_heat_map_as_png(service: Service) -> None:
    answer = ask(service, {"op": "inspect", "image": TEXT, "heat_map": "png", "top_k": 1})[1]
    image = Image.open(io.BytesIO(base64.b64decode(answer["sub_units"][0]["heat_map"]["png"])))
    assert np.asarray(image).tolist() == [[255, 0], [0, 0]]


def test_steer_by_hand(service: Service) -> None:
    edits = [{"id": "fc/u0.s0", "action": "scale", "value": -2}, {"id": "fc/u1.s1", "action": "ablate"}]
    status, answer = ask(service, {"op": "steer", "image": TEXT, "edits": edits})
    assert status == 200
    assert answer["unsteered"] == ask(service, PICTURE)[1]
    expected = softmax(0.5, -0.5, 0.05)
    assert [answer["steered"][name] for name in LABELS] == pytest.approx(expected, rel=1e-5)
    assert answer["change"]["black"] == pytest.approx(expected[0] - softmax(-0.25, 0.25, 0.25)[0], rel=1e-5)
    assert answer["edits"][0] == {"id": "fc/u0.s0", "action": "scale", "value": -2.0, "patches": 0, "name": "red thing"}
    assert answer["max_output_change"] == pytest.approx(0.75)


def test_steer_without_comparison_is_one_row(service: Service) -> None:
    body = {"op": "steer", "image": TEXT, "edits": [{"id": "fc/u0.s0", "action": "scale", "value": -2}]}
    both = ask(service, body)[1]
    assert isinstance(service.session, WorkedSession)
    service.session.passes.clear()
    assert ask(service, body | {"compare": False}) == (200, {"steered": both["steered"], "edits": both["edits"]})
    assert service.session.passes == [(1, False)]
    assert ask(service, body | {"compare": "no"})[1]["message"] == "Field 'compare' must be true or false, not 'no'."


def test_steer_without_edits_changes_nothing(service: Service) -> None:
    answer = ask(service, {"op": "steer", "image": TEXT, "edits": []})[1]
    assert answer["steered"] == answer["unsteered"]
    assert answer["max_output_change"] == 0


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


@pytest.mark.parametrize("identifier", ["fc/u1.s2", "fc/u2.s0", "fc/u01.s0", "fc/u1", "fd/u0.s0", "fc/u٣.s0", "fc/u0.s0 ", "fc/u-1.s0", ""])
def test_unknown_sub_units(service: Service, identifier: str) -> None:
    status, answer = ask(service, {"op": "steer", "image": TEXT, "edits": [{"id": identifier, "action": "ablate"}]})
    assert (status, "edits[0].id" in answer["message"]) == (404, True)
    assert ask(service, {"op": "feature", "id": identifier})[0] == 404


def test_a_sub_unit_is_edited_once(service: Service) -> None:
    edits = [{"id": "fc/u0.s0", "action": "ablate"}, {"id": "fc/u0.s0", "action": "scale", "value": 2}]
    status, answer = ask(service, {"op": "steer", "image": TEXT, "edits": edits})
    assert (status, "already edits" in answer["message"]) == (400, True)


def test_feature_and_search(service: Service) -> None:
    status, answer = ask(service, {"op": "feature", "id": "fc/u1.s0"})
    assert (status, answer["name"], answer["siblings"], answer["omega"]) == (200, "green thing", ["fc/u1.s1"], 0.5)
    assert base64.b64decode(answer["examples"][0]["png"]) == PICTURE
    assert [row["id"] for row in ask(service, {"op": "search", "query": "thing"})[1]["sub_units"]] == ["fc/u0.s0", "fc/u1.s0"]


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

    def run(self, pixel_values: NDArray[np.float32], edits: Sequence[Sequence[Edit]] | None = None, inspect: bool = False) -> Result:
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


def test_inspect_by_effect_by_hand(service: Service) -> None:
    body = {"op": "inspect", "image": TEXT, "by": "effect", "target": "odd", "heat_map": "none"}
    status, answer = ask(service, body)
    assert status == 200
    # Logit of "odd" is the mean of blue = green + (blue - green): 0.05 of it from green, 0.2 from the rest, nothing from red.
    assert [(row["id"], pytest.approx(row["effect"], abs=1e-7)) for row in answer["sub_units"]] == [
        ("fc/u1.s1", 0.2),
        ("fc/u1.s0", 0.05),
        ("fc/u0.s0", 0.0),
    ]
    assert answer["effects"] == {"target": "odd", "measured": 3, "method": "logit minus logit with the sub-unit ablated"}
    predicted = ask(service, {"op": "inspect", "image": TEXT, "by": "effect", "candidates": 1})[1]
    assert (predicted["effects"]["target"], predicted["effects"]["measured"]) == ("bright", 1)
    assert predicted["sub_units"][0]["effect"] == pytest.approx(0.25)
    assert ask(service, body | {"target": "none"})[0] == 404
    assert ask(service, body | {"by": "activation"})[0] == 400
    assert ask(service, body | {"candidates": 65})[0] == 400


def test_effects_are_measured_in_passes_of_bounded_size(tmp_path: Path) -> None:
    session = WorkedSession()
    row = run_rows(session, np.zeros((1, 3, 2, 2), np.float32), [()], True)[0]
    assert isinstance(row, Row)
    session.passes.clear()
    effects_of(session, np.zeros((1, 3, 2, 2), np.float32), (), [0, 1, 2] * 11, 0, row)
    assert [rows for rows, _ in session.passes] == [16, 16, 1]


def test_steer_by_concept(service: Service) -> None:
    by_id = {"op": "steer", "image": TEXT, "edits": [{"id": "fc/u0.s0", "action": "scale", "value": 2}]}
    by_name = {"op": "steer", "image": TEXT, "edits": [{"concept": "Red Thing", "action": "scale", "value": 2}]}
    assert ask(service, by_name) == ask(service, by_id)
    for edit, status in (
        ({"concept": "blue thing", "action": "ablate"}, 404),
        ({"concept": "red thing", "id": "fc/u0.s0", "action": "ablate"}, 400),
        ({"action": "ablate"}, 400),
    ):
        assert ask(service, {"op": "steer", "image": TEXT, "edits": [edit]})[0] == status


def test_a_concept_of_many_sub_units_counts_each(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "b").root
    connection = sqlite3.connect(path / "catalogue.sqlite")
    connection.execute("UPDATE sub_units SET name='thing'")
    connection.commit()
    connection.close()
    bundle = Bundle.open(path, verify=False)
    body = {"op": "steer", "image": TEXT, "edits": [{"concept": "thing", "action": "ablate"}]}
    status, answer = ask(Service(bundle, WorkedSession()), body)
    assert (status, [edit["id"] for edit in answer["edits"]]) == (200, ["fc/u0.s0", "fc/u1.s0", "fc/u1.s1"])
    status, answer = ask(Service(bundle, WorkedSession(), Settings(Limits(max_edits=2))), body)
    assert (status, "more than the 2 edits" in answer["message"]) == (400, True)


def test_search_by_image(service: Service) -> None:
    status, answer = ask(service, {"op": "search", "image": TEXT})
    assert status == 200
    # Each was at most 1.0 on the probing images, so the quotient is the activation.
    assert [(row["id"], pytest.approx(row["relative"])) for row in answer["sub_units"]] == [
        ("fc/u0.s0", 1.0),
        ("fc/u1.s1", 0.8),
        ("fc/u1.s0", 0.2),
    ]
    for body in ({"op": "search"}, {"op": "search", "query": "x", "image": TEXT}):
        status, answer = ask(service, body)
        assert (status, answer["message"]) == (400, "A search needs either 'query' or 'image'.")


PRESET = {"less red": [{"id": "fc/u0.s0", "action": "scale", "value": 0.5}], "no red": [{"concept": "red thing", "action": "ablate"}]}


def with_presets(path: Path, presets: Any = PRESET) -> Bundle:
    return make_bundle(path).add({"presets.json": json.dumps(presets).encode()})


def test_presets_are_named_edits(tmp_path: Path) -> None:
    service = Service(with_presets(tmp_path / "b"), WorkedSession())
    by_hand = ask(service, {"op": "steer", "image": TEXT, "edits": PRESET["less red"]})
    assert ask(service, {"op": "steer", "image": TEXT, "preset": "less red"}) == by_hand
    assert ask(service, {"op": "steer", "image": TEXT, "preset": "more"})[0] == 404
    assert ask(service, {"op": "steer", "image": TEXT, "preset": "no red", "edits": []})[0] == 400
    assert ask(service, {"op": "steer", "image": TEXT})[1]["message"] == "Field 'edits' is missing."
    assert list(ask(service, None, describe=True)[1]["presets"]) == ["less red", "no red"]


def test_steering_can_be_limited_to_presets_or_off(tmp_path: Path) -> None:
    bundle = with_presets(tmp_path / "b")
    free = {"op": "steer", "image": TEXT, "edits": PRESET["less red"]}
    named = {"op": "steer", "image": TEXT, "preset": "less red"}
    for steering, expected in (("free", (200, 200)), ("presets", (403, 200)), ("off", (403, 403))):
        service = Service(bundle, WorkedSession(), Settings(steering=steering))
        assert (ask(service, free)[0], ask(service, named)[0]) == expected


def test_a_preset_can_be_what_is_served(tmp_path: Path) -> None:
    bundle = with_presets(tmp_path / "b")
    plain = Service(bundle, WorkedSession())
    served = Service(bundle, WorkedSession(), Settings(preset="no red"))
    steered = ask(plain, {"op": "steer", "image": TEXT, "preset": "no red"})[1]
    assert ask(served, PICTURE)[1] == steered["steered"] != ask(plain, PICTURE)[1]
    assert ask(served, PICTURE, explain=True)[1]["prediction"] == steered["steered"]
    assert ask(served, {"op": "steer", "image": TEXT, "edits": []})[1]["unsteered"] == ask(plain, PICTURE)[1]
    assert served.describe()["preset"] == "no red"
    with pytest.raises(UsageError, match="no preset 'other'"):
        Service(bundle, WorkedSession(), Settings(preset="other"))


@pytest.mark.parametrize("presets", [[], {"a": {}}, {"a": [{"id": "fc/u9.s0", "action": "ablate"}]}, {"a": [{"action": "x"}]}])
def test_wrong_presets_do_not_load(tmp_path: Path, presets: Any) -> None:
    with pytest.raises(BundleError, match=r"presets\.json"):
        Service(with_presets(tmp_path / "b", presets), WorkedSession())


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
