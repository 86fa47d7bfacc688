"""A folder of models for a TorchServe that elude does not start: what is in a stage of a store, and nothing else.

TorchServe lets an archive choose the program that runs it, so it cannot be left to look at archives itself. Here every
archive is verified against the record and taken in as ``elude serve`` does it, before TorchServe sees it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from elude.handlers.admission.requirements import Requirements
from elude.handlers.errors import UsageError
from elude.handlers.torchserve.archives import ArchiveInfo, require_distinct
from elude.handlers.torchserve.check_archive import take_in
from elude.model_store.admission import contents_sha256
from elude.model_store.store import Store
from elude.model_store.versions import require_stage


def sync(store: Store, folder: Path, stages: Sequence[str] = ("production",), names: Sequence[str] = ()) -> list[Path]:
    """Make a folder hold exactly the archives of the versions that are in one of the stages now.

    Args:
        store: the store.
        folder: made if it is not there; archives in it that are not among them are removed.
        stages: of the store.
        names: of series; empty for all.

    Returns:
        the archives, named ``NAME-VERSION.mar``.

    Raises:
        UsageError: the folder holds other things than archives, two archives have the same name and version, or a
            named series has no archive in the stages.
        BundleError: a version was changed in the store.
        GateError: a stored verdict does not hold.
    """
    for stage in stages:
        require_stage(stage)
    folder.mkdir(parents=True, exist_ok=True)
    strangers = sorted(path.name for path in folder.iterdir() if path.suffix != ".mar" or path.is_dir())
    if strangers:
        raise UsageError(
            f"{folder} holds {strangers[0]}, which is not an archive.", "Name a folder for models alone, or a new one."
        )
    with tempfile.TemporaryDirectory(prefix=f".{folder.resolve().name}-", dir=folder.resolve().parent) as scratch:
        archives = _take_in(store, Path(scratch), stages, names)
        require_distinct(archives)
        checked = {f"{archive.name}-{archive.version}.mar": archive.path for archive in archives}
        for path in folder.iterdir():
            if path.name not in checked:
                path.unlink()
        for name, path in checked.items():
            os.replace(path, folder / name)
    return [folder / name for name in sorted(checked)]


def _take_in(store: Store, scratch: Path, stages: Sequence[str], names: Sequence[str]) -> list[ArchiveInfo]:
    archives: list[ArchiveInfo] = []
    staged = [version for version in store.list() if version.archive is not None and set(stages) & set(version.stages)]
    if missing := set(names) - {version.name for version in staged}:
        raise UsageError(
            f"{min(missing)} has no archive in stage {' or '.join(stages)}.", "Promote a version that has one."
        )
    for version in staged:
        if not names or version.name in names:
            copy = scratch / str(len(archives))
            archive = store.fetch(version.id, copy).archive
            assert archive is not None
            required = Requirements(archives=(contents_sha256(Path(archive)),))
            archives.append(take_in(archive, copy / "checked.mar", required))
    return archives
