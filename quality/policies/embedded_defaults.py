"""The embedded model brings a suite and a policy of its own; any other model has to name them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import UsageError
from elude.handlers.files import read_json

if TYPE_CHECKING:
    from elude.quality.policies.policy import Policy
    from elude.quality.suites.suite import Suite

EMBEDDED = "embedded"


def suite_for(
    address: str, suite: str | None, described_by: Path | None = None, *, outputs: str | None = None
) -> Suite:
    """Open the suite that was named, or the embedded one for the embedded model.

    Args:
        address: of the model, as ``elude evaluate`` takes it.
        suite: see ``open_suite``.
        described_by: the folder with the ``labels.json`` of an ONNX file.
        outputs: see ``with_outputs``.

    Raises:
        UsageError: none was named, and the model is not the embedded one; found without loading the model.
    """
    from elude.quality.subjects.output_names import with_outputs
    from elude.quality.suites.open_suite import open_suite

    if suite is None and not _is_embedded(address, described_by):
        raise UsageError(
            f"No suite was named, and the embedded one belongs to the embedded model, not to {address}.",
            f"Give images of its classes: elude evaluate {address} --suite FOLDER, one sub-folder per class.",
        )
    return with_outputs(open_suite(suite or EMBEDDED), outputs)


def policy_for(bundle: Bundle | None, policy: Path | None) -> Policy:
    """The policy that was named, or the embedded one for a bundle of the embedded model.

    Raises:
        UsageError: none was named, and the bundle is of another model.
    """
    from elude.quality.policies.policy import DEFAULT_POLICY, load_policy

    if policy is None and bundle is not None and bundle.manifest.source.model != EMBEDDED:
        raise UsageError(
            f"No policy was named, and the default one belongs to the embedded model, not to "
            f"{bundle.manifest.source.model}.",
            f"Write one from a good release: elude policy init {bundle.root} --out policy.toml, and give it with "
            "--policy policy.toml.",
        )
    return load_policy(policy or DEFAULT_POLICY)


def _is_embedded(address: str, described_by: Path | None) -> bool:
    """Whether the model is the embedded one, by its bundle or by the names of its classes; a server is asked later."""
    path = Path(address)
    if urlsplit(address).scheme in ("http", "https") or address == EMBEDDED:
        return True
    if (path / "manifest.json").is_file():
        return Bundle.open(path).manifest.source.model == EMBEDDED
    labels = (described_by or path.parent) / "labels.json"
    return path.suffix == ".onnx" and labels.is_file() and _garments(labels)


def _garments(labels: Path) -> bool:
    from elude.quality.suites.open_suite import embedded_suite

    try:
        names = read_json(labels)
    except (OSError, ValueError):
        return False
    return isinstance(names, list) and sorted(map(str, names)) == sorted(embedded_suite().images.classes)
