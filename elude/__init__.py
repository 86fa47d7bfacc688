"""Export a pretrained image model that explains itself, steer it, and gate its release on quality.

Names load their package when they are first used, so that ``import elude`` stays light and loads no torch.

Example:
    >>> import elude
    >>> elude.Edit.scale(3, -2.0)
    Edit(index=3, gain=-2.0, offset=0.0, patches=0)
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elude.exporter.export.pipeline import ExportSettings, export
    from elude.exporter.models.load import load_model
    from elude.exporter.rewrite import explicit, graft
    from elude.handlers.bundle.bundle import Bundle
    from elude.handlers.bundle.session import GraphSession
    from elude.handlers.errors import EludeError
    from elude.handlers.requests.edits import Edit
    from elude.model_store.archive import package
    from elude.model_store.store import Store
    from elude.quality.evaluation.evaluate import evaluate
    from elude.quality.gate.judge import judge
    from elude.quality.scores.quba import quba_score

__version__ = "0.2.0"
__all__ = [
    "Bundle",
    "Edit",
    "EludeError",
    "ExportSettings",
    "GraphSession",
    "Store",
    "__version__",
    "evaluate",
    "explicit",
    "export",
    "graft",
    "judge",
    "load_model",
    "package",
    "quba_score",
]

_MODULES = {
    "Bundle": "elude.handlers.bundle.bundle",
    "Edit": "elude.handlers.requests.edits",
    "EludeError": "elude.handlers.errors",
    "ExportSettings": "elude.exporter.export.pipeline",
    "GraphSession": "elude.handlers.bundle.session",
    "Store": "elude.model_store.store",
    "evaluate": "elude.quality.evaluation.evaluate",
    "explicit": "elude.exporter.rewrite",
    "export": "elude.exporter.export.pipeline",
    "graft": "elude.exporter.rewrite",
    "judge": "elude.quality.gate.judge",
    "load_model": "elude.exporter.models.load",
    "package": "elude.model_store.archive",
    "quba_score": "elude.quality.scores.quba",
}

# Read by OpenMP when torch is first loaded: threads that wait must sleep, or the processes of a
# busy machine stall each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'elude' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
