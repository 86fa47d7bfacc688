"""The report's first sentence: what was done, whether it passed, and why."""

from __future__ import annotations

from elude.handlers.bundle.manifest import Manifest
from elude.quality.gate.verdict import Verdict


def summary(manifest: Manifest, verdict: Verdict | None, problem: str) -> str:
    """One sentence; ``problem`` says why there is no verdict, a sentence of its own."""
    split = sum(part > 1 for layer in manifest.layers for part in layer.parts)
    units = sum(layer.units for layer in manifest.layers)
    sub_units = sum(layer.sub_units for layer in manifest.layers)
    done = f"{split} of {units} units of {manifest.source.model} were split, which gives {sub_units} sub-units"
    if verdict is None:
        return f"{done}; there is no verdict: {problem[:1].lower()}{problem[1:]}"
    if verdict.passed:
        return f"{done}; it passed the gate, because none of the {len(verdict.checks)} checks failed."
    if verdict.state != "judged":
        return f"{done}; it could not be judged: {verdict.state.replace('_', ' ')}."
    why = f"{len(verdict.failures)} of {len(verdict.checks)} checks failed"
    first = f", the first because {verdict.failures[0].reason}" if verdict.failures else ""
    return f"{done}; the gate stopped it: {why}{first}"
