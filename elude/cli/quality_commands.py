"""The commands that measure, judge and report."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elude.cli.terminal import AsJson, BundlePath, OutputNames, show
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError, GateError, UsageError
from elude.handlers.files import replace_file
from elude.progress import progress_bar
from elude.quality.policies.embedded_defaults import policy_for, suite_for

if TYPE_CHECKING:
    from elude.quality.dimensions.quality_json import QualityReport
    from elude.quality.evaluation.jobs import Work

commands = typer.Typer()
SERVED = "elude"


@commands.command()
def evaluate(
    subject: Annotated[str, typer.Argument(help="A bundle, an .onnx file, http(s)://HOST:PORT, or a model's name.")],
    suite: Annotated[
        str | None,
        typer.Option(
            help="A suite.toml, or a folder or .tar with one sub-folder per class; the embedded model brings its own."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the report; by default into the bundle, else quality.json here.")
    ] = None,
    dimensions: Annotated[
        str | None, typer.Option(help="Comma-separated; by default all that subject and suite allow.")
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="Five of the fifteen corruptions; no attacks and no made images.")
    ] = False,
    budget: Annotated[int | None, typer.Option(help="Images for the dimensions that need many passes.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed; 0 by default.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Take budget and seed from this policy, as the gate will ask for them.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that corrupt images, or the cluster's with --engine ray; by default none, and several if "
            "the model runs on another device."
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster (RAY_ADDRESS names one).")] = "local",
    cache: Annotated[
        Path | None, typer.Option(help="Folder of finished batches: a stopped evaluation resumes from there.")
    ] = None,
    pool: Annotated[
        list[Path] | None, typer.Option(help="An earlier result to score against; give two or more.")
    ] = None,
    outputs: OutputNames = None,
    described_by: Annotated[
        Path | None, typer.Option(help="Folder with an .onnx file's preprocess.json and labels.json.")
    ] = None,
    token: Annotated[str | None, typer.Option(envvar="ELUDE_TOKEN", help="A server's inference key.")] = None,
    model: Annotated[
        str,
        typer.Option(
            help="A served model's name; of a bundle its original, where it cannot be loaded by name: "
            "'package.module:factory', or the ONNX file that it was made from."
        ),
    ] = SERVED,
    threads: Annotated[int, typer.Option(help="Threads of ONNX Runtime.")] = 1,
    published: Annotated[
        bool, typer.Option("--published", help="As the published code measures: for the score among its 326 models.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where models run: auto, cpu, cuda, cuda:N or mps.")] = "cpu",
    precision: Annotated[
        str, typer.Option(help="float32; or bfloat16 or float16, mixed, of torch models: values change.")
    ] = "float32",
    answers: Annotated[
        bool, typer.Option(help="Keep the answer to each image, with thumbnails of mistakes, beside the report.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan: passes and time.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure up to nine dimensions of a model. Of a bundle all three forms: original, disentangled and served.

    Example: elude evaluate build/bundle --quick
    Example: elude evaluate timm/resnet18.a1_in1k --suite pets/suite.toml --budget 500 --cache
        .elude --out resnet18.json
    """
    from elude.quality.dimensions import DIMENSIONS, QUICK
    from elude.quality.evaluation.evaluate import evaluate as run
    from elude.quality.scores.scoring import own_pool
    from elude.quality.subjects.devices import PRECISIONS, corrupting_workers, resolve
    from elude.quality.subjects.open_subject import open_subject

    if precision not in PRECISIONS:
        raise UsageError(f"{precision!r} is not a precision.", f"Use one of {', '.join(PRECISIONS)}.")
    budget, seed = chosen_images(policy, budget, seed)
    data = suite_for(subject, suite, described_by, outputs=outputs)
    others = own_pool(pool) if pool else None
    written = None if out is None and (Path(subject) / "manifest.json").is_file() else out or Path("quality.json")
    if written is not None:
        check_place(written)
        if out is None and written.exists():
            raise UsageError(f"{written} exists already.", "Name another file with --out, or the same to replace it.")
    where = resolve(device)
    opened = open_subject(
        subject,
        described_by=described_by,
        token=token,
        model=model,
        threads=threads,
        device=where,
        precision=precision,
    )
    with progress_bar() as progress:
        report = run(
            opened,
            data.quick() if quick else data,
            dimensions=dimensions.split(",") if dimensions else None,
            among=QUICK if quick else DIMENSIONS,
            budget=budget,
            seed=seed,
            progress=progress,
            pool=others,
            workers=corrupting_workers(where) if workers is None else workers,
            engine=engine,
            cache=cache,
            threads=threads,
            published=published,
            device=where,
            precision=precision,
            keep_answers=answers,
            model=None if model == SERVED else model,
            before=partial(_print_plan, stop=dry_run, as_json=as_json),
        )
    if written is None and isinstance(opened, Bundle):
        opened.add(report.files())
    elif written is not None:
        for name, content in report.files(written.name).items():
            write_file(written.with_name(name), content)
    of = "the served model" if isinstance(opened, Bundle) else report.subject["model"]
    show(
        f"Quality of {of} on {report.suite['name']}, {report.suite['images']} images",
        report.to_json() if as_json else summary(report),
        as_json,
    )


