"""What the layers to be split read and returned on the probing images: one pass for all layers, a few tokens of each
image.

Which tokens are kept depends on the seed and the image's content only, never on its name or position, the batch size or
the engine; layers with as many tokens as each other keep the same ones.

Memory is bounded, and taken at the first batch: ``collected_bytes`` in sum over the layers, that is
``min(tokens_per_image, T) * images * ((groups * inputs * window + units) * 4 + 16)
+ images * groups * inputs * 4`` bytes per layer with T tokens, beside two batches of images and
what the model and the layers make of one. With a ``folder`` this is its size on disk, and in memory
is only what the system caches of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from elude.exporter import engines
from elude.exporter.images import ImageSource
from elude.exporter.images.screen import with_hashes
from elude.exporter.models.device import device_of
from elude.exporter.models.layers import Layer
from elude.exporter.models.walk import Calls, pass_size, walk
from elude.exporter.probing.instances import keep
from elude.exporter.probing.probe_store import Kept, Probe, Store
from elude.exporter.progress import Progress
from elude.handlers.errors import UsageError
from elude.handlers.images.preprocess import Preprocess

__all__ = ["Probe", "collect", "collected_bytes"]


@dataclass(frozen=True)
class _Work:
    """What the collection of one batch needs."""

    model: nn.Module
    layers: list[Layer]
    images: ImageSource
    preprocess: Preprocess
    tokens_per_image: int
    seed: int
    batch_size: int
    threads: int


def collect(
    model: nn.Module,
    layers: Sequence[Layer],
    images: ImageSource,
    preprocess: Preprocess,
    *,
    tokens_per_image: int,
    seed: int,
    batch_size: int = 64,
    progress: Progress | None = None,
    folder: Path | None = None,
    engine: str = engines.LOCAL,
    workers: int = 0,
) -> dict[str, Probe]:
    """Run the images through the model once and keep some instances of each layer.

    Args:
        model: in eval mode.
        layers: of that model.
        images: the probing set.
        preprocess: of the model.
        tokens_per_image: kept of each image, without repeats; all of them where the layer has no more.
        seed: of the choice.
        batch_size: images per forward pass; does not change which instances are kept.
        progress: called with (images done, images) after each batch.
        folder: where to collect, so that a collection that was killed resumes when it is called
            again with the same arguments; None: in memory. A collection of anything else in it is
            replaced.
        engine: ``local``, or ``ray``, whose machines must find the images under the same paths.
        workers: of ``ray``, see ``elude.exporter.engines.run``. Locally the model runs in this
            process, and threads decode.

    Returns:
        one probe per layer, by its path, in the order of ``layers``.

    Raises:
        UsageError: ``tokens_per_image`` or ``batch_size`` is below 1; an unknown engine.
        UnsupportedLayerError: a layer does not run exactly once per forward pass.
        ImageError: an image cannot be read.
    """
    if tokens_per_image < 1 or batch_size < 1:
        raise UsageError(
            f"tokens_per_image is {tokens_per_image} and batch_size {batch_size}.", "Give at least 1 for both."
        )
    engines.check(engine, workers)
    batch_size = pass_size(batch_size, device_of(model), preprocess)
    given, images = images, with_hashes(images)
    work = _Work(model, list(layers), images, preprocess, tokens_per_image, seed, batch_size, torch.get_num_threads())
    store = Store([layer.name for layer in layers], len(images), folder, "" if folder is None else _key(work, given))

    def put(start: int, batch: int, kept: dict[str, Kept]) -> None:
        store.put(start, batch, kept)
        if progress is not None:
            progress(store.done, len(images))

    if progress is not None and store.done:
        progress(store.done, len(images))
    if store.done < len(images):
        if engine == engines.RAY:
            starts = range(store.done, len(images), batch_size)
            for start, kept in zip(
                starts, engines.run(_elsewhere, work, starts, engine=engine, workers=workers), strict=True
            ):
                put(start, min(batch_size, len(images) - start), kept)
        else:
            walk(
                model,
                layers,
                images,
                preprocess,
                lambda *batch: put(*_keep(work, *batch)),
                batch_size=batch_size,
                first=store.done,
            )
    return {layer.name: store.probe(layer.name) for layer in layers}


def collected_bytes(layer: Layer, tokens: int, images: int, tokens_per_image: int) -> int:
    """Bytes of the probe of a layer with ``tokens`` tokens per image: its five arrays."""
    inputs = layer.groups * layer.inputs
    instances = min(tokens_per_image, tokens) * images
    return instances * ((inputs * layer.window + layer.units) * 4 + 16) + images * inputs * 4


def _keep(work: _Work, start: int, batch: int, calls: Calls) -> tuple[int, int, dict[str, Kept]]:
    per_image, seed = work.tokens_per_image, work.seed
    hashes = [entry.sha256 for entry in work.images.entries[start : start + batch]]
    return (
        start,
        batch,
        {layer.name: keep(layer, calls[layer.name], hashes, per_image, seed) for layer in work.layers},
    )


def _elsewhere(work: _Work, start: int) -> dict[str, Kept]:
    """One batch, on a machine of a cluster."""
    torch.set_num_threads(work.threads)  # sums over another number of threads round otherwise
    some = replace(work.images, entries=work.images.entries[start : start + work.batch_size])
    found: list[dict[str, Kept]] = []

    def visit(_: int, batch: int, calls: Calls) -> None:
        found.append(_keep(work, start, batch, calls)[2])

    walk(work.model, work.layers, some, work.preprocess, visit, batch_size=work.batch_size)
    return found[0]


def _key(work: _Work, given: ImageSource) -> str:
    """What every byte of the collection depends on."""
    from elude.exporter.models.load import weights_sha256

    facts = {
        "weights": weights_sha256(work.model),
        "images": given.fingerprint(),
        "layers": [layer.name for layer in work.layers],
        "preprocess": work.preprocess.to_json(),
        "settings": [work.tokens_per_image, work.seed, work.batch_size, work.threads],
        "torch": torch.__version__,
        "device": device_of(work.model).type,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
