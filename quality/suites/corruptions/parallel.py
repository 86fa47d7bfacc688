"""Corrupt many images: a few at a time, as memory is bounded, and in other processes, as it takes long."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from elude.quality.suites.corruptions import corrupt

PIXELS_AT_ONCE = 32 * 224**2  # 32 images of 224 x 224
Corrupter = Callable[..., Callable[[], NDArray[np.uint8]]]


def corrupt_in_parts(
    pixels: NDArray[np.uint8], name: str, severity: int, numbers: list[int], seed: int
) -> NDArray[np.uint8]:
    """:func:`corrupt`, a few images at a time: it works on several copies in float32."""
    at_once = max(1, PIXELS_AT_ONCE // (pixels.shape[1] * pixels.shape[2]))
    parts = (slice(start, start + at_once) for start in range(0, len(pixels), at_once))
    return np.concatenate([corrupt(pixels[part], name, severity, numbers=numbers[part], seed=seed) for part in parts])


@contextmanager
def corrupting(workers: int) -> Iterator[Corrupter]:
    """Begins to corrupt images in one of ``workers`` processes, or does it when asked for the result, for 0.

    The corrupter takes the arguments of ``corrupt_in_parts`` and returns what to call for the result.
    """
    if workers == 0:
        yield lambda *task: partial(corrupt_in_parts, *task)
        return
    # spawned, as forking a process that has threads of torch or ONNX Runtime can hang
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield lambda *task: pool.submit(corrupt_in_parts, *task).result