def _print_plan(work: Work, *, stop: bool, as_json: bool) -> None:
    """What will be done and how long it takes: before it starts on standard error, or instead of it."""
    from elude.quality.evaluation.forecast import forecast

    planned = forecast(work)
    if stop:
        show("Plan", asdict(planned) if as_json else planned.rows(), as_json)
        raise typer.Exit
    typer.echo("; ".join(f"{what}: {value}" for what, value in planned.rows().items()), err=True)


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
    """Judge a bundle by a policy and write verdict.json into it.

    Exit code 0: passed, 1: failed, 3: could not be judged.

    Example: elude gate build/bundle --policy policy.toml
    """
    from elude.quality.gate import verdict_formats
    from elude.quality.gate.judge import judge
    from elude.quality.gate.waivers import load_waivers

    for place in filter(None, (junit, markdown)):
        check_place(place)
    try:
        opened = Bundle.open(bundle) if bundle.exists() else None
    except BundleError as error:  # fails closed: what is not what its manifest says has not passed
        raise GateError(error.message, error.remedy) from error
    rules = policy_for(opened, policy)
    before = Bundle.open(baseline) if baseline else None
    verdict = judge(opened, rules, baseline=before, waivers=load_waivers(waivers) if waivers else ())
    if opened is not None:
        opened.add({"verdict.json": verdict_formats.verdict_json(verdict)})
    if junit:
        write_file(junit, verdict_formats.junit_xml(verdict))
    if markdown:
        write_file(markdown, verdict_formats.markdown(verdict).encode())
    if as_json:
        typer.echo(json.dumps(verdict.to_json(), indent=1))
    else:
        notable = {
            check.name: f"{check.outcome.upper()}: {check.reason}"
            for check in verdict.checks
            if check.outcome != "pass"
        }
        counts = verdict.to_json()["counts"]
        rows = notable | {"all checks": ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)}
        state = "PASSED" if verdict.passed else "FAILED" if verdict.state == "judged" else verdict.state
        show(f"Gate: {state}, policy {verdict.policy_name}", rows)
    raise typer.Exit(verdict.exit_code)


@commands.command()
def report(
    bundle: BundlePath,
    baseline: Annotated[
        Path | None, typer.Option(help="An earlier result to show beside it: a bundle or quality.json.")
    ] = None,
    pool: Annotated[list[Path] | None, typer.Option(help="Other results to show beside it; give two or more.")] = None,
) -> None:
    """Write report.html into the bundle: equivalence, quality, verdict, and the most split units with their sub-units.

    Example: elude report build/bundle --baseline releases/1 --pool releases/1 --pool releases/2
    """
    from elude.quality.evaluation.image_answers import read_answers
    from elude.quality.report import write_report
    from elude.quality.scores.compare import read_report
    from elude.quality.scores.scoring import own_pool

    others, before = own_pool(pool) if pool else None, read_report(baseline) if baseline else None
    answers = read_answers(baseline, before.answers_sha256) if baseline and before else None
    written = write_report(Bundle.open(bundle), pool=others, baseline=before, baseline_answers=answers)
    typer.echo(written.path("report.html"))


