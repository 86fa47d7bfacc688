"""The web front end as a deployment of Ray Serve, for more than one machine; needs the extra ``ray``.

    ELUDE_TOKEN=… serve run elude.ray_serve:deployment served=/models/bundle replicas=4

Each replica is one process with the models of its own, answers by the same routes, statuses and bodies, and is replaced
when a model is not healthy. Ray's proxies spread the requests; its own limits of time and size come before ours.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elude.handlers.admission.requirements import Requirements
from elude.handlers.errors import EvaluationError, UsageError
from elude.handlers.web.app import application
from elude.handlers.web.json_log import log_json
from elude.handlers.web.models import Models
from elude.handlers.web.plan import Plan
from elude.handlers.web.run import TOKEN, give_memory_back
from elude.handlers.web.sources import plan_of
from elude.handlers.web.tracing import tracing

if TYPE_CHECKING:
    from ray.serve import Application
    from starlette.applications import Starlette


class Replica:
    """One replica.

    Args:
        served: bundles and archives as ``elude serve`` takes them, or a store and names of its models; they must be
            readable on every machine.
        token: key that callers must send.
        options: of ``plan_of``: ``model``, ``version``, ``labels``.
    """

    def __init__(self, served: list[str], token: str, options: dict[str, Any]) -> None:
        log_json()
        give_memory_back()
        self._folder, self._token = tempfile.TemporaryDirectory(prefix="elude-ray-"), token
        self._models = Models.load(plan_now(served, Path(self._folder.name), options))

    def __serve_build_asgi_app__(self) -> Starlette:  # the name that Ray Serve calls
        return application(self._models, self._token, tracing=tracing())

    def check_health(self) -> None:
        """Called by Ray Serve; a replica for which it raises is replaced."""
        if problem := self._models.table.unhealthy():
            raise EvaluationError(problem, "The replica is replaced.")


def plan_now(served: list[str], folder: Path, options: dict[str, Any]) -> Plan:
    """What is to be served, with private copies in ``folder``."""
    if "://" not in served[0] and not Path(served[0], "store.json").is_file():
        return plan_of(served, folder, Requirements.load(), **options)
    from elude.model_store.serving import StoreSource
    from elude.model_store.store import Store

    return StoreSource(Store(served[0], Requirements.load(), must_exist=True), served[1:])(folder)


def deployment(arguments: dict[str, str]) -> Application:
    """The application that ``serve run`` starts.

    Args:
        arguments: ``served``, words separated by commas; ``replicas``; ``cpus`` of one; ``model`` and ``version`` of a
            bundle without a name. The key is ``ELUDE_TOKEN``.

    Raises:
        UsageError: something is missing.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise UsageError(f"Ray Serve needs {error.name}.", "Run: pip install 'elude[ray]'") from error
    token = os.environ.get(TOKEN)
    if not token or "served" not in arguments:
        raise UsageError(f"Set {TOKEN} to the key that callers must send, and name served=…", "See docs/serving.md.")
    options = {name: arguments[name] for name in ("model", "version") if name in arguments}
    replica = serve.deployment(
        num_replicas=int(arguments.get("replicas", 1)),
        ray_actor_options={"num_cpus": float(arguments.get("cpus", 1))},
        max_ongoing_requests=256,
    )(serve.ingress()(Replica))
    bound: Application = replica.bind(arguments["served"].split(","), token, options)
    return bound
