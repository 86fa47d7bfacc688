"""A torch model as a subject, with its normalisation inside, so that gradients and perturbations are in pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from elude.handlers.images.preprocess import Preprocess
from elude.quality.subjects.subject import Images, Outputs, check_outputs


class Normalised(nn.Module):
    """``model`` behind its own normalisation: maps pixels in [0, 1] to outputs."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        outputs: Tensor = self.model((pixels - self.mean) / self.std)
        return outputs


class TorchSubject:
    """A module in eval mode. Measuring never changes it: the mode it was in is put back after each batch.

    Args:
        module: a classifier; it is moved to ``device``.
        preprocess: what it expects of an image.
        name: for people.
        labels: the names of its outputs, None if unknown.
        parameters: how many it has; counted by default.
        sha256: of its weights, None if unknown.
        device: where it runs, as torch names it.
        precision: ``float32``, or ``bfloat16`` or ``float16`` for mixed precision.
    """

    kind = "torch"

    def __init__(
        self,
        module: nn.Module,
        preprocess: Preprocess,
        *,
        name: str = "torch",
        labels: Sequence[str] | None = None,
        parameters: int | None = None,
        sha256: str | None = None,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.module = module.to(device)
        self.device, self.precision = device, precision
        self.preprocess = preprocess
        self.name = name
        self.labels = None if labels is None else tuple(labels)
        self.parameters = sum(p.numel() for p in module.parameters()) if parameters is None else parameters
        self.sha256 = sha256

    @property
    def on_pixels(self) -> nn.Module:
        """The module to attack: takes pixels in [0, 1]."""
        return Normalised(self.module, self.preprocess).to(self.device)

    def outputs(self, pixels: Images) -> Outputs:
        # normalised by the same code that serves, so that torch and ONNX get the same bytes
        modes = [(module, module.training) for module in self.module.modules()]
        self.module.eval()
        try:
            with torch.inference_mode(), self._arithmetic():
                images = torch.from_numpy(self.preprocess.normalise_unit(pixels)).to(self.device)
                outputs: Tensor = self.module(images)
        finally:
            for module, training in modes:
                module.training = training
        return check_outputs(np.asarray(outputs.float().cpu().numpy()), len(pixels), self.name)

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Full float32 on every device (CUDA's convolutions use TF32 otherwise), or the mixed precision asked for."""
        kind = torch.device(self.device).type
        dtype = getattr(torch, self.precision)
        mixed = torch.autocast(kind, dtype) if self.precision != "float32" else nullcontext()
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if kind == "cuda" else nullcontext()
        with mixed, exact:
            yield
