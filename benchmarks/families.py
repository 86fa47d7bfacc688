"""One small member of each of timm's modules through the exporter: ``python -m benchmarks.families``; and models of
torchvision, transformers and one's own: ``python -m benchmarks.families --libraries``.

Weights are random. For each model: the default layer is split at random, the graph is written, and

- without edits and not optimised its output is compared bit by bit with the plain export's,
- with edits it is compared with the model whose weights were edited instead: W + sum of (g - 1) w_s, in torch.

A refusal is a result, with its reason; anything else that is raised is a crash. Rows are appended to a file as they
come, and models that are in it are passed over, so a run can be resumed, and several may share a file. Most of the time
is torch's exporter, which runs once for both graphs.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import nn

import elude.exporter.models.torchvision_compat  # noqa: F401 - repairs torchvision, which timm imports

# isort: split
import timm

from elude.exporter.graph import emit
from elude.exporter.graph.prepare import prepare_graph
from elude.exporter.models.layers import Layer, find_layers, splittable
from elude.exporter.models.load import LoadedModel, ModelOptions, load_any, load_model
from elude.exporter.models.trial import try_out
from elude.exporter.splitting.layer_split import LayerSplit, full_masks
from elude.exporter.splitting.weights import sub_unit_bias, sub_unit_weights
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.output_kinds import EMBEDDING, OUTPUT_NAMES
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import EludeError
from elude.handlers.images.preprocess import Preprocess

PARTS = 3
EDITS = 6
# What timm calls its small ones, smallest first.
SMALL = (
    "test",
    "atto",
    "femto",
    "pico",
    "nano",
    "xxs",
    "xxt",
    "micro",
    "mini",
    "tiny",
    "xs",
    "_t",
    "_s",
    "small",
    "18",
)


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        family: timm's module; ``model``: its member; ``layer``: what was split.
        result: ``exported``, ``refused`` or ``crashed``; ``reason``: of the latter two, or what was done otherwise.
        identical: whether the unedited output has the same bits as the plain export's.
        steered: largest difference to the weight edit, relative to the largest output.
        effect: largest change that the edits made, relative to the largest output.
        seconds: of it all.
    """

    family: str
    model: str
    layer: str
    result: str
    reason: str
    identical: bool | None
    steered: float | None
    effect: float | None
    seconds: float


def members() -> dict[str, str]:
    """Module of timm → its smallest member by name."""
    chosen = {}
    for family in timm.list_modules():
        names = timm.list_models(module=family)
        if names:
            chosen[family] = min(names, key=lambda name: (rank(name), _input_side(name), len(name), name))
    return chosen


def rank(name: str) -> int:
    """Place of the first word for small in a name."""
    return next((place for place, word in enumerate(SMALL) if word in name), len(SMALL))


def _cost(name: str) -> tuple[int, int]:
    """Sorts by what a model will take, roughly."""
    return rank(name), _input_side(name)


def _input_side(name: str) -> int:
    cfg = timm.get_pretrained_cfg(name)
    return int(cfg.input_size[1]) if cfg else 224


def random_split(layer: Layer) -> LayerSplit:
    """Every unit in ``PARTS`` sub-units with random sharing sets."""
    masks = np.random.default_rng(0).integers(1, 2**PARTS, (layer.units, layer.inputs)).astype(np.uint64)
    parts = np.full(layer.units, PARTS, np.int64)
    assert (masks <= full_masks(parts)[:, None]).all()
    rho = np.full(layer.units, np.nan, np.float32)
    return LayerSplit(layer.name, parts, masks, rho, np.zeros((layer.units * PARTS, layer.inputs), np.float32))


@torch.no_grad()
def away_from_initial(module: nn.Module) -> None:
    """Scales and statistics away from their initial 0, 1 or 1e-6, behind which a fault, or any edit, would hide."""
    generator = torch.Generator().manual_seed(0)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0, generator=generator)
        elif value.is_floating_point() and (value.ndim == 1 or "gamma" in name):
            value.uniform_(0.3, 1.2, generator=generator)
        elif value.is_floating_point() and not value.any():  # a head that starts at 0 answers the same to every image
            value.normal_(0.0, 0.02, generator=generator)


