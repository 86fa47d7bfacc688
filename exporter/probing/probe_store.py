"""Where a collection grows: in memory, or in a folder that survives a kill.

In a folder there are, for the layer number i, the arrays ``i.q.npy``, ``i.z.npy``, ``i.token.npy``
and ``i.pictures.npy``, and ``state.json``: what the collection depends on and how many images are
in. It is replaced in one step after each batch, when the arrays have been written. A collection
that resumes where another ended computes the same batches, so the arrays get the same bytes. Loads no torch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.handlers.files import replace_file

PARTS = ("q", "z", "token", "pictures")
_STATE = "state.json"


@dataclass(frozen=True)
class Kept:
    """Instances of one layer on consecutive images, equally many of each.

    Attributes:
        q: float32 (instances, groups * inputs, window), the layer's input.
        z: float32 (instances, units), its output.
        token: int64 (instances,), position within the image.
        pictures: float32 (images, groups * inputs), the mean of the layer's whole input over each image.
    """

    q: NDArray[np.float32]
    z: NDArray[np.float32]
    token: NDArray[np.int64]
    pictures: NDArray[np.float32]


@dataclass(frozen=True)
class Probe:
    """Activation instances of one layer, image after image, tokens ascending.

    Attributes:
        layer: path of the module.
        q: float32 (instances, groups * inputs, window), the layer's input at each instance; of a
            convolution the window it looks at.
        z: float32 (instances, units), its output before any nonlinearity.
        image: int64 (instances,), position of the image in the source.
        token: int64 (instances,), position of the token within the image.
        pictures: float32 (images, groups * inputs), the mean of the layer's whole input over each image.
    """

    layer: str
    q: NDArray[np.float32]
    z: NDArray[np.float32]
    image: NDArray[np.int64]
    token: NDArray[np.int64]
    pictures: NDArray[np.float32]


def chosen_tokens(hashes: Sequence[str], tokens: int, count: int, seed: int) -> NDArray[np.int64]:
    """int64 (images * count,): which tokens of each image are kept, ascending within the image; they hang on its hash
    and the seed alone.
    """
    choice = [np.random.default_rng([seed, int(sha256, 16)]).choice(tokens, count, replace=False) for sha256 in hashes]
    return np.sort(np.stack(choice), axis=1).ravel()


def collection_key(folder: Path) -> str:
    """What the collection in a folder depends on, as a hash."""
    key: str = json.loads((folder / _STATE).read_text("utf-8"))["key"]
    return key


class Store:
    """Instances of several layers, batch by batch.

    Args:
        layers: their paths.
        images: how many there will be.
        folder: None keeps all in memory. A folder that holds a part of this very collection is
            resumed; whatever else it holds of a collection is removed.
        key: what the collection depends on.

    Attributes:
        done: images that are in.
    """

    def __init__(self, layers: list[str], images: int, folder: Path | None, key: str) -> None:
        self.layers, self.images, self.folder, self.key = layers, images, folder, key
        self.done = 0
        self._arrays: dict[str, dict[str, NDArray[Any]]] = {}
        if folder is not None:
            self._open(folder)

    def put(self, start: int, batch: int, kept: Mapping[str, Kept]) -> None:
        """Take in the instances of the ``batch`` images from ``start`` on, which must be the next ones."""
        assert start == self.done
        for name, of in kept.items():
            arrays = {part: getattr(of, part) for part in PARTS}
            if name not in self._arrays:
                allocated = {part: self._allocate(name, part, array, batch) for part, array in arrays.items()}
                self._arrays[name] = allocated
            for part, array in arrays.items():
                per_image = len(array) // batch
                self._arrays[name][part][per_image * start : per_image * (start + batch)] = array
        self.done = start + batch
        if self.folder is not None:
            self._commit(self.folder)

    def arrays(self, layer: str) -> dict[str, NDArray[Any]]:
        """``q``, ``z``, ``token`` and ``pictures`` of one layer, when all images are in."""
        assert self.done == self.images
        return self._arrays[layer]

    def probe(self, layer: str) -> Probe:
        """The instances of one layer, when all images are in."""
        arrays = self.arrays(layer)
        image = np.repeat(np.arange(self.images), len(arrays["z"]) // self.images)
        return Probe(layer, arrays["q"], arrays["z"], image, arrays["token"], arrays["pictures"])

    def _path(self, folder: Path, layer: str, part: str) -> Path:
        return folder / f"{self.layers.index(layer)}.{part}.npy"

    def _allocate(self, layer: str, part: str, like: NDArray[Any], batch: int) -> NDArray[Any]:
        shape = (len(like) // batch * self.images, *like.shape[1:])
        by_unit = part == "z"  # it is read unit by unit
        if self.folder is None:
            return np.empty(shape, like.dtype, order="F" if by_unit else "C")
        return np.lib.format.open_memmap(
            self._path(self.folder, layer, part), mode="w+", dtype=like.dtype, shape=shape, fortran_order=by_unit
        )

    def _open(self, folder: Path) -> None:
        state = folder / _STATE
        if state.is_file():
            found = json.loads(state.read_text("utf-8"))
            if found["key"] == self.key:
                self.done = found["done"]
                self._arrays = {
                    layer: {part: np.load(self._path(folder, layer, part), mmap_mode="r+") for part in PARTS}
                    for layer in self.layers
                }
                return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def _commit(self, folder: Path) -> None:
        """First the arrays, then the count that says they hold: a kill between the two repeats a batch."""
        for arrays in self._arrays.values():
            for array in arrays.values():
                array.flush()  # type: ignore[attr-defined]
        replace_file(folder / _STATE, json.dumps({"key": self.key, "done": self.done}).encode())
