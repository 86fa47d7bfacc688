"""Which sub-units move a dimension: the gradient of a smooth stand-in for it with respect to each sub-unit's gain.

A dimension counts right answers, which has no gradient, so each has a stand-in that sums ``weight ·
f`` over images, f being the probability of a class or its logarithm. The sub-units ``a`` of a unit
add up to the unit's activation ``z``. Multiplying one with a gain g adds ``(g − 1) a`` to z, so
that the derivative by g at 1 is ``sum over images and tokens of dS/dz · a``: one backward pass of
the original model for all sub-units at once. ``a`` comes from the graph that is served.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.handlers.bundle.bundle import Bundle, LayerInfo
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import UsageError
from elude.quality.evaluation.extra_sets import CONFLICT, RAND, SAME, SHIFTED
from elude.quality.evaluation.made_sets import made_sets
from elude.quality.steering.presets import SteeredSubject
from elude.quality.steering.tune_values import MADE, Images
from elude.quality.subjects.bundle_subject import open_bundle
from elude.quality.subjects.subject import outputs_of

_BATCH = 100


@dataclass(frozen=True)
class Part:
    """Some images and what each adds to the stand-in.

    Attributes:
        pixels: uint8 (N, H, W, 3).
        plus, minus: int64 (N,), classes whose probability counts for and against; ``minus`` may be None.
        weights: float64 (N,).
        log: whether the logarithm of the probability counts.
    """

    pixels: NDArray[np.uint8]
    plus: NDArray[np.int64]
    weights: NDArray[np.float64]
    minus: NDArray[np.int64] | None = None
    log: bool = False


def gain_gradients(
    bundle: Bundle, subject: SteeredSubject, images: Images, dimension: str, *, seed: int
) -> NDArray[np.float64]:
    """float64 (S,): how fast the stand-in of ``dimension`` rises with the gain of each sub-unit of the bundle, at
    gain 1.

    Args:
        subject: the model without edits.
        images: of the tuning split.

    Raises:
        EvaluationError, UsageError: the original model cannot be loaded again.
    """
    from elude.quality.subjects.torch_subject import TorchSubject

    original = open_bundle(bundle).original
    if not isinstance(original, TorchSubject):
        raise UsageError(
            "The original model is no torch module, so it has no gradient.", "Tune a bundle of a torch model."
        )
    module = original.module
    layers = bundle.manifest.layers
    total = np.zeros(sum(layer.sub_units for layer in layers))
    for part in stand_in(subject, images, dimension, seed=seed):
        for start in range(0, len(part.plus), _BATCH):
            rows = slice(start, start + _BATCH)
            inputs = subject.preprocess.normalise(part.pixels[rows])
            slopes = _slopes(module, inputs, part, rows, layers)
            total += _by_sub_unit(subject.session, inputs, slopes, layers)
    return total


def stand_in(subject: SteeredSubject, images: Images, dimension: str, *, seed: int) -> Iterator[Part]:
    """The smooth stand-in of a dimension, larger being better."""
    n = len(images.labels)
    if dimension in ("accuracy", "calibration_error"):  # both are what the likelihood, a proper score, rewards
        yield Part(images.pixels, images.labels, np.full(n, 1 / n), log=True)
    elif (
        dimension == "class_balance"
    ):  # minus the std over classes of their mean confidence, linearised where it is now
        outputs = outputs_of(subject, images.pixels, 250).astype(np.float64)
        exponents = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        confidence = (exponents / exponents.sum(axis=1, keepdims=True))[np.arange(n), images.labels]
        present, which, counts = np.unique(images.labels, return_inverse=True, return_counts=True)
        means = np.bincount(which, confidence) / counts
        slopes = (means.mean() - means) / (len(present) * max(means.std(), 1e-9))
        yield Part(images.pixels, images.labels, slopes[which] / counts[which])
    elif dimension in MADE:
        yield from _made(subject, images, dimension, seed)
    else:
        raise UsageError(f"{dimension!r} has no gradient.", f"Choose another; made from images: {', '.join(MADE)}.")


def _made(subject: SteeredSubject, images: Images, dimension: str, seed: int) -> Iterator[Part]:
    made = made_sets(images.pixels, images.labels, classes=images.classes, wanted=[dimension], seed=seed)
    for stage, shift in made.sets.items():
        batches = list(shift.images.batches(subject.preprocess, images.classes, 250))
        pixels, labels = (
            np.concatenate([batch.pixels for batch in batches]),
            np.concatenate([batch.labels for batch in batches]),
        )
        name, share = stage.partition("/")[2], np.full(len(labels), 1 / len(labels))
        if name.startswith(SHIFTED):
            yield Part(pixels, labels, share, log=True)
        elif name in (SAME, RAND):  # the gap between them is what object focus falls by
            yield Part(pixels, labels, share if name == RAND else -share)
        elif name == CONFLICT:
            yield Part(pixels, labels, share, minus=made.textures)


def _slopes(
    module: Any, inputs: NDArray[np.float32], part: Part, rows: slice, layers: tuple[LayerInfo, ...]
) -> list[NDArray[np.float32]]:
    """dS/dz of each layer, float32 (N, T, U)."""
    import torch

    kept: dict[str, torch.Tensor] = {}
    hooks = [
        module.get_submodule(layer.name).register_forward_hook(
            lambda _, __, z, name=layer.name: kept.__setitem__(name, z)
        )
        for layer in layers
    ]
    module.eval()
    try:
        with torch.enable_grad():
            logits = module(torch.from_numpy(inputs).requires_grad_())
            chances = logits.log_softmax(1) if part.log else logits.softmax(1)
            found = chances.gather(1, torch.from_numpy(part.plus[rows])[:, None])[:, 0]
            if part.minus is not None:
                found = found - chances.gather(1, torch.from_numpy(part.minus[rows])[:, None])[:, 0]
            value = (found * torch.from_numpy(part.weights[rows]).to(found)).sum()
            slopes = torch.autograd.grad(value, [kept[layer.name] for layer in layers])
    finally:
        for hook in hooks:
            hook.remove()
    return [_tokens(slope.numpy(), layer) for slope, layer in zip(slopes, layers, strict=True)]


def _tokens(slope: NDArray[np.float32], layer: LayerInfo) -> NDArray[np.float32]:
    """To (N, T, U): a convolution has its units second, a linear layer last."""
    if layer.kind == "conv":
        return slope.reshape(*slope.shape[:2], -1).transpose(0, 2, 1)
    return slope.reshape(len(slope), -1, slope.shape[-1])


def _by_sub_unit(
    session: GraphSession, inputs: NDArray[np.float32], slopes: list[NDArray[np.float32]], layers: tuple[LayerInfo, ...]
) -> NDArray[np.float64]:
    found = session.run(inputs, None, True).sub_units
    each = []
    for slope, layer in zip(slopes, layers, strict=True):
        of_unit = np.repeat(np.arange(layer.units), layer.parts)
        each.append((slope[:, :, of_unit] * found[layer.name]).sum(axis=(0, 1), dtype=np.float64))
    return np.concatenate(each)
