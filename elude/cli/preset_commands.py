"""The commands for presets: keep them, measure them, and search for ones that repair a dimension."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from elude.cli.terminal import AsJson, BundlePath, OutputNames, counted, show
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import UsageError
from elude.handlers.requests.edit_text import parse_edit
from elude.progress import progress_bar
from elude.quality.policies.embedded_defaults import policy_for, suite_for

commands = typer.Typer()
presets = typer.Typer(
    help="Named steering edits of a bundle; only those that passed the gate are served.", no_args_is_help=True
)
commands.add_typer(presets, name="preset")

PresetName = Annotated[str, typer.Argument(help="The preset's name.", metavar="NAME")]
SuiteName = Annotated[
    str | None,
    typer.Option(help="As --suite of `elude evaluate`: the one that the bundle was measured with."),
]


@presets.command("add")
def preset_add(
    bundle: BundlePath,
    name: PresetName,
    edit: Annotated[
        list[str] | None,
        typer.Option(help="ID=ACTION[:VALUE][@PATCHES], e.g. 'blocks.5.mlp.fc2/u3.s1=scale:4'; several allowed."),
    ] = None,
    concept: Annotated[
        list[str] | None, typer.Option(help="NAME=ACTION[:VALUE][@PATCHES], for all of a concept; several allowed.")
    ] = None,
) -> None:
    """Put a preset into a bundle, or another in its place. It is served once it was evaluated and the gate let it pass.

    Examples: elude preset add build/bundle 'no straps' --concept 'strap=ablate'

    elude preset add build/bundle calmer --edit 'blocks.5.mlp.fc2/u3.s1=scale:0.5'
    """
    from elude.quality.steering.presets import add_preset, edits_of

    given = [parse_edit(text) for text in edit or []] + [parse_edit(text, "concept") for text in concept or []]
    if not given:
        raise UsageError(f"The preset {name!r} has no edits.", "Give --edit or --concept.")
    added = add_preset(Bundle.open(bundle), name, [{"value": None, "patches": 0} | one for one in given])
    count = counted(len(edits_of(added)[name]), "edit")
    typer.echo(f"{name}: {count}. Next: elude preset evaluate {bundle}; elude gate {bundle}")


@presets.command("list")
def preset_list(bundle: BundlePath, as_json: AsJson = False) -> None:
    """The presets of a bundle, and what the gate said of each."""
    from elude.handlers.admission.admission import admit
    from elude.handlers.admission.requirements import Requirements
    from elude.quality.gate.evidence import mapping
    from elude.quality.gate.preset_checks import PRESETS_QUALITY
    from elude.quality.steering.presets import edits_of

    opened = Bundle.open(bundle)
    found = admit(opened, Requirements())
    measured = mapping(opened.json(PRESETS_QUALITY)).get("presets") if opened.has(PRESETS_QUALITY) else {}
    rows: dict[str, Any] = {}
    for name, edits in edits_of(opened).items():
        state = "measured, not judged" if name in mapping(measured) else "not measured"
        if found.admitted:
            state = "passed" if name in found.presets else f"refused: {found.refused[name]}"
        rows[name] = f"{counted(len(edits), 'edit')}; {state}"
    show(f"Presets of {bundle}", rows or {"none": ""}, as_json)


@presets.command("remove")
def preset_remove(bundle: BundlePath, name: PresetName) -> None:
    """Take a preset out of a bundle."""
    from elude.quality.steering.presets import remove_preset

    remove_preset(Bundle.open(bundle), name)


@presets.command("evaluate")
def preset_evaluate(
    bundle: BundlePath,
    suite: SuiteName = None,
    dimensions: Annotated[
        str | None, typer.Option(help="Comma-separated; by default those that were measured of the bundle.")
    ] = None,
    outputs: OutputNames = None,
    quick: Annotated[
        bool, typer.Option(help="Five of the fifteen corruptions, where the bundle itself was not evaluated yet.")
    ] = False,
    budget: Annotated[
        int | None, typer.Option(help="Images for the dimensions that need many passes; by default as for the bundle.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed; by default the bundle's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure every preset like the model itself, on the same images, and write presets_quality.json.

    Then judge: elude gate.

    Example: elude preset evaluate build/bundle --quick && elude gate build/bundle
    """
    from elude.quality.gate.preset_checks import PRESETS_QUALITY
    from elude.quality.steering.presets import evaluate_presets

    data = suite_for(str(bundle), suite, outputs=outputs)
    with progress_bar() as progress:
        written = evaluate_presets(
            Bundle.open(bundle),
            data.quick() if quick else data,
            dimensions=dimensions.split(",") if dimensions else None,
            budget=budget,
            seed=seed,
            progress=progress,
        )
    reports = written.json(PRESETS_QUALITY)["presets"]
    values = {
        name: {d: result["value"] for d, result in report["dimensions"].items()} for name, report in reports.items()
    }
    rows = {name: ", ".join(f"{d} {value:.4f}" for d, value in found.items()) for name, found in values.items()}
    show(f"Presets of {bundle} on {data.name}", values if as_json else rows, as_json)


@commands.command()
def tune(
    bundle: BundlePath,
    dimension: Annotated[
        str, typer.Argument(help="To raise, e.g. class_balance, object_focus, ood_robustness, calibration_error.")
    ],
    tuning: Annotated[
        str, typer.Option(help="Images to search on: as --suite of `elude evaluate`; 'probe' for the embedded model's.")
    ],
    held_out: Annotated[
        str | None,
        typer.Option(help="Other images, that the reported gain is measured on; the embedded model brings its own."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Its allowed drops hold for the others; default the embedded model's.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Add what was found to the bundle under this name.")] = None,
    pool: Annotated[int, typer.Option(min=1, help="Sub-units that are tried.")] = 32,
    images: Annotated[int, typer.Option(min=10, help="Most images of each of the two tuning sets.")] = 600,
    dark_background: Annotated[
        bool, typer.Option(help="In the tuning images objects lie on black: masks are made from that.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Search gains of a few sub-units that raise one dimension, and say what holds on other images, beside random
    edits.

    Example: elude tune build/bundle class_balance --tuning probe --preset fairer
    """
    from elude.quality.steering.presets import add_preset
    from elude.quality.steering.tune import TuneSettings
    from elude.quality.steering.tune import tune as run
    from elude.quality.suites.open_suite import EMBEDDED, open_suite

    opened = Bundle.open(bundle)
    rules, final = policy_for(opened, policy), suite_for(str(bundle), held_out)
    if tuning == "probe":
        search = open_suite(EMBEDDED.with_name("probe.tar"), dark_background=True)
    else:
        search = open_suite(tuning, dark_background=dark_background)
    settings = TuneSettings(pool=pool, images=images, seed=seed)
    with progress_bar() as progress:
        found = run(opened, dimension, search, final, rules, settings, progress)
    if preset and found.edits:
        add_preset(opened, preset, found.edits)
    rows: dict[str, Any] = {
        "edits": "\n".join(f"{edit['id']} × {edit['value']:g}" for edit in found.edits) or "none: doing nothing won"
    }
    for name, change in found.held_out.items():
        low, high = change.interval
        rows[f"{name}, held out"] = f"{change.gain:+.4f}, 95 % in [{low:+.4f}, {high:+.4f}]"
    if found.controls:
        rows["random edits of the same size"] = f"{sum(found.controls) / len(found.controls):+.4f} on average"
        rows["of these at least as good"] = f"{found.beaten_by:.0%}"
    show(
        f"Tuning {dimension}: a gain is better, whatever the direction of the dimension",
        found.to_json() if as_json else rows,
        as_json,
    )
