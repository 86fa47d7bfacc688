"""A version in the making: a copy of a bundle with its archive, judged and signed before anything is put in the
store.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from elude.handlers.admission.requirements import Requirements
from elude.handlers.admission.trust import check_signature
from elude.handlers.bundle.bundle import MANIFEST, Bundle
from elude.handlers.files import file_sha256
from elude.handlers.torchserve.check_archive import read_settings
from elude.model_store.admission import require_package, require_verdict
from elude.model_store.archive import package
from elude.model_store.history import admissions, next_number
from elude.model_store.records import GENESIS, Entry
from elude.model_store.rehearsal import require_answers
from elude.model_store.signing import Signer, sign_bundle
from elude.model_store.versions import now


def prepare(
    bundle: Bundle,
    folder: Path,
    series: str,
    *,
    archive: Path | None,
    make_archive: bool,
    archive_version: str | None,
    entries: Sequence[Entry],
    requirements: Requirements,
    signer: Signer | None,
) -> Entry:
    """Fill ``folder`` as it will lie in the store.

    Returns:
        the entry of its admission; number, place in the record, who and why are still to be filled in.

    Raises:
        GateError: the verdict or the signature does not hold, or the bundle does not answer.
        BundleError: the bundle or the archive does not match.
    """
    # Judge and try the copy, not the original: whatever happens to the original meanwhile, the stored bytes
    # are the checked ones.
    shutil.copytree(bundle.root, folder / "bundle", symlinks=True)
    copy = Bundle.open(folder / "bundle")
    verdict = require_verdict(copy, policies=requirements.policies)
    require_answers(copy)
    if signer is not None:
        copy = sign_bundle(copy, verdict, signer)
    if requirements.signature:
        check_signature(copy, requirements.keys)
    stored = folder / f"{series}.mar"
    if archive is not None:
        _package_like(archive, copy, stored)
    elif make_archive:
        _package(copy, stored, series, archive_version, entries)
    return Entry(
        sequence=0,
        previous=GENESIS,
        when=now(),
        who="",
        why="",
        action="admit",
        version=f"{series}/0",
        stage=None,
        artefact_sha256=copy.artefact_sha256,
        manifest_sha256=file_sha256(copy.root / MANIFEST),
        verdict_sha256=copy.manifest.files["verdict.json"],
        policy_sha256=verdict.policy_sha256,
        archive_sha256=file_sha256(stored) if stored.exists() else None,
    )


def _package(bundle: Bundle, target: Path, series: str, version: str | None, entries: Sequence[Entry]) -> None:
    """Make the archive of a bundle, with the number that it has or will have as its version; the same bytes again if
    it was admitted before. (Two writers at once may take the same number: give ``version`` then.)
    """
    if version is not None:
        package(bundle, target, name=series, version=version)
        return
    manifest = file_sha256(bundle.root / MANIFEST)
    for entry in admissions(entries):
        if entry.series == series and entry.manifest_sha256 == manifest and entry.archive_sha256 is not None:
            package(bundle, target, name=series, version=f"{entry.number}.0")
            if file_sha256(target) == entry.archive_sha256:
                return
    package(bundle, target, name=series, version=f"{next_number(series, entries)}.0")


def _package_like(archive: Path, bundle: Bundle, target: Path) -> None:
    """Make the archive of a bundle with the name, version and settings that an archive has which was handed in, and
    require that both are the same bytes: what enters the store was made here.
    """
    info, settings = read_settings(archive)
    package(bundle, target, name=info.name, version=info.version, settings=settings)
    require_package(archive, target)
