"""What a model's outputs mean: a bundle, a torch folder, an ONNX file and a running server measure the true accuracy,
or all refuse.

The model is the embedded one with twelve outputs: 0 and 1 never win, output k + 2 is garment k. So folders sorted as
text ("10", "11", "2", …) are in another order than the outputs, and two outputs have no images. The true accuracies
are counted by hand from the model's answers, see ``truth``.
"""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import uvicorn
from safetensors.torch import load_file, save_file

from elude.exporter.graph import emit
from elude.exporter.images import ImageSource
from elude.exporter.images.classes import synsets
from elude.exporter.models.layers import find_layers
from elude.exporter.models.load import EMBEDDED_FOLDER, load_model
from elude.exporter.splitting.layer_split import LayerSplit, full_masks
from elude.exporter.splitting.split_file import save_splits
from elude.handlers.bundle.bundle import Bundle, LayerInfo, write_bundle
from elude.handlers.errors import EludeError, EvaluationError
from elude.handlers.service import Service
from elude.handlers.torchserve.client import Client
from elude.handlers.torchserve.server import Server
from elude.handlers.web.app import application
from elude.model_store.archive import package
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.subjects.open_subject import open_subject, served
from elude.quality.subjects.output_names import distinct, output_names, with_outputs
from elude.quality.subjects.subject import CallableSubject, Subject
from elude.quality.suites.image_sets import EncodedSet, PixelSet
from elude.quality.suites.open_suite import embedded_suite
from elude.quality.suites.suite import Suite

LAYER = "blocks.5.mlp.fc2"
GARMENTS = tuple(json.loads((EMBEDDED_FOLDER / "model" / "config.json").read_text())["label_names"])
NAMED = ("nothing", "never", *GARMENTS)
DOUBLE = (*NAMED[:10], "crane", "crane")  # outputs 10 and 11, bag and ankle-boot, have one name
SHUFFLED = tuple(str(n) for n in (7, 3, 11, 0, 9, 1, 10, 2, 8, 4, 6, 5))
FROM_ONE = tuple(str(n) for n in range(1, 13))
CODES = tuple(f"n{97 - i:04}" for i in range(12))  # in the order of the outputs, which is not their order as text
ALL, LAST_TWO = tuple(range(2, 12)), (10, 11)


@dataclass(frozen=True)
class Situation:
    """``folders``: what the folder of each output is called; ``images``: of which outputs there are images."""

    labels: tuple[str, ...] | None
    folders: Sequence[str]
    images: tuple[int, ...] = ALL
    outputs: tuple[str, ...] | None = None
    refused: bool = False