def weight_edited(module: nn.Module, layer: Layer, split: LayerSplit, edits: Sequence[Edit]) -> nn.Module:
    """The model with the edits in its weights, in float64 until the end."""
    edited = copy.deepcopy(module)
    target = edited.get_submodule(layer.name)
    assert isinstance(target, (nn.Linear, nn.Conv2d))
    weight = target.weight.detach().double().numpy().copy()
    bias = np.zeros(layer.units) if target.bias is None else target.bias.detach().double().numpy().copy()
    rows = sub_unit_weights(target.weight.detach().numpy(), split)
    shares = sub_unit_bias(None if target.bias is None else target.bias.detach().numpy(), split)
    for edit in edits:
        unit = int(split.parent[edit.index])
        weight[unit] += (edit.gain - 1) * rows[edit.index].astype(np.float64)
        bias[unit] += (edit.gain - 1) * float(shares[edit.index]) + edit.offset
    target.weight = nn.Parameter(torch.from_numpy(weight).float(), requires_grad=False)
    target.bias = nn.Parameter(torch.from_numpy(bias).float(), requires_grad=False)
    return edited


def check(family: str, name: str, folder: Path, load: Callable[[], LoadedModel] | None = None) -> Row:
    """One model; whatever is raised becomes a row."""
    start, layer = time.perf_counter(), ""
    try:
        loaded = load_model(f"random:{name}") if load is None else load()
        away_from_initial(loaded.module)
        size = loaded.preprocess.input_size
        trial = try_out(loaded.module, size, splittable(loaded.module))
        (chosen,) = find_layers(loaded.module, "last", trial, headless=loaded.kind == EMBEDDING)
        layer = chosen.name
        identical, steered, effect, notes = compare(loaded, chosen, folder)
        row = Row(family, name, layer, "exported", "; ".join(notes), identical, steered, effect, 0.0)
    except EludeError as error:
        row = Row(family, name, layer, "refused", str(error), None, None, None, 0.0)
    except Exception as error:  # noqa: BLE001 - finding them is what a sweep is for
        reason = next(iter(str(error).splitlines()), "")
        row = Row(family, name, layer, "crashed", f"{type(error).__name__}: {reason}", None, None, None, 0.0)
    return Row(**{**asdict(row), "seconds": round(time.perf_counter() - start, 1)})


def compare(loaded: LoadedModel, layer: Layer, folder: Path) -> tuple[bool, float, float, tuple[str, ...]]:
    """Bit-identity, error of steering, effect of steering, and notes of the export."""
    size, split, path = loaded.preprocess.input_size, random_split(layer), folder / "model.onnx"
    output = OUTPUT_NAMES[loaded.kind]
    with exported_once():
        prepared = prepare_graph(loaded.module, [layer.name], size, output=output)
        ir.save(prepare_graph(loaded.module, [], size, output=output).model, folder / "plain.onnx")
    emit(
        loaded.module,
        [split],
        path,
        layers=[layer],
        input_size=size,
        source=loaded.source,
        preprocess=loaded.preprocess,
        prepared=prepared,
        kind=loaded.kind,
    )
    generator = np.random.default_rng(1)
    pixels = generator.standard_normal((2, *size)).astype(np.float32)
    index = generator.choice(split.sub_units, EDITS, replace=False)
    edits = [Edit(int(i), float(np.float32(g)), float(np.float32(o))) for i, (g, o) in
             zip(index, generator.uniform(-3, 4, (EDITS, 2)), strict=True)]  # fmt: skip
    session = GraphSession(path, optimise=False)
    plain, steered = session.run(pixels).output, session.run(pixels, [edits]).output
    with torch.no_grad():
        wanted = weight_edited(loaded.module, layer, split, edits)(torch.from_numpy(pixels)).numpy()
    scale = float(np.abs(wanted).max()) or 1.0
    error, effect = float(np.abs(steered - wanted).max()) / scale, float(np.abs(steered - plain).max()) / scale
    return plain.tobytes() == plain_output(folder, pixels).tobytes(), error, effect, prepared.notes


