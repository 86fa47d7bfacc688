"""Requests: every form is read, and whatever does not fit names its field and never ends in another error than a
RequestError.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elude.handlers.bundle.bundle import LayerInfo
from elude.handlers.bundle.edits import Edit
from elude.handlers.errors import RequestError, UsageError
from elude.handlers.requests import forms
from elude.handlers.requests.schema import Describe, EditRequest, Feature, Inspect, Predict, Request, Search, Steer
from elude.handlers.requests.steering import Steered, resolve
from elude.handlers.settings import Limits, Settings, read_settings

IMAGE = b"\x89PNG something"
TEXT = base64.b64encode(IMAGE).decode()
ID = "blocks.0.mlp.fc2/u1.s0"


def parse(body: Any, **options: Any) -> Request:
    (request,) = forms.parse(body, **options).requests
    return request


def test_every_form_is_read() -> None:
    assert parse(IMAGE) == Predict(IMAGE)
    assert parse(bytearray(IMAGE)) == Predict(IMAGE)
    assert parse(IMAGE, explain=True) == Inspect(IMAGE)
    assert parse(TEXT) == Predict(IMAGE)
    assert parse({"image": TEXT}) == Predict(IMAGE)
    assert parse({"image": TEXT}, explain=True) == Inspect(IMAGE)
    assert parse(json.dumps({"op": "inspect", "image": TEXT, "heat_map": "png"}).encode()) == Inspect(
        IMAGE, heat_map="png"
    )
    assert parse({"op": "feature", "id": ID}) == Feature(ID)
    assert parse({"op": "search", "query": "ear", "limit": 3}) == Search("ear", limit=3)
    assert parse({"op": "describe"}) == Describe()
    steer = {
        "op": "steer",
        "image": TEXT,
        "edits": [{"id": ID, "action": "scale", "value": 2, "patches": 4}, {"id": ID, "action": "ablate"}],
    }
    edits = (EditRequest(id=ID, action="scale", value=2.0, patches=4), EditRequest(id=ID, action="ablate"))
    assert parse(steer) == Steer(IMAGE, edits)


def edit(**changes: Any) -> dict[str, Any]:
    return {"op": "steer", "image": TEXT, "edits": [{"id": ID, "action": "scale", "value": 1.0} | changes]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "neither an image nor a JSON object"),
        ([], "neither an image nor"),
        (b"[1]", "neither an image nor"),
        (b'{"op": ', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ("no base64!", "neither JSON nor a base64 image"),
        ({"op": "fly"}, "'op' is 'fly'"),
        ({"op": ["predict"]}, "'op' is"),
        ({"op": "predict"}, "'image' is missing"),
        ({"image": "%%"}, "'image' is not base64"),
        ({"image": "äöü"}, "'image' is not base64"),
        ({"image": 3}, "'image' must be base64 text, not 3"),
        ({"image": TEXT, "topk": 3}, r"'topk' is unknown\. Known fields: image, top_k"),
        ({"image": TEXT, "top_k": 0}, "'top_k' is 0; it must lie between 1 and 100"),
        ({"image": TEXT, "top_k": 101}, "'top_k' is 101"),
        ({"image": TEXT, "top_k": True}, "'top_k' must be a whole number, not True"),
        ({"image": TEXT, "top_k": 2.0}, "'top_k' must be a whole number"),
        ({"image": TEXT, "top_k": 10**5000}, "far too large"),
        ({"op": "inspect", "image": TEXT, "heat_map": "svg"}, "'heat_map' is 'svg'. Use one of grid, png, none"),
        ({"op": "inspect", "image": TEXT, "layer": 3}, "'layer' must be text"),
        ({"op": "search", "query": "\ud800"}, "'query' is not valid Unicode"),
        ({"op": "search", "query": "x" * 201}, "'query' has 201 characters"),
        ({"op": "steer", "image": TEXT, "edits": {}}, "'edits' must be a list, not an object"),
        ({"op": "steer", "image": TEXT, "edits": [3]}, r"edits\[0\] must be a JSON object, not 3"),
        ({"op": "steer", "image": TEXT, "edits": [{}] * 257}, "'edits' has 257 entries; at most 256"),
        (edit(value=float("nan")), r"'edits\[0\].value' is nan"),
        (edit(value=float("inf")), r"'edits\[0\].value' is inf"),
        (edit(value=-(10**400)), "far too large"),
        (edit(value=-1e7), r"must lie between -1000000.0 and 1000000.0"),
        (edit(value="2"), r"'edits\[0\].value' must be a number, not '2'"),
        (edit(patches=-1), r"'edits\[0\].patches' is -1"),
        (edit(action="explode"), r"'edits\[0\].action' is 'explode'"),
        (edit(gain=1), r"'edits\[0\].gain' is unknown"),
    ],
)
def test_what_does_not_fit_names_its_field(body: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        parse(body)
    assert caught.value.status == 400
    assert len(str(caught.value)) < 500


def test_a_list_seen_before_is_read_by_its_types_not_by_what_equals_it() -> None:
    first = parse(edit(value=1, patches=1))
    assert parse(edit(value=1, patches=1)) == first
    for wrong in (True, 1.0):  # equal to 1
        with pytest.raises(RequestError, match="patches' must be a whole number"):
            parse(edit(value=1, patches=wrong))
    for _ in range(2):  # a refusal is no answer to remember, and names its own place
        with pytest.raises(RequestError, match=r"edits\[0\]\.action' is 'explode'"):
            parse(edit(action="explode"))


def test_a_list_changed_after_it_was_read_is_read_anew() -> None:
    body = edit(value=2)
    first = parse(body)
    body["edits"][0]["value"] = 3
    second = parse(body)
    assert isinstance(first, Steer)
    assert isinstance(second, Steer)
    assert [entry.value for request in (first, second) for entry in request.edits or ()] == [2, 3]


def test_limits_of_one_server_are_not_those_of_another() -> None:
    parse(edit(value=5))
    with pytest.raises(RequestError, match=r"between -4\.0 and 4\.0"):
        parse(edit(value=5), limits=Limits(max_value=4.0))


def test_long_and_deep_lists_are_read_too() -> None:
    steer = edit() | {
        "edits": [edit()["edits"][0] | {"concept": "x" * 300} for _ in range(256)]
    }  # more than is remembered
    assert parse(steer) == parse(steer)
    deep: Any = 1
    for _ in range(3000):
        deep = [deep]
    with pytest.raises(RequestError, match="must be a number, not a list"):
        parse(edit(value=deep))


def test_base64_may_be_wrapped_or_a_data_url() -> None:
    image = bytes(range(256))
    text = base64.encodebytes(image).decode()
    url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    after_mark = "\ufeff" + json.dumps({"image": text})
    for body in (text, text.encode(), url, url.encode(), {"image": text}, {"image": url}, after_mark):
        assert parse(body) == Predict(image)
    with pytest.raises(RequestError, match="not base64"):
        parse({"image": "data:image/png,plain"})


def test_what_json_would_blow_up_is_refused_before_it_is_read() -> None:
    wide = json.dumps({"op": "search", "query": "x" * 2**20 + "\N{CAT}"})
    raw = json.dumps({"query": "\N{CAT}" * 2**18}, ensure_ascii=False)
    for body in (b"[" + b"[]," * 100_001 + b"1]", wide.encode(), raw.encode()):
        with pytest.raises(RequestError) as caught:
            parse(body)
        assert caught.value.status == 413
    text = json.dumps({"image": base64.b64encode(bytes([251, 239]) * 2**19).decode()}).replace("+", "\\u002B")
    assert parse(text.encode()) == Predict(bytes([251, 239]) * 2**19)  # as .NET writes it


def form(**fields: Any) -> Request:
    (request,) = forms.parse_form(fields).requests
    return request


def test_forms() -> None:
    assert form(data=IMAGE) == form(anything=IMAGE) == form(data=TEXT.encode()) == Predict(IMAGE)
    assert form(image=IMAGE, top_k=b"2") == Predict(IMAGE, 2)
    assert form(body=IMAGE, op=b"inspect", layer=b"7", heat_map="none") == Inspect(IMAGE, layer="7", heat_map="none")
    edits = json.dumps([{"id": ID, "action": "ablate"}])
    assert form(data=IMAGE, op="steer", edits=edits) == Steer(IMAGE, (EditRequest(id=ID, action="ablate"),))
    assert form(op="search", query=b"5") == Search("5")
    for wrong, message in (
        ({"data": IMAGE, "image": IMAGE}, "two images"),
        ({"data": IMAGE, "topk": b"2"}, "'topk' is unknown"),
        ({"data": IMAGE, "other": IMAGE}, "'other' is unknown"),
        ({"data": IMAGE, "top_k": b"two"}, "'top_k' must be a whole number"),
        ({"top_k": b"2"}, "'image' is missing"),
        ({}, "'image' is missing"),
    ):
        with pytest.raises(RequestError, match=message):
            form(**wrong)


def test_minus_zero_is_zero() -> None:
    assert str([entry.value for entry in parse(edit(value=-0.0)).edits or ()]) == "[0.0]"  # type: ignore[union-attr]


def test_sizes_are_refused_before_decoding() -> None:
    for body in (b"x" * 11, "A" * 40, {"image": "A" * 40}, b"{" + b" " * 10**6):
        with pytest.raises(RequestError, match=r"allowed|needs") as caught:
            parse(body, limits=Limits(max_bytes=10))
        assert caught.value.status == 413


def test_the_explanations_route_explains_only() -> None:
    with pytest.raises(RequestError, match="this route explains"):
        parse({"op": "search", "query": "x"}, explain=True)


def resolved(**edit: Any) -> Steered:
    return resolve([EditRequest(**edit)], [LayerInfo("fc", "linear", 2, 3, (1, 2), 5)], None, Limits())


def test_actions_become_edits() -> None:
    assert resolved(id="fc/u1.s1", action="scale", value=2.0, patches=3).edits == (Edit(7, 2.0, 0.0, 3),)
    assert resolved(id="fc/u1.s1", action="ablate").edits == (Edit(7, 0.0, 0.0),)
    assert resolved(id="fc/u1.s1", action="set", value=2.0).edits == (Edit(7, 0.0, 2.0),)
    assert resolved(id="fc/u1.s1", action="add", value=2.0).edits == (Edit(7, 1.0, 2.0),)
    with pytest.raises(RequestError, match=r"'edits\[0\]\.value' must be left out"):
        resolved(id="fc/u1.s1", action="ablate", value=1.0)
    with pytest.raises(RequestError, match=r"'edits\[0\]\.value' is missing: set needs one"):
        resolved(id="fc/u1.s1", action="set")


def numbers(**changed: Any) -> dict[str, Any]:
    tensor = {"name": "image", "datatype": "FP32", "shape": [2, 3, 4], "data": [0.5] * 24}
    return {"inputs": [tensor | changed]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": []}, "'instances' must be a list of at least one"),
        ({"instances": [TEXT], "x": 1}, "'x' is unknown"),
        ({"instances": [TEXT] * 17}, "17 entries; at most 16"),
        ({"instances": [TEXT, 3]}, r"'instances\[1\]' must be an image or a request, not 3"),
        ({"instances": [{"image": TEXT, "top_k": 0}]}, r"instances\[0\]: Field 'top_k' is 0"),
        ({"inputs": []}, "list of one tensor"),
        ({"inputs": [{"name": "x"}]}, "'inputs\\[0\\].name' is 'x'"),
        ({"inputs": [{"name": "image", "datatype": "FP64"}]}, "'inputs\\[0\\].datatype' is 'FP64'"),
        ({"inputs": [{"name": "request", "datatype": "FP32"}]}, "'inputs\\[0\\].datatype' is 'FP32'"),
        (numbers(shape=[2, 3]), "shape' is a list"),
        (numbers(shape=[2, 0, 3]), "shape' is a list"),
        (numbers(shape=[True, 2, 3]), "shape' is"),
        (numbers(shape=[17, 1, 1, 1]), "17 images; at most 16"),
        (numbers(shape=[2, 3, 4, 10**30]), "24 numbers"),
        (numbers(data=[1.0] * 23), "23 numbers"),
        (numbers(data=[[1.0, 2.0], [3.0]]), "different lengths"),
        (numbers(data=["1"] * 24), "list of numbers"),
        (numbers(data=[True] * 24), "list of numbers"),
        (numbers(data=[10**30] * 24), "list of numbers"),
        (numbers(data={"b64": "AAAA"}), "list of numbers"),
        (numbers(data=None), "list of numbers"),
        (numbers(datatype="UINT8", data=[256] * 24), "from 0 to 255"),
        (numbers(datatype="UINT16", data=[0.5] * 24), "from 0 to 65535"),
        (
            {"inputs": [{"name": "image", "datatype": "BYTES", "data": [TEXT], "shape": [2]}]},
            r"the data has 1 elements\. Send \[1\]",
        ),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "data": [3], "shape": [1]}]}, r"data\[0\]' must be text"),
        ({"inputs": [{"name": "request", "datatype": "BYTES", "data": ["{"], "shape": [1]}]}, "not JSON"),
        (
            {"inputs": [{"name": "request", "datatype": "BYTES", "data": ["3"], "shape": [1]}]},
            "must be an image or a request",
        ),
        ({"inputs": [{}], "parameters": 3}, "'parameters' must be an object"),
        ({"inputs": [{}], "id": 3}, "'id' must be a text"),
    ],
)
def test_kserve_forms_that_do_not_fit(body: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        forms.parse(body)


def test_kserve_forms() -> None:
    form = forms.parse(
        {"instances": [TEXT, {"b64": TEXT}, {"image": {"b64": TEXT}, "top_k": 2}, {"op": "search", "query": "x"}]}
    )
    assert form.requests == (Predict(IMAGE), Predict(IMAGE), Predict(IMAGE, 2), Search("x"))
    assert form.wrap([1, 2, 3, 4], "m") == {"predictions": [1, 2, 3, 4]}
    assert forms.parse({"instances": [TEXT]}, explain=True).requests == (Inspect(IMAGE),)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [2], "data": [TEXT, TEXT]}
    form = forms.parse({"id": "7", "inputs": [tensor], "parameters": {"top_k": 1}})
    assert form.requests == (Predict(IMAGE, 1), Predict(IMAGE, 1))
    labels, probabilities = form.wrap([{"a": 0.5}, {"b": 0.25}], "m")["outputs"]
    assert (labels["data"], labels["shape"], probabilities["data"]) == (["a", "b"], [2, 1], [0.5, 0.25])
    tensor = {"name": "request", "datatype": "BYTES", "shape": [1], "data": [json.dumps({"op": "feature", "id": ID})]}
    form = forms.parse({"inputs": [tensor]})
    assert form.requests == (Feature(ID),)
    assert form.wrap([{"x": 1}], "m") == {
        "model_name": "m",
        "outputs": [{"name": "answer", "datatype": "BYTES", "shape": [1], "data": ['{"x": 1}']}],
    }


@pytest.mark.parametrize("datatype", ["FP32", "UINT8", "UINT16"])
def test_a_tensor_of_numbers_is_its_images_as_numpy_saves_them(datatype: str) -> None:
    values = np.arange(48).reshape(2, 2, 3, 4)
    for data in (values.tolist(), values.ravel().tolist()):
        form = forms.parse(numbers(datatype=datatype, shape=[2, 2, 3, 4], data=data) | {"parameters": {"top_k": 1}})
        for request, image in zip(form.requests, values, strict=True):
            assert isinstance(request, Predict)
            saved = np.load(io.BytesIO(request.image), allow_pickle=False)
            assert (saved.dtype.name, request.top_k) == ({"FP32": "float32"}.get(datatype, datatype.lower()), 1)
            np.testing.assert_array_equal(saved, image)
    (alone,) = forms.parse(numbers(datatype=datatype, shape=[2, 3, 4], data=values[1].tolist())).requests
    assert isinstance(alone, Predict)
    np.testing.assert_array_equal(np.load(io.BytesIO(alone.image)), values[1])


def test_settings(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_json(Settings().to_json()) == Settings()
    wrong = (
        {"steer": 1},
        {"steering": "maybe"},
        {"log": True},
        {"preset": 3},
        {"recheck_s": -1},
        {"recheck_s": "2"},
        {"limits": {"x": 1}},
        3,
    )
    for value in wrong:
        with pytest.raises(UsageError):
            Settings.from_json(value)
    file = tmp_path / "over.json"
    monkeypatch.setenv("ELUDE_SETTINGS", str(file))
    with pytest.raises(UsageError, match="cannot be read"):
        read_settings({})
    file.write_text("[]")
    with pytest.raises(UsageError, match="not a JSON object"):
        read_settings({})
    file.write_text('{"limits": {"max_edits": 3}, "steering": "off"}')
    configured = {"limits": {"max_edits": 9, "max_top_k": 7}, "log": "all"}
    assert read_settings(configured) == Settings(Limits(max_edits=3, max_top_k=7), "off", None, "all")


def test_limits_from_configuration() -> None:
    assert Limits.from_json({"max_edits": 2}) == Limits(max_edits=2)
    for wrong in (
        {"edits": 2},
        {"max_edits": 0},
        {"max_edits": "2"},
        {"max_edits": True},
        {"max_edits": 2.5},
        {"max_value": float("inf")},
        [1],
    ):
        with pytest.raises(UsageError, match="Limit"):
            Limits.from_json(wrong)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(TEXT),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "action", "value", "patches", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)
names = st.sampled_from(
    [
        "op",
        "image",
        "edits",
        "top_k",
        "layer",
        "heat_map",
        "id",
        "query",
        "limit",
        "examples",
        "y",
        "instances",
        "inputs",
        "concept",
        "by",
    ]
)
operations = st.sampled_from(["predict", "inspect", "steer", "feature", "search", "describe", "other"])


@settings(max_examples=500, deadline=None)
@given(body=st.dictionaries(names, values, max_size=6), op=operations, explain=st.booleans())
def test_any_json_is_read_or_refused(body: dict[str, Any], op: str, explain: bool) -> None:
    try:
        forms.parse(body | {"op": op}, explain=explain)
    except RequestError as error:
        refused = error
        assert 400 <= refused.status < 500


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=60) | st.text(max_size=60), explain=st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes | str, explain: bool) -> None:
    try:
        assert isinstance(parse(data, explain=explain), (Predict, Inspect))
    except RequestError as error:
        refused = error
        assert 400 <= refused.status < 500


def test_deep_lists_are_refused() -> None:
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    with pytest.raises(RequestError, match=r"edits\[0\] must be a JSON object"):
        parse({"op": "steer", "image": TEXT, "edits": deep})
