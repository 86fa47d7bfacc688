"""Where a bundle lies: from what a caller names to a folder."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elude.handlers.admission.requirements import Requirements
from elude.handlers.bundle.bundle import MANIFEST, Bundle
from elude.handlers.errors import BundleError, UsageError
from elude.hub import HUB, fetch

if TYPE_CHECKING:
    from elude.model_store.versions import Version

_STORE = "store.json"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def locate(source: Any) -> tuple[Path, Path | None]:
    """The folder of a bundle, not opened yet, and a temporary folder that holds it, which the caller removes.

    Args:
        source: as ``elude.load`` takes it.

    Raises:
        UsageError, BundleError: there is none; says what to write instead.
    """
    if isinstance(source, Bundle):
        return source.root, None
    if hasattr(source, "admitted"):
        return _version(source), None
    if not isinstance(source, (str, os.PathLike)):
        raise UsageError(f"A bundle cannot be made of {type(source).__name__}.", _made_of(source))
    text = os.fspath(source)
    if text.startswith(HUB):
        return _in_temporary(lambda folder: fetch(text, folder / "bundle"))
    path = Path(text)
    if "#" in text and not path.exists():
        return _from_store(text)
    if not (path / MANIFEST).is_file():
        raise _no_bundle(text, path)
    return path, None


def open_bundle(source: Any) -> Bundle:
    """The bundle that a path or an object names, opened afresh and verified; it must lie in a folder of its own.

    Raises:
        UsageError, BundleError: there is none; says what to write instead.
    """
    bundle = getattr(source, "bundle", source)
    text = os.fspath(bundle) if isinstance(bundle, (str, os.PathLike)) else ""
    if text.startswith(HUB) or ("#" in text and not Path(text).exists()):
        raise UsageError(
            f"{text} is not a folder.", "Fetch it first: 'elude store fetch', or elude.load(...) to look into it."
        )
    return Bundle.open(locate(bundle)[0])


def _in_temporary(copy: Callable[[Path], Path]) -> tuple[Path, Path]:
    """What ``copy`` puts into a new temporary folder, and that folder; it is removed if that fails."""
    folder = Path(tempfile.mkdtemp(prefix="elude-"))
    try:
        return copy(folder), folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _version(version: Version) -> Path:
    if "://" in version.location:
        store = version.location.rpartition("/versions/")[0]
        raise UsageError(f"{version.id} lies at {version.location}.", f"Write elude.load('{store}#{version.id}').")
    return Path(version.bundle)


def _from_store(text: str) -> tuple[Path, Path]:
    """A verified copy of a version."""
    from elude.model_store.store import Store

    url, _, name = text.rpartition("#")
    if "://" not in url and not Path(url).is_dir():
        raise UsageError(f"No store lies at {url!r}.", "Write STORE#NAME/production, with the store's folder.")
    store = Store(url, Requirements.load())
    if "/" not in name:
        known = ", ".join(version.id for version in store.list()) or "none"
        raise UsageError(f"{name!r} does not name a version of {url}.", f"Write '{url}#NAME/NUMBER'; it has: {known}.")

    def copy(folder: Path) -> Path:
        store.fetch(name, folder / "version")
        return folder / "version" / "bundle"

    return _in_temporary(copy)


def _no_bundle(text: str, path: Path) -> UsageError | BundleError:
    inside = path / "bundle"
    if (inside / MANIFEST).is_file():
        return UsageError(f"{text} is not a bundle, but holds one.", f"Write {str(inside)!r}.")
    if (path / _STORE).is_file():
        return UsageError(f"{text} is a store.", f"Name one of its versions: '{text}#NAME/production'.")
    if path.is_dir():
        return BundleError(f"{text} is not a bundle: it has no {MANIFEST}.", "Make one with 'elude export'.")
    if path.suffix in (".onnx", ".mar") or path.name == MANIFEST:
        return UsageError(f"{text} is a file.", "Name the folder of its bundle, which 'elude export' wrote.")
    if "://" in text:
        return UsageError(f"{text} is not an address of a bundle.", "Write hf://OWNER/NAME or STORE#NAME/production.")
    images = "" if text == "embedded" else "'FOLDER OF IMAGES', "
    hub = f" A bundle on the Hugging Face Hub is 'hf://{text}'." if _REPOSITORY.fullmatch(text) else ""
    return UsageError(
        f"No bundle lies at {text!r}: no such folder.",
        f"If it is a model's name, export it first: elude.export({text!r}, {images}out='bundle').{hub}",
    )


def _made_of(source: object) -> str:
    if hasattr(source, "state_dict"):  # a module of torch, which need not be loaded here
        return "Export it first: elude.export(model, 'FOLDER OF IMAGES', out='bundle'); docs/own-model.md."
    return "Give the folder that 'elude export' wrote."
