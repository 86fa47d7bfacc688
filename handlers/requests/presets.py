"""Presets: named lists of edits in the bundle's ``presets.json``."""

from __future__ import annotations

from collections.abc import Sequence

from elude.handlers.bundle.bundle import Bundle, LayerInfo
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.errors import BundleError, RequestError
from elude.handlers.requests.schema import EditRequest
from elude.handlers.requests.steering import Steered, resolve
from elude.handlers.requests.validation import read
from elude.handlers.settings import Limits

PRESETS = "presets.json"


def read_presets(
    bundle: Bundle, layers: Sequence[LayerInfo], catalogue: Catalogue | None, limits: Limits
) -> dict[str, Steered]:
    """The presets of a bundle, none if it has no ``presets.json``: ``{name: [{"id", "action", "value", "patches"},
    …]}``.

    Raises:
        BundleError: the file is not of that form or names an unknown sub-unit.
    """
    if not bundle.has(PRESETS):
        return {}
    listed = bundle.json(PRESETS)
    if not isinstance(listed, dict):
        raise BundleError(f"{bundle.root}: {PRESETS} must be an object of named lists of edits.")
    made = {}
    for name, edits in listed.items():
        if not isinstance(edits, list):
            raise BundleError(f"{bundle.root}: {PRESETS}: {name!r} must be a list of edits.")
        try:
            made[name] = resolve(
                [read(EditRequest, edit, limits, f"{name}[{i}]") for i, edit in enumerate(edits)],
                layers,
                catalogue,
                limits,
            )
        except RequestError as error:
            raise BundleError(f"{bundle.root}: {PRESETS}: preset {name!r}: {error.message}", error.remedy) from error
    return made
