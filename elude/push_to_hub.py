"""Bundles to the Hugging Face Hub: ``elude push BUNDLE hf://OWNER/NAME``."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elude.addresses import open_bundle
from elude.handlers.admission.trust import SIGNATURE
from elude.handlers.bundle.bundle import MANIFEST, Bundle
from elude.handlers.errors import UsageError
from elude.hub import HubAddress, check_names, endpoint_or_default, refusals

if TYPE_CHECKING:
    from elude.steps import BundleLike

_CARD = "README.md"


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
    check_names(opened.manifest.files, str(opened.root))
    api = HfApi(endpoint=endpoint_or_default(endpoint), token=token)
    with _with_card(opened) as root:
        names = [MANIFEST, *Bundle.open(root).manifest.files]
        with refusals(place):
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
