"""Names by an image-text encoder: SoftWPMI against its formula, planted concepts, the control, and encoders of ONNX
files.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from scipy.special import softmax

from elude.exporter.naming.clip import ClipSettings, log_p, log_p_given_set, names_from_vocabulary
from elude.exporter.naming.encoders import cosines, open_encoder
from elude.exporter.naming.words import read_words
from elude.handlers.errors import UsageError
from elude.handlers.images.preprocess import Preprocess

WORDS = ["red", "green", "blue", "grey"]


class Planted:
    """Pictures are their mean colour, words are colours: the right name of every picture is known."""

    def encode_images(self, pictures: list[Image.Image]) -> np.ndarray:
        return np.stack([np.asarray(each).reshape(-1, 3).mean(axis=0) + 1 for each in pictures]).astype(np.float32)

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "grey": (1, 1, 1)}
        return np.array([colours[text.split()[-1]] for text in texts], np.float32)


def coloured(count: int = 240, seed: int = 0) -> tuple[list[Image.Image], np.ndarray]:
    """Pictures of one colour each and the number of the colour, red, green or blue."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, 3, count)
    pixels = rng.integers(0, 60, (count, 4, 4, 3), dtype=np.uint8)
    pixels[np.arange(count), :, :, which] += 180
    return [Image.fromarray(each) for each in pixels], which


def similar() -> tuple[np.ndarray, np.ndarray]:
    pictures, which = coloured()
    return cosines(Planted(), [pictures[:100], pictures[100:]], WORDS), which


def test_soft_wpmi_is_its_formula() -> None:
    """Computed as it is written: products of probabilities over all images, no logarithms of sums, no matrices."""
    rng = np.random.default_rng(0)
    images, words, sub_units, top = 12, 3, 4, 5
    cosine = rng.uniform(-1, 1, (images, words))
    strongest = np.stack([rng.permutation(images)[:top] for _ in range(sub_units)])
    settings = ClipSettings(sharpness=3, commonness=0.7)

    def p_word(x: int, m: int) -> float:
        return math.exp(3 * cosine[x, m]) / sum(math.exp(3 * cosine[x, other]) for other in range(words))

    def p_given(m: int, k: int) -> float:
        product = 1.0
        for x in range(images):
            rank = list(strongest[k]).index(x) if x in strongest[k] else None
            member = 0.0 if rank is None else 0.998 - (0.998 - 0.97) * rank / top
            product *= 1 + member * (p_word(x, m) - 1)
        return product

    given = log_p_given_set(softmax(settings.sharpness * cosine, axis=1), strongest)
    got = given - settings.commonness * log_p(given)
    for k in range(sub_units):
        for m in range(words):
            prior = sum(p_given(m, other) for other in range(sub_units)) / sub_units
            assert got[k, m] == pytest.approx(math.log(p_given(m, k)) - 0.7 * math.log(prior), abs=1e-4)


def test_planted_concepts_get_their_names_and_noise_gets_none() -> None:
    cosine, which = similar()
    rng = np.random.default_rng(1)
    peak = rng.random((len(which), 9)).astype(np.float32) * 0.5 + 0.1
    for feature in range(3):
        peak[:, feature] += which == feature
    found = names_from_vocabulary(peak, cosine, WORDS, ClipSettings(top=40), first=7)
    assert [(name.index, name.name, name.method) for name in found] == [
        (7, "red", "clip"),
        (8, "green", "clip"),
        (9, "blue", "clip"),
    ]
    assert all(name.evidence["q"] <= 0.05 and name.evidence["second"] != name.name for name in found)


def test_on_sub_units_that_follow_nothing_no_more_names_than_stated() -> None:
    cosine, which = similar()
    rng = np.random.default_rng(2)
    runs, rate = 60, 0.1
    settings = ClipSettings(top=30, fdr=rate, random_sets=200)
    named = 0
    for seed in range(runs):
        peak = rng.random((len(which), 10)).astype(np.float32)
        named += bool(
            names_from_vocabulary(peak, cosine, WORDS, ClipSettings(30, fdr=rate, random_sets=200, seed=seed))
        )
    assert settings.fdr == rate
    assert named / runs <= rate + 3 * (rate * (1 - rate) / runs) ** 0.5


