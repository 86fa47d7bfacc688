"""What the graph costs against the plain export: prediction, edits, inspection, file size; beside the explicit form
and a TopK SAE.

Random weights: time does not depend on them. Every run is timed in CPU time of its one thread,
    between two runs of the plain export, and
divided by their mean. Where a session's weights come to lie in memory alone can make it some per
cent faster or slower, so all sessions are opened anew several times: the result is the median over
these launches of each launch's median ratio. Run it as

    python -m benchmarks.graph [--quick] [--models NAME,…]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import Tensor, nn

import elude.exporter.models.torchvision_compat  # noqa: F401 - before timm
from elude.exporter.graph import emit
from elude.exporter.graph.plain import plain_export
from elude.exporter.models.layers import Layer, find_layers
from elude.exporter.rewrite import explicit
from elude.exporter.splitting.layer_split import LayerSplit, full_masks
from elude.handlers.bundle.bundle import Source
from elude.handlers.images.preprocess import Preprocess

SHARED = 0.7  # share of a unit's weights that all its sub-units share
TOP = 32  # active features of the SAE
MODELS = {
    "ViT-S/16": ("vit_small_patch16_224", {}, "blocks.11.mlp.fc2"),
    "ViT-B/16": ("vit_base_patch16_224", {}, "blocks.11.mlp.fc2"),
    "DINOv2-S/14": ("vit_small_patch14_dinov2", {"img_size": 224, "num_classes": 1000}, "blocks.11.mlp.fc2"),
    "ResNet-50": ("resnet50", {}, "layer4.2.conv3"),
    "ConvNeXt-T": ("convnext_tiny", {}, "stages.3.blocks.2.mlp.fc2"),
}
SIZE = (3, 224, 224)
Run = Callable[[], Any]


class TopK(nn.Module):
    """A sparse autoencoder in the place of a layer's output, of ``parts`` features a unit."""

    def __init__(self, layer: nn.Module, units: int, parts: int, conv: bool) -> None:
        super().__init__()
        self.layer, self.conv = layer, conv
        self.encoder, self.decoder = nn.Linear(units, parts * units), nn.Linear(parts * units, units)

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x)
        z = z.permute(0, 2, 3, 1) if self.conv else z
        values, index = self.encoder(z).relu().topk(TOP, dim=-1)
        features = torch.zeros(*z.shape[:-1], self.encoder.out_features).scatter(-1, index, values)
        z = self.decoder(features)
        return z.permute(0, 3, 1, 2) if self.conv else z


def a_split(layer: Layer, each: int) -> LayerSplit:
    """``each`` sub-units of every unit; a weight belongs to all of them or to one."""
    rng = np.random.default_rng(0)
    parts = np.full(layer.units, each)
    one = np.uint64(1) << rng.integers(0, each, (layer.units, layer.inputs)).astype(np.uint64)
    masks = np.where(rng.random(one.shape) < SHARED, full_masks(parts)[:, None], one)
    return LayerSplit(
        layer.name,
        parts,
        masks,
        np.full(layer.units, np.nan, np.float32),
        np.zeros((each * layer.units, layer.inputs), np.float32),
    )


