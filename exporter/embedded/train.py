"""Train the embedded default: a small timm ViT on Fashion-MNIST, and pack its probing and evaluation sets.

Run off-line, once; the results are committed beside this file::

    python -m elude.exporter.embedded.train --data /usr/share/datasets/fashion-mnist

``--data`` is a folder with the four ``*-ubyte.gz`` files of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, MIT licence;
Debian ships them as ``dataset-fashion-mnist``). The model sees three equal channels, so that it keeps the contract of
every other image model. Garments lie on black; a fifth of the training images get a background tiled from other
garments instead, so that clutter is no reason to fail.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

import elude.exporter.models.torchvision_compat  # noqa: F401  # isort: skip - before timm
import timm  # isort: skip

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
ARCHITECTURE = "vit_tiny_patch16_224"
# Average pooling, so that every token of the last block counts for the classes: a class token would
# be all that is read of it.
MODEL_ARGS: dict[str, Any] = dict(
    img_size=28,
    patch_size=4,
    embed_dim=96,
    depth=6,
    num_heads=3,
    mlp_ratio=4,
    num_classes=10,
    class_token=False,
    global_pool="avg",
)
MEAN, STD = 0.2860, 0.3530
EPOCHS, LEARNING_RATE = 10, 2e-3
HERE = Path(__file__).parent


def read_idx(path: Path) -> np.ndarray:
    """Read one gzipped IDX file as uint8: images (N, 28, 28) or labels (N,)."""
    raw = gzip.decompress(path.read_bytes())
    dims = raw[3]
    shape = np.frombuffer(raw, ">u4", dims, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)


def read_split(data: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as float32 (N, 1, 28, 28) in [0, 1] and labels int64 (N,) of ``train`` or ``t10k``."""
    images = read_idx(data / f"{split}-images-idx3-ubyte.gz").astype(np.float32) / 255
    labels = read_idx(data / f"{split}-labels-idx1-ubyte.gz").astype(np.int64)
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels)


def augment(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Flip, shift by up to 2 pixels, clutter a fifth of the backgrounds, add noise to a sixth; in place of crops."""
    n = len(x)
    flip = torch.rand(n, generator=g) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    padded = F.pad(x, (2, 2, 2, 2))
    dy, dx = torch.randint(0, 5, (2, n), generator=g)
    rows = (torch.arange(28) + dy[:, None])[:, :, None]
    cols = (torch.arange(28) + dx[:, None])[:, None, :]
    x = padded[torch.arange(n)[:, None, None], 0, rows, cols][:, None]

    cluttered = torch.rand(n, generator=g) < 0.2
    tile = x[torch.randperm(n, generator=g), :, 10:18, 10:18].repeat(1, 1, 4, 4)[..., :28, :28]
    tile = tile * (0.2 + 0.6 * torch.rand(n, 1, 1, 1, generator=g))
    x = torch.where(cluttered[:, None, None, None] & (x < 0.05), tile, x)

    noisy = (torch.rand(n, generator=g) < 1 / 6)[:, None, None, None]
    return torch.where(noisy, (x + 0.1 * torch.randn(x.shape, generator=g)).clamp(0, 1), x)


def model_input(x: torch.Tensor) -> torch.Tensor:
    """(N, 1, 28, 28) in [0, 1] to the model's normalised (N, 3, 28, 28)."""
    return ((x - MEAN) / STD).expand(-1, 3, -1, -1)


@torch.no_grad()
def accuracy(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    model.eval()
    right = sum(
        (model(model_input(a)).argmax(1) == b).sum().item()
        for a, b in zip(torch.split(x, 500), torch.split(y, 500), strict=True)
    )
    return float(right) / len(y)


def train(data: Path, seed: int) -> torch.nn.Module:
    """One one-cycle schedule of AdamW on all training images."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    model = timm.create_model(ARCHITECTURE, **MODEL_ARGS)
    x, y = read_split(data, "train")
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}])
    steps = EPOCHS * (len(x) // 256)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, steps, pct_start=0.2)
    for epoch in range(EPOCHS):
        model.train()
        start = time.time()
        for index in torch.split(torch.randperm(len(x), generator=g)[: steps // EPOCHS * 256], 256):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(model_input(augment(x[index], g)))
            loss = F.cross_entropy(logits.float(), y[index])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{EPOCHS}  loss {loss.item():.3f}  {time.time() - start:.0f} s", flush=True)
    return model.eval()


def pack(x: torch.Tensor, y: torch.Tensor, per_class: int, path: Path, seed: int) -> None:
    """Write ``per_class`` images of each class as PNG files ``<class>/<index>.png`` into one tar, reproducibly."""
    rng = np.random.default_rng(seed)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for label, name in enumerate(CLASSES):
            for index in sorted(rng.choice(np.flatnonzero(y.numpy() == label), per_class, replace=False)):
                buffer = io.BytesIO()
                pixels = (x[index, 0].numpy() * 255).round().astype(np.uint8)
                Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
                entry = tarfile.TarInfo(f"{name}/{index:05d}.png")
                entry.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(entry, buffer)


def write_model(model: torch.nn.Module, top1: float, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` in timm's local-folder layout."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": ARCHITECTURE,
        "num_classes": len(CLASSES),
        "model_args": MODEL_ARGS,
        "label_names": list(CLASSES),
        "pretrained_cfg": {
            "tag": "fashion_mnist",
            "input_size": [3, 28, 28],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
            "num_classes": len(CLASSES),
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": "mit",
            "label_names": list(CLASSES),
        },
        "training": {"data": "Fashion-MNIST, 60,000 images", "test_top1": round(top1, 4), "test_images": 10000},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    pack(*read_split(args.data, "train"), 300, args.out / "probe.tar", args.seed)
    pack(*read_split(args.data, "t10k"), 100, args.out / "evaluation.tar", args.seed)
    model = train(args.data, args.seed)
    top1 = accuracy(model, *read_split(args.data, "t10k"))
    write_model(model, top1, args.out / "model")
    print(f"top-1 on the 10,000 test images {top1:.4f}")


if __name__ == "__main__":
    main()