def test_sub_units_that_fire_too_rarely_stay_unnamed() -> None:
    cosine, which = similar()
    peak = np.where(which == 0, 1.0, -1.0)[:, None].astype(np.float32)
    assert [
        name.name for name in names_from_vocabulary(np.tile(peak, 2), cosine, WORDS, ClipSettings(top=40))
    ] == []  # no contrast: the mean
    peak[30:] = -1
    assert names_from_vocabulary(peak, cosine, WORDS, ClipSettings(top=40)) == []


def test_wrong_input_is_refused(tmp_path: Path) -> None:
    cosine, _ = similar()
    with pytest.raises(UsageError, match="do not fit"):
        names_from_vocabulary(np.zeros((3, 2), np.float32), cosine, WORDS)
    with pytest.raises(UsageError, match="no place"):
        cosines(Planted(), [coloured(2)[0]], WORDS, "a photo")
    with pytest.raises(UsageError):
        ClipSettings(random_sets=1)
    with pytest.raises(UsageError, match=r"image\.onnx, text\.onnx, tokenizer\.json"):
        open_encoder(str(tmp_path))
    with pytest.raises(UsageError, match="names no weights"):
        open_encoder("open_clip:ViT-B-32")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UsageError, match="pip install open_clip_torch"):
        open_encoder("open_clip:ViT-B-32/openai")


def test_vocabularies(tmp_path: Path) -> None:
    shipped = read_words()
    assert len(shipped) > 400
    assert len({word.lower() for word in shipped}) == len(shipped)
    (tmp_path / "words.txt").write_text("# mine\nred\n\n green \nred\n")
    assert read_words(tmp_path / "words.txt") == ["red", "green"]
    (tmp_path / "one.txt").write_text("red\n")
    with pytest.raises(UsageError, match="has 1 words"):
        read_words(tmp_path / "one.txt")
    with pytest.raises(UsageError, match="cannot be read"):
        read_words(tmp_path / "none.txt")


def write_pair(folder: Path) -> None:
    """An encoder as ONNX files: pictures become their mean colour, a text the row of its first word in a table of
    colours.
    """
    tokenizers = pytest.importorskip("tokenizers")
    folder.mkdir()
    vocabulary = {"[PAD]": 0, "red": 1, "green": 2, "blue": 3, "grey": 4}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    picture = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["n", 3, 8, 8])
    out = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    mean = helper.make_node("ReduceMean", ["pixel_values", "axes"], ["vector"], keepdims=0)
    save(helper.make_graph([mean], "image", [picture], [out], [axes]), folder / "image.onnx")
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["n", 5])
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT32, ["n", 5])
    colours = helper.make_tensor("table", TensorProto.FLOAT, [5, 3], [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1])
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["vector"], keepdims=0),
    ]
    constants = [
        colours,
        helper.make_tensor("last", TensorProto.INT64, [1], [2]),
        helper.make_tensor("middle", TensorProto.INT64, [1], [1]),
    ]
    save(helper.make_graph(nodes, "text", [ids, mask], [out], constants), folder / "text.onnx")


def save(graph: onnx.GraphProto, path: Path) -> None:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def test_an_onnx_pair_sees_what_it_should(tmp_path: Path) -> None:
    write_pair(tmp_path / "pair")
    plain = Preprocess((3, 8, 8), "bilinear", 1.0, "center", (0, 0, 0), (1, 1, 1))
    (tmp_path / "pair" / "preprocess.json").write_text(json.dumps(plain.to_json()))
    encoder = open_encoder(str(tmp_path / "pair"))
    pictures, which = coloured(30)
    got = cosines(encoder, [pictures], WORDS, "{}")
    assert got.shape == (30, 4)
    assert got[:, :3].argmax(axis=1).tolist() == which.tolist()
    np.testing.assert_allclose(encoder.encode_texts(["blue", "red green"]), [[0, 0, 1], [1, 1, 0]])


def test_spaces_that_differ_are_refused() -> None:
    class Odd(Planted):
        def encode_texts(self, texts: list[str]) -> np.ndarray:
            return np.ones((len(texts), 5), np.float32)

    with pytest.raises(UsageError, match="vectors of 3 numbers, texts of 5"):
        cosines(Odd(), [coloured(2)[0]], WORDS)
