"""The Python interface: what a stranger types first works, or is answered with what to type instead."""

from __future__ import annotations

import ast
import base64
import copy
import doctest
import gc
import importlib
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from _serving import images, make_bundle
from PIL import Image

import elude
from elude.handlers.errors import EludeError, ImageError, RequestError, UsageError
from elude.handlers.requests.calls import Call
from elude.handlers.service import Service
from elude.image_input import encoded

ROOT = Path(__file__).parent.parent
FIRST = "blocks.5.mlp.fc2/u0.s0"
PICTURE = images(1)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("api") / "bundle").root


@pytest.fixture(scope="module")
def model(folder: Path) -> elude.Model:
    return elude.load(folder)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG that is stored on its side, as cameras do."""
    path = tmp_path_factory.mktemp("photo") / "cat.jpg"
    values = np.random.default_rng(0).integers(0, 256, (6, 4, 3)).astype(np.uint8)
    image = Image.fromarray(values).resize((90, 60))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif, quality=95)
    return path


@pytest.fixture
def there(folder: Path, photo: Path, model: elude.Model, tmp_path: Path) -> SimpleNamespace:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bundle").symlink_to(folder)
    return SimpleNamespace(folder=folder, photo=photo, model=model, tmp=tmp_path)


# Each works, and gives what the second function says.
WORK: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "load(path as text)": (lambda t: elude.load(str(t.folder)), lambda r: isinstance(r, elude.Model)),
    "load(bundle)": (lambda t: elude.load(elude.Bundle.open(t.folder)), lambda r: len(r.labels) == 10),
    "predict(path)": (lambda t: t.model.predict(str(t.photo)), lambda r: len(r.probabilities) == 5),
    "model(path)": (lambda t: t.model(t.photo), lambda r: r.label in r.probabilities),
    "predict(bytes)": (lambda t: t.model.predict(PICTURE), lambda r: 0 < r.probability <= 1),
    "predict(open file)": (lambda t: t.model.predict(t.photo.open("rb")), lambda r: r.label),
    "predict(buffer)": (lambda t: t.model.predict(io.BytesIO(PICTURE)), lambda r: r.label),
    "predict(PIL)": (lambda t: t.model.predict(Image.open(t.photo)), lambda r: r.label),
    "predict(array)": (lambda t: t.model.predict(np.zeros((9, 7, 3), np.uint8)), lambda r: r.label),
    "predict(tensor)": (lambda t: t.model.predict(torch.rand(3, 9, 7)), lambda r: r.label),
    "predict(list)": (lambda t: t.model.predict([t.photo, PICTURE]), lambda r: len(r) == 2),
    "predict(glob)": (lambda t: t.model.predict(t.photo.parent.glob("*.jpg")), lambda r: len(r) == 1),
    "inspect(path)": (lambda t: t.model.inspect(t.photo), lambda r: len(r.sub_units) == 10),
    "inspect(top_k)": (lambda t: t.model.inspect(t.photo, top_k=3), lambda r: len(r.sub_units) == 3),
    "inspect()[0]": (lambda t: t.model.inspect(t.photo)[0], lambda r: r.activation > 0),
    "steer(identifier)": (lambda t: t.model.steer(PICTURE, {FIRST: 300.0}), lambda r: r.max_output_change > 1e-3),
    "steer(name)": (lambda t: t.model.steer(PICTURE, {"concept 3": -300}), lambda r: r.max_output_change > 1e-3),
    "steer(unit)": (lambda t: t.model.steer(PICTURE, {"blocks.5.mlp.fc2/u0": 0}), lambda r: len(r.edits) >= 1),
    "steer(text)": (lambda t: t.model.steer(PICTURE, {FIRST: "set:2@3"}), lambda r: r.edits[0]["patches"] == 3),
    "steer(preset)": (lambda t: t.model.steer(PICTURE, preset="a"), lambda r: len(r.edits) == 2),
    "search(word)": (lambda t: t.model.search("concept"), lambda r: len(r) == 20),
    "concept(name)": (lambda t: t.model.concept("concept 3"), lambda r: r[0].name == "concept 3"),
    "model[concept]": (lambda t: t.model["concept 3"], lambda r: r[0].name == "concept 3"),
    "bool(model)": (lambda t: bool(t.model), lambda r: r is True),
    "load(model)": (lambda t: elude.load(t.model), lambda r: isinstance(r, elude.Model)),
    "load(providers as text)": (
        lambda t: elude.load(t.folder, providers="CPUExecutionProvider"),
        lambda r: isinstance(r, elude.Model),
    ),
    "load(device)": (lambda t: elude.load(t.folder, device="cpu"), lambda r: isinstance(r, elude.Model)),
    "bake(model)": (lambda t: elude.bake(t.model, out=t.tmp / "plain.onnx"), lambda r: r.is_file()),
    "feature(identifier)": (lambda t: t.model.feature(FIRST), lambda r: r.id == FIRST),
    "judge(path) before it was evaluated": (
        lambda t: elude.judge(t.folder, save=False),
        lambda r: r.state == "not_evaluated",
    ),
    "package(path)": (lambda t: elude.package(t.folder, t.tmp), lambda r: r.name == "elude.mar"),
}
# Each is refused, with these words among what to type instead.
REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "elude.predict": (lambda t: elude.predict, "elude.load("),  # type: ignore[attr-defined]
    "load(folder above)": (lambda t: elude.load(t.tmp / "models"), "bundle'"),
    "load(model's name)": (lambda t: elude.load("resnet18"), "elude.export('resnet18'"),
    "load(file)": (lambda t: elude.load(t.folder / "model.onnx"), "folder"),
    "load(store)": (lambda t: elude.load("nowhere#cat/production"), "STORE#NAME/production"),
    "load(number)": (lambda t: elude.load(3), "elude export"),  # type: ignore[arg-type]
    "predict(missing file)": (lambda t: t.model.predict("dog.jpg"), "path of an image"),
    "predict(folder)": (lambda t: t.model.predict(t.photo.parent), "glob("),
    "predict(address)": (lambda t: t.model.predict("https://example.org/cat.jpg"), "bytes"),
    "load(device that is not there)": (lambda t: elude.load(t.folder, device="gpu"), "cuda"),
    "predict(text file)": (lambda t: t.model.predict((t.folder / "labels.json").open()), "'rb'"),
    "predict(mapping)": (lambda t: t.model.predict({"image": PICTURE}), "values"),
    "predict(loader)": (lambda t: t.model.predict(torch.utils.data.DataLoader([PICTURE])), "one by one"),
    "predict(None)": (lambda t: t.model.predict(None), "path"),
    "predict(batch)": (lambda t: t.model.predict(torch.rand(2, 3, 9, 7)), "list(batch)"),
    "predict(normalised)": (lambda t: t.model.predict(torch.randn(3, 9, 7)), "before"),
    "predict(integers)": (lambda t: t.model.predict(np.ones((9, 7, 3), int)), "astype('uint8')"),
    "predict(numbers)": (lambda t: t.model.predict([[[0, 0, 0]]]), "np.array("),
    "predict(damaged)": (lambda t: t.model.predict([PICTURE, PICTURE[:80]]), "images[1]"),
    "inspect(layer)": (lambda t: t.model.inspect(PICTURE, layer="fc2"), "blocks.5.mlp.fc2"),
    "inspect(target)": (lambda t: t.model.inspect(PICTURE, by="effect", target="cat"), "describe"),
    "steer()": (lambda t: t.model.steer(PICTURE), "{'NAME OR IDENTIFIER'"),
    "steer(unknown name)": (lambda t: t.model.steer(PICTURE, {"concpt 3": 0}), "'concept 3"),
    "steer(index)": (lambda t: t.model.steer(PICTURE, {0: 0.0}), FIRST),
    "steer(edit of the graph)": (lambda t: t.model.steer(PICTURE, [elude.Edit.ablate(0)]), "{'NAME OR IDENTIFIER'"),
    "steer(action)": (lambda t: t.model.steer(PICTURE, {FIRST: "double"}), "scale"),
    "steer(None)": (lambda t: t.model.steer(PICTURE, {FIRST: None}), "gain"),
    "feature(name)": (lambda t: t.model.feature("concept 3"), "concept('concept 3')"),
    "feature(unit)": (lambda t: t.model.feature("blocks.5.mlp.fc2/u0"), FIRST),
    "concept(unknown)": (lambda t: t.model.concept("stripes"), "search("),
    "iter(model)": (lambda t: list(t.model), "model.labels"),
    "search(PIL)": (lambda t: t.model.search(Image.open(t.photo)), "image="),
    "to_json": (lambda t: t.model.predict(PICTURE).to_json(), "to_dict"),
    "export(list of images)": (
        lambda t: elude.export("embedded", [Image.open(t.photo)], out=t.tmp / "new"),
        "image.save(",
    ),
    "export(transform)": (
        lambda t: elude.export("embedded", out=t.tmp / "new", preprocess=torch.nn.Identity()),  # type: ignore[arg-type]
        "'input_size'",
    ),
    "export(weights)": (
        lambda t: elude.export("model.pth", t.photo.parent, out=t.tmp / "new", progress=False),
        "package.module:factory",
    ),
    "export(number)": (lambda t: elude.export(3, t.photo.parent, out=t.tmp / "new"), "torch.nn.Module"),
    "evaluate(list)": (lambda t: elude.evaluate(t.folder, [1, 2]), "suite.toml"),
    "export(no place)": (lambda t: elude.export("embedded"), "out="),
    "package(no place)": (lambda t: elude.package(t.folder), "elude.package(bundle,"),
    "bake(no place)": (lambda t: elude.bake(t.folder), "out="),
    "GraphSession(bundle)": (lambda t: elude.GraphSession(t.folder), "model.onnx"),
    "evaluate(nothing)": (lambda t: elude.evaluate("no_bundle"), "no_bundle"),
    "admit(not judged)": (lambda t: elude.admit(t.folder, t.tmp / "store"), "elude gate"),
}


@pytest.mark.parametrize("name", WORK)
def test_a_first_call_works(name: str, there: SimpleNamespace) -> None:
    call, holds = WORK[name]
    assert holds(call(there))


@pytest.mark.parametrize("name", REFUSED)
def test_a_first_call_that_cannot_work_says_what_to_type(name: str, there: SimpleNamespace) -> None:
    call, words = REFUSED[name]
    with pytest.raises((EludeError, AttributeError, TypeError)) as caught:
        call(there)
    assert words in str(caught.value)


_ROW = re.compile(r"^\| `(.+?)` \| (an error: )?`(.+?)`", re.MULTILINE)


def test_the_table_of_first_calls_in_the_docs_is_true(
    there: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row is run: what works gives the type that it says, what is refused says the words that it quotes."""
    shutil.copytree(there.folder, tmp_path / "bundle")
    (tmp_path / "bag.png").write_bytes(PICTURE)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bag.png").write_bytes(PICTURE)
    monkeypatch.chdir(tmp_path)
    names = {"elude": elude, "np": np, "torch": torch, "model": elude.load("bundle")}
    rows = _ROW.findall((ROOT / "docs" / "api.md").read_text(encoding="utf-8").partition("## First calls")[2])
    assert len(rows) >= 27
    for call, refused, words in rows:
        if refused:
            with pytest.raises((EludeError, AttributeError, TypeError)) as caught:
                eval(call, names)
            assert words in str(caught.value), call
        else:
            assert type(eval(call, names)).__name__ == words, call


