"""What ``elude evaluate SUBJECT`` names: a bundle, an ONNX file, a server, or a model by name.

Loads torch only for the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import UsageError
from elude.handlers.files import read_json
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.torchserve.client import Client
from elude.quality.subjects.endpoint_subject import EndpointSubject
from elude.quality.subjects.onnx_subject import OnnxSubject
from elude.quality.subjects.subject import Subject


def open_subject(
    address: str,
    *,
    described_by: str | Path | None = None,
    token: str | None = None,
    model: str = "elude",
    threads: int = 1,
    device: str = "cpu",
    precision: str = "float32",
) -> Bundle | Subject:
    """Open a subject.

    Args:
        address: a bundle's folder; a ``.onnx`` file; ``http(s)://HOST:PORT``; else a model as for
            ``elude.exporter.models.load.load_model``.
        described_by: for a file: the folder with ``preprocess.json`` and ``labels.json`` that says
            how images are prepared and what the outputs mean; by default its own.
        token: the server's inference key.
        model: the model's name in the server's URLs.
        threads: of ONNX Runtime.
        device: where a torch model or a file runs, as torch names it.
        precision: of a torch model, see :class:`~elude.quality.subjects.torch_subject.TorchSubject`.

    Raises:
        UsageError, BundleError: it cannot be opened, or nothing describes it.
    """
    path = Path(address)
    if urlsplit(address).scheme in ("http", "https"):
        return served(Client(address, token, model=model))
    if path.suffix == ".onnx":
        preprocess, labels = _description(Path(described_by) if described_by else path.parent)
        return OnnxSubject(path, preprocess, labels=labels, threads=threads, device=device)
    if (path / "manifest.json").is_file():
        return Bundle.open(path)
    from elude.exporter.models.load import load_model
    from elude.quality.subjects.torch_subject import TorchSubject

    loaded = load_model(address)
    return TorchSubject(
        loaded.module,
        loaded.preprocess,
        name=address,
        labels=loaded.labels,
        sha256=loaded.source.weights_sha256,
        device=device,
        precision=precision,
    )


def served(client: Client) -> EndpointSubject:
    """What a server runs, by its own description.

    Raises:
        UsageError: there is no server, or its model has no classes.
    """
    description = client.describe()
    labels = tuple(description.get("labels") or ())
    if not labels:
        raise UsageError(f"The model at {client.url} has no classes.", "Quality is measured on classifiers.")
    if len(set(labels)) < len(labels):  # its answers are by name: one of the two would be lost
        shared = next(label for label in labels if labels.count(label) > 1)
        raise UsageError(
            f"{labels.count(shared)} classes of the model at {client.url} are called {shared!r}, and its answers "
            "cannot tell them apart.",
            "Serve it with this version of elude, which numbers them.",
        )
    return EndpointSubject(
        client,
        Preprocess.from_json(description["preprocess"]),
        labels,
        parameters=description.get("parameters"),
        sha256=description["artefact_sha256"],
    )


def _description(folder: Path) -> tuple[Preprocess, Sequence[str] | None]:
    """``preprocess.json`` and, if there, ``labels.json`` of a folder."""
    try:
        preprocess = Preprocess.from_json(read_json(folder / "preprocess.json"))
        labels = folder / "labels.json"
        return preprocess, read_json(labels) if labels.is_file() else None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder} does not say how images are prepared: {error}.", "It needs preprocess.json, as in a bundle."
        ) from error
