"""Steering and baking against edits of the weights and hand-worked values; nothing leaks from one call to the next."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from elude.exporter.rewrite import graft
from elude.exporter.splitting.layer_split import LayerSplit, full_masks
from elude.exporter.splitting.weights import sub_unit_bias, sub_unit_weights
from elude.handlers.bundle.edits import PADDING, Edit
from elude.handlers.errors import UnsupportedLayerError, UsageError

MODELS = {
    "linear": nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 5, bias=False)),
    "conv": nn.Sequential(nn.Conv2d(6, 4, 3, groups=2), nn.Tanh(), nn.Conv2d(4, 5, 1, bias=False)),
}


def setting(kind: str) -> tuple[nn.Module, list[LayerSplit], Tensor]:
    """A float64 model of two split layers, their splits in an order unlike the model's, and five images."""
    torch.manual_seed(0)
    model = MODELS[kind].double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    rng = np.random.default_rng(0)
    splits = []
    for name in ("2", "0"):
        units, inputs = model.get_submodule(name).weight.shape[:2]
        parts = rng.integers(2, 4, units)
        masks = rng.integers(1, full_masks(parts)[:, None] + np.uint64(1), (units, inputs), dtype=np.uint64)
        masks[:, 0] = full_masks(parts)  # every sub-unit has a weight, so every edit has an effect
        splits.append(
            LayerSplit(name, parts, masks, np.ones(units, np.float32), np.zeros((int(parts.sum()), inputs), np.float32))
        )
    shape = (5, 7, 6) if kind == "linear" else (5, 6, 5, 4)
    return model, splits, torch.randn(shape, dtype=torch.float64)


def edited(model: nn.Module, splits: list[LayerSplit], edits: list[Edit]) -> nn.Module:
    """The same edits as new weights, built here from NumPy: W' = W + (g - 1) w, b' = b + (g - 1) b_s + o."""
    layers = []
    for module in model:
        layers.append(module)
        if not isinstance(module, nn.Tanh):
            kwargs = {"groups": module.groups} if isinstance(module, nn.Conv2d) else {}
            args = (module.kernel_size,) if isinstance(module, nn.Conv2d) else ()
            shape = module.weight.shape
            groups = kwargs.get("groups", 1)
            layers[-1] = type(module)(shape[1] * groups, shape[0], *args, **kwargs).double()
            layers[-1].load_state_dict(
                {"weight": module.weight, "bias": torch.zeros(shape[0]) if module.bias is None else module.bias}
            )
    first = 0
    for split in splits:
        old, new = model.get_submodule(split.layer), layers[int(split.layer)]
        weights = sub_unit_weights(old.weight.detach().numpy(), split)
        biases = sub_unit_bias(None if old.bias is None else old.bias.detach().numpy(), split)
        for edit in edits:
            s = edit.index - first
            if 0 <= s < split.sub_units:
                unit = split.parent[s]
                new.weight.data[unit] += (edit.gain - 1) * torch.from_numpy(weights[s])
                new.bias.data[unit] += (edit.gain - 1) * float(biases[s]) + edit.offset
        first += split.sub_units
    return nn.Sequential(*layers)


