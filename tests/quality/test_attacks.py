"""FGSM and PGD on a linear model worked out by hand, and the reference code's faults, each shown not to be here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elude.handlers.errors import EvaluationError
from elude.handlers.images.preprocess import Preprocess
from elude.quality.dimensions.adversarial_robustness import adversarial_robustness
from elude.quality.evaluation.attacks import EPSILON, attacker, fgsm, pgd
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.subjects.torch_subject import Normalised, TorchSubject
from elude.quality.suites.image_sets import PixelSet
from elude.quality.suites.suite import Suite

PREPROCESS = Preprocess((3, 4, 4), "bilinear", 1.0, "center", (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


class Linear(torch.nn.Module):
    """logits (w·x, -w·x) with w of fixed signs."""

    def __init__(self, dropout: bool = False) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.w = torch.nn.Parameter(torch.from_numpy(rng.choice([-1.0, 1.0], (3, 4, 4)).astype(np.float32)))
        self.extra = torch.nn.BatchNorm2d(3) if dropout else torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = (self.extra(x) * self.w).sum(dim=(1, 2, 3))
        return torch.stack([z, -z], dim=1)


def images(count: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 4, 4, generator=generator), torch.arange(count) % 2


def test_fgsm_on_a_linear_model_by_hand() -> None:
    model = Normalised(Linear(), PREPROCESS).eval()
    x, y = images()
    # the loss of class 0 falls with w·x, whatever the (positive) scale of the normalisation: move
    # against w; class 1: along it
    sign = torch.where(y == 0, -1.0, 1.0).view(-1, 1, 1, 1) * model.model.w.detach()
    expected = (x + EPSILON * sign).clamp(0, 1)
    assert torch.allclose(fgsm(model, x, y), expected, atol=1e-6)
    # ten steps of 2/255 reach the same corner of the ball, from any start
    start = (torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1) * EPSILON
    assert torch.allclose(pgd(model, x, y, start=start), expected, atol=1e-6)
    # three steps from the centre do not: 6/255
    assert torch.allclose(pgd(model, x, y, steps=3), (x + 6 / 255 * sign).clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 1 / 255, 8 / 255, 0.3])
def test_epsilon_is_in_pixels(epsilon: float) -> None:
    """Fault 1: attacking normalised images makes epsilon 8/255 about 1.8/255 in pixels, and clamps to the wrong
    range.
    """
    model = Normalised(Linear(), PREPROCESS).eval()
    x, y = images()
    for adversarial in attacker(model, 0, epsilon)(x.numpy(), y.numpy(), np.arange(len(x))).values():
        change = np.abs(adversarial - x.numpy())
        assert change.max() <= epsilon + 1e-6
        assert change.max() >= epsilon - 1e-6
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1


def test_normalised_images_are_refused() -> None:
    x, y = images()
    for attack in (fgsm, pgd):
        with pytest.raises(EvaluationError, match=r"\[0, 1\]"):
            attack(Linear().eval(), (x - 0.5) / 0.2, y)


def test_train_mode_is_refused_and_statistics_do_not_drift() -> None:
    """Fault 2: an attack that leaves the model in train mode shifts its BatchNorm statistics for every later metric."""
    model = Linear(dropout=True)
    x, y = images()
    model.train()
    with pytest.raises(EvaluationError, match="train mode"):
        fgsm(model, x, y)
    model.eval()
    model.extra.train()
    with pytest.raises(EvaluationError, match="extra"):
        pgd(model, x, y)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attacker(model, 0)(x.numpy(), y.numpy(), np.arange(len(x)))
    assert model.extra.training  # put back as it was
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_probabilities_get_no_second_softmax() -> None:
    """Fault 3: the gradient of softmax(softmax(z)) vanishes where the model is sure."""

    class Sure(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (super().forward(x) * 4).softmax(dim=1)

    x, y = images()
    plain = Normalised(Linear(), PREPROCESS).eval()
    sure = Normalised(Sure(), PREPROCESS).eval()
    moderate = ((plain(x)[:, 0] * 8).abs() < 60).nonzero()[:, 0]  # beyond that even float32 probabilities are exactly 0
    assert len(moderate) > 3
    assert torch.equal(fgsm(plain, x[moderate], y[moderate]), fgsm(sure, x[moderate], y[moderate]))


def test_batches_do_not_matter() -> None:
    model = Normalised(Linear(), PREPROCESS).eval()
    x, y = (t.numpy() for t in images())
    whole = attacker(model, 5)(x, y, np.arange(16))
    part = attacker(model, 5)(x[3:7], y[3:7], np.arange(3, 7))
    for name in whole:
        assert np.array_equal(whole[name][3:7], part[name])


def test_nan_gradient_is_not_a_robust_model() -> None:
    class Broken(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * torch.nan

    x, y = images()
    with pytest.raises(EvaluationError, match="gradient"):
        fgsm(Broken().eval(), x, y)


def test_dimension_by_hand_and_end_to_end() -> None:
    clean = np.array([True, True, True, True, False])
    result = adversarial_robustness(
        clean, np.array([True, True, False, False, False]), np.array([True, False, False, False, False])
    )
    assert result.value == pytest.approx(np.sqrt(0.5 * 0.25))
    collapsed = adversarial_robustness(clean, clean, np.zeros(5, bool), resamples=0)
    assert collapsed.value == 0  # fault 5: the factors still tell
    assert collapsed.factors == {"pgd": 0.0, "fgsm": 1.0, "clean_accuracy": 0.8}
    x, _ = images(40)
    subject = TorchSubject(Linear(), PREPROCESS, labels=("a", "b"))
    labels = subject.outputs(x.numpy()).argmax(axis=1)
    pixels = np.rint(x.numpy().transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    suite = Suite("test", PixelSet(pixels, labels, ("a", "b")), ())
    report = evaluate(subject, suite, dimensions=["adversarial_robustness"], resamples=0)
    margin = np.abs(np.diff(subject.outputs(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255), axis=1)[:, 0])
    # each of the 48 values moves the margin by at most 2 * epsilon / std
    unbeatable = (margin > 2 * EPSILON * 16 * (1 / 0.2 + 1 / 0.25 + 1 / 0.3)).mean()
    assert unbeatable <= report.values["adversarial_robustness"] < 1
