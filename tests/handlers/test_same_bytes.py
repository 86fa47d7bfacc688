"""Steering without edits is predicting, byte for byte, and one row's answer is its own, whatever its neighbours edit.

Bytes are compared within batches of the same number of rows. For a single row ONNX Runtime takes
the mean over the tokens (ReduceMean) in another order of sums than for several, in this model as in
the plain one, so the last bits differ there; the last test says by how much.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from _serving import images, make_bundle

from elude.handlers.requests.calls import Call
from elude.handlers.service import Service

PICTURES = [base64.b64encode(image).decode() for image in images(6)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return Service.open(make_bundle(tmp_path_factory.mktemp("same") / "b").root)


def predict(image: str) -> Call:
    return Call({"op": "predict", "image": image})


def steer(image: str, edits: list[dict[str, Any]], *, compare: bool) -> Call:
    return Call({"op": "steer", "image": image, "edits": edits, "compare": compare})


def strong(service: Service) -> list[dict[str, Any]]:
    layer = service.session.layers[0].name
    return [{"id": f"{layer}/u{unit}.s0", "action": "scale", "value": -8, "patches": unit % 2 * 5} for unit in range(8)]


def bodies(service: Service, calls: list[Call]) -> list[bytes]:
    answers = service.answer(calls)
    assert {answer.status for answer in answers} == {200}
    return [answer.body for answer in answers]


def compact(body: bytes) -> bytes:
    """A prediction as it stands within other answers; only the white space of the answer to 'predict' is another."""
    return json.dumps(json.loads(body)).encode()


@pytest.mark.parametrize("rows", [1, 2, 6])
def test_steering_without_edits_gives_the_bytes_of_predict(service: Service, rows: int) -> None:
    plain = bodies(service, [predict(image) for image in PICTURES[:rows]])
    steered = bodies(service, [steer(image, [], compare=False) for image in PICTURES[:rows]])
    assert [body for body in steered] == [b'{"steered": ' + compact(body) + b', "edits": []}' for body in plain]


def test_comparing_without_edits_gives_the_same_bytes_twice(service: Service) -> None:
    """Two rows of one pass for the one image, as many as two predictions together take."""
    plain = compact(bodies(service, [predict(PICTURES[0])] * 2)[0])
    (body,) = bodies(service, [steer(PICTURES[0], [], compare=True)])
    assert body.startswith(b'{"unsteered": ' + plain + b', "steered": ' + plain + b', "edits": []')
    answer = json.loads(body)
    assert answer["max_output_change"] == 0
    assert set(answer["change"].values()) == {0}


def test_the_edits_of_neighbours_change_no_byte(service: Service) -> None:
    plain = bodies(service, [predict(image) for image in PICTURES])
    edited = [steer(image, strong(service), compare=False) for image in PICTURES]
    for i, image in enumerate(PICTURES):
        mixed = bodies(service, [*edited[:i], predict(image), *edited[i + 1 :]])
        assert mixed[i] == plain[i]
        assert mixed[i - 1] != plain[i - 1]  # the neighbour is steered indeed


def test_the_row_of_comparison_is_the_prediction(service: Service) -> None:
    plain = compact(bodies(service, [predict(PICTURES[0])] * 2)[0])
    (body,) = bodies(service, [steer(PICTURES[0], strong(service), compare=True)])
    assert body.startswith(b'{"unsteered": ' + plain)


def test_one_row_differs_from_several_by_rounding_alone(service: Service) -> None:
    many = [json.loads(body) for body in bodies(service, [predict(image) for image in PICTURES])]
    alone = [json.loads(bodies(service, [predict(image)])[0]) for image in PICTURES]
    assert [list(answer) for answer in alone] == [list(answer) for answer in many]
    differences = [abs(one[label] - other[label]) for one, other in zip(alone, many, strict=True) for label in one]
    assert max(differences) <= 2.4e-7  # four steps of float32 just below 1
    two = [
        json.loads(body)
        for i in range(0, 6, 2)
        for body in bodies(service, [predict(image) for image in PICTURES[i : i + 2]])
    ]
    assert np.array_equal([list(answer.values()) for answer in two], [list(answer.values()) for answer in many])
