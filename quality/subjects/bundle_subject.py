"""A bundle as a subject: the graph that is served, and beside it the original and the disentangled model.

Both torch models are rebuilt from what the bundle names, so that "lossless" is measured on what is shipped, not on what
the exporter held. Where the original is an ONNX file, that file is the original, and the disentangled model is the
bundle's graph as it is written, before ONNX Runtime optimises it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elude.exporter.onnx_files.original_file import made_from_onnx, original_file
from elude.handlers.bundle.bundle import Bundle, Source
from elude.handlers.errors import EvaluationError
from elude.handlers.images.preprocess import Preprocess
from elude.quality.subjects.given_file import GivenFileSubject
from elude.quality.subjects.onnx_subject import OnnxSubject
from elude.quality.subjects.subject import Forms
from elude.quality.subjects.torch_subject import TorchSubject

if TYPE_CHECKING:
    from torch import nn

    from elude.exporter.models.loaded import LoadedModel

PREPROCESS, LABELS = "preprocess.json", "labels.json"


def served_graph(
    bundle: Bundle, *, name: str = "served", threads: int = 1, device: str = "cpu", optimise: bool = True
) -> OnnxSubject:
    """The graph of a bundle by itself."""
    return OnnxSubject(
        bundle,
        Preprocess.from_json(bundle.json(PREPROCESS)),
        name=name,
        labels=bundle.json(LABELS) if bundle.has(LABELS) else None,
        parameters=bundle.manifest.parameters,
        threads=threads,
        device=device,
        optimise=optimise,
    )


def open_bundle(
    bundle: Bundle,
    *,
    threads: int = 1,
    device: str = "cpu",
    precision: str = "float32",
    model: str | nn.Module | LoadedModel | None = None,
) -> Forms:
    """Load the graph and rebuild the original and the disentangled model.

    Args:
        bundle: with its graph.
        threads: of ONNX Runtime.
        device: where all three run.
        precision: of the torch models.
        model: the original, where the bundle cannot load it by name (elude.exporter.models.original); a path of the
            file where it was made from one.

    Raises:
        EvaluationError: if the model the bundle names has other weights now.
        UsageError, BundleError: if it cannot be loaded at all.
    """
    source = bundle.manifest.source
    preprocess = Preprocess.from_json(bundle.json(PREPROCESS))
    if made_from_onnx(source) and model is not None:
        return _beside_file(bundle, preprocess, model, threads=threads, device=device)
    from elude.exporter.models.original import load_original
    from elude.exporter.rewrite import graft
    from elude.exporter.splitting.split_file import bundle_splits

    loaded = load_original(source, preprocess, model)
    _check_weights(loaded.source, source)
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


def _beside_file(bundle: Bundle, preprocess: Preprocess, model: object, *, threads: int, device: str) -> Forms:
    """The three forms of a bundle that was made from the ONNX file ``model``."""
    source = bundle.manifest.source
    served = served_graph(bundle, threads=threads, device=device)
    given = original_file(source, preprocess, served.output_kind, model)
    _check_weights(given.source, source)
    return Forms(
        source.model,
        bundle.artefact_sha256,
        GivenFileSubject(given, labels=served.labels),
        served_graph(bundle, name="disentangled", threads=threads, device=device, optimise=False),
        served,
    )


def _check_weights(loaded: Source, named: Source) -> None:
    if loaded.weights_sha256 != named.weights_sha256:
        raise EvaluationError(
            f"{named.model} now has different weights from those the bundle was made from: sha256 "
            f"{loaded.weights_sha256[:12]}…, not {named.weights_sha256[:12]}….",
            "Export it again, or bring the old weights back.",
        )
