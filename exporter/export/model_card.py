"""The bundle's README.md: what was exported, from what, how, and what was measured.

No time stamps: same input, same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from elude.exporter.export.job import Job
from elude.exporter.scoring.measures import Measures
from elude.handlers.bundle.bundle import LayerInfo

_FAMILIES = {"units": "units", "random": "control", "sub_units": "sub-units"}


def model_card(job: Job, layers: Sequence[LayerInfo], measures: Measures, settings: Mapping[str, Any]) -> str:
    """Markdown text of the model card.

    Args:
        job: the original model.
        layers: what was split.
        measures: MS-Scores.
        settings: how it was made, as in ``measures.json``.
    """
    source = job.model.source
    size = "×".join(str(side) for side in job.model.preprocess.input_size)
    outputs = job.model.kind if job.model.labels is None else f"{job.model.kind}, {len(job.model.labels)} of them named"
    seen = "held-out images" if measures.held_out else "the probing images themselves (no held-out images were given)"
    return "\n".join(
        [
            f"# {source.model}, disentangled",
            "",
            (
                "The original image model, unchanged in what it predicts, with the units of some layers split "
                "into sub-units that can be"
            ),
            (
                "looked at and steered (ELUDe, arXiv 2605.31304). `model.onnx` is a drop-in replacement for the "
                "original: fed only"
            ),
            "`pixel_values`, it returns the original's output. `equivalence.json` says how exactly.",
            "",
            f"- Original: `{source.model}`, architecture `{source.architecture}`, revision `{source.revision or '-'}`",
            f"- sha256 of its weights: `{source.weights_sha256}`",
            f"- Parameters: {job.model.parameters:,}; input: {size}; output: {outputs}",
            "",
            "## Layers",
            "",
            "| layer | kind | units | split | sub-units | expansion |",
            "|---|---|---|---|---|---|",
            *(_layer_row(layer) for layer in layers),
            "",
            "## How alike the strongest images are",
            "",
            (
                f"Mean over the units that were split (and their sub-units), on {measures.images:,} images: "
                f"{seen}. MS-Score of the top"
            ),
            (
                f"{measures.top} images as it is and mean-centred, and the part of the top images that are of "
                "one class. The control has"
            ),
            "as many sub-units of each unit, made by the same rule from shuffled clusters.",
            "",
            "| layer | | MS-Score | centred | class purity | left out |",
            "|---|---|---|---|---|---|",
            *(row for name, families in measures.to_json()["layers"].items() for row in _measure_rows(name, families)),
            "",
            "## How it was made",
            "",
            "| setting | value |",
            "|---|---|",
            *(f"| {name} | {'default' if value is None else value} |" for name, value in settings.items()),
            "",
            "## Limits",
            "",
            (
                "Sub-units describe what the layer responds to on the probing images; on other images they may "
                "respond to other things."
            ),
            (
                "Steering changes predictions: measure a steered model before relying on it. The licences of "
                "the original model and of the"
            ),
            "images whose thumbnails are in `catalogue.sqlite` still apply.",
            "",
        ]
    )


def _layer_row(layer: LayerInfo) -> str:
    split = sum(parts > 1 for parts in layer.parts)
    factor = layer.sub_units / layer.units
    return f"| `{layer.name}` | {layer.kind} | {layer.units} | {split} | {layer.sub_units} | {factor:.2f} |"


def _measure_rows(layer: str, families: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = []
    for family, title in _FAMILIES.items():
        scores = families[family]
        values = (scores[f"{measure}_mean_of_split_units"] for measure in ("ms", "centred", "purity"))
        numbers = " | ".join("-" if value is None else f"{value:.3f}" for value in values)
        rows.append(f"| `{layer}` | {title} | {numbers} | {scores['left_out']} of {scores['features']} |")
    return rows
