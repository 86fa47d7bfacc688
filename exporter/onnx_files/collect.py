"""What the layers of a graph read and returned on images: the same choice of tokens as of a torch model
(elude.exporter.probing.probe), by ONNX Runtime.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from elude.exporter.images import ImageSource
from elude.exporter.images.screen import with_hashes
from elude.exporter.models.tokens import to_tokens
from elude.exporter.onnx_files.layers import OnnxLayer
from elude.exporter.onnx_files.read_file import PIXELS, OnnxFile
from elude.exporter.onnx_files.run import Array, Session
from elude.exporter.probing.probe_store import Kept, Probe, Store, chosen_tokens

Progress = Callable[[int, int], None]


def collect(
    file: OnnxFile,
    layers: Sequence[OnnxLayer],
    images: ImageSource,
    *,
    tokens_per_image: int,
    seed: int,
    batch_size: int,
    progress: Progress,
    folder: Path,
) -> dict[str, Probe]:
    """Run the images through the file once and keep some instances of each layer, as
    ``elude.exporter.probing.probe.collect`` does.
    """
    given, images = images, with_hashes(images)
    facts = [
        file.source.to_json(),
        file.preprocess.to_json(),
        given.fingerprint(),
        [layer.name for layer in layers],
        [tokens_per_image, seed, batch_size],
        onnxruntime.__version__,
    ]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    store = Store([layer.name for layer in layers], len(images), folder, key)
    watched = Watched(file, layers)
    for start, pixels in images.batches(file.preprocess, batch_size, first=store.done):
        hashes = [entry.sha256 for entry in images.entries[start : start + len(pixels)]]
        calls = watched(pixels)
        kept = {layer.name: keep(layer, calls[layer.name], hashes, tokens_per_image, seed) for layer in layers}
        store.put(start, len(pixels), kept)
        progress(store.done, len(images))
    return {layer.name: store.probe(layer.name) for layer in layers}


class Watched:
    """A file that shows what its layers read and return: layer → (q, z)."""

    def __init__(self, file: OnnxFile, layers: Sequence[OnnxLayer]) -> None:
        self.layers = list(layers)
        values = [str(value.name) for layer in layers for value in (layer.site.q, layer.site.z)]
        self._session = Session(file.ready, values)

    def __call__(self, pixels: Array) -> dict[str, tuple[Array, Array]]:
        values = self._session.run({PIXELS: pixels})
        return {layer.name: (values[2 * i], values[2 * i + 1]) for i, layer in enumerate(self.layers)}


def keep(layer: OnnxLayer, call: tuple[Array, Array], hashes: Sequence[str], per_image: int, seed: int) -> Kept:
    """Some instances of each image of a batch."""
    batch = len(hashes)
    x, z = call[0], to_tokens(call[1], layer, batch)
    count = min(per_image, z.shape[1])
    tokens, image = chosen_tokens(hashes, z.shape[1], count, seed), np.arange(batch).repeat(count)
    if layer.kind == "linear":
        flat = x.reshape(batch, -1, layer.inputs)
        return Kept(flat[image, tokens][..., None], z[image, tokens], tokens, flat.mean(axis=1))
    return Kept(windows(layer, x, image, tokens), z[image, tokens], tokens, x.mean(axis=(2, 3)))


def windows(layer: OnnxLayer, x: Array, image: NDArray[np.int64], token: NDArray[np.int64]) -> Array:
    """(instances, groups * inputs, window): what a convolution looks at to make some of its outputs."""
    ints = layer.site.product.attributes.get_ints
    kernel_h, kernel_w = layer.weights.shape[2:]
    stride_h, stride_w = ints("strides", [1, 1])
    dilation_h, dilation_w = ints("dilations", [1, 1])
    top, left, bottom, right = ints("pads", [0, 0, 0, 0])
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    width = (x.shape[3] - dilation_w * (kernel_w - 1) - 1) // stride_w + 1
    row = (token // width * stride_h)[:, None] + np.arange(kernel_h) * dilation_h
    column = (token % width * stride_w)[:, None] + np.arange(kernel_w) * dilation_w
    seen = x[image[:, None, None], :, row[:, :, None], column[:, None, :]]  # (instances, kernel_h, kernel_w, channels)
    return seen.reshape(len(token), -1, x.shape[1]).swapaxes(1, 2)
