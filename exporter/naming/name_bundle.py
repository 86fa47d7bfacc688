"""Naming a finished bundle: its images through its own graph, then one method, then what neighbours lend."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from elude.exporter.naming import clip, labels
from elude.exporter.naming.attributes import read_attributes
from elude.exporter.naming.clip import ClipSettings, names_from_vocabulary
from elude.exporter.naming.encoders import Encoder, cosines, open_encoder
from elude.exporter.naming.evidence import Name
from elude.exporter.naming.labels import Labels, LabelSettings, names_from_labels
from elude.exporter.naming.neighbours import names_from_neighbours
from elude.exporter.naming.superclasses import read_superclasses
from elude.exporter.naming.words import read_words
from elude.exporter.naming.write_names import rename
from elude.exporter.progress import StepProgress
from elude.exporter.scoring.bundle_activity import BundleActivity, activity_of, images_for
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import UsageError
from elude.handlers.images.decode import decode
from elude.handlers.images.preprocess import Preprocess

_BATCH = 32


@dataclass(frozen=True)
class Naming:
    """What every method of naming is told.

    Attributes:
        neighbours: smallest correlation at which an unnamed sub-unit takes a neighbour's name; None: never.
        keep: leave the names of sub-units that get no new one.
        max_images: images used, at most.
        progress: called with (step, done, of how many).
    """

    neighbours: float | None = 0.9
    keep: bool = False
    max_images: int = 3_000
    progress: StepProgress | None = None


@dataclass(frozen=True)
class Named:
    """A bundle with its names, and the files left out because they were about the earlier artefact."""

    bundle: Bundle
    names: tuple[Name, ...]
    left_out: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """For a person."""
        sub_units = sum(layer.sub_units for layer in self.bundle.manifest.layers)
        methods = Counter(name.method for name in self.names)
        common = Counter(name.name for name in self.names).most_common(8)
        facts: dict[str, Any] = {
            "named": f"{len(self.names)} of {sub_units} sub-units",
            "by method": ", ".join(f"{method} {count}" for method, count in sorted(methods.items())) or "none",
            "most frequent names": ", ".join(f"{name} {count}" for name, count in common) or "none",
            "artefact": self.bundle.artefact_sha256,
        }
        if self.left_out:
            facts["removed, as they were about the artefact before"] = ", ".join(self.left_out)
        return facts


def name_by_labels(
    bundle: Bundle,
    images: str | Path | None,
    settings: LabelSettings = LabelSettings(),
    *,
    attributes: str | Path | None = None,
    superclasses: str | Path | None = None,
    naming: Naming = Naming(),
) -> Named:
    """Name by the images' classes, or by their attributes.

    Args:
        bundle: any bundle with a catalogue.
        images: folder or tar with labels; None: the embedded model's own.
        settings: when a label becomes a name.
        attributes: table of attributes to use instead of the classes, see ``elude.exporter.naming.attributes``.
        superclasses: table of coarser classes to name by as well, see ``elude.exporter.naming.superclasses``.
        naming: what every method is told.

    Raises:
        UsageError: no images or no labels, or no label fits any sub-unit; the bundle is as it was.
    """
    if attributes is not None and superclasses is not None:
        raise UsageError(
            "--attributes are used instead of classes, and --superclasses are of classes.", "Give one of them."
        )
    activity = _activity(bundle, images, naming)
    known = [entry.name for entry in activity.images.entries]
    if attributes is not None:
        carried = read_attributes(attributes, known)
    else:
        coarser = {} if superclasses is None else read_superclasses(superclasses, activity.classes)
        carried = Labels.of_classes(activity.classes, coarser)
    if not carried.names:
        raise UsageError(
            "The images have no labels.", "Sort them into one folder per class, give --attributes, or use --encoder."
        )
    names = names_from_labels(activity.peak, carried, settings)
    if not names:
        raise _nothing_named(carried, settings, len(known))
    return _finish(bundle, activity, names, labels.settings_json(settings, len(known)), naming)


def _nothing_named(carried: Labels, settings: LabelSettings, images: int) -> UsageError:
    """What to do where no label fits; most often they are on fewer images than are looked at."""
    most, needed = int(carried.carries.sum(axis=0).max()), math.ceil(settings.purity * settings.top)
    few = f" The most frequent label is on {most} of {images}; {needed} of the strongest {settings.top} must carry it."
    return UsageError(
        f"No label fits any sub-unit.{few if most < needed else ''} The bundle is as it was.",
        f"Give more images per label, or look at fewer of the strongest: --top {max(most, settings.fewest)}."
        if most < needed
        else "Give images of what the model was made for, more of them, or a smaller --purity.",
    )


def name_by_vocabulary(
    bundle: Bundle,
    images: str | Path | None,
    encoder: str | Encoder,
    settings: ClipSettings = ClipSettings(),
    *,
    vocabulary: str | Path | None = None,
    template: str = "a photo of a {}",
    naming: Naming = Naming(),
) -> Named:
    """Name by the words of a vocabulary, with an image-text encoder (``elude.exporter.naming.clip``).

    Args:
        bundle, images, naming: as for ``name_by_labels``; labels are not needed.
        encoder: an encoder or its name, see ``elude.exporter.naming.encoders``.
        settings: when a word becomes a name.
        vocabulary: file of words; None: the shipped one.
        template: sentence that each word is put into.

    Raises:
        UsageError: no images, or the encoder or vocabulary cannot be used.
    """
    if not Preprocess.from_json(bundle.json("preprocess.json")).takes_pictures:
        raise UsageError(
            "An image-text encoder sees pictures, and the images of this model are arrays.",
            "Name by labels: --images with one folder per class, or --attributes.",
        )
    words = read_words(vocabulary)
    opened = open_encoder(encoder) if isinstance(encoder, str) else encoder
    activity = _activity(bundle, images, naming)
    count = len(activity.images)
    report = None if naming.progress is None else partial(_encoded, naming.progress, count)
    similar = cosines(opened, _pictures(activity), words, template, report)
    names = names_from_vocabulary(activity.peak, similar, words, settings)
    facts = clip.settings_json(settings, count, len(words)) | {
        "encoder": encoder if isinstance(encoder, str) else type(encoder).__name__
    }
    return _finish(bundle, activity, names, facts | {"template": template}, naming)


def _activity(bundle: Bundle, images: str | Path | None, naming: Naming) -> BundleActivity:
    source = images_for(bundle, images)
    if source is None:
        raise UsageError(
            "No images are given, and only the embedded model brings its own.", "Give --images, a folder or .tar."
        )
    report = None if naming.progress is None else partial(naming.progress, "images")
    return activity_of(bundle, source, limit=naming.max_images, progress=report)


def _encoded(progress: StepProgress, count: int, done: int) -> None:
    progress("encode", done, count)


def _pictures(activity: BundleActivity) -> Iterator[Sequence[Image.Image]]:
    batch: list[Image.Image] = []
    for example in activity.images:
        batch.append(decode(example.data, example.name).convert("RGB"))
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _finish(
    bundle: Bundle, activity: BundleActivity, names: list[Name], settings: Mapping[str, Any], naming: Naming
) -> Named:
    if naming.neighbours is not None:
        names = names + names_from_neighbours(activity.peak, names, naming.neighbours)
    renamed, left_out = rename(bundle, names, {**settings, "neighbours": naming.neighbours}, keep=naming.keep)
    return Named(renamed, tuple(names), left_out)
