"""The archive that TorchServe loads: a zip of the bundle, the run-time code it needs, and the handler.

Same bundle, same bytes.

Written directly rather than with ``torch-model-archiver``, which stamps the time and flattens
folders; the form is the same.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import tempfile
import zipfile
from pathlib import Path

import elude.handlers
from elude.handlers.bundle.bundle import MANIFEST, Bundle
from elude.handlers.errors import UsageError
from elude.handlers.requests.steering import PRESETS
from elude.handlers.settings import Settings
from elude.handlers.torchserve.handler import CONTENTS, contents_bytes

HANDLER = "elude_handler.py"
CONFIG = "model-config.yaml"
# a worker that cannot load for so long makes the server's health bad; by default it would stay good
# for five minutes
RETRY_S = 30
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold


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
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_\-.]*", name):
        raise UsageError(f"The model's name {name!r} cannot be used.", "Use letters, digits, '_', '-' and '.'.")
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        raise UsageError(f"The version {version!r} cannot be used.", "Use digits and dots, e.g. '1.0'.")
    bundle = Bundle.open(bundle.root, verify=True)
    if settings.preset is not None and not (bundle.has(PRESETS) and settings.preset in bundle.json(PRESETS)):
        raise UsageError(f"The bundle has no preset {settings.preset!r}.", f"Add it to its {PRESETS} with Bundle.add.")
    root = Path(elude.__file__).parent
    files = {f"bundle/{file}": bundle.root / file for file in (MANIFEST, *bundle.manifest.files)}
    files |= {f"elude/{path.relative_to(root).as_posix()}": path for path in run_time_code(root)}
    files[HANDLER] = root / "handlers" / "torchserve" / "handler.py"
    # Of TorchServe's own settings only the one that can be given nowhere else; others would
    # silently override those of its operator.
    # JSON is YAML.
    configuration = {"maxRetryTimeoutInSec": RETRY_S, "elude": settings.to_json()}
    texts = {CONFIG: json.dumps(configuration, indent=1) + "\n"}
    texts["MAR-INF/MANIFEST.json"] = _torchserve_manifest(name, version)
    hashes = {entry: _sha256(path) for entry, path in files.items()} | {
        entry: hashlib.sha256(text.encode()).hexdigest() for entry, text in texts.items()
    }
    texts[CONTENTS] = contents_bytes(hashes).decode()
    target = Path(out) if Path(out).suffix == ".mar" else Path(out) / f"{name}.mar"
    target.parent.mkdir(parents=True, exist_ok=True)
    _write(target, files, texts)
    return target


def run_time_code(root: Path) -> list[Path]:
    """The modules of ``elude`` that serving imports, directly or not, starting from the handler;

    ``root`` is the package's folder.
    """
    paths = {"elude": root / "__init__.py"}
    waiting = _imported(root / "handlers" / "torchserve" / "handler.py")
    while waiting:
        module = waiting.pop()
        path = root.joinpath(*module.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if module not in paths and path.is_file():
            paths[module] = path
            waiting += [module.rpartition(".")[0], *_imported(path)]
    return sorted(paths.values())


def _imported(path: Path) -> list[str]:
    modules = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [module for module in modules if module.startswith("elude.handlers")]


def _torchserve_manifest(name: str, version: str) -> str:
    model = {"modelName": name, "modelVersion": version, "handler": HANDLER, "configFile": CONFIG}
    created = "01/01/1980 00:00:00"
    return (
        json.dumps({"createdOn": created, "runtime": "python", "model": model, "archiverVersion": "0.12.0"}, indent=2)
        + "\n"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(target: Path, files: dict[str, Path], texts: dict[str, str]) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive:
            for entry in sorted({*files, *texts}):
                info = zipfile.ZipInfo(entry, _EPOCH)
                info.external_attr = 0o644 << 16
                info.file_size = files[entry].stat().st_size if entry in files else len(texts[entry])
                with archive.open(info, "w") as place:
                    if entry in texts:
                        place.write(texts[entry].encode())
                        continue
                    with files[entry].open("rb") as source:
                        while block := source.read(2**20):
                            place.write(block)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)
