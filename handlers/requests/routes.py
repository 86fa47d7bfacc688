"""The one table of routes: what each address asks, and which front end answers it."""

from __future__ import annotations

from dataclasses import dataclass

TORCHSERVE, WEB = "torchserve", "web"
BOTH = (TORCHSERVE, WEB)


@dataclass(frozen=True)
class Route:
    """One address.

    Attributes:
        path: with ``{model}``, ``{version}`` and ``{label}``, another name of a version.
        asks: ``ask`` for any operation by the body, ``explain``, ``describe``, or the name of a fact about the server
            (``ping``, ``live``, ``ready``, ``server``, ``models``, ``status``, ``model_ready``, ``metadata``,
            ``metrics``).
        fronts: that answer it; TorchServe has no routes of ours, so its health and metadata are its own.
        method: of HTTP.
        key: whether it needs the server's key. Probes of Kubernetes and KServe send none.
    """

    path: str
    asks: str
    fronts: tuple[str, ...] = BOTH
    method: str = "POST"
    key: bool = True


def _get(path: str, asks: str, fronts: tuple[str, ...] = (WEB,), *, key: bool = True) -> Route:
    return Route(path, asks, fronts, "GET", key)


ROUTES = (
    Route("/predictions/{model}", "ask"),
    Route("/predictions/{model}/{version}", "ask"),
    Route("/explanations/{model}", "explain"),
    Route("/explanations/{model}/{version}", "explain"),
    Route("/v1/models/{model}:predict", "ask"),
    Route("/v1/models/{model}:explain", "explain"),
    Route("/v2/models/{model}/infer", "ask"),
    Route("/v2/models/{model}/explain", "explain"),
    Route("/v1/models/{model}/versions/{version}:predict", "ask", (WEB,)),
    Route("/v1/models/{model}/versions/{version}:explain", "explain", (WEB,)),
    Route("/v1/models/{model}/labels/{label}:predict", "ask", (WEB,)),
    Route("/v1/models/{model}/labels/{label}:explain", "explain", (WEB,)),
    Route("/v2/models/{model}/versions/{version}/infer", "ask", (WEB,)),
    Route("/v2/models/{model}/versions/{version}/explain", "explain", (WEB,)),
    _get("/ping", "ping", BOTH),
    _get("/models/{model}", "describe"),
    _get("/models/{model}/{version}", "describe"),
    _get("/metrics", "metrics"),
    _get("/v1/models", "models"),
    _get("/v1/models/{model}", "status"),
    _get("/v1/models/{model}/versions/{version}", "status"),
    _get("/v1/models/{model}/labels/{label}", "status"),
    _get("/v2", "server"),
    _get("/v2/health/live", "live", key=False),
    _get("/v2/health/ready", "ready", key=False),
    _get("/v2/models/{model}", "metadata"),
    _get("/v2/models/{model}/ready", "model_ready"),
    _get("/v2/models/{model}/versions/{version}", "metadata"),
    _get("/v2/models/{model}/versions/{version}/ready", "model_ready"),
)
