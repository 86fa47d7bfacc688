"""Functional identity of both forms on every layer kind, in float64 and float32, and that the checks can fail."""

import copy

import numpy as np
import pytest
import torch
from _models import InPlace
from torch import Tensor, nn

from elude.exporter.rewrite import Disentangled, explicit, graft
from elude.exporter.rewrite.explicit import ExplicitLayer
from elude.exporter.splitting.layer_split import LayerSplit, full_masks
from elude.exporter.splitting.margin import MARGIN_RULES, winning_masks
from elude.handlers.errors import UnsupportedLayerError, UsageError


def random_split(name: str, weight: Tensor, seed: int = 0, most: int = 5) -> LayerSplit:
    """A valid split of a layer with random masks and 1 to ``most`` parts: any split is lossless."""
    rng = np.random.default_rng(seed)
    units, inputs = weight.shape[:2]
    parts = rng.integers(1, most + 1, units)
    full = full_masks(parts)[:, None]
    masks = rng.integers(0, 2**64, (units, inputs), dtype=np.uint64) & full
    masks = np.where(masks == 0, full, masks)
    return LayerSplit(
        name, parts, masks, np.full(units, 0.5, np.float32), np.zeros((int(parts.sum()), inputs), np.float32)
    )


class Same(nn.Conv2d):
    """A convolution that pads by the size of its input, as TensorFlow does; known to the rewrite under timm's name."""

    __module__, __qualname__ = "timm.layers.conv2d_same", "Conv2dSame"

    def forward(self, x: Tensor) -> Tensor:
        pad = [
            (self.stride[0] * (-(-size // self.stride[0]) - 1) + self.kernel_size[0] - size) for size in x.shape[-2:]
        ]
        x = nn.functional.pad(x, [0, max(pad[1], 0), 0, max(pad[0], 0)])
        return nn.functional.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Windows(nn.Module):
    """A Linear that sees four windows of each image as rows of the batch, as Swin's attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x.reshape(len(x) * 4, -1, 6)).reshape(len(x), -1, 4)


CASES = {
    "linear": (nn.Linear(6, 8), (3, 5, 6)),
    "linear no bias": (nn.Linear(6, 8, bias=False), (3, 5, 6)),
    "head": (nn.Linear(6, 8), (3, 6)),
    "map of tokens": (nn.Linear(6, 8), (3, 4, 2, 6)),
    "1x1": (nn.Conv2d(6, 8, 1), (3, 6, 5, 4)),
    "3x3": (nn.Conv2d(6, 8, 3, padding=1), (3, 6, 5, 4)),
    "strided": (nn.Conv2d(6, 8, (3, 2), stride=2, bias=False), (3, 6, 9, 8)),
    "dilated reflect": (nn.Conv2d(6, 8, 3, dilation=2, padding=2, padding_mode="reflect"), (3, 6, 9, 8)),
    "grouped": (nn.Conv2d(6, 8, 3, groups=2), (3, 6, 5, 4)),
    "grouped no bias": (nn.Conv2d(6, 9, 3, groups=3, bias=False, padding="same"), (3, 6, 5, 4)),
    "depthwise": (nn.Conv2d(6, 6, 3, groups=6), (3, 6, 5, 4)),
    "depthwise multiplied": (nn.Conv2d(6, 12, 3, groups=6, stride=2), (3, 6, 5, 4)),
    "same": (Same(6, 8, 3, stride=2), (3, 6, 7, 8)),
}
SCALES = {"ordinary": 1.0, "far out of range": 1e30, "denormal": 1e-44}


def model_of(case: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, LayerSplit, Tensor]:
    """The layer of a case between two nonlinearities, its split, and an input."""
    torch.manual_seed(0)
    layer, shape = CASES[case]
    model = nn.Sequential(nn.Tanh(), copy.deepcopy(layer), nn.GELU()).to(dtype)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model, random_split("1", model[1].weight), torch.randn(shape, dtype=dtype)


def sums(sub_units: Tensor, split: LayerSplit) -> Tensor:
    """(…, units) of (…, sub_units), by a plain matrix product."""
    merge = torch.from_numpy(np.eye(len(split.parts))[split.parent]).to(sub_units)
    return sub_units @ merge


def as_tokens(z: Tensor, case: str) -> Tensor:
    """(N, T, units) of a layer's output, by einsum-free indexing."""
    if isinstance(CASES[case][0], nn.Conv2d):
        return z.permute(0, 2, 3, 1).reshape(z.shape[0], -1, z.shape[1])
    return z.reshape(z.shape[0], -1, z.shape[-1])


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_functional_identity_in_float64(case: str, scale: float) -> None:
    model, split, x = model_of(case)
    x = x * scale
    expected = model(x)
    assert (explicit(model, [split])(x) - expected).abs().max() < 1e-12
    twin = graft(model, [split])
    assert torch.equal(twin(x), expected)
    units, sub_units = twin.units(x)["1"], twin.sub_units(x)["1"]
    assert sub_units.shape == (*units.shape[:2], split.sub_units)
    assert torch.equal(units, as_tokens(model[1](model[0](x)), case))
    assert (sums(sub_units, split) - units).abs().max() < 1e-12


@pytest.mark.parametrize("rule", MARGIN_RULES)
@torch.no_grad()
def test_every_margin_rule_keeps_the_model(rule: str) -> None:
    """The sets that the rule makes of four clusters per unit, sets of one, several and all among them."""
    model, _, x = model_of("linear")
    means = np.random.default_rng(0).integers(-9, 10, (8, 4, 6)).astype(np.float32)
    masks = np.stack([winning_masks(unit, np.array([0.9]), rule)[0] for unit in means])
    assert {1} < set(np.bitwise_count(masks).ravel().tolist()) or rule == "signed"
    split = LayerSplit("1", np.full(8, 4), masks, np.full(8, np.nan, np.float32), means.reshape(32, 6))
    expected = model(x)
    assert (explicit(model, [split])(x) - expected).abs().max() < 1e-12
    assert torch.equal(graft(model, [split])(x), expected)


@pytest.mark.parametrize("scale", [1e-300, 1e12, 1e300])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_extreme_layer_inputs_keep_relative_precision(case: str, scale: float) -> None:
    model, split, x = model_of(case)
    model[1].bias = None  # which would hide tiny inputs
    x, layer = x * scale, model[1]
    expected = layer(x)
    peak = expected.abs().max()
    only = nn.Sequential(nn.Identity(), layer)
    assert (explicit(only, [split])(x) - expected).abs().max() < 1e-13 * peak
    assert torch.equal(graft(only, [split])(x), expected)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_float32_within_rounding_and_graft_bit_identical(case: str) -> None:
    model, split, x = model_of(case, torch.float32)
    expected = model(x)
    twin = graft(model, [split])
    assert torch.equal(twin(x), expected)
    twin.sub_units(x)
    assert torch.equal(twin(x), expected)
    terms = model[1].weight[0].numel() + 5
    bound = 4 * terms * 2.0**-24 * float(model[1].weight.abs().flatten(1).sum(1).max() + 5)
    assert (explicit(model, [split])(x) - expected).abs().max() < bound
    assert (sums(twin.sub_units(x)["1"], split) - twin.units(x)["1"]).abs().max() < bound


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_types_are_rewritten_in_their_own_type(dtype: torch.dtype) -> None:
    model, split, x = model_of("linear", dtype)
    twin = graft(model, [split])
    assert torch.equal(twin(x), model(x))
    assert twin.sub_units(x)["1"].dtype == dtype
    assert (sums(twin.sub_units(x)["1"].float(), split) - twin.units(x)["1"].float()).abs().max() < 0.2


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_a_split_that_does_not_sum_is_seen(case: str) -> None:
    model, split, x = model_of(case)
    twin, rewritten = graft(model, [split]), explicit(model, [split])
    for layer in (twin.get_submodule("_layers.0"), rewritten[1].split):
        layer.weight[0].mul_(1.001)
    difference = (sums(twin.sub_units(x)["1"], split) - twin.units(x)["1"]).abs().max()
    assert difference > 1e-6
    assert (rewritten(x) - model(x)).abs().max() > 1e-9


@torch.no_grad()
def test_merging_after_gelu_is_not_the_layer() -> None:
    """fc1: the sub-units' GELUs do not add up to the unit's."""
    model, split, x = model_of("linear")
    twin = graft(model, [split])
    activation = nn.GELU()
    right = activation(sums(twin.sub_units(x)["1"], split))
    wrong = sums(activation(twin.sub_units(x)["1"]), split)
    assert (right - model(x)).abs().max() < 1e-12
    assert (wrong - model(x)).abs().max() > 1e-2


@torch.no_grad()
def test_merging_after_norm_and_relu_is_not_the_layer() -> None:
    """A convolution before BatchNorm and ReLU: neither may come before the sum."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()).double()
    x = torch.randn(8, 4, 7, 7, dtype=torch.float64)
    for _ in range(20):
        model(x)  # running statistics away from 0 and 1
    model.eval()
    split = random_split("0", model[0].weight)
    twin = graft(model, [split])
    values = twin.sub_units(x)["0"]
    norm = model[1]
    parent = torch.from_numpy(split.parent)
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    expected = model(x).flatten(2).transpose(1, 2)
    right = (sums(values, split) * scale + shift).relu()
    after_norm = sums(values * scale[parent] + shift[parent], split).relu()
    after_relu = sums(values.relu(), split) * scale + shift
    assert (right - expected).abs().max() < 1e-12
    assert (after_norm - expected).abs().max() > 1e-2
    assert (after_relu - expected).abs().max() > 1e-2


@torch.no_grad()
def test_several_layers_at_once_and_the_original_untouched() -> None:
    torch.manual_seed(0)
    model = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(36, 5))
        .double()
        .eval()
    )
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    splits = [
        random_split("4", model[4].weight),
        random_split("0", model[0].weight),
        random_split("2", model[2].weight),
    ]
    twin, rewritten = graft(model, splits), explicit(model, splits)
    expected = model(x)
    assert torch.equal(twin(x), expected)
    assert not twin.training
    assert (rewritten(x) - expected).abs().max() < 1e-12
    values = twin.sub_units(x)
    assert {name: tuple(value.shape) for name, value in values.items()} == {
        s.layer: (2, t, s.sub_units) for s, t in zip(splits, (1, 25, 9), strict=True)
    }
    assert not any(isinstance(module, ExplicitLayer) for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    count = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in twin.parameters()) == count  # sub-unit weights are buffers


@torch.no_grad()
def test_a_copy_of_the_twin_stands_alone() -> None:
    model, split, x = model_of("grouped")
    twin = graft(model, [split])
    other = copy.deepcopy(twin)
    other.get_submodule("_layers.0").weight.zero_()
    other.get_submodule("_layers.0").bias.zero_()
    assert (other.sub_units(x)["1"] == 0).all()
    assert (twin.sub_units(x)["1"] != 0).any()


@torch.no_grad()
def test_windows_folded_into_the_batch_become_tokens() -> None:
    model, x = Windows(), torch.randn(2, 4, 3, 6)
    split = random_split("proj", model.proj.weight)
    twin = graft(model, [split])
    assert twin.sub_units(x)["proj"].shape == (2, 12, split.sub_units)
    torch.testing.assert_close(sums(twin.sub_units(x)["proj"], split), twin(x))


def test_gradients_flow_as_in_the_original() -> None:
    model, split, x = model_of("3x3")
    gradients = []
    for candidate in (model, graft(model, [split]), explicit(model, [split])):
        own = x.clone().requires_grad_()
        candidate(own).square().sum().backward()
        gradients.append(own.grad)
    assert torch.equal(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], gradients[2], rtol=0, atol=1e-10)


class Standardised(nn.Conv2d):
    """Not linear in its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight / self.weight.std())


class Reused(nn.Module):
    """Calls one layer twice, the other never."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.fc(x))


@pytest.mark.parametrize("rewrite", [graft, explicit])
def test_splits_that_do_not_fit_are_refused(rewrite) -> None:
    model = nn.Sequential(nn.Linear(4, 4), Standardised(4, 4, 1), nn.LayerNorm(4), nn.ConvTranspose2d(4, 4, 1))
    good = random_split("0", model[0].weight)
    with pytest.raises(UsageError, match="no layer"):
        rewrite(model, [random_split("9", model[0].weight)])
    with pytest.raises(UsageError, match="does not fit"):
        rewrite(model, [random_split("0", torch.zeros(4, 5))])
    with pytest.raises(UsageError, match="twice"):
        rewrite(model, [good, good])
    with pytest.raises(UnsupportedLayerError, match="Standardised"):
        rewrite(model, [random_split("1", model[1].weight)])
    with pytest.raises(UnsupportedLayerError, match="ConvTranspose2d"):
        rewrite(model, [random_split("3", model[3].weight)])
    with pytest.raises(UsageError, match="does not fit"):
        rewrite(model, [random_split("2", model[0].weight)])


def test_layers_not_called_exactly_once_are_refused() -> None:
    model = Reused()
    x = torch.randn(2, 4)
    for name, times in (("fc", "2 times"), ("idle", "0 times")):
        twin: Disentangled = graft(model, [random_split(name, model.fc.weight)])
        twin(x)
        with pytest.raises(UnsupportedLayerError, match=times):
            twin.sub_units(x)
        assert torch.equal(twin(x), model(x))


def test_what_is_captured_survives_activations_that_work_in_place() -> None:
    """Units are pre-activations: a ReLU that overwrites them must not reach what was captured."""
    model = InPlace().eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    splits = [random_split(name, model.get_submodule(name).weight) for name in ("first", "second")]
    twin = graft(model, splits)
    with torch.no_grad():
        first = model.first(x)
        expected = {"first": first, "second": model.second(first.relu())}
        units, sub_units = twin.units(x), twin.sub_units(x)
    for split in splits:
        z = expected[split.layer].flatten(2).transpose(1, 2)
        assert (z < 0).any()
        assert torch.equal(units[split.layer], z)
        merged = np.add.reduceat(sub_units[split.layer].double().numpy(), split.first, axis=2)
        np.testing.assert_allclose(merged, z.double().numpy(), atol=1e-6)
