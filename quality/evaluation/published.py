"""Measuring as the published code of "Beyond Accuracy" does, for the score among its 326 models and nothing else.

The published values were measured with github.com/visinf/beyond-accuracy. Where it differs from what is right
(``docs/quality.md``), a comparison with them has to differ alike. ``SETTINGS`` names each difference; a dimension that
cannot be measured as there is left out of the score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from elude.quality.suites.image_sets import EncodedSet, ImageSet
from elude.quality.suites.pairing import OtherForm
from elude.quality.suites.suite import IMAGENET_1K, ShiftedSet, Suite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from elude.handlers.images.preprocess import Preprocess

SETTINGS: Mapping[str, str] = {
    "orientation": "the EXIF orientation of a photograph is not applied, and transparency is dropped",
    "stimuli": "images of 224 pixels (ImageNet-C, edges, silhouettes, sketches, cue conflict, ImageNet-9) are resized "
    "and cut once more, like the validation images",
    "attacks": "epsilon 8/255 and the steps are of normalised values, and adversarial values are cut to [0, 1] after "
    "normalisation",
}
_SHIFTS = {"edge", "silhouette", "sketch", "stylized", "imagenet-r"}


def as_published(suite: Suite) -> Suite:
    """The suite with every image decoded and cut as the published code does."""

    def shifted(shift: ShiftedSet) -> ShiftedSet:
        return replace(shift, images=_images(shift.images))

    return replace(
        suite,
        images=_images(suite.images),
        shifted=tuple(map(shifted, suite.shifted)),
        mixed=suite.mixed and (shifted(suite.mixed[0]), shifted(suite.mixed[1])),
        cue_conflict=suite.cue_conflict and shifted(suite.cue_conflict),
        corrupted=tuple((name, severity, _images(images)) for name, severity, images in suite.corrupted),
    )


def _images(images: ImageSet) -> ImageSet:
    if isinstance(images, (EncodedSet, OtherForm)):
        return replace(images, ready=False, as_published=True)
    return images


def not_comparable(suite: Suite, attacked: Any, budget: int | None) -> dict[str, str]:
    """Dimension to the reason why its value cannot be compared with the published ones.

    Args:
        suite: what was measured on.
        attacked: the module that was attacked, None for none.
        budget: images for the dimensions that need many passes, None for all.
    """
    reasons: dict[str, str] = {}
    if not suite.corrupted or len(suite.corrupted) != 75:
        reasons["corruption_robustness"] = "the corruptions are not ImageNet-C's 75 sets"
    if {shift.name for shift in suite.shifted} != _SHIFTS:
        reasons["ood_robustness"] = f"the shifted sets are not {', '.join(sorted(_SHIFTS))}"
    if suite.mixed is None or not suite.mixed[0].categories:
        reasons["object_focus"] = "the mixed backgrounds are not ImageNet-9's"
    if suite.cue_conflict is None or not suite.cue_conflict.categories:
        reasons["shape_bias"] = "the cue-conflict images are not model-vs-human's"
    layer = None if attacked is None else _depends_on_mode(attacked)
    if layer is not None:
        reasons["adversarial_robustness"] = (
            f"the published code answers attacked images in train mode, and {layer} answers differently in it"
        )
    if budget is not None:
        many = ("corruption_robustness", "adversarial_robustness", "ood_robustness", "object_focus", "shape_bias")
        reasons |= {name: f"{budget} images were used, not all" for name in many if name not in reasons}
    return reasons


def comparable_suite(suite: Suite, classes: int) -> str | None:
    """Why a suite is not the published protocol's, None if it is."""
    if suite.protocol != IMAGENET_1K:
        return "published means and deviations hold under the ImageNet-1k protocol only"
    if classes != 1000 or len(suite.images) != 50_000:
        return "the ImageNet-1k protocol has 1000 classes and 50000 images"
    return None


def _depends_on_mode(module: Any) -> str | None:
    """A layer that computes something else in train mode, None if there is none."""
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.dropout import _DropoutNd

    for name, part in module.named_modules():
        batch = isinstance(part, _BatchNorm)
        drops = isinstance(part, _DropoutNd) and part.p > 0
        if batch or drops or (type(part).__name__ == "DropPath" and float(getattr(part, "drop_prob", 0) or 0) > 0):
            return str(name or type(part).__name__)
    return None


class PublishedAttacks:
    """FGSM and PGD on normalised images, which is how the published values were made.

    Args:
        on_pixels: the model behind its normalisation.
        preprocess: with the mean and standard deviation of that normalisation.
        seed: of PGD's start.
    """

    sets = 2  # of adversarial images

    def __init__(self, on_pixels: Any, preprocess: Preprocess, seed: int) -> None:
        from elude.quality.evaluation.attacks import EPSILON, PGD_STEP, PGD_STEPS

        self._model, self._preprocess, self._seed = on_pixels.model, preprocess, seed
        self.settings: dict[str, Any] = {
            "epsilon": EPSILON,
            "step": PGD_STEP,
            "steps": PGD_STEPS,
            "space": "normalised",
        }

    def __call__(
        self, pixels: NDArray[np.float32], labels: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float32]]:
        """Adversarial pixels of float32 (N, 3, H, W) pixels in [0, 1]."""
        import numpy as np
        import torch

        from elude.quality.evaluation.attacks import device_of, gradient

        epsilon, step = self.settings["epsilon"], self.settings["step"]
        device = device_of(self._model)
        x = torch.from_numpy(self._preprocess.normalise_unit(pixels)).to(device)
        y = torch.from_numpy(labels).to(device)
        modes = [(module, module.training) for module in self._model.modules()]
        self._model.eval()
        try:
            fgsm = (x + epsilon * gradient(self._model, x, y).sign()).clamp(0, 1)
            starts = [
                np.random.default_rng([self._seed, int(n)]).uniform(-epsilon, epsilon, x.shape[1:]) for n in numbers
            ]
            pgd = (x + torch.from_numpy(np.stack(starts).astype(np.float32))).clamp(0, 1)
            for _ in range(self.settings["steps"]):
                moved = pgd + step * gradient(self._model, pgd, y).sign()
                pgd = (x + (moved - x).clamp(-epsilon, epsilon)).clamp(0, 1)
        finally:
            for module, training in modes:
                module.training = training
        return {"fgsm": self._as_pixels(fgsm), "pgd": self._as_pixels(pgd)}

    def _as_pixels(self, normalised: Any) -> NDArray[np.float32]:
        """What every form of the model is given: it normalises these to the adversarial values again."""
        import torch

        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self._preprocess.mean, self._preprocess.std))
        array: NDArray[np.float32] = (normalised.cpu() * std + mean).numpy()
        return array