def files(
    name: str, options: dict[str, Any], path: str, parts: int, folder: Path
) -> tuple[dict[str, Path], Layer, dict[str, float]]:
    """The four files of a model, its layer, and millions of multiply-adds for one image."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, **options).eval()
    (layer,) = find_layers(model, path)
    split = a_split(layer, parts)
    made = {key: folder / f"{key}.onnx" for key in ("plain", "graph", "explicit", "sae")}
    ir.save(plain_export(model, SIZE)[0], made["plain"])
    preprocess = Preprocess(SIZE, "bicubic", 1.0, "center", (0.5,) * 3, (0.5,) * 3)
    emit(
        model,
        [split],
        made["graph"],
        layers=[layer],
        input_size=SIZE,
        source=Source(name, "", name, "0" * 64),
        preprocess=preprocess,
    )
    products, tokens = multiply_adds(model, layer)
    ir.save(plain_export(explicit(model, [split]), SIZE)[0], made["explicit"])
    model.set_submodule(path, TopK(layer.module, layer.units, parts, layer.kind == "conv"))
    ir.save(plain_export(model.eval(), SIZE)[0], made["sae"])
    inputs = layer.inputs * layer.window
    counts = {
        "model": products,
        "32 edits": 32 * inputs * tokens / 1e6,
        "inspect": split.sub_units * inputs * tokens / 1e6,
        "TopK SAE": 2 * parts * layer.units**2 * tokens / 1e6,
    }
    return made, layer, counts


def multiply_adds(model: nn.Module, layer: Layer) -> tuple[float, int]:
    """Millions of multiply-adds of linear layers and convolutions for one image, and the layer's tokens."""
    total, tokens = 0.0, 0

    def count(module: nn.Module, _args: Any, output: Tensor) -> None:
        nonlocal total, tokens
        assert isinstance(module, (nn.Linear, nn.Conv2d))
        total += output.numel() * module.weight[0].numel() / 1e6
        if module is layer.module:
            tokens = output.numel() // layer.units

    handles = [
        module.register_forward_hook(count) for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    with torch.inference_mode():
        model(torch.zeros(1, *SIZE))
    for handle in handles:
        handle.remove()
    return total, tokens


def session(path: Path, optimise: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def runs(made: dict[str, Path], layer: Layer, parts: int, batch: int, optimise: bool) -> dict[str, Run]:
    """What is timed."""
    rng = np.random.default_rng(1)
    pixels = rng.standard_normal((batch, *SIZE)).astype(np.float32)
    sessions = {key: session(path, optimise) for key, path in made.items()}

    def of(key: str, outputs: list[str], **feed: Any) -> Run:
        return lambda: sessions[key].run(outputs, {"pixel_values": pixels, **feed})

    def edits(count: int) -> dict[str, Any]:
        shape = (batch, count)
        return {
            "steer_sub_unit": rng.integers(0, parts * layer.units, shape),
            "steer_gain": rng.standard_normal(shape).astype(np.float32),
            "steer_offset": np.zeros(shape, np.float32),
            "steer_patches": np.zeros(shape, np.int64),
        }

    result = {"plain": of("plain", ["logits"]), "predict": of("graph", ["logits"])}
    result |= {f"{count} edits": of("graph", ["logits"], **edits(count)) for count in (1, 8, 32)}
    result["inspect"] = of("graph", ["logits", f"{layer.name}.sub_units"], inspect=np.array(True))
    return result | {"explicit": of("explicit", ["logits"]), "TopK SAE": of("sae", ["logits"])}


def measured(open_all: Callable[[], dict[str, Run]], rounds: int, launches: int) -> dict[str, float]:
    """Medians over the launches, and the largest gap between two launches in any ratio."""
    found = [measure(open_all(), max(rounds // launches, 3)) for _ in range(launches)]
    median = {key: float(np.median([each[key] for each in found])) for key in found[0]}
    ratios = [key for key in median if key != "plain ms"]
    return median | {
        "gap of launches": max(max(each[key] for each in found) - min(each[key] for each in found) for key in ratios)
    }


def measure(timed: dict[str, Run], rounds: int) -> dict[str, float]:
    """Milliseconds of the plain export, and each other's median ratio to the plain runs right before and after it."""
    for run in timed.values():
        run()
    ratios: dict[str, list[float]] = {key: [] for key in timed if key != "plain"}
    plain: list[float] = []

    def clock(run: Run) -> float:
        start = time.thread_time()
        run()
        return (time.thread_time() - start) * 1e3

    for number in range(rounds):
        names = list(ratios)
        before = clock(timed["plain"])
        for name in names[number % len(names) :] + names[: number % len(names)]:
            own, after = clock(timed[name]), clock(timed["plain"])
            ratios[name].append(own / ((before + after) / 2))
            plain.append(after)
            before = after
    return {"plain ms": float(np.median(plain))} | {key: float(np.median(values)) for key, values in ratios.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, batch 1, optimised only")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--parts", type=int, default=8, help="sub-units of each unit")
    parser.add_argument("--rounds", type=int, default=15, help="at batch 1; a third of it at batch 8")
    parser.add_argument("--launches", type=int, default=3, help="how often all sessions are opened anew")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report: dict[str, Any] = {}
    for title in arguments.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            made, layer, counts = files(*MODELS[title], arguments.parts, Path(folder))
            mega = {key: path.stat().st_size / 1e6 for key, path in made.items()}
            mega["sub-unit weights"] = 4 * arguments.parts * layer.units * layer.inputs * layer.window / 1e6
            report[title] = {"layer": layer.name, "megabytes": mega, "million multiply-adds": counts, "ratios": {}}
            settings = [(1, True)] if arguments.quick else [(1, True), (8, True), (1, False)]
            for batch, optimise in settings:
                rounds = 3 if arguments.quick else arguments.rounds if batch == 1 else max(arguments.rounds // 3, 3)
                key = f"batch {batch}, {'ENABLE_ALL' if optimise else 'DISABLE_ALL'}"
                launches = 1 if arguments.quick else arguments.launches
                report[title]["ratios"][key] = measured(
                    partial(runs, made, layer, arguments.parts, batch, optimise), rounds, launches
                )
                print(
                    title,
                    key,
                    {name: round(value, 3) for name, value in report[title]["ratios"][key].items()},
                    flush=True,
                )
        if arguments.json:
            arguments.json.write_text(json.dumps(report, indent=1))
        print(title, {key: round(value, 1) for key, value in {**mega, **counts}.items()}, flush=True)


if __name__ == "__main__":
    main()
