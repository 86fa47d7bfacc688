"""Dashboard and alerts ask only for metrics and labels that the front ends really serve."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from _fronts import Web
from _promql import expressions, selectors
from _serving import images
from prometheus_client.parser import text_string_to_metric_families

from elude.handlers.errors import EludeError
from elude.handlers.torchserve.client import Client
from elude.handlers.torchserve.server import Server
from elude.handlers.web.metrics import Metrics

WEB_ONLY = ("EludeQueueing", "EludeReloadFailing")  # as alerts.yaml says


def samples(text: str) -> dict[str, set[str]]:
    """Name → labels of what is scraped."""
    families = text_string_to_metric_families(text)
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def scraped(client: Client, scrape: Callable[[], bytes]) -> dict[str, set[str]]:
    """What Prometheus reads after a request that is answered and one that is refused."""
    client.predict(images(1)[0])
    with pytest.raises(EludeError):
        client.predict(b"no image")
    deadline = time.monotonic() + 10
    while "elude_batch_seconds_bucket" not in (found := samples(scrape().decode())):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


@pytest.mark.server
def test_every_expression_is_about_what_is_served(server: Server, web: Web) -> None:
    metrics = Client(f"http://127.0.0.1:{server.metrics_port}", server.key("management"))
    fronts = {
        "torchserve": scraped(server.client(), lambda: metrics.send("/metrics")),
        "web": scraped(web.client(), lambda: web.client().send("/metrics")),
    }
    followed = Metrics()  # of a server that follows a store, of which two values appear with the first promotion
    followed.add_reload("m", "failed")
    followed.set_pending(["m"], {})
    fronts["web"] |= samples(followed.exposition()[0].decode())
    for name, (expression, description) in expressions().items():
        only_web = description.startswith("Web front end") or name in WEB_ONLY
        for front in ["web"] if only_web else list(fronts):
            asked = [entry for entry in selectors(expression) if entry[0] != "up"]  # that is Prometheus's own
            assert asked or "up" in expression
            for metric, labels in asked:
                assert metric in fronts[front], (name, front)
                assert labels <= fronts[front][metric], (name, front)


def test_the_check_sees_a_metric_that_is_not_served_and_an_expression_that_cannot_be_read() -> None:
    assert selectors('rate(elude_requests{status="200"}[5m])') == [("elude_requests", {"status"})]
    with pytest.raises(ValueError):
        selectors("sum by (rate(x[5m])")
