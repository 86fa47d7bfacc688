"""Export a pretrained image model that explains itself, steer it, and gate its release on quality.

    model = elude.load("build/bundle")
    model.predict("bag.png")
    model.inspect("bag.png", top_k=5)
    model.steer("bag.png", {"Bag": 0})

Names load their module when they are first used, so that ``import elude`` stays light and loads no torch.
``docs/api.md`` has an example of each.

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
    from elude.exporter.export.export_settings import ExportSettings
    from elude.exporter.graph.bake import bake
    from elude.exporter.models.load import load_model
    from elude.exporter.rewrite import explicit, graft
    from elude.handlers.bundle.bundle import Bundle
    from elude.handlers.bundle.edits import Edit
    from elude.handlers.bundle.session import GraphSession
    from elude.handlers.errors import EludeError
    from elude.handlers.torchserve.client import Client
    from elude.model import Model, load
    from elude.model_store.store import Store
    from elude.push_to_hub import push
    from elude.quality.scores.quba import quba_score
    from elude.results import Feature, Inspection, Prediction, Steering, SubUnits
    from elude.steps import admit, evaluate, export, judge, package

__version__ = "0.2.0"
__all__ = [
    "Bundle",
    "Client",
    "Edit",
    "EludeError",
    "ExportSettings",
    "Feature",
    "GraphSession",
    "Inspection",
    "Model",
    "Prediction",
    "Steering",
    "Store",
    "SubUnits",
    "__version__",
    "admit",
    "bake",
    "evaluate",
    "explicit",
    "export",
    "graft",
    "judge",
    "load",
    "load_model",
    "package",
    "push",
    "quba_score",
]

_MODULES = {
    "Bundle": "elude.handlers.bundle.bundle",
    "Client": "elude.handlers.torchserve.client",
    "Edit": "elude.handlers.bundle.edits",
    "EludeError": "elude.handlers.errors",
    "ExportSettings": "elude.exporter.export.export_settings",
    "Feature": "elude.results",
    "GraphSession": "elude.handlers.bundle.session",
    "Inspection": "elude.results",
    "Model": "elude.model",
    "Prediction": "elude.results",
    "Steering": "elude.results",
    "Store": "elude.model_store.store",
    "SubUnits": "elude.results",
    "admit": "elude.steps",
    "bake": "elude.exporter.graph.bake",
    "evaluate": "elude.steps",
    "explicit": "elude.exporter.rewrite",
    "export": "elude.steps",
    "graft": "elude.exporter.rewrite",
    "judge": "elude.steps",
    "load": "elude.model",
    "load_model": "elude.exporter.models.load",
    "package": "elude.steps",
    "push": "elude.push_to_hub",
    "quba_score": "elude.quality.scores.quba",
}
# What strangers try first, and what to write instead.
_ON_A_MODEL = ("predict", "inspect", "steer", "search", "concept", "feature", "describe")
_INSTEAD = {
    **{name: f"Write elude.load('BUNDLE').{name}(...)." for name in _ON_A_MODEL},
    **dict.fromkeys(("open", "from_pretrained", "load_bundle", "read"), "Write elude.load('BUNDLE')."),
    **dict.fromkeys(("gate", "check"), "Write elude.judge('BUNDLE')."),
    **dict.fromkeys(("split", "disentangle", "save"), "Write elude.export(model, images, out='BUNDLE')."),
    **{name: f"Write the command 'elude {name} BUNDLE'." for name in ("explore", "report", "name")},
    "serve": "Write the command 'elude serve ARCHIVE'.",
}

# Read by OpenMP when torch is first loaded: threads that wait must sleep, or the processes of a
# busy machine stall each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        from elude.instead import no_attribute  # not above: this file travels in archives, that one does not

        raise no_attribute("module 'elude'", name, _INSTEAD)
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
