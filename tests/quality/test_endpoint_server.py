"""A real TorchServe as the subject: over HTTP the embedded model measures what its graph measures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from _serving import make_bundle
from typer.testing import CliRunner

from elude.cli import app
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.torchserve.server import Server, ServerSettings
from elude.model_store.archive import package
from elude.quality.dimensions import DIMENSIONS
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.subjects.open_subject import open_subject, served
from elude.quality.subjects.subject import Subject
from elude.quality.suites.image_sets import EncodedSet
from elude.quality.suites.open_suite import embedded_suite
from elude.quality.suites.suite import Suite

pytestmark = pytest.mark.server
EIGHT = set(DIMENSIONS) - {"adversarial_robustness"}  # a server gives no gradients


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "b")


@pytest.fixture(scope="module")
def server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    archive = package(bundle, tmp_path_factory.mktemp("archive"), name="elude", version="1.0")
    with Server(archive, ServerSettings(batch_size=8, batch_delay_ms=5)) as running:
        yield running


def part(count: int = 60) -> Suite:
    images = cast(EncodedSet, embedded_suite().images)
    return Suite(
        "embedded-part",
        EncodedSet(images.source.limited(count)),
        ("contrast", "gaussian_noise"),
        (2, 5),
        dark_background=True,
    )


def test_eight_dimensions_over_http_are_those_of_the_graph(bundle: Bundle, server: Server) -> None:
    graph = evaluate(cast(Subject, open_subject(str(bundle.path("model.onnx")))), part(), budget=30, resamples=20)
    endpoint = served(server.client())
    assert endpoint.sha256 == bundle.artefact_sha256
    there = evaluate(endpoint, part(), budget=30, resamples=20)
    assert set(there.dimensions) == EIGHT
    assert set(there.settings["not_measured"]) == {"adversarial_robustness"}
    assert there.settings["outputs"] == "probabilities"
    for name, result in graph.dimensions.items():
        # the server tells probabilities, rounded as it prints them; not one of the answers that are counted may differ
        exact = name not in ("calibration_error", "class_balance")
        assert there.values[name] == (result.value if exact else pytest.approx(result.value, abs=1e-5)), name


def test_from_the_command_line(server: Server, tmp_path: Path) -> None:
    client, out = server.client(), tmp_path / "there.json"
    command = [
        "evaluate",
        client.url,
        "--dimensions",
        "accuracy,class_balance",
        "--out",
        str(out),
        "--cache",
        str(tmp_path / "cache"),
    ]
    result = CliRunner().invoke(app, command, env={"ELUDE_TOKEN": server.key("inference")})
    assert result.exit_code == 0, result.output
    report = QualityReport.from_json(json.loads(out.read_bytes()))
    assert report.subject["kind"] == "endpoint"
    assert set(report.dimensions) == {"accuracy", "class_balance"}
    assert report.values["accuracy"] > 0.8
