"""Steering presets of a bundle: named lists of edits, each measured like the model itself before the gate rules on
it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from elude.exporter.progress import StepProgress
from elude.handlers.admission.admission import preset_hashes
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import UsageError
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.requests.presets import PRESETS, read_presets
from elude.handlers.requests.schema import EditRequest
from elude.handlers.requests.steering import resolve
from elude.handlers.requests.validation import read
from elude.handlers.settings import Limits
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.gate.preset_checks import PRESETS_QUALITY
from elude.quality.subjects.subject import Images, Outputs, check_outputs
from elude.quality.suites.suite import Suite

NOT_FOR_PRESETS = (
    "adversarial_robustness",
)  # attacks need gradients through the edits, which the served graph has not


@dataclass(frozen=True)
class SteeredSubject:
    """The served graph under the same edits on every image; many of them can share one session."""

    session: GraphSession
    preprocess: Preprocess
    edits: tuple[Edit, ...]
    labels: tuple[str, ...] | None
    parameters: int | None
    name: str
    sha256: str | None = None
    kind: str = "onnx"

    def outputs(self, pixels: Images) -> Outputs:
        rows = [self.edits] * len(pixels) if self.edits else None
        return check_outputs(
            self.session.run(self.preprocess.normalise_unit(pixels), rows).output, len(pixels), self.name
        )


def steered_subjects(
    bundle: Bundle, edits: Mapping[str, Sequence[Edit]], *, threads: int = 1
) -> dict[str, SteeredSubject]:
    """The bundle's served model under each of the named lists of edits."""
    session = GraphSession.of(bundle, threads=threads)
    preprocess = Preprocess.from_json(bundle.json("preprocess.json"))
    names = bundle.json("labels.json") if bundle.has("labels.json") else None
    labels = None if names is None else tuple(names)
    parameters = bundle.manifest.parameters
    return {
        name: SteeredSubject(session, preprocess, tuple(row), labels, parameters, name, bundle.artefact_sha256)
        for name, row in edits.items()
    }


def add_preset(bundle: Bundle, name: str, edits: Sequence[Mapping[str, Any]]) -> Bundle:
    """Put a preset into presets.json, in place of one of the same name.

    Its measurements and rulings, if any, no longer count.

    Args:
        edits: objects with id, action, value and patches, as in a request.

    Raises:
        RequestError: an edit is not of that form or names an unknown sub-unit; the bundle is as it was.
    """
    limits = Limits()
    with _catalogue(bundle) as catalogue:
        requested = [read(EditRequest, edit, limits, f"{name}[{i}]") for i, edit in enumerate(edits)]
        resolve(requested, bundle.manifest.layers, catalogue, limits)
    presets = bundle.json(PRESETS) if bundle.has(PRESETS) else {}
    return bundle.add(
        {PRESETS: (json.dumps({**presets, name: [dict(edit) for edit in edits]}, indent=1) + "\n").encode()}
    )


def remove_preset(bundle: Bundle, name: str) -> Bundle:
    """Take a preset out of presets.json; UsageError if there is none of that name."""
    presets = bundle.json(PRESETS) if bundle.has(PRESETS) else {}
    if name not in presets:
        raise UsageError(f"{bundle.root} has no preset {name!r}.", f"It has: {', '.join(presets) or 'none'}.")
    left = {other: edits for other, edits in presets.items() if other != name}
    return bundle.add({PRESETS: (json.dumps(left, indent=1) + "\n").encode()})


def edits_of(bundle: Bundle) -> dict[str, tuple[Edit, ...]]:
    """The edits of each preset; BundleError if presets.json cannot be used."""
    with _catalogue(bundle) as catalogue:
        return {
            name: preset.edits
            for name, preset in read_presets(bundle, bundle.manifest.layers, catalogue, Limits()).items()
        }


@contextmanager
def _catalogue(bundle: Bundle) -> Iterator[Catalogue | None]:
    catalogue = Catalogue.of(bundle) if bundle.has("catalogue.sqlite") else None
    try:
        yield catalogue
    finally:
        if catalogue is not None:
            catalogue.close()


def evaluate_presets(
    bundle: Bundle,
    suite: Suite,
    *,
    dimensions: Sequence[str] | None = None,
    budget: int | None = None,
    seed: int | None = None,
    progress: StepProgress | None = None,
) -> Bundle:
    """Measure every preset like the bundle itself and write presets_quality.json into it.

    Corruptions, severities, budget and seed are those of the bundle's own measurements, if it has any: a preset is
    compared with the model without it.

    Args:
        dimensions: by default those that were measured of the bundle itself, without adversarial robustness.
        budget: only where the bundle was not measured, or the same.
        seed: likewise; 0 by default.

    Raises:
        UsageError: the bundle has no presets, or was measured with another budget or seed.
    """
    edits, hashes = edits_of(bundle), preset_hashes(bundle)
    if not edits:
        raise UsageError(f"{bundle.root} has no presets.", "Add one, or find one with 'elude tune'.")
    measured: Sequence[str] | None = None
    if bundle.has("quality.json"):
        report = QualityReport.from_json(bundle.json("quality.json"))
        measured, suite = list(report.dimensions), _narrowed(suite, report)
        budget = _same("budget", budget, report.settings["budget"])
        seed = _same("seed", seed, report.settings["seed"])
    wanted = [d for d in (dimensions or measured or ()) if d not in NOT_FOR_PRESETS] or None
    reports = {}
    for name, subject in steered_subjects(bundle, edits).items():
        content = evaluate(
            subject,
            suite,
            dimensions=wanted,
            budget=budget,
            seed=seed or 0,
            progress=progress,
            keep_answers=False,
        ).to_json()
        content["subject"] = {
            "kind": "preset",
            "model": name,
            "artefact_sha256": bundle.artefact_sha256,
            "edits_sha256": hashes[name],
        }
        reports[name] = content
    text = json.dumps({"schema_version": 1, "presets": reports}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return bundle.add({PRESETS_QUALITY: text.encode()})


def _narrowed(suite: Suite, report: QualityReport) -> Suite:
    """The suite with the corruptions that the bundle was measured with."""
    names = tuple(name for name in suite.corruptions if name in report.settings["corruptions"])
    severities = tuple(severity for severity in suite.severities if severity in report.settings["severities"])
    corrupted = tuple(item for item in suite.corrupted if item[0] in names and item[1] in severities)
    return replace(suite, corruptions=names, severities=severities or suite.severities, corrupted=corrupted)


def _same(option: str, given: int | None, of_bundle: int | None) -> int | None:
    if given is not None and given != of_bundle:
        used = f"--{option} {of_bundle}" if of_bundle is not None else f"no --{option}"
        raise UsageError(
            f"The bundle itself was measured with {used}, and a preset is compared with it.",
            f"Leave --{option} out, or evaluate the bundle again with --{option} {given}.",
        )
    return of_bundle
