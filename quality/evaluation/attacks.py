"""FGSM and PGD in pixel space: the normalisation is inside the attacked model, so epsilon is what it says.

FGSM: Goodfellow et al. 2015. PGD with random start: Madry et al. 2018. Untargeted, cross-entropy, l-infinity.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elude.handlers.errors import EvaluationError
from elude.quality.statistics.intervals import are_probabilities

EPSILON = 8 / 255
PGD_STEP = 2 / 255
PGD_STEPS = 10
_ROUNDING = 1e-6


def fgsm(model: nn.Module, pixels: Tensor, labels: Tensor, *, epsilon: float = EPSILON) -> Tensor:
    """One step of epsilon along the sign of the gradient.

    Args:
        model: maps pixels to logits or probabilities; in eval mode.
        pixels: float32 (N, 3, H, W) in [0, 1].
        labels: int64 (N,).
        epsilon: largest change of a value.

    Returns:
        float32 (N, 3, H, W) in [0, 1], no value further than ``epsilon`` from ``pixels``.

    Raises:
        EvaluationError: if a part of the model is in train mode (its statistics would drift), or
            pixels are not in [0, 1].
    """
    _check(model, pixels)
    return _inside(pixels, pixels + epsilon * gradient(model, pixels, labels).sign(), epsilon)


def pgd(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    *,
    start: Tensor | None = None,
    epsilon: float = EPSILON,
    step: float = PGD_STEP,
    steps: int = PGD_STEPS,
) -> Tensor:
    """``steps`` of size ``step``, each projected back into the epsilon-ball and [0, 1]; begins at ``pixels + start``.

    Args, returns and errors as in :func:`fgsm`; ``start`` is (N, 3, H, W) within ±epsilon, zeros if not given.
    """
    _check(model, pixels)
    current = pixels if start is None else _project(pixels, pixels + start, epsilon)
    for _ in range(steps):
        current = _project(pixels, current + step * gradient(model, current, labels).sign(), epsilon)
    return _inside(pixels, current, epsilon)


def attacker(
    model: nn.Module, seed: int, epsilon: float = EPSILON
) -> Callable[[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]], dict[str, NDArray[np.float32]]]:
    """Both attacks on ``model``, for ``elude.quality.evaluation.observe``: pixels, labels and numbers of the images
    to adversarial pixels.

    The random start comes from (seed, number of the image), so batches do not matter.
    """

    def attack(
        pixels: NDArray[np.float32], labels: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float32]]:
        starts = [np.random.default_rng([seed, int(n)]).uniform(-epsilon, epsilon, pixels.shape[1:]) for n in numbers]
        start = torch.from_numpy(np.stack(starts).astype(np.float32))
        device = device_of(model)
        start, x, y = (values.to(device) for values in (start, torch.from_numpy(pixels), torch.from_numpy(labels)))
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            return {
                "fgsm": fgsm(model, x, y, epsilon=epsilon).cpu().numpy(),
                "pgd": pgd(model, x, y, start=start, epsilon=epsilon, step=PGD_STEP * epsilon / EPSILON).cpu().numpy(),
            }
        finally:
            for module, training in modes:
                module.training = training

    return attack


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are."""
    tensor = next(iter([*model.parameters(), *model.buffers()]), None)
    return torch.device("cpu") if tensor is None else tensor.device


def gradient(model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the cross-entropy with respect to the pixels; that of the parameters is not computed."""
    with torch.enable_grad():
        x = pixels.detach().clone().requires_grad_(True)
        outputs = model(x)
        if are_probabilities(outputs.detach().float().cpu().numpy()):
            # log p are logits of p: a second softmax would make the gradient vanish where the model is sure
            loss = nn.functional.nll_loss(
                outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log(), labels, reduction="sum"
            )
        else:
            loss = nn.functional.cross_entropy(outputs, labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
    if not bool(gradient.isfinite().all()):
        # the sign of NaN is 0 in torch: the image would stay as it is, and the model would look robust
        raise EvaluationError(
            "The gradient of the attacked model holds NaN or infinity.", "Check the model on these images."
        )
    return gradient


def _project(pixels: Tensor, moved: Tensor, epsilon: float) -> Tensor:
    return (pixels + (moved - pixels).clamp(-epsilon, epsilon)).clamp(0, 1)


def _check(model: nn.Module, pixels: Tensor) -> None:
    training = [name or type(module).__name__ for name, module in model.named_modules() if module.training]
    if training:
        raise EvaluationError(f"{training[0]} of the attacked model is in train mode.", "Call model.eval() first.")
    if pixels.min() < 0 or pixels.max() > 1:
        raise EvaluationError(
            "Attacks work on pixels in [0, 1], and these are not.", "Put the normalisation inside the model."
        )


def _inside(pixels: Tensor, adversarial: Tensor, epsilon: float) -> Tensor:
    """The images, checked to be what was promised."""
    result = _project(pixels, adversarial, epsilon)
    reach = float((result - pixels).abs().max())
    if not reach <= epsilon + _ROUNDING:
        raise EvaluationError(
            f"An attack changed a value by {reach}, more than epsilon {epsilon}.", "Report this as a defect."
        )
    return result.detach()
