"""A bundle as a subject: the graph that is served, and beside it the original and the disentangled model in torch.

Both torch models are rebuilt from what the bundle names, so that "lossless" is measured on what is
shipped, not on what the exporter held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elude.exporter.models.options import ONNX
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import EvaluationError
from elude.handlers.images.preprocess import Preprocess
from elude.quality.subjects.onnx_subject import OnnxSubject
from elude.quality.subjects.subject import Forms
from elude.quality.subjects.torch_subject import TorchSubject

if TYPE_CHECKING:
    from torch import nn

    from elude.exporter.models.loaded import LoadedModel

PREPROCESS, LABELS = "preprocess.json", "labels.json"


def made_from_onnx(bundle: Bundle) -> bool:
    """Whether an ONNX file is all there is of the original: there is no torch model to compare with or to attack."""
    return bundle.manifest.source.model.startswith(ONNX)


def served_graph(bundle: Bundle, *, threads: int = 1, device: str = "cpu") -> OnnxSubject:
    """The graph of a bundle by itself."""
    return OnnxSubject(
        bundle,
        Preprocess.from_json(bundle.json(PREPROCESS)),
        name="served",
        labels=bundle.json(LABELS) if bundle.has(LABELS) else None,
        parameters=bundle.manifest.parameters,
        threads=threads,
        device=device,
    )


def open_bundle(
    bundle: Bundle,
    *,
    threads: int = 1,
    device: str = "cpu",
    precision: str = "float32",
    model: str | nn.Module | LoadedModel | None = None,
) -> Forms:
    """Load the graph and rebuild both torch models.

    Args:
        bundle: with its graph.
        threads: of ONNX Runtime.
        device: where all three run.
        precision: of the torch models.
        model: the original, where the bundle cannot load it by name (elude.exporter.models.original).

    Raises:
        EvaluationError: if the model the bundle names has other weights now.
        UsageError, BundleError: if it cannot be loaded at all.
    """
    from elude.exporter.models.original import load_original
    from elude.exporter.rewrite import graft
    from elude.exporter.splitting.split_file import bundle_splits

    source = bundle.manifest.source
    preprocess = Preprocess.from_json(bundle.json(PREPROCESS))
    loaded = load_original(source, preprocess, model)
    if loaded.source.weights_sha256 != source.weights_sha256:
        raise EvaluationError(
            f"{source.model} now has different weights from those the bundle was made from: sha256 "
            f"{loaded.source.weights_sha256[:12]}…, "
            f"not {source.weights_sha256[:12]}….",
            "Export it again, or bring the old weights back.",
        )
    labels = bundle.json(LABELS) if bundle.has(LABELS) else None
    twin = graft(loaded.module, bundle_splits(bundle))
    return Forms(
        source.model,
        bundle.artefact_sha256,
        TorchSubject(
            loaded.module,
            preprocess,
            name="original",
            labels=labels,
            sha256=source.weights_sha256,
            device=device,
            precision=precision,
        ),
        TorchSubject(twin, preprocess, name="disentangled", labels=labels, device=device, precision=precision),
        served_graph(bundle, threads=threads, device=device),
    )
