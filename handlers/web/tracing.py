"""Spans of requests, where OpenTelemetry's SDK is installed (extra ``otel``); without it, or untold where to send
them, nothing is done.

A request's span continues the trace that the caller names (W3C ``traceparent``) and holds one span for each part:
``receive`` the body, ``read`` it and decode its images, ``queue`` for a forward pass, and ``run`` it with the others
of its batch. Nothing of a request's content is in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from elude.handlers.errors import UsageError
from elude.handlers.requests.calls import Answer
from elude.handlers.web.batches import Moments

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

_ASKED_FOR = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class RequestSpan:
    """The span of one request; this one records nothing."""

    names: Mapping[str, str] = {}  # for the log

    def answered(self, model: str, version: str, answer: Answer, moments: Moments) -> None:
        """Note what was answered, and when each part of it began."""


class Tracing:
    """Gives each request a span; this one records none."""

    @contextmanager
    def request(self, method: str, route: str, headers: Mapping[str, str]) -> Iterator[RequestSpan]:
        """While a request is answered."""
        yield RequestSpan()


class OpenTelemetry(Tracing):
    """Spans of OpenTelemetry.

    Args:
        provider: of tracers, e.g. with an exporter.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer, self._propagator = provider.get_tracer("elude"), TraceContextTextMapPropagator()

    @contextmanager
    def request(self, method: str, route: str, headers: Mapping[str, str]) -> Iterator[RequestSpan]:
        from opentelemetry.trace import SpanKind

        facts = {"http.request.method": method, "http.route": route}
        with self._tracer.start_as_current_span(
            f"{method} {route}",
            context=self._propagator.extract(headers),
            kind=SpanKind.SERVER,
            attributes=facts,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield _Recorded(self._tracer, span)
            except HTTPException as error:
                _set_status(span, error.status_code)
                raise


class _Recorded(RequestSpan):
    def __init__(self, tracer: Any, span: Span) -> None:
        context = span.get_span_context()
        self._tracer, self._span = tracer, span
        self.names = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    def answered(self, model: str, version: str, answer: Answer, moments: Moments) -> None:
        facts = {"elude.model": model, "elude.version": version, "elude.operation": answer.operation}
        self._span.set_attributes(facts)
        _set_status(self._span, answer.status)
        for name, begin, end in moments.parts():
            self._tracer.start_span(name, start_time=begin).end(end_time=end)


def _set_status(span: Span, status: int) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def tracing() -> Tracing:
    """What the environment asks for: spans are sent to ``OTEL_EXPORTER_OTLP_ENDPOINT`` if it is set.

    Raises:
        UsageError: it is set, and the SDK is not installed.
    """
    if not any(os.environ.get(name) for name in _ASKED_FOR) or os.environ.get("OTEL_SDK_DISABLED", "") == "true":
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise UsageError(
            f"{_ASKED_FOR[0]} is set, and {error.name} is not installed.", "Run: pip install 'elude[otel]'"
        ) from error
    named = "OTEL_SERVICE_NAME" in os.environ
    provider = TracerProvider(resource=Resource.create() if named else Resource.create({"service.name": "elude"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetry(provider)
