"""The commands that measure, judge and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from exporter.terminal import AsJson, BundlePath, progress_bar, show
from handlers.bundle import Bundle

commands = typer.Typer()
QUICK = ("accuracy", "calibration_error", "class_balance", "corruption_robustness", "params_m")


@commands.command()
def evaluate(
    bundle: BundlePath,
    suite: Annotated[str, typer.Option(help="'embedded', or a folder or .tar with one sub-folder a class.")] = "embedded",
    dimensions: Annotated[str | None, typer.Option(help="Comma-separated; by default all that the suite allows.")] = None,
    quick: Annotated[bool, typer.Option(help="Five of the fifteen corruptions; no attacks and no made images.")] = False,
    budget: Annotated[int | None, typer.Option(help="Images for the dimensions that need many passes.")] = None,
    seed: Annotated[int, typer.Option(help="Of corruptions, attacks and intervals.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure the original, the disentangled and the served model and write quality.json into the bundle.

    Example: elude evaluate build/bundle --quick
    """
    from quality.evaluate import evaluate as run
    from quality.suite import open_suite

    opened, data = Bundle.open(bundle), open_suite(suite)
    wanted = dimensions.split(",") if dimensions else QUICK if quick else None
    with progress_bar() as progress:
        report = run(opened, data.quick() if quick else data, dimensions=wanted, budget=budget, seed=seed, progress=progress)
    opened.add({"quality.json": report.to_bytes()})
    rows = {}
    for name, result in report.dimensions.items():
        interval = f"   95 % in [{result.interval[0]:.4f}, {result.interval[1]:.4f}]" if result.interval else ""
        rows[name] = f"{result.value:.4f}{interval}"
    forms = report.lossless or {}
    gaps = [abs(forms["original"][d] - forms[form][d]) for form in forms for d in forms[form] if "original" in forms]
    rows["largest change by the rewrite"] = f"{max(gaps, default=0.0):.3g}"
    show(f"Quality of the served model on {report.suite['name']}, {report.suite['images']} images", rows, as_json)


@commands.command()
def gate(
    bundle: BundlePath,
    policy: Annotated[Path | None, typer.Option(help="Policy file (TOML); by default the embedded model's.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="Bundle of an earlier release to compare with.")] = None,
    waivers: Annotated[Path | None, typer.Option(help="Waivers (TOML).")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a Markdown summary here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a bundle by a policy and write verdict.json into it. Exit code 0: passed, 1: failed, 3: could not be judged.

    Example: elude gate build/bundle --policy policy.toml
    """
    from quality import verdict_formats
    from quality.gate import judge
    from quality.policy import DEFAULT_POLICY, load_policy
    from quality.waivers import load_waivers

    rules = load_policy(policy or DEFAULT_POLICY)
    opened = Bundle.open(bundle) if bundle.exists() else None
    before = Bundle.open(baseline) if baseline else None
    verdict = judge(opened, rules, baseline=before, waivers=load_waivers(waivers) if waivers else ())
    if opened is not None:
        opened.add({"verdict.json": verdict_formats.verdict_json(verdict)})
    if junit:
        junit.write_bytes(verdict_formats.junit_xml(verdict))
    if markdown:
        markdown.write_text(verdict_formats.markdown(verdict), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(verdict.to_json(), indent=1))
    else:
        notable = {check.name: f"{check.outcome.upper()}: {check.reason}" for check in verdict.checks if check.outcome != "pass"}
        counts = verdict.to_json()["counts"]
        rows = notable | {"all checks": ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)}
        state = "PASSED" if verdict.passed else "FAILED" if verdict.state == "judged" else verdict.state
        show(f"Gate: {state}, policy {verdict.policy_name}", rows)
    raise typer.Exit(verdict.exit_code)


@commands.command()
def report(bundle: BundlePath) -> None:
    """Write report.html into the bundle: equivalence, quality, verdict, and the most split units with their sub-units."""
    from quality.report import write_report

    typer.echo(write_report(Bundle.open(bundle)).path("report.html"))
