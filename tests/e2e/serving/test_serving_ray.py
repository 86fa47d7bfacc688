"""The same requests to a Ray cluster of two nodes: the statuses and bodies of the web front end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from _fronts import MODEL, Web
from _request_list import REQUESTS
from test_serving_requests import send

from elude.handlers.torchserve.machine import free_ports

serve = pytest.importorskip("ray.serve", reason="needs the extra 'ray'", exc_type=ImportError)
pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Ray:
    """A running deployment, with the part of ``Web`` that ``send`` uses."""

    inference_port: int
    nodes: int

    def key(self, kind: str) -> str:
        return "key of the tests"


@pytest.fixture(scope="module")
def ray_front(archive: Path) -> Iterator[Ray]:
    """Two nodes with a replica each."""
    import ray
    from ray.cluster_utils import Cluster

    from elude.ray_serve import deployment

    (port,) = free_ports(1)
    patch = pytest.MonkeyPatch()
    patch.setenv("ELUDE_TOKEN", "key of the tests")
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        arguments = {"served": str(archive.parent / "b"), "model": MODEL, "replicas": "2"}
        serve.run(deployment(arguments), route_prefix="/")
        (state,) = serve.status().applications["default"].deployments.values()
        assert state.replica_states == {"RUNNING": 2}  # each takes the one core of a node
        yield Ray(port, sum(node["Alive"] for node in ray.nodes()))
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
        patch.undo()


def test_both_nodes_answer_every_request_as_the_web_front_end_does(ray_front: Ray, web: Web) -> None:
    assert ray_front.nodes == 2
    for name, (path, (body, kind), status) in REQUESTS.items():
        ours, theirs = (send(front, "POST", path, body, kind) for front in (web, ray_front))  # type: ignore[arg-type]
        assert theirs == ours, name
        assert theirs[0] == status, name
    assert send(ray_front, "POST", "/predictions/M", b"", "image/png", key=False)[0] == 401  # type: ignore[arg-type]
    assert send(ray_front, "GET", "/v2/health/ready", None, "", key=False) == (200, {"ready": True})  # type: ignore[arg-type]
