"""What runs on a GPU, beside the processor: the same results, how much sooner, and in how much memory.

Needs no data and no network: the embedded model and a ViT-S/16 with random weights on noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from elude.exporter.models.load import load_model
from elude.quality.evaluation.attacks import attacker
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.subjects.devices import providers, resolve
from elude.quality.subjects.torch_subject import TorchSubject
from elude.quality.suites.open_suite import embedded_suite

BUDGET = 60
DIMENSIONS = ["accuracy", "calibration_error", "class_balance", "corruption_robustness", "adversarial_robustness"]
LARGE = "random:vit_small_patch16_224"


def same_results(device: str) -> str:
    """The largest difference of a dimension's value."""
    values = []
    for where in ("cpu", device):
        loaded = load_model("embedded")
        subject = TorchSubject(loaded.module, loaded.preprocess, labels=loaded.labels, device=where)
        values.append(evaluate(subject, embedded_suite(), dimensions=DIMENSIONS, budget=BUDGET, resamples=0).values)
    return f"{max(abs(values[0][d] - values[1][d]) for d in DIMENSIONS):.1e}"


def outputs(device: str, precision: str = "float32") -> str:
    """The largest difference of an output, relative to the largest output."""
    pixels = np.random.default_rng(0).random((8, 3, 224, 224), np.float32)
    here, there = (
        TorchSubject(loaded.module, loaded.preprocess, device=where, precision=kind).outputs(pixels)
        for where, kind in (("cpu", "float32"), (device, precision))
        for loaded in (load_model(LARGE),)
    )
    return f"{np.abs(here - there).max() / np.abs(here).max():.1e}"


def _rate(work: Callable[[], object], images: int, device: str) -> float:
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    return images / (time.perf_counter() - start)


def passes(device: str, images: int) -> str:
    loaded = load_model(LARGE)
    subject = TorchSubject(loaded.module, loaded.preprocess, device=device)
    pixels = np.random.default_rng(0).random((images, 3, 224, 224), np.float32)
    return f"{_rate(lambda: subject.outputs(pixels), images, device):,.0f} images/s"


def attacks(device: str, images: int) -> str:
    loaded = load_model(LARGE)
    attack = attacker(TorchSubject(loaded.module, loaded.preprocess, device=device).on_pixels, 0)
    pixels = np.random.default_rng(0).random((images, 3, 224, 224), np.float32)
    labels, numbers = np.zeros(images, np.int64), np.arange(images)
    return f"{_rate(lambda: attack(pixels, labels, numbers), images, device):,.2f} images/s"


def memory(device: str) -> str:
    return f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB"


def main() -> None:
    device = resolve("auto")
    gpu = device.startswith("cuda")
    name = torch.cuda.get_device_name() if gpu else "no GPU here"
    rows: list[tuple[str, Callable[[], str] | None, Callable[[], str] | None]] = [
        (f"largest difference of a dimension, {BUDGET} images", None, lambda: same_results(device)),
        ("largest relative difference of an output, float32", None, lambda: outputs(device)),
        ("the same, bfloat16", None, lambda: outputs(device, "bfloat16")),
        ("forward passes, ViT-S/16", lambda: passes("cpu", 8), lambda: passes(device, 256)),
        ("FGSM and PGD, ViT-S/16", lambda: attacks("cpu", 1), lambda: attacks(device, 64)),
        ("ONNX Runtime's provider", lambda: providers("cpu")[0], lambda: providers(device)[0]),
        ("largest memory on the GPU", None, lambda: memory(device)),
    ]
    print(f"| what | processor | {name} |\n|---|---|---|", flush=True)
    for what, here, there in rows:
        cells = [here() if here else "–", there() if there and gpu else "not measured: no GPU"]
        print(f"| {what} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
