"""Where a store lies: a local folder, or an object store by its fsspec URL.

Both can create a file only if it is not there yet.

That one operation is all that writers need to take turns: the record grows by files that nobody can
replace. A folder does it by a hard link, an object store by a conditional put (``If-None-Match: *`` on S3).
Whatever cannot do it is refused.
"""

from __future__ import annotations

import errno
import filecmp
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from elude.handlers.errors import BundleError, EludeError, UsageError
from elude.handlers.files import read_plain

# fsspec protocols whose ``pipe_file(mode="create")`` is one conditional request. Only s3 (against
# moto) and memory are tested.
CONDITIONAL = ("s3", "s3a", "gs", "gcs", "memory")
INCOMING = ".incoming"


class Place(Protocol):
    """The few operations of a store; names are relative and use '/'."""

    def location(self, name: str) -> str:
        """Path or URL of ``name``."""

    def names(self, folder: str) -> list[str]:
        """Sorted names inside ``folder``; none if there is no such folder."""

    def read(self, name: str) -> bytes:
        """Content of a file; FileNotFoundError."""

    def create(self, name: str, content: bytes) -> None:
        """Write a file in one step; FileExistsError if it is there already."""

    def staging(self) -> Any:
        """Context manager of a local folder for a version in the making; removed at the end."""

    def publish(self, staged: Path, name: str) -> None:
        """Put a folder in its place. Half a folder may be left by a crash, but nothing refers to it."""

    def fetch(self, name: str, target: Path) -> Path:
        """A local folder with the content of ``name``: itself if it is local, else copied to ``target``."""

    def copy(self, name: str, target: Path) -> None:
        """Copy the content of ``name`` to the new folder ``target``."""

    def changed(self, name: str) -> datetime:
        """When anything in a folder was last written."""

    def remove(self, name: str) -> None:
        """Remove a folder with all that is in it."""


def open_place(url: str | Path, **options: Any) -> Place:
    """The place of a path or fsspec URL such as ``s3://bucket/store``.

    Args:
        url: a path without protocol, or with ``file://``, is local.
        options: for the fsspec file system, e.g. ``endpoint_url``.

    Raises:
        UsageError: the protocol is unknown, its library is missing, or it cannot create conditionally.
    """
    text = str(url)
    protocol, separator, rest = text.partition("://")
    if not separator or protocol in ("file", "local"):
        return LocalPlace(Path(rest if separator else text))
    if protocol not in CONDITIONAL:
        raise UsageError(
            f"A store cannot lie at {protocol}://: no write that fails if the file exists.",
            f"Use {', '.join(CONDITIONAL)}.",
        )
    try:
        fsspec = importlib.import_module("fsspec")
        system = fsspec.filesystem(protocol, use_listings_cache=False, skip_instance_cache=True, **options)
    except ImportError as error:
        raise UsageError(
            f"{text} needs a library that is not installed: {error}.", "Run: pip install 'elude[s3]'"
        ) from error
    return RemotePlace(system, protocol, rest.rstrip("/"))


