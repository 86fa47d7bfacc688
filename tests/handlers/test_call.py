"""``elude call`` with every option: the request that it makes, the answer that it prints, and what it refuses before
asking.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _explorer import listen, running
from _worked import LAYER, PICTURE, TEXT, WorkedSession, with_presets
from typer.testing import CliRunner

from elude.cli import app
from elude.cli.serving_commands import pretty
from elude.handlers.errors import EludeError, RequestError, UsageError
from elude.handlers.requests.calls import Call
from elude.handlers.requests.edit_text import parse_edit
from elude.handlers.service import Service
from elude.handlers.web.app import application

KEY = "the key of the tests"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return Service(with_presets(tmp_path_factory.mktemp("called") / "b"), WorkedSession())


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    listening, port = listen()
    with running(application(service, KEY), listening):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "red.png"
    path.write_bytes(PICTURE)
    return str(path)


def call(url: str, *arguments: str, stdin: str | None = None) -> Any:
    """The JSON that the command prints; its error as it was raised."""
    done = CliRunner().invoke(app, ["call", *arguments, "--url", url, "--token", KEY], input=stdin)
    if isinstance(done.exception, EludeError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


EDIT = {"id": f"{LAYER}/u0.s0", "action": "scale", "value": -2.0, "patches": 1}
CALLS: list[tuple[list[str], dict[str, Any]]] = [
    (["predict", "IMAGE"], {"op": "predict", "image": TEXT}),
    (["predict", "IMAGE", "--top-k", "1"], {"op": "predict", "image": TEXT, "top_k": 1}),
    (
        ["inspect", "IMAGE", "--heat-map", "none", "--top-k", "2"],
        {"op": "inspect", "image": TEXT, "heat_map": "none", "top_k": 2},
    ),
    (
        ["inspect", "IMAGE", "--layer", LAYER, "--unit", f"{LAYER}/u1"],
        {"op": "inspect", "image": TEXT, "layer": LAYER, "unit": f"{LAYER}/u1", "heat_map": "none"},
    ),
    (
        ["inspect", "IMAGE", "--by", "effect", "--target", "odd", "--candidates", "2", "--heat-map", "png"],
        {"op": "inspect", "image": TEXT, "by": "effect", "target": "odd", "candidates": 2, "heat_map": "png"},
    ),
    (["steer", "IMAGE", "--edit", f"{LAYER}/u0.s0=scale:-2@1"], {"op": "steer", "image": TEXT, "edits": [EDIT]}),
    (
        [
            "steer",
            "IMAGE",
            "--concept",
            "green thing=ablate",
            "--edit",
            f"{LAYER}/u0.s0=scale:-2@1",
            "--no-compare",
            "--top-k",
            "2",
        ],
        {
            "op": "steer",
            "image": TEXT,
            "edits": [EDIT, {"concept": "green thing", "action": "ablate"}],
            "compare": False,
            "top_k": 2,
        },
    ),
    (["steer", "IMAGE", "--preset", "no red"], {"op": "steer", "image": TEXT, "preset": "no red"}),
    (["feature", f"{LAYER}/u1.s0", "--examples", "0"], {"op": "feature", "id": f"{LAYER}/u1.s0", "examples": 0}),
    (["search", "thing", "--top-k", "1"], {"op": "search", "query": "thing", "limit": 1}),
    (["search", "--image", "IMAGE"], {"op": "search", "image": TEXT}),
    (["describe"], {"op": "describe"}),
]


@pytest.mark.parametrize(("arguments", "request_"), CALLS, ids=[" ".join(arguments) for arguments, _ in CALLS])
def test_the_answer_is_the_services(
    url: str, service: Service, image: str, arguments: list[str], request_: dict[str, Any]
) -> None:
    expected = service.answer([Call(request_)])[0]
    assert expected.status == 200, expected.body
    assert call(url, *[image if word == "IMAGE" else word for word in arguments]) == json.loads(expected.body)


def test_a_search_shows_the_best_and_says_that_there_may_be_more(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elude.cli.serving_commands.HITS", 1)
    command = ["call", "search", "thing", "--url", url, "--token", KEY]
    short = CliRunner().invoke(app, command)
    assert len(json.loads(short.stdout)["sub_units"]) == 1
    assert "--top-k" in short.stderr
    full = CliRunner().invoke(app, [*command, "--top-k", "5"])
    assert len(json.loads(full.stdout)["sub_units"]) == 2
    assert full.stderr == ""


def test_an_answer_is_the_same_json_in_few_lines_that_are_not_too_wide() -> None:
    hit: dict[str, Any] = {"id": "blocks.5.mlp.fc2/u0.s0", "name": 'a, b: "c" ' * 3} | {
        f"number {i}": 0.123456789 for i in range(12)
    }
    hit["unit"] = {"id": "blocks.5.mlp.fc2/u0", "parts": 3}
    answer = {"query": "b", "empty": {}, "sub_units": [hit] * 10}
    text = pretty(answer)
    assert json.loads(text) == answer
    assert max(map(len, text.splitlines())) <= 100
    assert len(text.splitlines()) < 70


def test_fields_from_a_file_and_from_standard_input(url: str, service: Service, image: str, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text(json.dumps({"edits": [EDIT], "top_k": 3}))
    expected = json.loads(service.answer([Call({"op": "steer", "image": TEXT, "edits": [EDIT], "top_k": 1})])[0].body)
    assert call(url, "steer", image, "--fields", str(tmp_path / "body.json"), "--top-k", "1") == expected
    whole = json.dumps({"image": base64.b64encode(PICTURE).decode(), "edits": [EDIT], "top_k": 1})
    assert call(url, "steer", "--fields", "-", stdin=whole) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "no operation 'fly'"),
        (["predict"], "no image file ''"),
        (["predict", "none.png"], "no image file 'none.png'"),
        (["predict", "IMAGE", "--preset", "no red"], "does not take preset"),
        (["predict", "IMAGE", "--heat-map", "png"], "does not take heat_map"),
        (["describe", "IMAGE"], "does not take image"),
        (["describe", "--top-k", "3"], "does not take top_k"),
        (["feature"], "needs something to look for"),
        (["search"], "needs something to look for"),
        (["steer", "IMAGE", "--edit", "x=scale:much"], "not a number"),
        (["steer", "IMAGE", "--edit", "x"], "cannot be read"),
        (["steer", "IMAGE", "--concept", "=ablate"], "Write CONCEPT="),
        (["steer", "IMAGE", "--fields", "none.json"], "none.json cannot be read"),
        (["steer", "IMAGE", "--fields", "IMAGE"], "cannot be read"),
        (["steer", "IMAGE", "--fields", "LIST"], "holds no JSON object"),
    ],
)
def test_what_cannot_be_asked_is_told_before_asking(
    image: str, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "list.json").write_text("[1]")
    given = [{"IMAGE": image, "LIST": str(tmp_path / "list.json")}.get(word, word) for word in arguments]
    with pytest.raises(UsageError) as caught:
        call("http://127.0.0.1:9", *given)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "IMAGE", "--by", "size"], "'by'"),
        (["inspect", "IMAGE", "--by", "effect", "--target", "zebra"], "zebra"),
        (["inspect", "IMAGE", "--layer", "no layer"], "no layer"),
        (["predict", "IMAGE", "--top-k", "0"], "'top_k'"),
        (["steer", "IMAGE"], "'edits' is missing"),
        (["steer", "IMAGE", "--preset", "none"], "no preset 'none'"),
        (["search", "words", "--image", "IMAGE"], "either 'query' or 'image'"),
    ],
)
def test_what_the_server_refuses_is_told_in_its_words(url: str, image: str, arguments: list[str], words: str) -> None:
    with pytest.raises(RequestError) as caught:
        call(url, *[image if word == "IMAGE" else word for word in arguments])
    assert words in str(caught.value)


def test_a_concept_may_hold_signs() -> None:
    assert parse_edit("a = b: c@d=scale:2", "concept") == {"concept": "a = b: c@d", "action": "scale", "value": 2.0}


def test_an_answer_is_short_to_read_and_leaves_nothing_out(url: str, image: str) -> None:
    done = CliRunner().invoke(app, ["call", "inspect", image, "--heat-map", "grid", "--url", url, "--token", KEY])
    answer = json.loads(done.stdout)
    assert answer["sub_units"][0]["heat_map"]["values"]
    assert len(done.stdout.splitlines()) < 20 * len(answer["sub_units"]) + 30
    without = call(url, "inspect", image)
    assert all("heat_map" not in row or row["heat_map"] is None for row in without["sub_units"])


def test_a_wrong_key_is_answered_with_the_way_to_the_right_one(url: str, image: str) -> None:
    done = CliRunner().invoke(app, ["call", "predict", image, "--url", url, "--token", "of yesterday"])
    assert isinstance(done.exception, RequestError)
    assert "ELUDE_TOKEN" in done.exception.remedy
    assert "--token-minutes" in done.exception.remedy
