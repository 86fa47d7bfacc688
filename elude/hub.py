"""Bundles from the Hugging Face Hub: ``elude.load("hf://OWNER/NAME")``.

A repository holds the files of one bundle. What is fetched is what its manifest names, of known kinds
only, and each file is compared with its hash; nothing in it can run.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from elude.handlers.bundle.bundle import MANIFEST, Bundle
from elude.handlers.bundle.manifest import Manifest
from elude.handlers.errors import BundleError, UsageError
from elude.handlers.files import read_json

HUB = "hf://"
KINDS = (".json", ".md", ".html", ".onnx", ".data", ".safetensors", ".sqlite", ".toml")
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")


@dataclass(frozen=True)
class HubAddress:
    """``hf://OWNER/NAME[@REVISION]``."""

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubAddress:
        """Raises UsageError if it is not of that form."""
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text!r} is not an address of the Hub.", f"Write {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION."
            )
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"{HUB}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def fetch(address: str, target: Path, *, token: str | None = None, endpoint: str | None = None) -> Path:
    """A bundle of the Hub as the new folder ``target``; files that were fetched before come from the Hub's own cache.

    Raises:
        UsageError: there is no such repository, or it cannot be reached.
        BundleError: it does not hold a bundle, a file is of an unknown kind, or does not match its hash.
    """
    from huggingface_hub import hf_hub_download

    place, at = HubAddress.parse(address), endpoint_or_default(endpoint)
    commit = place.revision

    def copy(name: str) -> Path:
        with refusals(place):
            cached = hf_hub_download(place.repository, name, revision=commit, token=token, endpoint=at)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(cached, target / name)
        return Path(cached)

    # The cache keeps files by their commit: all others are then of the manifest's, should the branch move meanwhile.
    commit = copy(MANIFEST).parent.name
    try:
        manifest = Manifest.from_json(read_json(target / MANIFEST))
    except ValueError as error:
        raise BundleError(
            f"{place}: {MANIFEST} cannot be read: {error}.", "Is it a bundle that 'elude push' put there?"
        ) from error
    check_names(manifest.files, str(place))
    for name in manifest.files:
        copy(name)
    return Bundle.open(target, verify=True).root


def endpoint_or_default(endpoint: str | None) -> str | None:
    return endpoint or os.environ.get("HF_ENDPOINT")  # the Hub's client reads it only once, when it is imported


def check_names(names: Any, where: str) -> None:
    """Raises BundleError unless each name stays inside the folder and is of a known kind."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or name == MANIFEST:
            raise BundleError(f"{where}: {name!r} is not a name inside a bundle.", "Do not use it.")
        if path.suffix not in KINDS:
            raise BundleError(f"{where}: {name} is of a kind that no bundle holds.", f"Kinds are {', '.join(KINDS)}.")


@contextmanager
def refusals(place: HubAddress) -> Iterator[None]:
    """What the Hub's client raises, as one line."""
    from huggingface_hub import errors

    broken: tuple[type[Exception], ...] = (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, OSError, ValueError)
    try:
        yield
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UsageError(
            f"There is no {place} that you may read.", "Check its name, or log in with 'hf auth login'."
        ) from error
    except (*broken, *_transport_errors()) as error:
        if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
            raise BundleError(
                f"{place} does not hold a bundle: {_first_line(error)}", "Put one there with 'elude push'."
            ) from error
        raise UsageError(
            f"{place} cannot be used: {_first_line(error)}",
            "Check the name, the network and your rights ('hf auth login').",
        ) from error


def _transport_errors() -> tuple[type[Exception], ...]:
    """What a broken connection raises: the Hub's client is built on requests (OSError), httpx or httpx2."""
    return tuple(sys.modules[name].HTTPError for name in ("httpx", "httpx2") if name in sys.modules)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