class LocalPlace:
    """A folder on this machine, or on a network file system that has hard links.

    The folder itself may be reached by a link. Inside it there is none: whoever may write to a store could else have
    others write, and remove, where the link leads.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def location(self, name: str) -> str:
        return str(self.root / name)

    def names(self, folder: str) -> list[str]:
        path = self._inside(folder)
        return sorted(os.listdir(path)) if path.is_dir() else []

    def read(self, name: str) -> bytes:
        return read_plain(self.root / name, links=False)

    def create(self, name: str, content: bytes) -> None:
        target = self._inside(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.staging() as folder:
            temporary = folder / target.name
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, target)  # unlike a rename, fails if the target exists
        sync_folder(target.parent)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        incoming = self._inside(INCOMING)
        incoming.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=incoming))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, staged: Path, name: str) -> None:
        target = self._inside(name)
        _freeze(staged)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(staged, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if not _same(
                staged, target
            ):  # what a name refers to never changes, so this was damaged: our good copy takes its place
                os.rename(target, staged.with_name("damaged"))
                os.rename(staged, target)
        for folder in (target.parent, target.parent.parent, self.root):
            sync_folder(folder)

    def fetch(self, name: str, target: Path) -> Path:
        folder = self._inside(name)
        if not folder.is_dir():
            raise BundleError(f"{folder} is missing.", "Restore it from a backup.")
        return folder

    def copy(self, name: str, target: Path) -> None:
        shutil.copytree(self.fetch(name, target), target, symlinks=True)

    def changed(self, name: str) -> datetime:
        return datetime.fromtimestamp((self.root / name).stat().st_ctime, UTC)

    def remove(self, name: str) -> None:
        *folders, last = PurePosixPath(name).parts
        with _opened(self.root, folders) as folder:
            shutil.rmtree(last, dir_fd=folder)

    def _inside(self, name: str) -> Path:
        """The path of ``name``; BundleError if a part of it is a link."""
        path = self.root
        for part in PurePosixPath(name).parts:
            path /= part
            if path.is_symlink():
                raise BundleError(f"{path} is a link.", "Restore it from a backup.")
        return path


class RemotePlace:
    """An object store.

    There are no folders and no renames: files are uploaded one by one, and count once the record
    names them.
    """

    def __init__(self, system: Any, protocol: str, root: str) -> None:
        self._system, self._protocol, self._root = system, protocol, root

    def location(self, name: str) -> str:
        return f"{self._protocol}://{self._root}/{name}"

    def names(self, folder: str) -> list[str]:
        return sorted({PurePosixPath(path).parts[0] for path in self._files(folder)})

    def read(self, name: str) -> bytes:
        with self._asking():
            return bytes(self._system.cat_file(f"{self._root}/{name}"))

    def create(self, name: str, content: bytes) -> None:
        with self._asking():
            self._system.pipe_file(f"{self._root}/{name}", content, mode="create")

    @contextmanager
    def staging(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)

    def publish(self, staged: Path, name: str) -> None:
        with self._asking():
            for path in sorted(staged.rglob("*")):
                if path.is_file():
                    self._system.put_file(str(path), f"{self._root}/{name}/{path.relative_to(staged).as_posix()}")

    def fetch(self, name: str, target: Path) -> Path:
        files = self._files(name)
        if not files:
            raise BundleError(f"{self.location(name)} is missing.", "Restore it from a backup.")
        with self._asking():
            for file in files:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                self._system.get_file(f"{self._root}/{name}/{file}", str(target / file))
        return target

    def copy(self, name: str, target: Path) -> None:
        self.fetch(name, target)

    def changed(self, name: str) -> datetime:
        files = self._files(name)
        with self._asking():
            times: list[datetime] = [self._system.modified(f"{self._root}/{name}/{file}") for file in files]
        return max(times)

    def remove(self, name: str) -> None:
        with self._asking():
            self._system.rm(f"{self._root}/{name}", recursive=True)

    def _files(self, folder: str) -> list[str]:
        prefix = f"{self._root}/{folder}".strip("/") + "/"
        with self._asking():
            present = [path.lstrip("/") for path in self._system.find(prefix)]
        files = [path.removeprefix(prefix) for path in present if path.startswith(prefix) and not path.endswith("/")]
        for file in files:
            # On an object store a key is any text; as a path, such a one is another file of the machine, or a folder.
            if {"", ".", ".."} & set(file.split("/")):
                raise BundleError(f"{self.location(folder)}: {file!r} leaves the store.", "Remove it from the bucket.")
        return sorted(files)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Every file system has errors of its own, for missing credentials, buckets and connections."""
        try:
            yield
        except (FileExistsError, EludeError):  # another writer was faster; our own
            raise
        except Exception as error:
            raise UsageError(
                f"{self._protocol}://{self._root} cannot be used: {type(error).__name__}: {error}.",
                "Check the address, the credentials and the connection.",
            ) from error


@contextmanager
def _opened(root: Path, folders: Sequence[str]) -> Iterator[int]:
    """A descriptor of a folder below ``root``, to which no link leads, also if one takes a folder's place meanwhile."""
    with ExitStack() as closing:
        descriptor: int | None = None
        for name, flags in [(str(root), 0), *((folder, os.O_NOFOLLOW) for folder in folders)]:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | flags, dir_fd=descriptor)
            closing.callback(os.close, descriptor)
        assert descriptor is not None
        yield descriptor


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _same(one: Path, other: Path) -> bool:
    files = [{path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (one, other)]
    return files[0] == files[1] and all(filecmp.cmp(one / name, other / name, shallow=False) for name in files[0])


def _freeze(folder: Path) -> None:
    """Flush every file and folder to disk and take away the right to write files."""
    for parent, _, files in os.walk(folder, topdown=False):
        for file in files:
            path = Path(parent, file)
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            path.chmod(0o444)
        sync_folder(Path(parent))
    folder.chmod(0o755)
