"""What may enter the store: a bundle with a passed verdict on exactly its bytes, and an archive made of exactly that bundle."""

from __future__ import annotations

import hashlib
import json
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath

from handlers.bundle import CORE_FILES, Bundle
from handlers.errors import BundleError, GateError
from quality.verdict import Verdict


def require_verdict(bundle: Bundle, today: date | None = None) -> Verdict:
    """The bundle's verdict, if it passed, is about these bytes and these measurements, and rests on no ended waiver.

    Raises:
        GateError: otherwise, with the reason.
    """
    remedy = "Run 'elude gate' on this bundle."
    if not bundle.has("verdict.json"):
        raise GateError(f"{bundle.root} has no verdict.", remedy)
    try:
        verdict = Verdict.from_json(json.loads(bundle.path("verdict.json").read_bytes()))
    except ValueError as error:
        raise GateError(f"The verdict of {bundle.root} cannot be used: {error}.", remedy) from error
    if verdict.artefact_sha256 != bundle.artefact_sha256:
        raise GateError(f"The verdict is about artefact {verdict.artefact_sha256[:12]}, not {bundle.artefact_sha256[:12]}.", remedy)
    measured_on = (bundle.manifest.files.get("quality.json"), bundle.manifest.files.get("equivalence.json"))
    if (verdict.quality_sha256, verdict.equivalence_sha256) != measured_on:
        raise GateError("The verdict is about other measurements than the bundle's.", remedy)
    if not verdict.passed:
        reasons = " ".join(check.reason for check in verdict.failures[:3])
        raise GateError(f"The gate stopped this bundle ({verdict.state.replace('_', ' ')}). {reasons}", "Read verdict.json or report.html.")
    day = today or datetime.now(UTC).date()
    try:
        ended = verdict.valid_until is not None and date.fromisoformat(verdict.valid_until) < day
    except ValueError as error:
        raise GateError(f"The verdict's valid_until is {verdict.valid_until!r}, not a date.", remedy) from error
    if ended:
        raise GateError(f"The verdict rests on a waiver that ended on {verdict.valid_until}.", remedy)
    return verdict


def archive_matches(archive: Path, bundle: Bundle) -> str:
    """Check that an archive holds the bundle's core files, byte for byte and each once; return the archive's sha256.

    Raises:
        BundleError: it is no archive, or a core file is missing, doubled or different; names it.
    """
    expected = {name: sha256 for name, sha256 in bundle.manifest.files.items() if name in CORE_FILES}
    remedy = "Make it again from this bundle with 'elude package'."
    found: dict[str, str] = {}
    try:
        with zipfile.ZipFile(archive) as content:
            for entry in content.infolist():
                name = PurePosixPath(entry.filename).name
                if name not in CORE_FILES:
                    continue
                if name in found:
                    raise BundleError(f"{archive.name} holds {name} twice.", remedy)
                with content.open(entry) as stream:
                    found[name] = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    except zipfile.BadZipFile as error:
        raise BundleError(f"{archive.name} is not an archive: {error}.", remedy) from error
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise BundleError(f"{archive.name} was not made from this bundle: {name} differs.", remedy)
    return file_sha256(archive)


def file_sha256(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