def some_edits(splits: list[LayerSplit], seed: int, count: int = 6) -> list[Edit]:
    """Edits of every kind on distinct sub-units over both layers."""
    rng = np.random.default_rng(seed)
    index = rng.permutation(sum(split.sub_units for split in splits))[:count]
    makers = [lambda i: Edit.scale(i, -3.0), Edit.ablate, lambda i: Edit.set(i, 1.5), lambda i: Edit.add(i, -0.7)]
    return [makers[n % 4](int(i)) for n, i in enumerate(index)]


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_steering_all_tokens_is_editing_the_weights(kind: str) -> None:
    model, splits, x = setting(kind)
    twin = graft(model, splits)
    for index in range(sum(split.sub_units for split in splits)):
        for edit in (
            Edit.scale(index, 5.0),
            Edit.scale(index, -0.5),
            Edit.ablate(index),
            Edit.set(index, -1.0),
            Edit.add(index, 2.0),
        ):
            with twin.steer([[edit]]):
                got = twin(x)
            torch.testing.assert_close(got, edited(model, splits, [edit])(x), rtol=0, atol=1e-11)
            assert not torch.equal(got, model(x))
    edits = some_edits(splits, 5, 12)
    with twin.steer([edits]):
        torch.testing.assert_close(twin(x), edited(model, splits, edits)(x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_set_fixes_the_activation(kind: str) -> None:
    model, splits, x = setting(kind)
    twin = graft(model, splits)
    index = splits[0].sub_units + 3  # of layer "0"
    unit = int(splits[1].parent[3])
    values, units = twin.sub_units(x)["0"], twin.units(x)["0"]
    layer = model[0]
    seen: list[Tensor] = []
    handle = twin.model[0].register_forward_hook(lambda module, args, z: seen.append(z))
    with twin.steer([[Edit.set(index, 2.5)]]):
        twin(x)
    handle.remove()
    z = seen[0] if kind == "linear" else seen[0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(z[..., unit], units[..., unit] - values[..., 3] + 2.5, rtol=0, atol=1e-12)
    others = [u for u in range(layer.weight.shape[0]) if u != unit]
    assert torch.equal(z[..., others], units[..., others])


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_rows_carry_their_own_edits(kind: str) -> None:
    model, splits, x = setting(kind)
    twin = graft(model, splits)
    rows = [some_edits(splits, 1), [], [Edit(PADDING, 7.0, 7.0)], some_edits(splits, 2, 32), some_edits(splits, 3, 1)]
    rows[4] += [Edit.scale(rows[4][0].index, 3.0, patches=2)]
    with twin.steer(rows):
        together = twin(x)
    for i, row in enumerate(rows):
        with twin.steer([row]):
            torch.testing.assert_close(together[i : i + 1], twin(x[i : i + 1]), rtol=0, atol=1e-12)
    plain = model(x)
    assert torch.equal(together[1:3], plain[1:3])
    for i in (0, 3, 4):
        assert not torch.allclose(together[i], plain[i])


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_one_row_is_for_every_image(kind: str) -> None:
    model, splits, x = setting(kind)
    twin = graft(model, splits)
    row = some_edits(splits, 0)
    with twin.steer([row]):
        one = twin(x)
    with twin.steer([row] * 5):
        assert torch.equal(one, twin(x))
    with twin.steer([row, row]), pytest.raises(UsageError, match="2 images, but 5"):
        twin(x)


@torch.no_grad()
def test_patches_are_the_strongest_with_ties_to_the_lowest_token() -> None:
    """Unit 0 = x_0 + x_1 in two sub-units, one an input; sub-unit 0 reads x_0 = 1, 3, 2, 3, 3, 0."""
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    model[0].weight.data[:] = 1
    split = LayerSplit(
        "0", np.array([2]), np.array([[1, 2]], np.uint64), np.ones(1, np.float32), np.zeros((2, 2), np.float32)
    )
    x = torch.tensor([[[1.0, 10], [3, 10], [2, 10], [3, 10], [3, 10], [0, 10]]])
    twin = graft(model, [split])
    plain = [11.0, 13, 12, 13, 13, 10]
    expected = {
        0: [10.0] * 6,
        1: [11, 10, 12, 13, 13, 10],
        2: [11, 10, 12, 10, 13, 10],
        4: [11, 10, 10, 10, 10, 10],
        6: [10] * 6,
        99: [10] * 6,
    }
    for patches, values in expected.items():
        with twin.steer([[Edit.ablate(0, patches)]]):
            assert twin(x).flatten().tolist() == values
    with twin.steer([[Edit.add(0, 1.0, 1), Edit.scale(0, 2.0, 1)]]):  # both start from 3, their changes add: 13 + 1 + 3
        assert twin(x).flatten().tolist() == [11, 17, 12, 13, 13, 10]
    assert twin(x).flatten().tolist() == plain


@torch.no_grad()
def test_patches_are_locations_of_a_convolution() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    model[0].weight.data[:] = 1
    split = LayerSplit(
        "0", np.array([1]), np.ones((1, 1), np.uint64), np.ones(1, np.float32), np.zeros((1, 1), np.float32)
    )
    x = torch.tensor([[[[1.0, 4, 2], [4, 0, 4]]]])
    with graft(model, [split]).steer([[Edit.ablate(0, 2)]]) as twin:
        assert twin(x).tolist() == [[[[1, 0, 2], [0, 0, 4]]]]


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_no_edit_leaks_into_the_next_call(kind: str) -> None:
    model, splits, x = setting(kind)
    twin, expected = graft(model, splits), model(x)
    with twin.steer([some_edits(splits, 0)]):
        assert not torch.equal(twin(x), expected)
    assert torch.equal(twin(x), expected)

    def fail() -> None:
        with twin.steer([some_edits(splits, 0)]):
            twin(x[..., :1])  # of a wrong shape

    with pytest.raises(RuntimeError):
        fail()
    assert torch.equal(twin(x), expected)
    with twin.steer([[Edit(PADDING, 0.0, 9.0)]]):
        assert torch.equal(twin(x), expected)
    with twin.steer([]):
        assert torch.equal(twin(x), expected)


@torch.no_grad()
def test_sub_units_are_those_before_the_edit_of_their_own_layer() -> None:
    model, splits, x = setting("linear")
    twin = graft(model, splits)
    plain = twin.sub_units(x)
    with twin.steer([[Edit.add(splits[0].sub_units, 3.0)]]):  # the first sub-unit of layer "0", which feeds "2"
        steered = twin.sub_units(x)
    assert torch.equal(plain["0"], steered["0"])
    assert not torch.allclose(plain["2"], steered["2"])


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (Edit.ablate(10_000), "no sub-unit 10000"),
        (Edit.ablate(-2), "no sub-unit -2"),
        (Edit.scale(0, float("nan")), "gain nan"),
        (Edit.add(0, float("inf")), "offset inf"),
        (Edit.ablate(0, -1), "-1 patches"),
    ],
)
def test_edits_that_mean_nothing_are_refused(edit: Edit, what: str) -> None:
    model, splits, x = setting("linear")
    twin = graft(model, splits)
    with pytest.raises(UsageError, match=what), twin.steer([[edit]]):
        pass
    assert torch.equal(twin(x), model(x))


def test_the_bounds_of_the_index() -> None:
    model, splits, _ = setting("linear")
    twin = graft(model, splits)
    total = splits[0].sub_units + splits[1].sub_units
    with twin.steer([[Edit.ablate(total - 1)]]):
        pass
    with pytest.raises(UsageError, match=f"0 to {total - 1}"), twin.steer([[Edit.ablate(total)]]):
        pass


def test_steering_within_steering_is_refused() -> None:
    model, splits, _ = setting("linear")
    twin = graft(model, splits)
    with twin.steer([[Edit.ablate(0)]]), pytest.raises(UsageError, match="already"), twin.steer([[Edit.ablate(1)]]):
        pass


@torch.no_grad()
def test_a_batch_folded_into_something_else_is_refused() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.reshape(-1, 2)[:3])

    model = Odd()
    split = LayerSplit(
        "fc", np.array([1]), np.ones((1, 2), np.uint64), np.ones(1, np.float32), np.zeros((1, 2), np.float32)
    )
    with (
        graft(model, [split]).steer([[Edit.ablate(0)]]) as twin,
        pytest.raises(UnsupportedLayerError, match="3 rows for a batch of 2"),
    ):
        twin(torch.zeros(2, 4))
