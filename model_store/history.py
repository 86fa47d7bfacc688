"""What follows from a record: which version comes next, and which is, or was, in a stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from model_store.records import Entry


def next_version(entry: Entry, entries: Sequence[Entry]) -> Entry:
    """The admission of the same bytes if there was one, else ``entry`` with the next number of its series."""
    admitted = [other for other in entries if other.action == "admit" and other.series == entry.series]
    for other in admitted:
        if other.folder == entry.folder:
            return other
    return replace(entry, version=f"{entry.series}/{len(admitted) + 1}")


def in_stage(name: str, stage: str, entries: Sequence[Entry]) -> str | None:
    """The version that is in a stage now."""
    moves = [entry.version for entry in entries if entry.stage == stage and entry.series == name]
    return moves[-1] if moves else None


def version_before(name: str, stage: str, entries: Sequence[Entry]) -> str | None:
    """The version that a rollback puts back. It undoes one promotion: after it, the next one goes one further back."""
    history: list[str] = []
    for entry in entries:
        if entry.stage != stage or entry.series != name:
            continue
        if entry.action == "rollback":
            history.pop()
        else:
            history.append(entry.version)
    return history[-2] if len(history) > 1 else None
