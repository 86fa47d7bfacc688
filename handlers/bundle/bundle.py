"""The bundle: one folder with a manifest that hashes each file, the only thing that passes between the packages.

It is written to a temporary folder beside its place and renamed at the end, so that a crash or a
failed check leaves no half bundle. Opening it refuses whatever does not match the manifest, with
the file's name; reading from it compares the bytes that are read with the manifest again, so that
what is used is what was hashed, whatever happens to the folder meanwhile. Nothing in it can run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from elude.handlers.bundle.manifest import LayerInfo, Manifest, Source
from elude.handlers.errors import BundleError, UsageError
from elude.handlers.files import copy_plain, file_sha256, parse_json, read_plain, write_durably

__all__ = ["CORE_FILES", "MANIFEST", "Bundle", "LayerInfo", "Manifest", "Source", "write_bundle"]

MANIFEST = "manifest.json"
MODEL = "model.onnx"
MODEL_DATA = "model.onnx.data"  # weights that do not fit into the file itself
SPLITS = "disentangled.safetensors"
CORE_FILES = (
    MODEL,
    MODEL_DATA,
    SPLITS,
    "preprocess.json",
    "labels.json",
    "catalogue.sqlite",
    "equivalence.json",
)
_JOURNAL = ".adding"  # complete set of added files with their manifest; present only between commit and move
_MAX_READ = 2**31  # bytes of one file that is read whole
_RESTORE = "Export the bundle again or copy it from its source."


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; see ``Bundle.open``. ``manifest_sha256`` is of the bytes that ``manifest`` was parsed from."""

    root: Path
    manifest: Manifest
    manifest_sha256: str

    @classmethod
    def open(cls, path: str | Path, verify: bool = True) -> Bundle:
        """Open a bundle, refusing one that does not match its manifest.

        Args:
            path: the bundle's folder.
            verify: also compare the sha256 of each file; without it only names are compared.

        Raises:
            BundleError: a file is missing, changed, extra or a link, a name leaves the folder, or
                the schema version is unknown.
        """
        root = Path(path)
        if not root.is_dir():
            raise BundleError(f"{root} is not a bundle: no such folder.", "Make one with 'elude export'.")
        try:
            _finish_adding(root)
            bundle = cls(root, *_read_manifest(root))
            bundle._require_names()
            for name in bundle.manifest.files if verify else ():
                bundle._require_hash(name, file_sha256(root / name))
        except OSError as error:
            raise _unreadable(root, error) from error
        return bundle

    def _require_names(self) -> None:
        for name in self.manifest.files:
            _check_name(name)
        present = set(_walk(self.root)) - {MANIFEST}
        if missing := sorted(set(self.manifest.files) - present):
            raise BundleError(f"{self.root}: {missing[0]} is missing.", "Export the bundle again or copy it whole.")
        if extra := sorted(present - set(self.manifest.files)):
            raise BundleError(
                f"{self.root}: {extra[0]} is not in the manifest.", "Remove it, or add files with Bundle.add."
            )

    def _require_hash(self, name: str, actual: str) -> None:
        expected = self.manifest.files[name]
        if actual != expected:
            raise BundleError(
                f"{self.root}: {name} was changed: its sha256 is {actual[:16]}…, the manifest says {expected[:16]}….",
                _RESTORE,
            )

    @property
    def artefact_sha256(self) -> str:
        """Hash over everything that decides behaviour: the core files present, the source, the layers and the schema
        version.
        """
        manifest = self.manifest.to_json()
        core = {name: sha for name, sha in self.manifest.files.items() if name in CORE_FILES}
        decides = {
            "schema_version": manifest["schema_version"],
            "source": manifest["source"],
            "layers": manifest["layers"],
            "files": core,
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def has(self, name: str) -> bool:
        """Whether the bundle holds the file ``name``."""
        return name in self.manifest.files

    def path(self, name: str) -> Path:
        """Path of the file ``name``.

        Raises:
            BundleError: the bundle has no such file.
        """
        if not self.has(name):
            raise BundleError(f"{self.root} has no {name}; it has: {', '.join(sorted(self.manifest.files))}.")
        return self.root / name

    def read(self, name: str) -> bytes:
        """Content of the file ``name``, compared with the manifest as it is read.

        Raises:
            BundleError: no such file, or it was changed since the bundle was written.
        """
        path = self.path(name)
        try:
            content = read_plain(path, _MAX_READ, links=False)
        except OSError as error:
            raise _unreadable(self.root, error) from error
        self._require_hash(name, hashlib.sha256(content).hexdigest())
        return content

    def json(self, name: str) -> Any:
        """Parsed content of the JSON file ``name``, read as ``read`` does.

        Raises:
            BundleError: no such file, it was changed, or it is not JSON.
        """
        try:
            return parse_json(self.read(name))
        except ValueError as error:
            raise BundleError(f"{self.root}: {name} is not JSON: {error}.") from error

    @contextmanager
    def private(self, *names: str) -> Iterator[Path]:
        """A new folder, readable by this user only, with verified copies of the named files; removed at the end.

        For libraries that read a file by its path: an open file stays readable when the folder goes.

        Raises:
            BundleError: no such file, or it was changed since the bundle was written.
            OSError: a file cannot be copied.
        """
        with tempfile.TemporaryDirectory(prefix="elude-bundle-") as folder:
            for name in names:
                self.copy(name, Path(folder, name))
            yield Path(folder)

    def copy(self, name: str, target: Path) -> None:
        """Copy the file ``name`` to a new one, compared with the manifest as it is read.

        Raises:
            BundleError: no such file, or it was changed since the bundle was written.
            OSError: it cannot be copied.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        self._require_hash(name, copy_plain(self.path(name), target))

    def add(self, files: Mapping[str, bytes]) -> Bundle:
        """Add or replace files that do not decide behaviour, and rewrite the manifest.

        The files and the new manifest are first written whole to a folder inside the bundle, whose
        rename commits them; opening a bundle finishes a move that a crash interrupted.

        Returns:
            the bundle with its new manifest.

        Raises:
            BundleError: a core file or a bad name was given, another process is adding files, or
                the bundle was replaced meanwhile.
        """
        for name in files:
            _check_name(name)
            if name in (*CORE_FILES, MANIFEST):
                raise BundleError(
                    f"{name} decides the behaviour of {self.root} and cannot be replaced.", "Export a new bundle."
                )
        now = Bundle.open(self.root, verify=False)  # files may have been added since this one was opened
        if now.artefact_sha256 != self.artefact_sha256:
            raise BundleError(f"{self.root} is another bundle than when it was opened.", "Open it again.")
        hashes = now.manifest.files | {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        manifest = now.manifest.with_files(hashes)
        temporary = Path(tempfile.mkdtemp(prefix=f".{self.root.name}-adding-", dir=self.root.resolve().parent))
        try:
            for name, data in files.items():
                _write(temporary / name, data)
            content = manifest.to_bytes()
            _write(temporary / MANIFEST, content)
            os.rename(temporary, self.root / _JOURNAL)
        except OSError as error:
            raise BundleError(
                f"{self.root}: cannot add {', '.join(files)}: {error}.", "Is another process adding files?"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _finish_adding(self.root)
        return Bundle(self.root, manifest, hashlib.sha256(content).hexdigest())


@contextmanager
def write_bundle(
    path: str | Path,
    *,
    source: Source,
    layers: Sequence[LayerInfo],
    parameters: int,
    versions: Mapping[str, str],
    overwrite: bool = False,
) -> Iterator[Path]:
    """Give a temporary folder to write the bundle's files to; hash them, write the manifest and rename the folder
    into place.

    Any exception in the body removes the temporary folder and leaves ``path`` as it was.

    Args:
        path: the bundle's place.
        source: the model it comes from.
        layers: the split layers, in order.
        parameters: number of parameters of the original model.
        versions: versions of the libraries that made it.
        overwrite: replace a bundle that is already there; anything else there is never replaced.

    Raises:
        UsageError: something is at ``path``.
    """
    target = Path(path)
    if target.exists() or target.is_symlink():
        if not overwrite:
            raise UsageError(f"{target} already exists.", "Choose another place or allow to overwrite it.")
        if not (target / MANIFEST).is_file() or target.is_symlink():
            raise UsageError(f"{target} is not a bundle, so it is not overwritten.", "Choose another place.")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield temporary
        files = {name: file_sha256(temporary / name) for name in sorted(_walk(temporary))}
        manifest = Manifest.of(source, layers, parameters, versions, files)
        _write(temporary / MANIFEST, manifest.to_bytes())
        temporary.chmod(0o755)
        old = target.with_name(f"{temporary.name}-old")
        if target.exists():
            os.rename(target, old)
        try:
            os.rename(temporary, target)
        except OSError:
            if old.exists():
                os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_manifest(root: Path) -> tuple[Manifest, str]:
    try:
        content = read_plain(root / MANIFEST, links=False)
        return Manifest.from_json(parse_json(content)), hashlib.sha256(content).hexdigest()
    except (OSError, ValueError) as error:
        raise BundleError(f"{root}: {MANIFEST} cannot be read: {error}.", "Is this folder a bundle?") from error
    except BundleError as error:
        raise BundleError(f"{root}: {error.message}", error.remedy) from error


def _unreadable(root: Path, error: OSError) -> BundleError:
    return BundleError(f"{root} cannot be read: {error.strerror or error}: {error.filename}.", _RESTORE)


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or str(path) != name:
        raise BundleError(f"{name!r} is not a name inside a bundle.", "Names are relative, without '..'.")


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root, followlinks=False):
        for entry in sorted([*folders, *files]):
            path = Path(folder, entry)
            name = path.relative_to(root).as_posix()
            if path.is_symlink():
                raise BundleError(f"{root}: {name} is a link.", "A bundle holds plain files only.")
            if path.is_file():
                yield name
            elif not path.is_dir():
                raise BundleError(f"{root}: {name} is not a plain file.", "Remove it.")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, data)


def _finish_adding(root: Path) -> None:
    """Move committed files into place, the manifest last; every step may be repeated.

    A bundle that someone else made may hold such a folder too. So links are refused first, wherever they are: a
    file would be moved to where the folder of its name leads.
    """
    journal = root / _JOURNAL
    if not journal.is_dir() or journal.is_symlink():
        return
    inside = f"{_JOURNAL}/"
    names = [name.removeprefix(inside) for name in _walk(root) if name.startswith(inside)]
    for name in sorted(names, key=lambda name: name == MANIFEST):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(journal / name, root / name)
    shutil.rmtree(journal)
