"""Packs a bundle as the archive that TorchServe loads: a zip of the bundle, its run-time code, and the handler.

Same bundle, same name, version and settings: same bytes.

Written directly rather than with ``torch-model-archiver``, which stamps the time and flattens
folders; the form is the same.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from elude.handlers.bundle.bundle import MANIFEST, Bundle
from elude.handlers.errors import BundleError, UsageError
from elude.handlers.files import file_sha256
from elude.handlers.requests.presets import PRESETS
from elude.handlers.settings import Settings
from elude.handlers.torchserve import archives
from elude.handlers.torchserve.archives import bytes_source, file_source, require_name, write_archive
from elude.handlers.torchserve.handler import CONTENTS, contents_bytes
from elude.handlers.torchserve.run_time_code import run_time_code


def package(bundle: Bundle, out: str | Path, *, name: str, version: str, settings: Settings = Settings()) -> Path:
    """Write the archive of a bundle.

    Args:
        bundle: it is verified again first.
        out: the ``.mar`` file, or a folder to write ``NAME.mar`` to; an existing file is replaced.
        name: the model's name in URLs.
        version: digits and dots, e.g. ``1.0``.
        settings: limits, steering, the preset to serve. Several versions of one bundle may differ in these alone.

    Returns:
        path of the ``.mar``.

    Raises:
        BundleError: the bundle does not match its manifest.
        UsageError: TorchServe does not take such a name or version, or the bundle has no such preset.
    """
    require_name(name, version)
    bundle = Bundle.open(bundle.root, verify=True)
    if settings.preset is not None and not (bundle.has(PRESETS) and settings.preset in bundle.json(PRESETS)):
        raise UsageError(f"The bundle has no preset {settings.preset!r}.", f"Add it to its {PRESETS} with Bundle.add.")
    files = {f"bundle/{file}": bundle.root / file for file in (MANIFEST, *bundle.manifest.files)} | run_time_code()
    texts = {
        archives.CONFIG: archives.configuration_bytes(settings.to_json()),
        archives.MANIFEST: archives.manifest_bytes(name, version),
    }
    hashes = {entry: file_sha256(path) for entry, path in files.items()}
    hashes |= {entry: hashlib.sha256(text).hexdigest() for entry, text in texts.items()}
    texts[CONTENTS] = contents_bytes(hashes)
    target = Path(out) if Path(out).suffix == ".mar" else Path(out) / f"{name}.mar"
    target.parent.mkdir(parents=True, exist_ok=True)
    sources = {entry: file_source(path) for entry, path in files.items()}
    written = write_archive(target, sources | {entry: bytes_source(text) for entry, text in texts.items()})
    for entry, sha256 in hashes.items():
        if written[entry] != sha256:
            target.unlink()
            raise BundleError(f"{bundle.root}: {entry} was changed while it was packed.", "Package the bundle again.")
    return target