NUMBERS = tuple(str(i) for i in range(12))
SITUATIONS = {
    "folders named like the labels": Situation(NAMED, NAMED),
    "two of the labels have images": Situation(NAMED, NAMED, LAST_TWO),
    "numbered folders, no labels": Situation(None, NUMBERS),
    "two numbered folders, no labels": Situation(None, NUMBERS, LAST_TWO),
    "zero-padded numbers, no labels": Situation(None, tuple(f"{i:02}" for i in range(12))),
    "numbered folders, labels are words": Situation(NAMED, NUMBERS),
    "names, no labels, as many as outputs": Situation(None, NAMED, refused=True),
    "other names than the labels, as many": Situation(NAMED, tuple(f"my {n}" for n in NAMED), refused=True),
    "one name is unknown": Situation(NAMED, (*NAMED[:11], "boots"), refused=True),
    "two outputs of one name, by number": Situation(DOUBLE, NUMBERS),
    "two outputs of one name, as a server says it": Situation(DOUBLE, distinct(DOUBLE)),
    "two outputs of one name, in one folder": Situation(DOUBLE, DOUBLE, LAST_TWO, refused=True),
    "codes named by `outputs`, no labels": Situation(None, CODES, outputs=CODES),
    "codes named by `outputs`, two have images": Situation(None, CODES, LAST_TWO, outputs=CODES),
    "codes named by `outputs`, labels are words": Situation(NAMED, CODES, outputs=CODES),
    "`outputs` are the labels in another order": Situation(NAMED, NAMED, outputs=tuple(sorted(NAMED)), refused=True),
    "`outputs` of another model": Situation(NAMED, CODES, outputs=CODES[:11], refused=True),
    "`outputs` of another model, no labels": Situation(None, CODES, outputs=(*CODES, "n9999"), refused=True),
    "labels are numbers in another order": Situation(SHUFFLED, SHUFFLED),
    "labels count from one, folders from zero": Situation(FROM_ONE, ("x", "y", *NUMBERS[:10]), refused=True),
    "folders count from one, no labels": Situation(None, FROM_ONE, refused=True),
    "one number in two ways": Situation(None, (*NUMBERS[:10], "7", "07"), (7, 10, 11), refused=True),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of timm's layout with twelve outputs and no names for them."""
    folder = tmp_path_factory.mktemp("model")
    config = json.loads((EMBEDDED_FOLDER / "model" / "config.json").read_text())
    config["num_classes"] = config["model_args"]["num_classes"] = config["pretrained_cfg"]["num_classes"] = 12
    del config["label_names"], config["pretrained_cfg"]["label_names"]
    (folder / "config.json").write_text(json.dumps(config))
    state = load_file(EMBEDDED_FOLDER / "model" / "model.safetensors")
    state["head.weight"] = torch.cat([torch.zeros(2, state["head.weight"].shape[1]), state["head.weight"]])
    state["head.bias"] = torch.cat([torch.full((2,), -50.0), state["head.bias"]])
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def graph(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LayerSplit]:
    loaded = load_model(str(weights))
    (layer,) = find_layers(loaded.module, LAYER)
    parts = np.full(layer.units, 2)
    masks = np.random.default_rng(0).integers(
        1, full_masks(parts)[:, None], (layer.units, layer.inputs), np.uint64, True
    )
    rho = np.full(layer.units, 0.5, np.float32)
    split = LayerSplit(LAYER, parts, masks, rho, np.zeros((int(parts.sum()), layer.inputs), np.float32))
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    emit(
        loaded.module,
        [split],
        path,
        layers=[layer],
        input_size=loaded.preprocess.input_size,
        source=loaded.source,
        preprocess=loaded.preprocess,
    )
    return path, split


def torch_folder(weights: Path, folder: Path, labels: tuple[str, ...] | None) -> Path:
    shutil.copytree(weights, folder)
    config = json.loads((folder / "config.json").read_text())
    if labels is not None:
        config["label_names"] = config["pretrained_cfg"]["label_names"] = list(labels)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def bundle_of(model: Path, graph: tuple[Path, LayerSplit], folder: Path) -> Bundle:
    loaded = load_model(str(model))
    (layer,) = find_layers(loaded.module, LAYER)
    info = LayerInfo(LAYER, layer.kind, layer.units, layer.inputs, tuple(graph[1].parts.tolist()), 0)
    parameters = sum(p.numel() for p in loaded.module.parameters())
    with write_bundle(folder, source=loaded.source, layers=[info], parameters=parameters, versions={}) as written:
        shutil.copy(graph[0], written / "model.onnx")
        save_splits([graph[1]], written / "disentangled.safetensors")
        (written / "preprocess.json").write_text(json.dumps(loaded.preprocess.to_json()))
        (written / "labels.json").write_text(json.dumps(None if loaded.labels is None else list(loaded.labels)))
        (written / "equivalence.json").write_bytes(b"{}")
    return Bundle.open(folder)


@contextmanager
def server(bundle: Bundle) -> Iterator[Client]:
    """The second front end over real HTTP, in a thread."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = uvicorn.Server(uvicorn.Config(application(Service.open(bundle.root), None), port=port, log_level="error"))
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            time.sleep(0.02)
        yield Client(f"http://127.0.0.1:{port}")
    finally:
        running.should_exit = True
        thread.join()


def images(situation: Situation) -> Suite:
    """Three images of each garment that the situation has images of, under the names of its folders."""
    source = cast(EncodedSet, embedded_suite().images).source
    entries = [
        replace(entry, label=situation.folders[output])
        for output in situation.images
        for entry in [e for e in source.entries if e.label == NAMED[min(output, 11)]][9:12]
    ]
    kept = EncodedSet(ImageSource("few", tuple(sorted(entries, key=lambda entry: entry.name))))
    return Suite("few", kept, (), outputs=situation.outputs)


@pytest.fixture(scope="module")
def truth(weights: Path) -> dict[tuple[int, ...], float]:
    """Counted without any of the code under test: the output that wins against the garment that the file says it is."""
    loaded = load_model(str(weights))
    right: dict[int, list[bool]] = {output: [] for output in ALL}
    for output in ALL:
        source = cast(EncodedSet, embedded_suite().images).source
        numbers = [i for i, e in enumerate(source.entries) if e.label == NAMED[output]][9:12]
        for number in numbers:
            pixels = loaded.preprocess.normalise(source.pixels(number, loaded.preprocess)[None])
            with torch.no_grad():
                right[output].append(int(loaded.module(torch.from_numpy(pixels)).argmax()) == output)
    return {chosen: float(np.mean([hit for k in chosen for hit in right[k]])) for chosen in (ALL, LAST_TWO)}


def test_the_table_can_fail(truth: dict[tuple[int, ...], float]) -> None:
    assert 0 < truth[ALL] < 1  # neither a model that is always right nor one that never is
    assert 0.5 < truth[LAST_TWO] < 1
    assert len(SITUATIONS) >= 12


@pytest.fixture(scope="module")
def subjects_of(
    weights: Path, graph: tuple[Path, LayerSplit], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[tuple[str, ...] | None], dict[str, Subject | Bundle]]]:
    """The four subjects of a model with these labels, made once for each."""
    with ExitStack() as running:

        @cache
        def make(labels: tuple[str, ...] | None) -> dict[str, Subject | Bundle]:
            folder = tmp_path_factory.mktemp("labelled")
            model = torch_folder(weights, folder / "model", labels)
            bundle = bundle_of(model, graph, folder / "bundle")
            return {
                "bundle": bundle,
                "torch": open_subject(str(model)),
                "onnx": open_subject(str(bundle.path("model.onnx"))),
                "server": served(running.enter_context(server(bundle))),
            }

        yield make


@pytest.fixture(scope="module")
def torchserve(
    subjects_of: Callable[[tuple[str, ...] | None], dict[str, Subject | Bundle]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[tuple[str, ...] | None], Client]]:
    """One TorchServe with a model for each tuple of labels."""
    folder, names = tmp_path_factory.mktemp("archives"), {}
    archives = []
    for labels in dict.fromkeys(situation.labels for situation in SITUATIONS.values()):
        bundle = subjects_of(labels)["bundle"]
        assert isinstance(bundle, Bundle)
        names[labels] = f"labelled{len(names)}"
        archives.append(package(bundle, folder, name=names[labels], version="1.0"))
    with Server(archives) as running:
        yield lambda labels: running.client(names[labels])


def accuracy_of(subject: Subject | Bundle, suite: Suite) -> float | str:
    """What is measured, of a bundle in all three forms; or that it was refused."""
    try:
        report = evaluate(subject, suite, dimensions=["accuracy"], resamples=0)
    except EvaluationError:
        return "refused"
    (value,) = {report.values["accuracy"], *(form["accuracy"] for form in (report.lossless or {}).values())}
    return value


@pytest.mark.parametrize("name", SITUATIONS)
def test_all_four_measure_the_truth_or_refuse(
    name: str,
    subjects_of: Callable[[tuple[str, ...] | None], dict[str, Subject | Bundle]],
    truth: dict[tuple[int, ...], float],
) -> None:
    situation = SITUATIONS[name]
    suite = images(situation)
    measured = {kind: accuracy_of(subject, suite) for kind, subject in subjects_of(situation.labels).items()}
    print(f"{name}: {measured}")
    assert measured == dict.fromkeys(measured, "refused" if situation.refused else truth[situation.images])
    assert set(measured) == {"bundle", "torch", "onnx", "server"}


@pytest.mark.server
@pytest.mark.slow
def test_torchserve_measures_the_truth_or_refuses_too(
    torchserve: Callable[[tuple[str, ...] | None], Client], truth: dict[tuple[int, ...], float]
) -> None:
    for name, situation in SITUATIONS.items():
        measured = accuracy_of(served(torchserve(situation.labels)), images(situation))
        print(f"{name}: {measured}")
        assert measured == ("refused" if situation.refused else truth[situation.images]), name


def test_a_model_of_ones_own_with_a_thousand_outputs_is_not_named_after_imagenet(tmp_path: Path) -> None:
    config = json.loads((EMBEDDED_FOLDER / "model" / "config.json").read_text())
    config["num_classes"] = config["model_args"]["num_classes"] = config["pretrained_cfg"]["num_classes"] = 1000
    del config["label_names"], config["pretrained_cfg"]["label_names"]
    config["pretrained_cfg"]["tag"] = "fine_tuned_in1k"  # a saved configuration keeps the tag of what it was made from
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = load_file(EMBEDDED_FOLDER / "model" / "model.safetensors")
    state["head.weight"], state["head.bias"] = torch.zeros(1000, 96), torch.zeros(1000)
    save_file(state, tmp_path / "model.safetensors")
    assert load_model(str(tmp_path)).labels is None
    subject = open_subject(str(tmp_path))
    assert not isinstance(subject, Bundle)
    photographs = PixelSet(np.zeros((2, 28, 28, 3), np.uint8), np.arange(2), ("n01440764", "n01443537"))
    with pytest.raises(EvaluationError):
        output_names(subject, Suite("photographs", photographs))
    asked = output_names(subject, with_outputs(Suite("photographs", photographs), "imagenet-1k"))
    assert asked.keys == synsets()


def test_names_of_outputs_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert with_outputs(embedded_suite(), str(tmp_path / "names.txt")).outputs == ("cat", "dog")
    with pytest.raises(EludeError):
        with_outputs(embedded_suite(), str(tmp_path / "nothing.txt"))


def test_outputs_of_one_name_keep_their_own_lines_in_the_tables() -> None:
    pixels = PixelSet(np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 1, 1]), ("0", "2"))
    preprocess = replace(load_model("embedded").preprocess, input_size=(3, 8, 8))

    def function(x: np.ndarray) -> np.ndarray:
        return np.eye(3)[[0, 2, 2, 1]][: len(x)]

    subject = CallableSubject(function, preprocess, labels=("crane", "dog", "crane"))
    report = evaluate(subject, Suite("cranes", pixels, ()), dimensions=["accuracy"], resamples=0)
    assert report.values["accuracy"] == 0.75
    table = report.dimensions["accuracy"].tables["accuracy_per_class"]
    assert table == {"crane (0)": 1.0, "dog": None, "crane (2)": pytest.approx(2 / 3)}
