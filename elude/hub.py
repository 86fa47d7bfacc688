"""Bundles on the Hugging Face Hub: ``elude push BUNDLE hf://OWNER/NAME``, and ``elude.load("hf://OWNER/NAME")``.

A repository holds the files of one bundle. What is fetched is what its manifest names, of known kinds
only, and each file is compared with its hash; nothing in it can run.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from elude.addresses import HUB, open_bundle
from elude.handlers.admission.trust import SIGNATURE
from elude.handlers.bundle.bundle import MANIFEST, Bundle
from elude.handlers.bundle.manifest import Manifest
from elude.handlers.errors import BundleError, UsageError
from elude.handlers.files import read_json

if TYPE_CHECKING:
    from elude.steps import BundleLike

KINDS = (".json", ".md", ".html", ".onnx", ".data", ".safetensors", ".sqlite", ".toml")
_CARD = "README.md"
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


def push(
    bundle: BundleLike,
    address: str,
    *,
    private: bool = False,
    message: str = "",
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Put a bundle on the Hub as one commit; files that are not part of it are removed from the repository.

    The bundle's README.md gets the head of a model card with the measured dimensions; the bundle itself is not
    changed. A signature covers README.md, so that a signed bundle must hold the head already.

    Args:
        bundle: a path or an object; it is verified first.
        address: ``hf://OWNER/NAME``, or with ``@BRANCH``; the repository is made if there is none.
        private: whether a repository that is made is private.
        message: of the commit.
        token: of the Hub; by default the one that ``hf auth login`` has kept.
        endpoint: of another Hub; by default ``HF_ENDPOINT``, else the public one.

    Returns:
        address of the commit in a browser.

    Raises:
        UsageError: the address cannot be used, or the Hub refuses; says why.
        BundleError: the bundle does not match its manifest, or holds a file of a kind that is not fetched.

    Example:
        >>> elude.push("build/bundle", "hf://ada/bags")  # doctest: +SKIP
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    place, opened = HubAddress.parse(address), open_bundle(bundle)
    _check_names(opened.manifest.files, str(opened.root))
    api = HfApi(endpoint=_endpoint(endpoint), token=token)
    with _with_card(opened) as root:
        names = [MANIFEST, *Bundle.open(root).manifest.files]
        with _refusals(place):
            api.create_repo(place.repository, private=private, exist_ok=True)
            there = api.list_repo_files(place.repository, revision=place.revision)
            operations: list[Any] = [CommitOperationAdd(name, str(root / name)) for name in names]
            stale = [name for name in there if name not in names and name != ".gitattributes"]
            operations += [CommitOperationDelete(name) for name in stale]
            commit = api.create_commit(
                place.repository,
                operations,
                commit_message=message or f"Bundle {opened.artefact_sha256[:16]}",
                revision=place.revision,
            )
    return str(commit.commit_url)


def fetch(address: str, target: Path, *, token: str | None = None, endpoint: str | None = None) -> Path:
    """A bundle of the Hub as the new folder ``target``; files that were fetched before come from the Hub's own cache.

    Raises:
        UsageError: there is no such repository, or it cannot be reached.
        BundleError: it does not hold a bundle, a file is of an unknown kind, or does not match its hash.
    """
    from huggingface_hub import hf_hub_download

    place, at = HubAddress.parse(address), _endpoint(endpoint)
    commit = place.revision

    def copy(name: str) -> Path:
        with _refusals(place):
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
    _check_names(manifest.files, str(place))
    for name in manifest.files:
        copy(name)
    return Bundle.open(target, verify=True).root


def _endpoint(endpoint: str | None) -> str | None:
    return endpoint or os.environ.get("HF_ENDPOINT")  # the Hub's client reads it only once, when it is imported


def _check_names(names: Any, where: str) -> None:
    """Raises BundleError unless each name stays inside the folder and is of a known kind."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or name == MANIFEST:
            raise BundleError(f"{where}: {name!r} is not a name inside a bundle.", "Do not use it.")
        if path.suffix not in KINDS:
            raise BundleError(f"{where}: {name} is of a kind that no bundle holds.", f"Kinds are {', '.join(KINDS)}.")


@contextmanager
def _with_card(bundle: Bundle) -> Iterator[Path]:
    """The bundle's folder, or a copy of it whose README.md begins with a model card's head."""
    from elude.model_store.links import model_index

    card = bundle.path(_CARD).read_text(encoding="utf-8") if bundle.has(_CARD) else ""
    if card.startswith("---\n"):
        yield bundle.root
        return
    if bundle.has(SIGNATURE):
        raise UsageError(
            f"{bundle.root} is signed, and its {_CARD} has no head, which would change what is signed.",
            "Write 'elude card BUNDLE' in front of it before signing.",
        )
    with tempfile.TemporaryDirectory(prefix="elude-") as folder:
        root = Path(folder) / "bundle"
        shutil.copytree(bundle.root, root, copy_function=_link_or_copy)
        Bundle.open(root, verify=False).add({_CARD: (model_index(bundle) + card).encode()})
        yield root


def _link_or_copy(source: str, target: str) -> None:
    """A second name for a file where that is possible; a bundle's files are replaced, never written to."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


@contextmanager
def _refusals(place: HubAddress) -> Iterator[None]:
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