def test_answers_are_those_of_a_server(folder: Path, model: elude.Model) -> None:
    """Asked with the same image and options, as bytes over HTTP are."""
    service = Service.open(folder)

    def served(**body: Any) -> Any:
        (answer,) = service.answer([Call(json.dumps(body).encode())])
        assert answer.status == 200
        return json.loads(answer.body)

    image = base64.b64encode(PICTURE).decode()
    edits = [{"id": FIRST, "action": "scale", "value": 3.0}, {"concept": "concept 5", "action": "ablate"}]
    assert model.predict(PICTURE).to_dict() == served(image=image)
    assert model.inspect(PICTURE).to_dict() == served(op="inspect", image=image)
    options: dict[str, Any] = {"by": "effect", "target": "bag", "heat_map": "png", "top_k": 4, "candidates": 6}
    assert model.inspect(PICTURE, **options).to_dict() == served(op="inspect", image=image, **options)
    steered = model.steer(PICTURE, {FIRST: 3.0, "concept 5": "ablate"})
    assert steered.to_dict() == served(op="steer", image=image, edits=edits)
    assert model.steer(PICTURE, edits).to_dict() == steered.to_dict()
    assert model.feature(FIRST).to_dict() == served(op="feature", id=FIRST)
    assert model.search("concept 1", limit=3).to_dict() == served(op="search", query="concept 1", limit=3)
    assert model.search(image=PICTURE).to_dict() == served(op="search", image=image)
    ours, theirs = model.describe(), served(op="describe")
    assert {name for name in theirs if ours[name] != theirs[name]} == {"limits"}


