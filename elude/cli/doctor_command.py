"""The command ``doctor``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from elude.cli.terminal import AsJson, show

commands = typer.Typer()


@commands.command()
def doctor(as_json: AsJson = False) -> None:
    """Look whether this machine is ready: versions, providers, Java, package names, ports.

    Exit code 1 if something is in the way.

    Example: elude doctor
    """
    from elude.model_store.doctor import examine

    findings = examine()
    marks = {"ok": "ok", "note": "note", "problem": "PROBLEM"}
    rows = {
        each.what: f"{marks[each.state]}: {each.said}" + (f"\n→ {each.remedy}" if each.remedy else "")
        for each in findings
    }
    show("elude doctor", {each.what: asdict(each) for each in findings} if as_json else rows, as_json)
    if any(each.state == "problem" for each in findings):
        raise typer.Exit(1)
