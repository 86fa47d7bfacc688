"""What each steering input means, to the last bit, on the raw graph: the promises of ``docs/graph.md``."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from _graphs import Emitted, emitted, raw_session
from _models import Convolutions, TinyBlocks, TwoConcepts
from _weight_edit import weights_edited

from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.bundle.edits import Edit, pack

LAYERS = "blocks.0.mlp.fc2,blocks.1.mlp.fc2"


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    return emitted(TinyBlocks(), LAYERS, (3, 8, 8), tmp_path_factory.mktemp("steer") / "model.onnx")


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    return emitted(
        Convolutions(), "stem,grouped,depthwise,head", (3, 12, 12), tmp_path_factory.mktemp("steer") / "model.onnx"
    )


def run(
    case: Emitted, edits: list[list[Edit]] | None = None, pixels: np.ndarray | None = None, **feed: np.ndarray
) -> np.ndarray:
    session = raw_session(case.path)
    pixels = case.pixels if pixels is None else pixels
    return session.run(["logits"], {"pixel_values": pixels, **(pack(edits) if edits else {}), **feed})[0]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


def test_steering_by_hand(tmp_path: object) -> None:
    """TwoConcepts: unit 0 = 2 r + 3 g - 1 as red and green, each with half the bias; logits = mean over 4 tokens of
    relu(z).
    """
    from pathlib import Path

    from _graphs import SOURCE, preprocess

    from elude.exporter.graph import emit
    from elude.exporter.models.layers import find_layers

    model, path = TwoConcepts().eval(), Path(str(tmp_path)) / "model.onnx"
    split = LayerSplit(
        "mix",
        np.array([2, 1]),
        np.array([[1, 2, 3], [1, 1, 1]], np.uint64),
        np.full(2, np.nan, np.float32),
        np.zeros((3, 3), np.float32),
    )
    size = (3, 4, 4)
    emit(
        model,
        [split],
        path,
        layers=find_layers(model, "mix"),
        input_size=size,
        source=SOURCE,
        preprocess=preprocess(size),
    )
    pixels = np.zeros((1, 3, 4, 4), np.float32)
    pixels[0, 0], pixels[0, 1], pixels[0, 2] = 1.0, 2.0, 5.0
    pixels[0, 0, :2, 2:] = 4.0  # the second quarter is redder
    case = Emitted(model, [], [split], path, pixels)
    # red sub-unit: 2 r - 0.5 = 1.5, 7.5, 1.5, 1.5; green: 3 g - 0.5 = 5.5; unit 0: 7, 13, 7, 7, mean 8.5; unit 1: 5
    assert run(case).tolist() == [[8.5, 5.0]]
    assert run(case, [[Edit.ablate(0)]]).tolist() == [[5.5, 5.0]]
    assert run(case, [[Edit.ablate(1)]]).tolist() == [[3.0, 5.0]]
    assert run(case, [[Edit.set(0, 2.5)]]).tolist() == [[8.0, 5.0]]
    assert run(case, [[Edit.scale(0, 3.0)]]).tolist() == [[14.5, 5.0]]
    assert run(case, [[Edit.add(2, 1.0)]]).tolist() == [[8.5, 6.0]]
    assert run(case, [[Edit.ablate(0, patches=1)]]).tolist() == [[6.625, 5.0]]  # second token only: 13 - 7.5 = 5.5
    # green is the same everywhere: of equals, the first two tokens, 7 - 5.5 = 1.5 and 13 - 5.5 = 7.5
    assert run(case, [[Edit.ablate(1, patches=2)]]).tolist() == [[5.75, 5.0]]
    assert run(case, [[Edit.add(1, 4.0, patches=1)]]).tolist() == [[9.5, 5.0]]
    assert run(case, [[Edit.add(0, 1.0), Edit.add(0, 1.0), Edit.scale(0, 2.0)]]).tolist() == [
        [13.5, 5.0]
    ]  # + 1 + 1 + mean red 3


@pytest.mark.parametrize("index", [-1, -2, -(2**62)])
def test_negative_indices_are_padding(blocks: Emitted, index: int) -> None:
    edits = [[Edit(index, 7.0, float("nan"), 1)] * 3]
    assert same(run(blocks, edits), run(blocks))
    mixed = [[Edit(index, 7.0, 9.0, 2), Edit.scale(3, 2.0), Edit(index)]]
    assert same(run(blocks, mixed), run(blocks, [[Edit(-1), Edit.scale(3, 2.0), Edit(-1)]]))
    # with another number of columns ONNX Runtime may pick another kernel
    np.testing.assert_allclose(run(blocks, mixed), run(blocks, [[Edit.scale(3, 2.0)]]), rtol=1e-6, atol=1e-6)


def test_an_index_past_the_end_fails_in_the_run(blocks: Emitted) -> None:
    run(blocks, [[Edit(blocks.sub_units - 1)]])
    for index in (blocks.sub_units, 2**40):
        with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match="steer_sub_unit_is_out_of_range"):
            run(blocks, [[Edit(index)]])


def test_inputs_of_unlike_shapes_fail_in_the_run(blocks: Emitted) -> None:
    whole = pack([[Edit.scale(0, 2.0)]])
    for name in whole:
        for part in (dict.fromkeys([name], whole[name]), {key: value for key, value in whole.items() if key != name}):
            with pytest.raises(
                ort.capi.onnxruntime_pybind11_state.InvalidArgument, match="the_four_steer_inputs_must_have_one_shape"
            ):
                run(blocks, **part)


def test_rows_that_do_not_fit_the_batch_fail_in_the_run(blocks: Emitted) -> None:
    rows = [[Edit.scale(0, 2.0)]]
    for count, batch in ((2, 4), (3, 1)):
        with pytest.raises(
            (
                ort.capi.onnxruntime_pybind11_state.Fail,
                ort.capi.onnxruntime_pybind11_state.InvalidArgument,
                ort.capi.onnxruntime_pybind11_state.RuntimeException,
            )
        ):
            run(blocks, rows * count, blocks.pixels[:batch])


def test_wrong_types_fail_in_the_run(blocks: Emitted) -> None:
    whole = pack([[Edit.scale(0, 2.0)]])
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match="expected: \\(tensor\\(float\\)\\)"):
        run(blocks, **(whole | {"steer_gain": whole["steer_gain"].astype(np.float64)}))


def test_one_row_is_for_every_image(blocks: Emitted) -> None:
    row = blocks.edits(5, 1, 6, patches=(0, 2))
    assert same(run(blocks, row), run(blocks, row * 4))


@pytest.mark.parametrize("fixture", ["blocks", "convolutions"])
def test_unlike_edits_in_one_batch_equal_single_runs(fixture: str, request: pytest.FixtureRequest) -> None:
    """32 edits on each row.

    Against the same batch with one row's edits for all, so that the model's own products have one
    size.
    """
    case: Emitted = request.getfixturevalue(fixture)
    rows = case.edits(11, 4, 32, patches=(0, 1, 3))
    together = run(case, rows)
    for i, row in enumerate(rows):
        assert same(together[i], run(case, [row])[i])
        alone = run(case, [row], case.pixels[i : i + 1])[0]
        np.testing.assert_allclose(alone, together[i], rtol=1e-5, atol=1e-5)
    if fixture == "blocks":
        assert all(same(run(case, [row], case.pixels[i : i + 1])[0], together[i]) for i, row in enumerate(rows))


def test_an_edit_leaves_other_rows_alone(blocks: Emitted) -> None:
    rows = [[], [Edit.scale(2, 1e4)], [], [Edit.set(20, -3.0)]]
    plain, edited = run(blocks), run(blocks, rows)
    assert same(plain[[0, 2]], edited[[0, 2]])
    assert not np.isclose(plain[[1, 3]], edited[[1, 3]]).all()


def test_patches(blocks: Emitted) -> None:
    everywhere = run(blocks, [[Edit.scale(0, 3.0)]])
    for patches in (0, -1, 4, 5, 2**40):  # 4 tokens
        assert same(run(blocks, [[Edit.scale(0, 3.0, patches)]]), everywhere)
    assert not np.allclose(run(blocks, [[Edit.scale(0, 3.0, 1)]]), everywhere)


def test_extreme_gains(blocks: Emitted) -> None:
    plain = run(blocks)
    assert np.isnan(run(blocks, [[Edit.scale(0, float("nan"))]])).all()
    assert np.isfinite(run(blocks, [[Edit.scale(0, 1e4)]])).all()
    assert same(run(blocks, [[Edit.scale(0, 1.0)]]), plain)
    np.testing.assert_allclose(run(blocks, [[Edit.scale(0, 0.0)]]), run(blocks, [[Edit.ablate(0)]]), rtol=0)
    flipped = run(blocks, [[Edit.scale(0, -1.0)]])
    np.testing.assert_allclose(
        flipped, run(blocks, [[Edit.ablate(0), Edit.ablate(0)]]), atol=1e-5
    )  # changes of one sub-unit add


def test_a_nan_stays_in_its_unit(tmp_path: object) -> None:
    """With the head split, one class is edited; the others must not hear of it."""
    from pathlib import Path

    case = emitted(TinyBlocks(), "head", (3, 8, 8), Path(str(tmp_path)) / "model.onnx")
    got = run(case, [[Edit.scale(0, float("nan"))]])
    assert np.isnan(got[:, 0]).all()
    assert same(got[:, 1:], run(case)[:, 1:])


def test_a_layer_ignores_edits_of_others_even_when_it_overflows(tmp_path: object) -> None:
    """The first layer's activations are infinite; an edit of the head must change the head alone."""
    from pathlib import Path

    class Overflow(TinyBlocks):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.patch(x).flatten(2).transpose(1, 2)
            hidden = self.blocks[0].mlp.fc2(x[..., :1].expand(-1, -1, 10) * 3e38 * 3e38)
            return self.head(hidden.clamp(-1, 1).nan_to_num(0.5).mean(1))

    case = emitted(Overflow(), "blocks.0.mlp.fc2,head", (3, 8, 8), Path(str(tmp_path)) / "model.onnx")
    head = case.splits[0].sub_units
    got, plain = run(case, [[Edit.add(head, 1.0)]]), run(case)
    assert np.isfinite(plain).all()
    assert same(got[:, 1:], plain[:, 1:])
    np.testing.assert_allclose(got[:, 0], plain[:, 0] + 1, rtol=1e-6)


def test_steering_equals_editing_the_weights(blocks: Emitted) -> None:
    """W' = W + sum (g - 1) w^s, b' = b + sum (g - 1) b^s + o."""
    edits = [edit for row in blocks.edits(3, 1, 8) for edit in row]
    with torch.no_grad():
        expected = weights_edited(blocks.module, blocks.splits, edits)(torch.from_numpy(blocks.pixels)).numpy()
    np.testing.assert_allclose(run(blocks, [edits]), expected, rtol=1e-5, atol=1e-5)