def test_forms_of_an_image_give_the_same_answer(model: elude.Model, photo: Path) -> None:
    upright = Image.fromarray(np.asarray(Image.open(photo).transpose(Image.Transpose.ROTATE_270)))
    values = np.asarray(upright)
    tensor = torch.from_numpy(values.copy()).permute(2, 0, 1)
    forms = [photo, photo.read_bytes(), Image.open(photo), upright, values, values.transpose(2, 0, 1), tensor]
    forms += [tensor.float() / 255, (values / 255).astype(np.float64), Image.fromarray(values).convert("RGBA")]
    answers = [answer.to_dict() for answer in model.predict(forms)]
    for answer in answers[1:]:
        assert list(answer) == list(answers[0])
        np.testing.assert_allclose(list(answer.values()), list(answers[0].values()), atol=1e-6)
    grey = np.asarray(upright.convert("L"))
    one, two, three = model.predict([grey, grey[None], grey[..., None]])
    assert one.label == two.label == three.label


def test_channels_are_never_guessed() -> None:
    with pytest.raises(ImageError):
        encoded(np.zeros((3, 5, 3), np.uint8))
    for shape in ((5,), (5, 6, 2), (0, 4, 3)):
        with pytest.raises(ImageError):
            encoded(np.zeros(shape, np.uint8))
    for values in (np.full((4, 4), np.nan), np.full((4, 4), 2.0)):
        with pytest.raises(ImageError):
            encoded(values)


