"""A model of emoji drawings beside the embedded one of garments: would a person see the method's effect sooner?

    python -m benchmarks.drawings --noto FOLDER --twemoji FOLDER --out FOLDER [--layer blocks.6.0.conv_pwl]

FOLDER of a style is an unpacked npm package: ``emoji-datasource-google`` (drawings of Noto, Apache-2.0) and
``emoji-datasource-twitter`` (of Twemoji, CC-BY-4.0), version 16.0.0. Each drawing is laid on a coloured gradient; what
it shows is one of ``CLASSES``. Both drawings of a thing are in the same part, so that no held-out thing was trained on.
EfficientNet-Lite0 with its ImageNet weights (Apache-2.0) gets a new last layer; the rest of it stays.

Both models are exported by the product, and judged as ``benchmarks.method.photographs`` judges: by the held-out
images, and by a ViT-S that saw neither. What is in the folder already is taken, so that a stopped run resumes.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from benchmarks.method import model as networks
from benchmarks.method import photographs
from benchmarks.method.held_out import scores
from elude.exporter.export.pipeline import export
from elude.exporter.images import ImageSource, open_images
from elude.exporter.models.layers import find_layers
from elude.exporter.models.load import EMBEDDED_FOLDER, LoadedModel, load_model
from elude.exporter.probing.probe import collect
from elude.exporter.scoring.external_encoder import embed
from elude.exporter.splitting.split_file import CONTROL, load_splits
from elude.handlers.bundle.bundle import SPLITS, Bundle
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.bundle.manifest import Source

SIZE, DRAWN = 160, 64  # pixels of an image, and of the drawings that are taken
HELD_OUT = 3  # tenths of the things
THINNED = {"flag": 4, "person": 2}  # of which every n-th thing is taken
TOKENS = 32
NOWHERE = Source("tf_efficientnet_lite0", "", "", "")
CLASSES = {  # what the drawings of some subcategories show
    "mammal": ("animal-mammal", "monkey-face", "cat-face"),
    "bird": ("animal-bird",),
    "sea animal": ("animal-marine",),
    "bug or reptile": ("animal-bug", "animal-reptile", "animal-amphibian"),
    "plant": ("plant-flower", "plant-other"),
    "fruit or vegetable": ("food-fruit", "food-vegetable"),
    "meal": ("food-prepared", "food-asian"),
    "sweet": ("food-sweet",),
    "drink": ("drink", "dishware"),
    "face": (
        *("face-affection", "face-concerned", "face-costume", "face-glasses", "face-hand", "face-hat"),
        *("face-negative", "face-neutral-skeptical", "face-sleepy", "face-smiling", "face-tongue", "face-unwell"),
    ),
    "person": ("person", "person-role", "person-activity", "person-fantasy", "person-gesture", "person-sport"),
    "hand": (
        *("hand-fingers-closed", "hand-fingers-open", "hand-fingers-partial", "hand-prop"),
        *("hand-single-finger", "hands"),
    ),
    "heart": ("heart",),
    "building": ("place-building", "place-religious"),
    "car or train": ("transport-ground",),
    "aircraft": ("transport-air",),
    "ship": ("transport-water",),
    "clock": ("time",),
    "weather": ("sky & weather",),
    "clothing": ("clothing",),
    "music": ("music", "musical-instrument"),
    "ball or game": ("sport", "game"),
    "tool": ("tool",),
    "arrow": ("arrow",),
    "flag": ("country-flag",),
    "office": ("office", "book-paper", "mail", "writing"),
}


@dataclass(frozen=True)
class Thing:
    """One emoji: its class, short name, file name, and whether it is held out."""

    label: str
    name: str
    file: str
    held_out: bool


def things(package: Path) -> Iterator[Thing]:
    """The emoji of ``CLASSES`` that a package lists in its ``emoji.json``."""
    labels = {subcategory: label for label, parts in CLASSES.items() for subcategory in parts}
    for entry in json.loads((package / "emoji.json").read_text(encoding="utf-8")):
        label, name = labels.get(entry["subcategory"]), entry["short_name"]
        number = int(sha256(name.encode()).hexdigest(), 16)
        if label is not None and number % THINNED.get(label, 1) == 0:
            yield Thing(label, name, entry["image"], number % 10 < HELD_OUT)


def write_images(noto: Path, twemoji: Path, out: Path) -> None:
    """Lay every drawing on a background, as ``PART/CLASS/NAME-STYLE.png``.

    Raises:
        FileNotFoundError: a folder is not the package that it should be.
    """
    styles = {"noto": noto / "img" / "google" / str(DRAWN), "twemoji": twemoji / "img" / "twitter" / str(DRAWN)}
    for folder in styles.values():
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not there: give the folder of the unpacked npm package.")
    for thing in things(noto):
        for style, folder in styles.items():
            if (folder / thing.file).exists():
                path = out / ("held-out" if thing.held_out else "train") / thing.label / f"{thing.name}-{style}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(folder / thing.file) as drawing:
                    on_background(drawing.convert("RGBA"), random.Random(thing.name + style)).save(path)


def on_background(drawing: Image.Image, chance: random.Random) -> Image.Image:
    """The drawing at a random place and size, on a pale gradient between two random colours."""
    first, second = (np.array([chance.randrange(256) for _ in range(3)], float) for _ in range(2))
    ramp = np.linspace(0, 1, SIZE)
    ramp = ramp[:, None, None] if chance.random() < 0.5 else ramp[None, :, None]
    colours = np.broadcast_to(first * (1 - ramp) + second * ramp, (SIZE, SIZE, 3))
    image = Image.fromarray((colours * 0.6 + 100).clip(0, 255).astype(np.uint8))
    size = int(SIZE * chance.uniform(0.6, 0.95))
    drawing = drawing.resize((size, size), Image.Resampling.LANCZOS)
    image.paste(drawing, (chance.randrange(SIZE - size + 1), chance.randrange(SIZE - size + 1)), drawing)
    return image


def train_head(images: Path, out: Path) -> None:
    """Fit a new last layer of EfficientNet-Lite0, and write the model in timm's local-folder layout."""
    from timm.models import save_for_hf

    torch.manual_seed(0)
    network = networks.load_lite().requires_grad_(False)
    source = open_images(images)
    preprocess = replace(networks.LITE_PREPROCESS, input_size=(3, SIZE, SIZE), crop_pct=1.0)
    names = sorted({entry.label or "" for entry in source.entries})
    features = torch.from_numpy(embed(LoadedModel(network, preprocess, None, NOWHERE), source)).float()
    labels = torch.tensor([names.index(entry.label or "") for entry in source.entries])
    head = nn.Linear(features.shape[1], len(names))
    optimiser = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        nn.functional.cross_entropy(head(features), labels, label_smoothing=0.05).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    network.classifier, network.num_classes = head, len(names)  # type: ignore[assignment]
    network.pretrained_cfg.update(input_size=(3, SIZE, SIZE), crop_pct=1.0)  # type: ignore[union-attr, operator]
    save_for_hf(network, str(out), {"label_names": names, "num_classes": len(names)}, safe_serialization=True)