@contextmanager
def exported_once() -> Iterator[None]:
    """Within it, torch exports a module once per way of calling it, and each caller gets a copy of what it wrote."""
    export, programs = torch.onnx.export, {}

    def cached(module: nn.Module, *rest: Any, **options: Any) -> Any:
        fused = any(vars(part).get("fused_attn") is True for part in module.modules())
        key = id(module), fused
        if key not in programs:
            programs[key] = export(module, *rest, **options)
        return SimpleNamespace(model=programs[key].model.clone())

    torch.onnx.export = cached
    try:
        yield
    finally:
        torch.onnx.export = export


def plain_output(folder: Path, pixels: np.ndarray) -> np.ndarray:
    """Of the plain export, not optimised."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(folder / "plain.onnx", options, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"pixel_values": pixels})[0]
    return result


def libraries(folder: Path) -> Mapping[str, Callable[[], LoadedModel]]:
    """What there is beside timm; of transformers small ones from their configurations, in ``folder``."""
    import transformers

    small = {
        "image_size": 32, "patch_size": 8, "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }  # fmt: skip
    processor = {
        "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 2, "do_normalize": True,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip

    def saved(name: str, module: nn.Module, output: str | None = None) -> Callable[[], LoadedModel]:
        module.save_pretrained(folder / name)  # type: ignore[operator]
        (folder / name / "preprocessor_config.json").write_text(json.dumps(processor))
        return lambda: load_model(str(folder / name), options=ModelOptions(output=output))

    torch.manual_seed(0)
    own = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(12, 3),
    )  # fmt: skip
    plain = Preprocess((3, 32, 32), "bilinear", 1.0, "center", (0.5,) * 3, (0.5,) * 3)
    clip = transformers.CLIPVisionConfig(**small, projection_dim=10)
    return {
        "torchvision ResNet-18": lambda: load_model("random:torchvision:resnet18"),
        "torchvision ViT-B/16": lambda: load_model("random:torchvision:vit_b_16"),
        "transformers ViT": saved("vit", transformers.ViTForImageClassification(transformers.ViTConfig(**small))),
        "transformers Dinov2": saved(
            "dinov2", transformers.Dinov2Model(transformers.Dinov2Config(**small)), "pooler_output"
        ),
        "transformers CLIP vision": saved("clip", transformers.CLIPVisionModelWithProjection(clip), "image_embeds"),
        "nn.Sequential": lambda: load_any(own, ModelOptions(preprocess=plain, labels=["a", "b", "c"])),
    }


def sweep(families: Sequence[str], out: Path, minutes: float) -> Iterator[Row]:
    """Check those that ``out`` does not have yet, and append them to it, until the time is up."""
    end = time.monotonic() + 60 * minutes
    yield from rows_of(out)
    chosen = members()
    for family in families or sorted(chosen, key=lambda family: _cost(chosen[family])):
        if any(row.family == family for row in rows_of(out)):
            continue
        if time.monotonic() > end:
            return
        with tempfile.TemporaryDirectory() as folder:
            row = check(family, chosen[family], Path(folder))
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        yield row


def rows_of(out: Path) -> list[Row]:
    """What a file holds so far."""
    return [Row(**json.loads(line)) for line in out.read_text().splitlines()] if out.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", help="modules of timm; all by default")
    parser.add_argument("--out", type=Path, default=Path("build/families.jsonl"))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no model after this time")
    rows: Iterable[Row]
    parser.add_argument("--libraries", action="store_true", help="models of other libraries instead of timm's")
    arguments = parser.parse_args()
    if arguments.libraries:
        with tempfile.TemporaryDirectory() as folder:
            rows = [check(name, name, Path(folder), load) for name, load in libraries(Path(folder)).items()]
    else:
        rows = sweep(arguments.families, arguments.out, arguments.minutes)
    for row in rows:
        numbers = f"identical {row.identical}, steered {row.steered:.1e}" if row.steered is not None else row.reason
        print(f"{row.family:<24} {row.model:<40} {row.layer:<36} {row.result:<9} {numbers}", flush=True)


if __name__ == "__main__":
    main()