def test_a_gain_on_a_unit_edits_each_of_its_sub_units(model: elude.Model) -> None:
    layer = model.layers[0]
    unit = next(number for number, parts in enumerate(layer.parts) if parts == 3)
    whole = model.steer(PICTURE, {f"{layer.name}/u{unit}": -4})
    parts = model.steer(PICTURE, {f"{layer.name}/u{unit}.s{part}": -4 for part in range(3)})
    assert whole.to_dict() == parts.to_dict()
    with pytest.raises(UsageError):
        model.steer(PICTURE, {f"{layer.name}/u{unit}": "set:1"})


def test_many_images_are_answered_as_each_alone(model: elude.Model) -> None:
    pictures = images(40)
    together = model.steer(pictures, {FIRST: -5.0})
    assert len(together) == 40
    for one, picture in list(zip(together, pictures, strict=True))[::13]:
        alone = model.steer(picture, {FIRST: -5.0})
        np.testing.assert_allclose(
            list(one.after.probabilities.values()), list(alone.after.probabilities.values()), atol=1e-5
        )
    assert model.predict([]) == []


def test_a_result_shows_itself_in_a_notebook(model: elude.Model) -> None:
    """Pictures are valid PNG inside the page; nothing in it runs or loads anything from elsewhere."""
    results = [model.predict(PICTURE), model.inspect(PICTURE), model.steer(PICTURE, {FIRST: 9.0}), model.feature(FIRST)]
    results += [model.search("concept"), model.search("no such word")]
    for result in results:
        page = result._repr_html_()
        for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page):
            Image.open(io.BytesIO(base64.b64decode(data))).verify()
        assert len(re.findall("src=", page)) == len(re.findall('src="data:image/png;base64,', page))
        assert "<script" not in page
        assert "href" not in page
    assert results[1]._repr_html_().count("<img") >= 11  # the image, and each sub-unit's heat map
    assert {"before", "after"} <= set(re.findall(r"<caption>(\w+)</caption>", results[2]._repr_html_()))


