"""What an operator decides of a served model: how much a request may ask for, whether it may steer, what is logged.

They travel in the archive (``model-config.yaml``, under ``elude``); a JSON file that the
environment variable ``ELUDE_SETTINGS`` names overrides them without a new archive.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from elude.handlers.bundle.device import check_device
from elude.handlers.errors import UsageError
from elude.handlers.files import read_json
from elude.handlers.images.decode import Limits as ImageLimits
from elude.handlers.images.structure import FORMATS

OVERRIDES = "ELUDE_SETTINGS"
STEERING = ("free", "presets", "off")
LOG = ("refused", "all", "none")


@dataclass(frozen=True)
class Limits:
    """What a request may at most ask for.

    Attributes:
        max_bytes: encoded image.
        max_pixels: of all images of a request together, known before one is decoded.
        max_image_memory: bytes that decoding one image may take. A larger JPEG is decoded at a half, quarter or eighth.
        max_edits: of a request, after concepts became sub-units.
        max_top_k: classes, sub-units or rows of an answer.
        max_query: characters of a search.
        max_value: largest magnitude of an edit's value.
        max_candidates: sub-units whose effect one request measures, each a row of a forward pass.
        max_instances: images of one KServe request.
        max_response: bytes of an answer. TorchServe's own default of 6.5 MB ends the worker when it is exceeded.
    """

    max_bytes: int = 6 * 2**20
    max_pixels: int = 25_000_000
    max_image_memory: int = 48 * 2**20
    max_edits: int = 256
    max_top_k: int = 100
    max_query: int = 200
    max_value: float = 1e6
    max_candidates: int = 64
    max_instances: int = 16
    max_response: int = 6_000_000

    @classmethod
    def from_json(cls, value: Any) -> Limits:
        """From configuration; UsageError for an unknown name or a value that is not a positive number."""
        known = {entry.name: entry.type for entry in fields(cls)}
        if not isinstance(value, Mapping) or not set(value) <= known.keys():
            raise UsageError(f"Limits {value!r} cannot be used.", f"Known limits: {', '.join(sorted(known))}.")
        for name, limit in value.items():
            kinds = (int,) if known[name] == "int" else (int, float)
            if isinstance(limit, bool) or not isinstance(limit, kinds) or not 0 < limit < math.inf:
                kind = "whole number" if kinds == (int,) else "number"
                raise UsageError(f"Limit {name} is {limit!r}.", f"It must be a positive {kind}.")
        return cls(**value)


@dataclass(frozen=True)
class Settings:
    """How a bundle is served.

    Attributes:
        limits: see ``Limits``.
        steering: ``free`` for any edits, ``presets`` for those of ``presets.json`` only, ``off`` for none.
        preset: one of ``presets.json`` that ``predict`` and ``inspect`` are answered with; None for the plain model.
        log: which requests get a line in the log.
        recheck_s: seconds between two comparisons of the archive's files with their hashes while serving; 0 for never.
        formats: of images that are accepted; each is a decoder that a stranger's bytes reach.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``. With ``cuda`` each worker of TorchServe takes the GPU that
            the server gives it. A GPU that cannot be used is an error, never replaced by the CPU.
    """

    limits: Limits = field(default_factory=Limits)
    steering: str = "free"
    preset: str | None = None
    log: str = "refused"
    recheck_s: float = 300
    formats: tuple[str, ...] = FORMATS
    device: str = "cpu"

    @property
    def image_limits(self) -> ImageLimits:
        """The part that decoding needs."""
        limits = self.limits
        return ImageLimits(limits.max_bytes, limits.max_pixels, limits.max_image_memory, formats=tuple(self.formats))

    @classmethod
    def from_json(cls, value: Any) -> Settings:
        """From configuration; UsageError names what cannot be used."""
        known = [entry.name for entry in fields(cls)]
        if not isinstance(value, Mapping) or not set(value) <= set(known):
            raise UsageError(f"Settings {value!r} cannot be used.", f"Known settings: {', '.join(known)}.")
        made = replace(
            cls(**{name: entry for name, entry in value.items() if name != "limits"}),
            limits=Limits.from_json(value.get("limits") or {}),
        )
        for name, found, choices in (("steering", made.steering, STEERING), ("log", made.log, LOG)):
            if found not in choices:
                raise UsageError(f"Setting {name} is {found!r}.", f"Use one of {', '.join(choices)}.")
        check_device(made.device)
        formats = made.formats
        if not isinstance(formats, (list, tuple)) or not formats or not set(map(str, formats)) <= set(FORMATS):
            raise UsageError(f"Setting formats is {formats!r}.", f"List one or more of {', '.join(FORMATS)}.")
        if made.preset is not None and not isinstance(made.preset, str):
            raise UsageError(f"Setting preset is {made.preset!r}.", "It must be the name of a preset, or null.")
        seconds = made.recheck_s
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
            raise UsageError(f"Setting recheck_s is {seconds!r}.", "It must be a number of seconds, 0 for never.")
        return replace(made, formats=tuple(map(str, formats)))

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` reads it."""
        return asdict(self)


def read_settings(configured: Any) -> Settings:
    """The archive's settings with those of the file that ``ELUDE_SETTINGS`` names over them.

    Raises:
        UsageError: the file cannot be read, or something in either cannot be used.
    """
    settings = dict(configured or {})
    path = os.environ.get(OVERRIDES)
    if path is not None:
        try:
            over = read_json(path)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{OVERRIDES} names {path}, which cannot be read: {error}.", "Give it a JSON object of settings."
            ) from error
        if not isinstance(over, dict):
            raise UsageError(
                f"{OVERRIDES} names {path}, which is not a JSON object.", 'Write it as {"limits": {"max_edits": 8}}.'
            )
        limits = {**(settings.get("limits") or {}), **(over.get("limits") or {})}
        settings = {**settings, **over, "limits": limits}
    return Settings.from_json(settings)
