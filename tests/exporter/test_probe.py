"""What is collected is what the layer computes with: z = W q + b again in float64, for every kind of layer; and
bounded, and seeded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from _images import noise, plain
from _models import Convolutions, InPlace, TinyBlocks
from torch import nn

from elude.exporter.images import ImageSource
from elude.exporter.models.layers import find_layers
from elude.exporter.models.walk import pass_size
from elude.exporter.probing.probe import collect
from elude.handlers.errors import UnsupportedLayerError, UsageError
from elude.handlers.images.preprocess import Preprocess


class SameConvolution(nn.Module):
    """timm's convolution that pads by the size of its input, as the ports of TensorFlow's models do."""

    def __init__(self) -> None:
        super().__init__()
        import elude.exporter.models.torchvision_compat  # noqa: F401

        # isort: split
        from timm.layers.conv2d_same import Conv2dSame

        self.same = Conv2dSame(3, 4, 3, stride=2)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.same(x).mean((2, 3)))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    return noise(tmp_path_factory.mktemp("noise"), 10, 12)


MODELS = {"convolutions": Convolutions(), "same": SameConvolution(), "blocks": TinyBlocks(), "in_place": InPlace()}
LAYERS = [
    ("convolutions", "stem"),
    ("convolutions", "pointwise"),
    ("convolutions", "grouped"),
    ("convolutions", "depthwise"),
    ("convolutions", "head"),
    ("same", "same"),
    ("blocks", "patch"),
    ("blocks", "blocks.0.mlp.fc1"),
    ("blocks", "blocks.1.mlp.fc2"),
    ("blocks", "head"),
    ("in_place", "first"),
    ("in_place", "second"),
]


@pytest.mark.parametrize(("model", "name"), LAYERS)
def test_the_layer_is_reproduced_in_float64(model: str, name: str, images: ImageSource) -> None:
    module = MODELS[model]
    (layer,) = find_layers(module, name)
    probe = collect(module, [layer], images, plain(12), tokens_per_image=3, seed=1, batch_size=4)[name]
    weight = layer.module.weight.detach().double().numpy().reshape(layer.units, layer.inputs, layer.window)
    bias = 0 if layer.module.bias is None else layer.module.bias.detach().double().numpy()
    q = probe.q.astype(np.float64)
    per_group = layer.units // layer.groups
    for unit in range(layer.units):
        group = unit // per_group
        inputs = q[:, group * layer.inputs : (group + 1) * layer.inputs]
        again = np.einsum("njw,jw->n", inputs, weight[unit]) + (bias if np.isscalar(bias) else bias[unit])
        np.testing.assert_allclose(probe.z[:, unit], again, atol=1e-5)
    assert probe.q.shape == (len(probe.z), layer.groups * layer.inputs, layer.window)
    assert (probe.q.dtype, probe.z.dtype, probe.image.dtype, probe.token.dtype) == (
        np.float32,
        np.float32,
        np.int64,
        np.int64,
    )


@pytest.mark.parametrize(("model", "name"), LAYERS)
def test_each_instance_is_where_it_says(model: str, name: str, images: ImageSource) -> None:
    module = MODELS[model]
    (layer,) = find_layers(module, name)
    probe = collect(module, [layer], images, plain(12), tokens_per_image=3, seed=1, batch_size=4)[name]
    outputs: list[torch.Tensor] = []
    handle = layer.module.register_forward_hook(lambda _module, _args, output: outputs.append(output.clone()))
    with torch.inference_mode():
        module(torch.from_numpy(next(images.batches(plain(12), 10))[1]))
    handle.remove()
    z = outputs[0].numpy()
    for row, (image, token) in enumerate(zip(probe.image, probe.token, strict=True)):
        place = {2: (image,), 3: (image, token), 4: (image, slice(None), token // z.shape[-1], token % z.shape[-1])}[
            z.ndim
        ]
        np.testing.assert_allclose(probe.z[row], z[place], atol=1e-5)


def test_the_choice_depends_on_the_seed_but_not_on_the_batch_size(images: ImageSource) -> None:
    module = MODELS["convolutions"]
    layers = find_layers(module, "stem,grouped,head")
    one, seven, other = (
        collect(module, layers, images, plain(12), tokens_per_image=5, seed=seed, batch_size=size)
        for seed, size in [(3, 1), (3, 7), (4, 7)]
    )
    for name, probe in one.items():
        assert np.array_equal(probe.token, seven[name].token)
        assert np.array_equal(probe.image, seven[name].image)
        np.testing.assert_allclose(probe.z, seven[name].z, atol=1e-6)
    assert not np.array_equal(one["stem"].token, other["stem"].token)
    assert np.array_equal(one["stem"].token, one["grouped"].token)  # as many tokens as each other
    per_image = one["stem"].token.reshape(len(images), 5)
    assert (np.diff(per_image, axis=1) > 0).all()  # ascending, without repeats
    assert len({tuple(row) for row in per_image}) > 5  # not the same ones in each image


def test_memory_is_what_is_promised_and_short_layers_give_all_tokens(images: ImageSource) -> None:
    module = MODELS["convolutions"]
    probes = collect(module, find_layers(module, "stem,head"), images, plain(12), tokens_per_image=7, seed=0)
    assert probes["stem"].q.nbytes + probes["stem"].z.nbytes == 7 * 10 * (3 * 9 + 8) * 4
    assert probes["head"].q.nbytes + probes["head"].z.nbytes == 1 * 10 * (6 + 5) * 4
    assert all(
        array.base is None for probe in probes.values() for array in (probe.q, probe.z)
    )  # nothing larger is kept alive


def test_progress_counts_images(images: ImageSource) -> None:
    seen: list[tuple[int, int]] = []
    module = MODELS["convolutions"]
    layers = find_layers(module, "head")
    collect(
        module,
        layers,
        images,
        plain(12),
        tokens_per_image=1,
        seed=0,
        batch_size=4,
        progress=lambda *step: seen.append(step),
    )
    assert seen == [(4, 10), (8, 10), (10, 10)]
    assert not layers[0].module._forward_hooks


class Twice(nn.Module):
    def __init__(self, times: int) -> None:
        super().__init__()
        self.used, self.times = nn.Linear(12, 12), times

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.times):
            x = self.used(x)
        return x


@pytest.mark.parametrize(("times", "reason"), [(0, "never calls it"), (2, "runs 2 times")])
def test_a_layer_must_run_exactly_once(times: int, reason: str, images: ImageSource) -> None:
    module = Twice(times)
    with pytest.raises(UnsupportedLayerError, match=rf"'used' cannot be split: .*{reason}"):
        collect(module, find_layers(module, "used"), images, plain(12), tokens_per_image=1, seed=0)
    assert not module.used._forward_hooks


def test_senseless_sizes_are_refused(images: ImageSource) -> None:
    with pytest.raises(UsageError, match="tokens_per_image is 0"):
        collect(MODELS["blocks"], [], images, plain(12), tokens_per_image=0, seed=0)


def test_windows_of_one_image_are_tokens_of_it(tmp_path: Path) -> None:
    class Windows(nn.Module):
        """Cuts (N, 3, 4, 4) into four windows of 2x2 that it folds into the batch, as Swin does."""

        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            windows = x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 4, 5, 1).reshape(-1, 4, 3)
            return self.mix(windows).view(len(x), 16, 2).mean(1)

    source, model = noise(tmp_path, 5, 4), Windows()
    probe = collect(model, find_layers(model, "mix"), source, plain(4), tokens_per_image=16, seed=0, batch_size=2)[
        "mix"
    ]
    x = np.concatenate([pixels for _, pixels in source.batches(plain(4), 1)])
    token = 9  # the second row of the third window: image row 2, column 1
    rows = probe.q[(probe.token == token)][:, :, 0]
    np.testing.assert_array_equal(rows, x[:, :, 2, 1])


@pytest.mark.parametrize("name", ["first", "second"])
def test_layers_before_and_after_something_that_works_in_place(name: str, images: ImageSource) -> None:
    """z = W q + b holds only if neither was overwritten before it was kept."""
    model = InPlace().eval()
    (layer,) = find_layers(model, name)
    probe = collect(model, [layer], images, plain(12), tokens_per_image=5, seed=0)[name]
    weight, bias = (value.detach().double().numpy() for value in (layer.module.weight, layer.module.bias))
    expected = np.einsum("ujk,ijk->iu", weight.reshape(4, -1, 9), probe.q.astype(np.float64)) + bias
    assert probe.z.min() < 0
    np.testing.assert_allclose(probe.z, expected, atol=1e-6)


def test_passes_over_large_images_are_small_on_the_cpu_only() -> None:
    photo, tile = (
        Preprocess((3, size, size), "bicubic", 1.0, "center", mean=(0.5,) * 3, std=(0.5,) * 3) for size in (448, 28)
    )
    assert pass_size(64, torch.device("cpu"), photo) == 2
    assert pass_size(64, torch.device("cpu"), tile) == 64
    assert pass_size(1, torch.device("cpu"), photo) == 1
    assert pass_size(64, torch.device("cuda"), photo) == 64
