"""What follows from a record: which version comes next, and which is, or was, in a stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from elude.model_store.records import Entry


def next_version(entry: Entry, entries: Sequence[Entry]) -> Entry:
    """The admission of the same bytes if there is one that was not removed, else ``entry`` with the next number of
    its series.
    """
    for other in admissions(entries):
        if other.series == entry.series and other.folder == entry.folder:
            return other
    return replace(entry, version=f"{entry.series}/{next_number(entry.series, entries)}")


def next_number(series: str, entries: Sequence[Entry]) -> int:
    """The number of the next version of a series; those of removed versions are not used again."""
    return 1 + sum(entry.action == "admit" and entry.series == series for entry in entries)


def admissions(entries: Sequence[Entry]) -> list[Entry]:
    """The admissions of the versions that were not removed, oldest first."""
    removed = {entry.version for entry in entries if entry.action == "remove"}
    return [entry for entry in entries if entry.action == "admit" and entry.version not in removed]


def removals(entry: Entry, entries: Sequence[Entry]) -> int:
    """How often a version of the same bytes was removed."""
    bytes_of = (entry.series, entry.manifest_sha256, entry.archive_sha256)
    return sum((e.series, e.manifest_sha256, e.archive_sha256) == bytes_of for e in entries if e.action == "remove")


def removable(keep: int, entries: Sequence[Entry]) -> list[Entry]:
    """The versions that nothing holds: in no stage, not what a rollback would put back, not of the ``keep`` last of
    their series.
    """
    present = admissions(entries)
    held: set[str] = set()
    for name in {entry.series for entry in present}:
        series = [entry.version for entry in present if entry.series == name]
        held |= set(series[max(len(series) - keep, 0) :])
    for name, stage in {(entry.series, entry.stage) for entry in entries if entry.stage is not None}:
        held |= {
            version
            for version in (in_stage(name, stage, entries), version_before(name, stage, entries))
            if version is not None
        }
    return [entry for entry in present if entry.version not in held]


def in_stage(name: str, stage: str, entries: Sequence[Entry]) -> str | None:
    """The version that is in a stage now."""
    moves = [entry.version for entry in entries if entry.stage == stage and entry.series == name]
    return moves[-1] if moves else None


def version_before(name: str, stage: str, entries: Sequence[Entry]) -> str | None:
    """The version that a rollback puts back: the last one in the stage that is not the one in it now.

    A rollback undoes one promotion, so the next one goes one further back. A promotion of the version that is
    in the stage already, as earlier versions of this program entered it, is none.
    """
    history: list[str] = []
    for entry in entries:
        if entry.stage != stage or entry.series != name:
            continue
        if entry.action == "rollback":
            while history and history[-1] != entry.version:
                history.pop()
        if history[-1:] != [entry.version]:
            history.append(entry.version)
    return history[-2] if len(history) > 1 else None
