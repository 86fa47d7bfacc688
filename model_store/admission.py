"""What may enter the store: a bundle whose verdict can be reached again from what it holds, and an archive made of
exactly that bundle.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path, PurePosixPath

from elude.handlers.admission.admission import check_verdict
from elude.handlers.admission.trust import SIGNATURE, VERDICT
from elude.handlers.bundle.bundle import CORE_FILES, MANIFEST, Bundle
from elude.handlers.errors import BundleError, GateError, UsageError
from elude.handlers.requests.steering import PRESETS
from elude.handlers.torchserve.handler import CONTENTS
from elude.quality.gate.judge import judged_again
from elude.quality.gate.verdict import Verdict

NEVER_EXTRA = (
    *CORE_FILES,
    VERDICT,
    PRESETS,
    SIGNATURE,
)  # what serving reads must not be in the archive if it is not in the bundle


def require_verdict(bundle: Bundle, today: date | None = None, policies: Sequence[str] = ()) -> Verdict:
    """The bundle's verdict, if it passed, is about these bytes and these measurements, holds today, and comes out
    the same again.

    Args:
        bundle: opened with verification.
        today: the day on which it must hold; default the present one, UTC.
        policies: sha256 of the policies that count; empty for any.

    Raises:
        GateError: otherwise, with the reason.
    """
    content = check_verdict(bundle, policies, today=today)
    remedy = "Run 'elude gate' on this bundle."
    try:
        verdict = Verdict.from_json(content)
        again = judged_again(bundle, verdict)
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise GateError(f"The verdict of {bundle.root} cannot be used: {error}.", remedy) from error
    # Notes on waivers that were not needed are not kept in a verdict; everything else has to be the same.
    for found in (again, verdict):
        if not found.passed:
            reasons = " ".join(check.reason for check in found.failures[:3])
            raise GateError(
                f"The gate stopped this bundle ({found.state.replace('_', ' ')}). {reasons}", "Read verdict.json."
            )
    if _essence(again) != _essence(verdict):
        raise GateError("The verdict does not follow from the bundle's measurements and its policy.", remedy)
    return verdict


def _essence(verdict: Verdict) -> str:
    content = verdict.to_json()
    content["checks"] = [check for check in content["checks"] if not check["name"].startswith("waiver.")]
    return json.dumps({key: value for key, value in content.items() if key != "counts"}, sort_keys=True)


def archive_matches(archive: Path, bundle: Bundle) -> str:
    """Check that an archive holds the bundle, byte for byte and each file once; give the archive's sha256.

    Raises:
        BundleError: it is not an archive, or a file is missing, doubled or different; names it.
    """
    expected = {**bundle.manifest.files, MANIFEST: file_sha256(bundle.root / MANIFEST)}
    remedy = "Make it again from this bundle with 'elude package'."
    found: dict[str, str] = {}
    try:
        with zipfile.ZipFile(archive) as content:
            for entry in content.infolist():
                name = PurePosixPath(entry.filename).name
                if name not in (*expected, *NEVER_EXTRA):
                    continue
                if name in found:
                    raise BundleError(f"{archive.name} holds {name} twice.", remedy)
                with content.open(entry) as stream:
                    found[name] = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise BundleError(f"{archive.name} is not an archive: {error}.", remedy) from error
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise BundleError(f"{archive.name} was not made from this bundle: {name} differs.", remedy)
    return file_sha256(archive)


def contents_sha256(archive: Path) -> str:
    """The hash of an archive's ``contents.json``, by which a server knows it after it was unpacked.

    Raises:
        UsageError: it is not an archive of this project.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            return hashlib.sha256(content.read(CONTENTS)).hexdigest()
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise UsageError(f"{archive} is not a model archive: {error}.", "Make one with 'elude package'.") from error


def file_sha256(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
