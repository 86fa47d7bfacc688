"""Spans of requests: they continue the caller's trace, say where the time went, and hold nothing of the content."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _worked import PICTURE, WorkedSession, make_bundle
from starlette.testclient import TestClient

from elude.handlers.errors import UsageError
from elude.handlers.service import Service
from elude.handlers.web.app import application
from elude.handlers.web.tracing import OpenTelemetry, Tracing, tracing

sdk = pytest.importorskip("opentelemetry.sdk.trace")
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Traced:
    """The front end with spans in memory."""

    def __init__(self, folder: Path) -> None:
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.memory, provider = InMemorySpanExporter(), sdk.TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.memory))
        service = Service(make_bundle(folder / "b"), WorkedSession())
        self.client = TestClient(application(service, "key", tracing=OpenTelemetry(provider)))

    def ask(self, path: str, body: bytes, **headers: str) -> dict[str, object]:
        """The spans of one request by name."""
        self.memory.clear()
        self.client.post(path, content=body, headers={"authorization": "Bearer key"} | headers)
        return {span.name: span for span in self.memory.get_finished_spans()}


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Traced]:
    made = Traced(tmp_path)
    with made.client:
        yield made


def test_a_request_s_span_holds_its_parts_one_after_the_other(traced: Traced) -> None:
    spans = traced.ask("/predictions/elude", PICTURE)
    request = spans.pop("POST /predictions/{model}")
    assert list(spans) == ["receive", "read", "queue", "run"]
    parts = list(spans.values())
    assert all(part.parent.span_id == request.context.span_id for part in parts)
    moments = [request.start_time, *(moment for part in parts for moment in (part.start_time, part.end_time))]
    assert sorted(moments) == moments
    assert moments[-1] <= request.end_time
    facts = dict(request.attributes)
    assert facts["http.response.status_code"] == 200
    assert (facts["elude.model"], facts["elude.version"], facts["elude.operation"]) == ("elude", "1.0", "predict")


def test_the_caller_s_trace_is_continued(traced: Traced) -> None:
    spans = traced.ask("/v1/models/elude:predict", PICTURE, traceparent=f"00-{TRACE}-{PARENT}-01")
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE}
    assert f"{spans['POST /v1/models/{model}:predict'].parent.span_id:016x}" == PARENT
    for broken in ("00-zz-1-01", "", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 5000):
        assert "run" in traced.ask("/predictions/elude", PICTURE, traceparent=broken)


@pytest.mark.parametrize(
    ("path", "body", "key", "status"),
    [
        ("/predictions/elude", b"no image", "key", 400),
        ("/predictions/other", PICTURE, "key", 404),
        ("/predictions/elude", PICTURE, "wrong", 401),
    ],
)
def test_refusals_have_spans_with_their_status_and_no_content(
    traced: Traced, path: str, body: bytes, key: str, status: int
) -> None:
    spans = traced.ask(path, body, authorization=f"Bearer {key}")
    assert spans["POST /predictions/{model}"].attributes["http.response.status_code"] == status
    assert "no image" not in "".join(span.to_json() for span in spans.values())


def test_without_an_address_to_send_them_to_there_are_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert type(tracing()) is Tracing
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert type(tracing()) is OpenTelemetry
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(UsageError, match=r"elude\[otel\]"):
        tracing()


def test_the_front_end_needs_no_opentelemetry() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import elude.handlers.web.run, elude.handlers.web.app"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