@dataclass(frozen=True)
class Side:
    """One of the two models that are compared.

    Attributes:
        address: of the model.
        layer: that is split.
        shipped: the files that a package with it would hold.
        probing: images that the split is made of; None: the embedded ones.
        judging: held-out images.
    """

    address: str
    layer: str
    shipped: Sequence[Path]
    probing: Path | None
    judging: Path


def exported(side: Side, out: Path) -> Bundle:
    """The bundle of the product's default; ``seconds`` of CPU beside it."""
    if (out / "manifest.json").is_file():
        return Bundle.open(out)
    begun = time.process_time()
    probing = None if side.probing is None else str(side.probing)
    bundle = export(side.address, probing, side.layer, out, evaluation=str(side.judging))
    seconds_of(out).write_text(f"{time.process_time() - begun:.0f}")
    return bundle


def seconds_of(bundle: Path) -> Path:
    """The file that says what an export took."""
    return bundle.parent / f"{bundle.name}.seconds"


def facts(side: Side, bundle: Bundle) -> dict[str, float | str]:
    """What a newcomer meets: accuracy, size, seconds, names."""
    loaded, images = load_model(side.address), open_images(side.judging)
    catalogue = Catalogue.of(bundle)
    names = Counter(re.sub(r" \d+$", "", row.name) for row in catalogue.sub_units() if row.name)
    (name, most), files = names.most_common(1)[0], [file for path in side.shipped for file in files_of(path)]
    return {
        "accuracy on held-out images": f"{accuracy(loaded, images):.3f}",
        "classes": len(loaded.labels or ()),
        "shipped, MB": f"{sum(file.stat().st_size for file in files) / 1e6:.1f}",
        "CPU seconds of the export": seconds_of(bundle.root).read_text(),
        "sub-units": catalogue.count(),
        "with a name": sum(names.values()),
        "concepts": len(catalogue.concepts()),
        "different names": len(names),
        "the most frequent name": f"{name}, {most}",
    }