def test_names_are_escaped_on_a_page(model: elude.Model) -> None:
    found = model.search("concept", limit=1)
    wild = replace(found, sub_units=(replace(found[0], name="<script>alert(1)</script>"),))
    assert "<script>" not in wild._repr_html_()


def test_a_heat_map_holds_the_activation_at_its_place(model: elude.Model) -> None:
    grid, png = (model.inspect(PICTURE, heat_map=form, top_k=1).sub_units[0] for form in ("grid", "png"))
    assert grid == png
    assert grid.heat_map is not None
    heat = grid.heat_map.activations
    assert heat.shape == (7, 7)
    assert heat.max() == pytest.approx(grid.activation, rel=1e-5)
    assert heat.argmax() == grid.token  # this model has no class token


def test_results_can_be_copied_and_sent_to_another_process(model: elude.Model) -> None:
    for result in (model.inspect(PICTURE), model.feature(FIRST)):
        again = pickle.loads(pickle.dumps(result))
        assert again == result
        assert again._repr_html_()
        assert copy.deepcopy(result) == result
        assert asdict(result)["answer"] == result.to_dict()
        result.to_dict().clear()
        assert result.to_dict()


POLICY = b"""schema_version = 1
name = "accuracy"
[baseline]
required = false
[dimensions.accuracy]
min = 0.8
[lossless.claims]
sums = 1e-3
rewrite = 0.0
runtime = 1e-3
"""


