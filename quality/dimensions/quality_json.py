"""``quality.json``: what was measured, on what, with what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from elude.exporter.export.library_versions import installed
from elude.handlers.errors import UsageError
from elude.quality.dimensions.result import DimensionResult

SCHEMA_VERSION = 2  # 2: each dimension says what it was measured on
REPORT = "quality.json"
_LIBRARIES = ("numpy", "scipy", "pillow", "torch", "timm", "onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class QualityReport:
    """One evaluation.

    Attributes:
        subject: kind, model, artefact_sha256.
        suite: name, sha256, images, protocol.
        dimensions: only those that were measured.
        lossless: for a bundle, each dimension's value for the original, the disentangled and the
            served model, else None.
        score: a QUBA score with its reference and rank, or None where no reference applies.
        settings: seed, budget and the like; ``not_measured`` and ``no_score`` say why something is missing.
        versions: of the libraries that took part.
        answers_sha256: of the file with the answers to single images (``image_answers.py``), None where there is none.
        answers_file: its content, in a report that was just made.
    """

    subject: Mapping[str, str | None]
    suite: Mapping[str, str | int]
    dimensions: Mapping[str, DimensionResult]
    lossless: Mapping[str, Mapping[str, float]] | None
    score: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    answers_sha256: str | None = None
    answers_file: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def values(self) -> dict[str, float]:
        """Dimension to value."""
        return {name: result.value for name, result in self.dimensions.items()}

    def to_json(self) -> dict[str, Any]:
        """The content of ``quality.json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "subject": dict(self.subject),
            "suite": dict(self.suite),
            "dimensions": {name: result.to_json() for name, result in self.dimensions.items()},
            "lossless": None
            if self.lossless is None
            else {form: dict(values) for form, values in self.lossless.items()},
            "score": None if self.score is None else dict(self.score),
            "settings": dict(self.settings),
            "versions": dict(self.versions),
            "answers_sha256": self.answers_sha256,
        }

    def files(self, report: str = REPORT) -> dict[str, bytes]:
        """The report under its name, and beside it the answers to single images, if there are any."""
        beside = {} if self.answers_file is None else {answers_name(report): self.answers_file}
        return {report: self.to_bytes()} | beside

    def to_bytes(self) -> bytes:
        """The file: UTF-8 JSON, the same bytes for the same measurements."""
        return (json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: Any) -> QualityReport:
        """Inverse of :meth:`to_json`.

        Raises:
            UsageError: for another schema version or a missing field.
        """
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version == 1:
            raise UsageError(
                "This quality report was written by an earlier version, which did not record what each dimension was "
                "measured on.",
                "Measure the model again with this version: elude evaluate.",
            )
        if type(version) is not int or version != SCHEMA_VERSION:
            raise UsageError(
                f"This is not a quality report of schema version {SCHEMA_VERSION}.",
                "Measure the model with this version: elude evaluate.",
            )
        try:
            for name in ("subject", "suite", "settings", "versions"):
                if not isinstance(data[name], dict):
                    raise TypeError(f"{name} is not an object")
            dimensions = {name: DimensionResult.from_json(entry) for name, entry in data["dimensions"].items()}
            return cls(
                data["subject"],
                data["suite"],
                dimensions,
                data["lossless"],
                data["score"],
                data["settings"],
                data["versions"],
                data.get("answers_sha256"),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UsageError(f"The quality report is damaged: {error!r}.", "Evaluate again.") from error


def answers_name(report: str) -> str:
    """The file beside a report with its answers: ``quality.answers.safetensors`` beside ``quality.json``."""
    return f"{PurePath(report).stem}.answers.safetensors"


def library_versions() -> dict[str, str]:
    """Versions of the installed libraries that measurements depend on."""
    return installed(_LIBRARIES)
