"""Assembling and writing ``report.html``: one file, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elude.exporter.atlas.held_out import HELD_OUT, HeldOut
from elude.exporter.atlas.token_places import Layout
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.errors import BundleError
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.evaluation.image_answers import ImageAnswers
from elude.quality.gate.evidence import gather, mapping
from elude.quality.gate.verdict import Verdict
from elude.quality.report.atlas import mean_ms_scores, unit_cards
from elude.quality.report.behaviour import environment, mistakes_section, quality_section, style
from elude.quality.report.concepts import Gallery, gallery
from elude.quality.report.mistakes import answers_of
from elude.quality.report.numbers import claim_lines, measure_charts
from elude.quality.report.summary import summary
from elude.quality.scores.pool import Pool, published_pool
from elude.quality.suites.suite import IMAGENET_1K


def write_report(
    bundle: Bundle,
    *,
    tokens: Mapping[str, int] | None = None,
    pool: Pool | None = None,
    baseline: QualityReport | None = None,
    baseline_answers: ImageAnswers | None = None,
) -> Bundle:
    """Render ``report.html`` from what the bundle holds and add it; what is missing is said on the page.

    Args:
        bundle: any bundle, measured and judged or not.
        tokens: tokens of each layer, to mark on the thumbnails where a unit looked; default:
            ``tokens`` of measures.json.
        pool: other models to show beside this one; the published ones under their own protocol.
        baseline: the measurements of an earlier model.
        baseline_answers: its answers to single images, if they were kept.

    Returns:
        the bundle with the page in it.
    """
    page = render(bundle, tokens=tokens, pool=pool, baseline=baseline, baseline_answers=baseline_answers)
    return bundle.add({"report.html": page.encode()})


def render(
    bundle: Bundle,
    *,
    tokens: Mapping[str, int] | None = None,
    pool: Pool | None = None,
    baseline: QualityReport | None = None,
    baseline_answers: ImageAnswers | None = None,
) -> str:
    """The page as text; see ``write_report``."""
    evidence = gather(bundle)
    measures = mapping(_json(bundle, "measures.json"))
    verdict, verdict_problem = _verdict(bundle)
    cards, fallback, concepts = _atlas(bundle, measures, tokens)
    quality = evidence.quality or {}
    if pool is None and evidence.suite.get("protocol") == IMAGENET_1K:
        pool = published_pool()
    behaviour = quality_section(quality, pool=pool, baseline=baseline)
    reports = (baseline, QualityReport.from_json(quality)) if baseline is not None and quality else None
    behaviour |= mistakes_section(*answers_of(bundle, quality), before=baseline_answers, reports=reports)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            **behaviour,
            style=style(),
            manifest=bundle.manifest,
            artefact=bundle.artefact_sha256,
            verdict=verdict,
            verdict_problem=verdict_problem,
            claims=claim_lines(evidence.equivalence or {}),
            accuracy=next((line for line in behaviour["lines"] if line.title == "Accuracy"), None),
            charts=measure_charts(measures, fallback, bundle.manifest.layers),
            held_out=measures.get("held_out"),
            cards=cards,
            concepts=concepts,
            summary=summary(bundle.manifest, verdict, verdict_problem),
            split_units=sum(part > 1 for layer in bundle.manifest.layers for part in layer.parts),
            all_units=sum(layer.units for layer in bundle.manifest.layers),
            sub_units=sum(layer.sub_units for layer in bundle.manifest.layers),
        )
    )


def _verdict(bundle: Bundle) -> tuple[Verdict | None, str]:
    """The verdict, if it is a valid one on exactly these bytes and measurements; else why not."""
    if not bundle.has("verdict.json"):
        return None, "This bundle has not been judged yet."
    try:
        verdict = Verdict.from_json(bundle.json("verdict.json"))
    except (BundleError, ValueError) as error:
        return None, f"verdict.json cannot be used: {error}."
    if verdict.artefact_sha256 != bundle.artefact_sha256:
        return None, "verdict.json is about other bytes than this bundle: judge it again."
    if verdict.quality_sha256 != gather(bundle).quality_sha256:
        return None, "verdict.json is about other measurements than this bundle's: judge it again."
    return verdict, ""


def _atlas(
    bundle: Bundle, measures: Mapping[str, Any], tokens: Mapping[str, int] | None
) -> tuple[Any, dict[str, float], Gallery | None]:
    if not bundle.has("catalogue.sqlite"):
        return (), {}, None
    known = (
        tokens
        if tokens is not None
        else {k: v for k, v in mapping(measures.get("tokens")).items() if type(v) is int and v > 0}
    )
    size = mapping(_json(bundle, "preprocess.json")).get("input_size")
    layout = Layout(size[1], size[2], known) if known and isinstance(size, list) and len(size) == 3 else None
    catalogue = Catalogue.of(bundle)
    try:
        concepts = gallery(catalogue, layout, _held_out(bundle, catalogue))
        return unit_cards(catalogue, layout), mean_ms_scores(catalogue), concepts
    finally:
        catalogue.close()


def _held_out(bundle: Bundle, catalogue: Catalogue) -> HeldOut | None:
    return HeldOut.from_json(bundle.json(HELD_OUT), len(catalogue.concepts())) if bundle.has(HELD_OUT) else None


def _json(bundle: Bundle, name: str) -> Any:
    return bundle.json(name) if bundle.has(name) else None