def files_of(path: Path) -> list[Path]:
    """The file, or all files of the folder."""
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def accuracy(loaded: LoadedModel, images: ImageSource) -> float:
    """Part of the images whose class the model names."""
    names = list(loaded.labels or ())
    truth: NDArray[np.int64] = np.array([names.index(entry.label or "") for entry in images.entries])
    with torch.inference_mode():
        answers = [
            loaded.module(torch.from_numpy(pixels)).argmax(1).numpy()
            for _, pixels in images.batches(loaded.preprocess, 64)
        ]
    return float((np.concatenate(answers) == truth).mean())


def judged(side: Side, bundle: Bundle) -> dict[str, list[photographs.Row]]:
    """Rows of ``photographs.table``: units, sub-units, and those of shuffled clusters."""
    loaded = load_model(side.address)
    images = replace(open_images(side.judging), name=side.judging.stem)  # names a folder of the cache
    (layer,) = find_layers(loaded.module, side.layer)
    probe = collect(loaded.module, [layer], images, loaded.preprocess, tokens_per_image=TOKENS, seed=0)[layer.name]
    held = photographs.held_out(probe, photographs.embedded("vit", images), images)
    rows = photographs.floors(photographs.Material(layer, probe, held), layer.units)
    for title, file in (("sub-units", SPLITS), ("— shuffled", CONTROL)):
        (split,) = load_splits(bundle.root / file)
        family = photographs.sub_units(layer, split)
        rows[title] = scores(family, held) | {"expansion": split.expansion_factor}
    return {title: [row] for title, row in rows.items()}


def main() -> None:
    """Make what is missing, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noto", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--twemoji", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--layer", default="blocks.6.0.conv_pwl", help="of EfficientNet-Lite0")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images, network = arguments.out / "images", arguments.out / "model"
    if not images.exists():
        write_images(arguments.noto, arguments.twemoji, images)
    if not network.exists():
        train_head(images / "train", network)
    garments = [EMBEDDED_FOLDER / name for name in ("model", "probe.tar", "evaluation.tar")]
    sides = {
        "garments": Side("embedded", "blocks.5.mlp.fc2", garments, None, garments[2]),
        "drawings": Side(str(network), arguments.layer, [network, images], images / "train", images / "held-out"),
    }
    for name, side in sides.items():
        bundle = exported(side, arguments.out / f"{name}-{side.layer}")
        print(f"\n{name}, {side.layer}\n")
        print("\n".join(f"{fact}: {value}" for fact, value in facts(side, bundle).items()))
        print(f"\n{photographs.table(judged(side, bundle))}", flush=True)


if __name__ == "__main__":
    main()
