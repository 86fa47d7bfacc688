"""Any module comes in as it is; what must be chosen is asked for with what there is, and never guessed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _images import noise
from _models import Convolutions, TinyBlocks
from torch import Tensor, nn

from elude.exporter.export.export_settings import ExportSettings
from elude.exporter.export.pipeline import export
from elude.exporter.models.layers import find_layers
from elude.exporter.models.load import ModelOptions, load_any, load_model
from elude.exporter.verify.verify_bundle import verify_file
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import EvaluationError, UnsupportedLayerError, UsageError
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.requests.calls import Call
from elude.handlers.service import Service
from elude.quality.subjects.bundle_subject import open_bundle

SIZE = 8
COLOUR = Preprocess((3, SIZE, SIZE), "nearest", 1.0, "center", (0.5,) * 3, (0.5,) * 3)
GREY = Preprocess((1, SIZE, 2 * SIZE), "bilinear", 1.0, "squash", (0.5,), (0.5,))
QUICK = ExportSettings(
    tokens_per_image=9, top_k=100, min_cluster_size=5, tops=2, measure_top=5, batch_size=16, verify_images=4
)


class Returning(TinyBlocks):
    """Returns what ``make`` makes of the tokens (N, 4, 6)."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Any:
        x = self.patch(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.make(x)


def maps(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(len(x), 6, 2, 2)


X = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
TOKENS = Returning(lambda x: x).eval()


@pytest.mark.parametrize(
    ("make", "options", "expected"),
    [
        (lambda x: {"logits": x[:, 0], "hidden": x}, {"kind": "classes"}, lambda x: x[:, 0]),
        (lambda x: {"a": x.mean(1), "b": x[:, 1]}, {"output": "b", "kind": "embedding"}, lambda x: x[:, 1]),
        (lambda x: (x.mean(1), x[:, 1]), {"output": "1", "kind": "embedding"}, lambda x: x[:, 1]),
        (lambda x: x[:, 0, 0], {"kind": "regression"}, lambda x: x[:, 0, :1]),
        (maps, {"pool": "mean", "kind": "embedding"}, lambda x: x.mean(1)),
        (lambda x: x, {"pool": "first", "kind": "embedding"}, lambda x: x[:, 0]),
        (lambda x: {"tokens": x}, {"pool": "mean", "kind": "multi-label"}, lambda x: x.mean(1)),
    ],
)
def test_one_tensor_is_chosen(make: Any, options: dict[str, str], expected: Any) -> None:
    module = Returning(make)
    loaded = load_any(module, ModelOptions(preprocess=COLOUR, **options))
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(X), expected(TOKENS(X)))
    assert loaded.kind == options["kind"]
    assert dict(loaded.module.named_modules()).keys() == dict(module.named_modules()).keys()
    assert module.training  # the caller's own is left alone
    assert type(module) is Returning


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda x: {"a": x, "b": x[:, 0]}, {}, r"a \(N, 4, 6\), b \(N, 6\).*output"),
        (lambda x: {"a": x}, {"output": "c"}, r"no output 'c'.*a \(N, 4, 6\)"),
        (lambda x: x[:, 0], {"output": "c"}, "no output 'c'"),
        (lambda x: x[:, 0, 0], {}, "one number per image.*regression"),
        (lambda x: x[:, 0, :1], {"kind": "classes"}, "one number per image.*regression"),
        (maps, {}, r"\(N, 6, 2, 2\).*mean"),
        (lambda x: x, {}, r"\(N, 4, 6\).*first"),
        (lambda x: x[:, 0], {"pool": "mean"}, "cannot be pooled"),
        (maps, {"pool": "first"}, "cannot be pooled"),
        (lambda x: x[:, 0], {}, "not known what the 6 outputs"),
        (lambda x: x[:, 0], {"labels": ["a", "b"]}, "2 labels for 6 outputs"),
        (lambda x: "text", {}, "returns a str"),
        (lambda x: x.sum(), {"kind": "embedding"}, "one row per image"),
    ],
)
def test_what_must_be_chosen_is_asked_for(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_any(Returning(make), ModelOptions(preprocess=COLOUR, **options))


def test_preprocessing_is_asked_for_and_must_fit() -> None:
    with pytest.raises(UsageError, match=r"wants its images.*preprocess\.json"):
        load_any(TinyBlocks(), ModelOptions(kind="classes"))
    with pytest.raises(UnsupportedLayerError, match="1×8×16"):
        load_any(TinyBlocks(), ModelOptions(kind="classes", preprocess=GREY))
    with pytest.raises(UsageError, match=r"kind is 'clusters'.*regression"):
        ModelOptions(kind="clusters")


FACTORY = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def fails():
    return 1 / 0

text = "no model"
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_models.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    return "my_models:make"


def test_a_factory_is_called_in_the_current_folder(factory: str) -> None:
    options = ModelOptions(preprocess=COLOUR, labels=list("abcde"))
    first, second = load_model(factory, options=options), load_model(factory, options=options)
    assert first.source == second.source  # random weights are the same each time
    assert (first.source.model, first.labels, first.kind) == (factory, tuple("abcde"), "classes")
    for name, message in [
        ("my_models:nothing", "no 'nothing'"),
        ("my_models:fails", "ZeroDivisionError"),
        ("my_models:text", "returned a str"),
        ("not_there:make", "'not_there' cannot be imported"),
    ]:
        with pytest.raises(UsageError, match=message):
            load_model(name, options=options)


def test_a_bundle_does_not_start_code_by_itself(factory: str, tmp_path: Path) -> None:
    images = noise(tmp_path / "images", 30, SIZE)
    bundle = export(
        f"{factory}?kind=multi-label", images, "last", tmp_path / "bundle", QUICK, preprocess=COLOUR.to_json()
    )
    assert [layer.name for layer in bundle.manifest.layers] == ["0"]  # "2" has one unit per output: it is the head
    with pytest.raises(UsageError, match=r"must not start.*--model"):
        verify_file(bundle.root)
    assert verify_file(bundle.root, model=factory, count=2).passed
    with pytest.raises(UsageError, match=r"must not start.*--model"):
        open_bundle(bundle)
    forms, pixels = open_bundle(bundle, model=factory), np.full((2, *COLOUR.input_size), 0.25, np.float32)
    np.testing.assert_allclose(forms.original.outputs(pixels), forms.served.outputs(pixels), atol=1e-5)


class Regressor(nn.Module):
    """Two numbers of a grey image, by a layer with two concepts per unit."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.stem, self.mix, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.stem(x).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("kind", ["regression", "multi-label", "embedding"])
def test_a_grey_model_of_another_kind_is_exported_served_and_steered(kind: str, tmp_path: Path) -> None:
    images = noise(tmp_path / "images", 30, 2 * SIZE)
    module = Regressor()
    labels = None if kind == "embedding" else ["age", "weight"]
    out = tmp_path / "bundle"
    bundle = export(module, images, "mix", out, QUICK, preprocess=GREY, kind=kind, labels=labels)
    session = GraphSession(bundle.path("model.onnx"))
    assert session.output_kind == kind
    pixels = next(images.batches(GREY, 4))[1]
    assert pixels.shape == (4, 1, SIZE, 2 * SIZE)
    with torch.no_grad():
        expected = module(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(session.run(pixels).output, expected, atol=1e-5)
    assert np.abs(session.run(pixels, [[Edit.scale(0, 9.0)]]).output - expected).max() > 1e-4
    assert verify_file(out, model=module, count=2).passed
    answer = Service.open(out).answer([Call(images[0].data)])[0].body
    content = json.loads(answer)
    if kind == "embedding":
        np.testing.assert_allclose(content["embedding"], expected[0], atol=1e-5)
    elif kind == "regression":
        np.testing.assert_allclose([content["values"][name] for name in labels], expected[0], atol=1e-5)
    else:
        np.testing.assert_allclose([content[name] for name in labels], 1 / (1 + np.exp(-expected[0])), atol=1e-5)


def test_a_module_of_convolutions_finds_its_own_last_layer() -> None:
    loaded = load_any(
        Convolutions(),
        ModelOptions(
            preprocess=Preprocess((3, 12, 12), "nearest", 1.0, "center", (0.5,) * 3, (0.5,) * 3), kind="classes"
        ),
    )
    assert find_layers(loaded.module, "head")[0].units == 5


def test_quality_does_not_measure_classes_of_a_regression(tmp_path: Path) -> None:
    from elude.quality.evaluation.evaluate import evaluate
    from elude.quality.subjects.onnx_subject import OnnxSubject
    from elude.quality.suites.open_suite import embedded_suite

    images = noise(tmp_path / "images", 30, 2 * SIZE)
    bundle = export(Regressor(), images, "mix", tmp_path / "bundle", QUICK, preprocess=GREY, kind="regression")
    subject = OnnxSubject(bundle.path("model.onnx"), GREY, parameters=9)
    with pytest.raises(EvaluationError, match=r"defined for classes.*'regression'"):
        evaluate(subject, embedded_suite(), budget=20)
    with pytest.raises(EvaluationError, match=r"class_balance cannot be measured.*'regression'"):
        evaluate(subject, embedded_suite(), dimensions=["class_balance"], budget=20)
