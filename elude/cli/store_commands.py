"""The commands of ``elude store``."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from elude.cli.options import SignKey, StoreUrl, VersionName, Who, Why, open_store, signer
from elude.cli.terminal import AsJson, show
from elude.handlers.files import replace_file

HASHES = ("artefact_sha256", "manifest_sha256", "verdict_sha256", "policy_sha256", "archive_sha256")
stores = typer.Typer(help="Move versions between stages, list, check and clean up a store.", no_args_is_help=True)


@stores.command("list")
def store_list(store: StoreUrl) -> None:
    """All versions, with the stages they are in."""
    show(store, {version.id: ", ".join(version.stages) or "–" for version in open_store(store).list()})


@stores.command("show")
def store_show(version: VersionName, store: StoreUrl, as_json: AsJson = False) -> None:
    """One version: hashes, places, and every change of it with who, when and why. Nothing is cut short.

    Example: elude store show embedded/production --store models
    """
    opened = open_store(store)
    shown = opened.show(version)
    entry = shown.admitted
    rows: dict[str, Any] = {
        "stages": ", ".join(shown.stages) or "–",
        "bundle": shown.bundle,
        "archive": shown.archive or "–",
    }
    rows |= {name: getattr(entry, name) or "–" for name in HASHES}
    changes = [change for change in opened.record() if change.version == entry.version]
    rows |= {
        f"{change.when} {change.action} {change.stage or ''}".strip(): f"{change.who}: {change.why}"
        for change in changes
    }
    show(shown.id, rows, as_json)


@stores.command("promote")
def store_promote(
    version: VersionName,
    store: StoreUrl,
    stage: str = "production",
    who: Who = "",
    why: Why = "release",
    sign_key: SignKey = None,
) -> None:
    """Put a version in a stage. Nothing changes if it is there already."""
    moved = open_store(store).promote(version, stage, who=who or "unknown", why=why, signer=signer(sign_key))
    show(f"{store}: in stage {stage} now", {moved.id: ", ".join(moved.stages)})


@stores.command("rollback")
def store_rollback(
    name: Annotated[
        str,
        typer.Argument(help="NAME, for one step back; or NAME/NUMBER, the version to take out.", metavar="NAME"),
    ],
    store: StoreUrl,
    stage: str = "production",
    who: Who = "",
    why: Why = "rollback",
    sign_key: SignKey = None,
) -> None:
    """Put back the version that was in the stage before. With NAME/NUMBER a second call changes nothing.

    Example: elude store rollback embedded/3 --store models
    """
    current = open_store(store).rollback(name, stage, who=who or "unknown", why=why, signer=signer(sign_key))
    show(f"{store}: in stage {stage} now", {current.id: ", ".join(current.stages)})


@stores.command("verify")
def store_verify(store: StoreUrl) -> None:
    """Check the record and every byte of every version."""
    show(
        f"{store}: every byte is as admitted",
        {version.id: ", ".join(version.stages) or "–" for version in open_store(store).verify()},
    )


@stores.command("gc")
def store_gc(
    store: StoreUrl,
    keep: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Also remove versions: all but this many of the latest, those in a stage and what a rollback needs.",
        ),
    ] = None,
    days: Annotated[float, typer.Option(min=0, max=36_500, help="Age of unfinished admissions that are removed.")] = 1,
    who: Who = "",
    why: Why = "clean up",
    sign_key: SignKey = None,
) -> None:
    """Remove what interrupted changes left, and with --keep old versions, each by an entry in the record.

    Example: elude store gc --store models --keep 5
    """
    gone = open_store(store).gc(timedelta(days=days), keep=keep, who=who or "unknown", why=why, signer=signer(sign_key))
    show(f"Removed from {store}", {name: "" for name in gone} or {"nothing": ""})


@stores.command("requirements")
def store_requirements(
    store: StoreUrl,
    out: Annotated[Path, typer.Option(help="The JSON file to write.")],
    stage: Annotated[str, typer.Option(help="Versions in this stage may be loaded, no others.")] = "production",
) -> None:
    """Write what a server must require, for ELUDE_ADMISSION: exactly the archives of a stage, with their verdicts.

    Example: elude store requirements --store models --out admission.json
    """
    required = open_store(store).serving_requirements(stage)
    replace_file(out, (json.dumps(required.to_json(), indent=1) + "\n").encode())
    typer.echo(out)


@stores.command("fetch")
def store_fetch(
    version: VersionName, store: StoreUrl, out: Annotated[Path, typer.Option(help="A new folder.")]
) -> None:
    """A verified copy of a version, from where it can be served."""
    typer.echo(open_store(store).fetch(version, out).id)