@commands.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A bundle that was evaluated, or a quality.json.")],
    second: Annotated[Path, typer.Argument(help="Another, measured on the same suite.")],
    html: Annotated[Path | None, typer.Option(help="Write a page with a plot here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two evaluations, dimension by dimension.

    Example: elude compare last_release/ build/bundle --html change.html
    """
    from elude.quality.scores import compare as comparing

    reports = [comparing.read_report(path / "quality.json" if path.is_dir() else path) for path in (first, second)]
    found = comparing.compare(reports[0], reports[1], (str(first), str(second)))
    if html:
        from elude.quality.evaluation.image_answers import read_answers
        from elude.quality.report.behaviour import comparison_page

        answers = [
            read_answers(*pair) for pair in zip((first, second), (r.answers_sha256 for r in reports), strict=True)
        ]
        write_file(html, comparison_page(found, *reports, answers=(answers[0], answers[1])).encode())
    show(f"{first} → {second}", comparing.rows(found), as_json)


@commands.command()
def score(
    values: Annotated[Path, typer.Argument(help="A quality.json, or a bundle that was evaluated.")],
    weights: Annotated[
        str | None, typer.Option(help="A named profile of weights: quba, safety, edge or fairness.")
    ] = None,
    pool: Annotated[
        list[Path] | None, typer.Option(help="An earlier result (quality.json or bundle); give two or more.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The QUBA score: relative to your own earlier results, or, measured under the ImageNet-1k protocol, to the 326
    published models.

    What was not measured is never imputed.

    Example: elude score build/bundle --pool releases/1 --pool releases/2 --weights safety
    """
    from elude.quality.scores.scoring import score_of

    found = score_of(values, weights=weights, pool=pool or ())
    parts = found.to_json()["per_dimension"]
    rows = {name: f"z {part['z']:+.3f}, contributes {part['contribution']:+.3f}" for name, part in parts.items()}
    rows["rank"] = f"{found.standing.rank} of {found.standing.of} in {found.score.reference} and this one"
    rows["nearest"] = ", ".join(f"{name} {total:.4f}" for name, total in found.standing.nearest)
    if found.score.missing:
        rows["not scored"] = ", ".join(found.score.missing)
    kind = "partial QUBA" if found.score.partial else "QUBA"
    show(f"{kind} {found.score.total:.4f}", found.to_json() if as_json else rows, as_json)


policies = typer.Typer(help="Write and explain policy files.", no_args_is_help=True)
commands.add_typer(policies, name="policy")


@policies.command("init")
def policy_init(baseline: BundlePath, out: Annotated[Path, typer.Option(help="The TOML file to write.")]) -> None:
    """Write a commented policy from a baseline: no worse than this, within noise."""
    from elude.quality.gate.policy_init import policy_init as run

    if out.exists():
        raise UsageError(f"{out} already exists.", "Choose another file.")
    out.write_text(run(Bundle.open(baseline)), encoding="utf-8")
    typer.echo(out)


@policies.command("explain")
def policy_explain(policy: Annotated[Path, typer.Argument(help="A policy file.")]) -> None:
    """Say in words what a policy checks."""
    from elude.quality.policies.explain import explain
    from elude.quality.policies.policy import load_policy

    typer.echo(explain(load_policy(policy)))


def chosen_images(policy: Path | None, budget: int | None, seed: int | None) -> tuple[int | None, int]:
    """Budget and seed: the policy's where there is one.

    Raises:
        UsageError: others were given, too.
    """
    if policy is None:
        return budget, seed or 0
    from elude.quality.policies.policy import load_policy

    rules = load_policy(policy)
    for option, given, asked in (("budget", budget, rules.budget), ("seed", seed, rules.seed)):
        if given is not None and given != asked:
            raise UsageError(
                f"--{option} {given} is not the policy's ({'all images' if asked is None else asked}).",
                f"Leave --{option} out, or change the policy.",
            )
    return rules.budget, rules.seed


def check_place(path: Path) -> None:
    """Before a long computation: could a file be written there?

    Raises:
        UsageError: not.
    """
    folder = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        reason = "it is a folder" if path.is_dir() else f"{folder} is not a folder that can be written to"
        raise UsageError(f"{path} cannot be written: {reason}.", "Choose another place.")


def write_file(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.", "Choose another place.") from error


def summary(report: QualityReport) -> dict[str, str]:
    """Dimension to one line of text; what was not measured with the reason."""
    from elude.quality.dimensions.measured_on import images_in

    rows = {}
    for name, result in report.dimensions.items():
        interval = f"   95 % in [{result.interval[0]:.4f}, {result.interval[1]:.4f}]" if result.interval else ""
        images = images_in(result.measured_on)
        rows[name] = f"{result.value:.4f}{interval}{f'   {images} images' if images else ''}"
    rows |= {name: f"not measured: {reason}" for name, reason in report.settings["not_measured"].items()}
    if report.lossless:
        forms = report.lossless
        gaps = [abs(forms["original"][d] - values[d]) for values in forms.values() for d in values]
        rows["largest change by the rewrite"] = f"{max(gaps, default=0.0):.3g}"
    if report.score:
        rows["score"] = (
            f"{report.score['total']:.4f} relative to {report.score['reference']}, rank {report.score['rank']} "
            f"of {report.score['of']}"
        )
    return rows
