"""Names by classes and by the levels above them, of a bundle split on ImageNet's photographs, one per class; and
whether they are right on other photographs.

elude export MODEL --images FOLDER/imagenet --layers blocks.6.0.conv_pwl --tokens 2 --out BUNDLE
python -m benchmarks.names BUNDLE --photos FOLDER [--picture FILE]

FOLDER holds ``imagenet``, ``caltech101`` and ``pacs/photo`` (class folders). A name is right if half or more of the ten
held-out photographs where its sub-unit is strongest carry it; the picture shows them for twelve names drawn at random.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from elude.exporter.images import open_images
from elude.exporter.images.classes import readable
from elude.exporter.naming.evidence import Name
from elude.exporter.naming.labels import Labels, names_from_labels
from elude.exporter.scoring.bundle_activity import activity_of
from elude.handlers.bundle.bundle import Bundle

DOGS = "dog dalmatian"
MAMMALS = f"""{DOGS} llama hedgehog panda Leopards wild_cat beaver cougar_body kangaroo rhino horse giraffe elephant
okapi gerenuk platypus dolphin"""
INSECTS = "ant butterfly dragonfly mayfly"
ARTHROPODS = f"{INSECTS} tick scorpion crab crayfish lobster trilobite"
BIRDS, REPTILES = "emu flamingo ibis pigeon rooster", "crocodile stegosaurus brontosaurus hawksbill"
CARRY = {  # name: the classes of the held-out photographs that carry it
    "dog": DOGS,
    "mammal": MAMMALS,
    "insect": INSECTS,
    "arthropod": ARTHROPODS,
    "bird": BIRDS,
    "reptile": REPTILES,
    "animal": f"{MAMMALS} {ARTHROPODS} {BIRDS} {REPTILES} bass nautilus octopus sea_horse starfish",
    "wheeled vehicle": "Motorbikes wheelchair inline_skate",
}
SHOWN, DRAWN, SIDE = 10, 12, 112


def held_out(photos: Path, folder: Path) -> None:
    """Links to ten photographs of each class of Caltech-101 and twenty of each class of PACS."""
    for source, count in ((photos / "caltech101", 10), (photos / "pacs" / "photo", 20)):
        for of_class in sorted(source.iterdir()):
            place = folder / f"{source.name}-{of_class.name}"
            place.mkdir(parents=True)
            for image in sorted(of_class.iterdir())[:count]:
                (place / image.name).symlink_to(image.resolve())


def strongest(peak: np.ndarray, name: Name) -> np.ndarray:
    return np.argsort(-peak[:, name.index], kind="stable")[:SHOWN]


def picture(names: Sequence[Name], peak: np.ndarray, files: Sequence[Path], out: Path) -> None:
    sheet = Image.new("RGB", (SIDE * SHOWN, DRAWN * (SIDE + 14)), "white")
    for row, name in enumerate(random.Random(0).sample(list(names), DRAWN)):
        ImageDraw.Draw(sheet).text((2, row * (SIDE + 14)), f"{name.index}: {name.name} {name.score:.2f}", fill="black")
        for column, image in enumerate(strongest(peak, name)):
            thumbnail = Image.open(files[image]).convert("RGB").resize((SIDE, SIDE))
            sheet.paste(thumbnail, (column * SIDE, row * (SIDE + 14) + 13))
    sheet.save(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, default=Path("held-out"), help="made if it is not there")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if not options.held_out.exists():
        held_out(options.photos, options.held_out)
    bundle = Bundle.open(options.bundle)
    seen = activity_of(bundle, open_images(options.photos / "imagenet"))
    other = activity_of(bundle, open_images(options.held_out))
    classes = [str(label).partition("-")[2] for label in other.classes]
    words = Labels.of_sets([(word,) for word in readable([str(label) for label in seen.classes])])
    print(f"{seen.peak.shape[1]} sub-units; by classes alone {len(names_from_labels(seen.peak, words))} names")
    names = names_from_labels(seen.peak, Labels.of_classes(seen.classes))
    for word, count in Counter(name.name for name in names).most_common():
        carry = [label in CARRY[word].split() for label in classes]
        shares = [np.mean([carry[i] for i in strongest(other.peak, name)]) for name in names if name.name == word]
        right = sum(share >= 0.5 for share in shares)
        print(f"{word}: {count} names, {right} right, mean share {np.mean(shares):.2f} of all {np.mean(carry):.2f}")
    if options.picture is not None:
        files = [options.held_out / str(e.label) / Path(e.name).name for e in other.images.entries]
        picture(names, other.peak, files, options.picture)


if __name__ == "__main__":
    main()