@pytest.fixture(scope="module")
def exportation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model, split on few images."""
    settings = elude.ExportSettings(max_images=300, tokens_per_image=4)
    return elude.export("embedded", out=tmp_path_factory.mktemp("export") / "bundle", settings=settings).root


@pytest.mark.slow
def test_from_a_bundle_to_an_admitted_release_by_paths(exportation: Path, tmp_path: Path) -> None:
    """Evaluated, judged, admitted and loaded from the store, whose copy goes with the model."""
    bundle, store, policy = exportation, tmp_path / "store", tmp_path / "policy.toml"
    policy.write_bytes(POLICY)
    seen: list[str] = []
    report = elude.evaluate(bundle, dimensions=["accuracy"], progress=lambda step, done, total: seen.append(step))
    assert report.dimensions["accuracy"].value > 0.8
    assert seen
    verdict = elude.judge(elude.load(bundle), policy)
    assert verdict.passed, [check.reason for check in verdict.failures]
    version = elude.admit(elude.Bundle.open(bundle), store, why="first release")
    assert elude.load(version).bundle.artefact_sha256 == version.admitted.artefact_sha256
    loaded = elude.load(f"{store}#{version.id}")
    place = loaded.bundle.root
    assert place.is_dir()
    assert loaded.predict(PICTURE).to_dict() == elude.load(bundle).predict(PICTURE).to_dict()
    del loaded
    gc.collect()
    assert not place.exists()
    for wrong in (f"{store}#{version.name}", f"{store}#{version.name}/99", f"{store}#{version.name}/production"):
        with pytest.raises(EludeError) as caught:
            elude.load(wrong)
        assert version.name in str(caught.value)
    with pytest.raises(EludeError) as caught:
        elude.load(store)
    assert "#" in str(caught.value)


@pytest.mark.slow
def test_nothing_is_saved_unless_wanted(exportation: Path, tmp_path: Path) -> None:
    bundle, policy = exportation, tmp_path / "policy.toml"
    policy.write_bytes(POLICY)
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    elude.evaluate(bundle, dimensions=["params_m"], save=False, progress=False)
    elude.judge(bundle, policy, save=False)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_a_changed_file_is_refused(folder: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(folder, tmp_path / "bundle")
    (changed / "labels.json").write_text("[]")
    with pytest.raises(EludeError) as caught:
        elude.load(changed)
    assert "labels.json" in str(caught.value)


def test_what_a_server_requires_is_required_here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = tmp_path / "admission.json"
    rules.write_text(json.dumps({"verdict": True}))
    monkeypatch.setenv("ELUDE_ADMISSION", str(rules))
    with pytest.raises(EludeError):
        elude.load(folder)


def test_a_broken_request_is_an_error_of_this_project(model: elude.Model) -> None:
    with pytest.raises(RequestError) as caught:
        model.steer(PICTURE, {FIRST: float("nan")})
    assert caught.value.status == 400


def test_public_names_are_real_and_have_an_example_in_the_docs() -> None:
    """``docs/api.md`` is run by the tests, so that a name in one of its blocks is a name that works."""
    for name in elude.__all__:
        assert getattr(elude, name) is not None
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    used = set()
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.Name):
                used.add(node.id)
    assert set(elude.__all__) <= used
    members = {name for name in vars(elude.Model) if not name.startswith("_")}
    assert members <= used, sorted(members - used)


def test_the_declared_types_name_what_is_loaded() -> None:
    """``__all__``, the typed imports and the lazy ones are one list."""
    tree = ast.parse((ROOT / "elude" / "__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(typed) == set(elude.__all__) - {"__version__"}
    for name, module in typed.items():
        assert getattr(importlib.import_module(str(module)), name) is getattr(elude, name)


def test_the_module_s_own_examples_run() -> None:
    assert doctest.testmod(elude).attempted >= 2
    assert doctest.testmod(elude).failed == 0


@pytest.mark.slow
def test_types_reach_a_user_s_editor(tmp_path: Path) -> None:
    """mypy knows what ``elude.load`` and its results are, and refuses a wrong argument."""
    script = tmp_path / "user.py"
    script.write_text(
        "import elude\n"
        "reveal_type(elude.load)\n"
        "model = elude.load('bundle')\n"
        "reveal_type(model.predict('cat.jpg'))\n"
        "reveal_type(model.predict(['cat.jpg']))\n"
        "reveal_type(model.inspect(b'').sub_units[0].heat_map)\n"
        "reveal_type(model.steer('cat.jpg', {'cat': 0}).after.label)\n"
        "reveal_type(elude.evaluate('bundle'))\n"
        "reveal_type(elude.judge('bundle').passed)\n"
        "model.predict(3.5)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, str(script)],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert len(revealed) == 7, done.stdout + done.stderr
    assert not [kind for kind in revealed if kind == "Any" or "Unknown" in kind]
    assert revealed[0].endswith("elude.model.Model")
    kinds = ["results.Prediction", "list[elude.results.Prediction]", "HeatMap | None", "str | None"]
    assert all(kind in shown for kind, shown in zip(kinds, revealed[1:5], strict=True)), revealed
    assert "QualityReport" in revealed[5]
    assert revealed[6].endswith("bool")
    assert len(re.findall(r": error: ", done.stdout)) == 1, done.stdout
    assert "call-overload" in done.stdout
