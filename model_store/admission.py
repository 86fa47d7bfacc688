"""What may enter the store: a bundle whose verdict can be reached again from what it holds, and an archive made of
exactly that bundle.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from elude.handlers.admission.admission import check_verdict
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError, GateError, UsageError
from elude.handlers.files import file_sha256
from elude.handlers.torchserve.handler import CONTENTS
from elude.quality.gate.judge import judged_again
from elude.quality.gate.verdict import Verdict


def require_verdict(bundle: Bundle, today: date | None = None, policies: Sequence[str] = ()) -> Verdict:
    """The bundle's verdict, if it passed, is about these bytes and these measurements, holds today, and comes out
    the same again.

    Args:
        bundle: opened with verification.
        today: the day on which it must hold; default today, UTC.
        policies: sha256 of the policies that count; empty for any.

    Raises:
        GateError: otherwise, with the reason.
    """
    content = check_verdict(bundle, policies, today=today)
    remedy = "Run 'elude evaluate' and 'elude gate' on this bundle; if it lies in a store, admit it again."
    try:
        verdict = Verdict.from_json(content)
        again = judged_again(bundle, verdict)
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise GateError(f"The verdict of {bundle.root} cannot be used: {str(error).rstrip('.')}.", remedy) from error
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


def require_package(archive: Path, made: Path) -> None:
    """Refuse an archive that is not, byte for byte, the one that was made here of the bundle.

    Args:
        archive: the archive that someone handed in.
        made: the one made of the bundle, with the same name, version and settings.

    Raises:
        BundleError: names the first entry that differs.
    """
    remedy = "Make it again from this bundle with this version's 'elude package', or leave it out: admit makes one."
    expected, actual = _entry_hashes(made, remedy), _entry_hashes(archive, remedy)
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            raise BundleError(f"{archive.name} was not made from this bundle: {name} differs.", remedy)
    if file_sha256(archive) != file_sha256(made):
        raise BundleError(f"{archive.name} holds more than its entries, or in another form.", remedy)


def _entry_hashes(archive: Path, remedy: str) -> dict[str, str]:
    hashes: dict[str, str] = {}
    try:
        with zipfile.ZipFile(archive) as content:
            for entry in content.infolist():
                if entry.orig_filename in hashes:
                    raise BundleError(f"{archive.name} holds {entry.orig_filename} twice.", remedy)
                if entry.compress_type != zipfile.ZIP_STORED:  # a small file could become a huge one
                    raise BundleError(f"{archive.name}: {entry.orig_filename} is compressed.", remedy)
                with content.open(entry) as stream:
                    digest = hashlib.file_digest(stream, "sha256")  # type: ignore[arg-type]
                hashes[entry.orig_filename] = digest.hexdigest()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise BundleError(f"{archive.name} is not an archive: {error}.", remedy) from error
    return hashes


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
