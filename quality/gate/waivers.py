"""Waivers: a named person lets one dimension of one exact artefact through, with a reason, until a date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from elude.handlers.errors import UsageError
from elude.handlers.files import read_plain
from elude.quality.dimensions import DIMENSIONS
from elude.quality.toml_tables import Table

WAIVABLE = (*DIMENSIONS, "classes", "score")  # never integrity, losslessness or a missing measurement


@dataclass(frozen=True)
class Waiver:
    """``expires`` is the last day (UTC) on which it holds; ``artefact_sha256`` the only artefact it holds for."""

    dimension: str
    reason: str
    owner: str
    expires: date
    artefact_sha256: str

    def expired(self, today: date) -> bool:
        """Whether its last day is over; ``today`` is in UTC."""
        return self.expires < today

    def to_json(self) -> dict[str, str]:
        return {
            "dimension": self.dimension,
            "reason": self.reason,
            "owner": self.owner,
            "expires": self.expires.isoformat(),
            "artefact_sha256": self.artefact_sha256,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, str]) -> Waiver:
        """The inverse of ``to_json``; ValueError, KeyError or TypeError on other forms."""
        return cls(
            data["dimension"],
            data["reason"],
            data["owner"],
            date.fromisoformat(data["expires"]),
            data["artefact_sha256"],
        )


def load_waivers(path: Path | str) -> tuple[Waiver, ...]:
    """Read ``[[waiver]]`` tables from a TOML file.

    Raises:
        UsageError: if it cannot be read, a key is missing or unknown, or two waivers name the same
            dimension and artefact.
    """
    try:
        text = read_plain(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The waivers {path} cannot be read: {error}.", "Name an existing TOML file in UTF-8."
        ) from error
    top = Table.parse(text, str(path))
    waivers: list[Waiver] = []
    for table in top.tables("waiver"):
        waiver = Waiver(
            table.choice("dimension", WAIVABLE),
            table.text("reason"),
            table.text("owner"),
            table.day("expires"),
            table.sha256("artefact_sha256"),
        )
        table.finish()
        if any((w.dimension, w.artefact_sha256) == (waiver.dimension, waiver.artefact_sha256) for w in waivers):
            raise table.error("dimension", f"a second waiver of {waiver.dimension} for the same artefact", "Keep one.")
        waivers.append(waiver)
    top.finish()
    return tuple(waivers)
