"""The classes of images: words for ImageNet's synsets, coarser classes above them, and whether each has enough images.

The 1,000 synsets in the order of the outputs, the 200 of ImageNet-R (Hendrycks et al. 2021) and WordNet's words are in
timm's data, an own dependency. The 16 categories are those of Geirhos et al. (2019, 2021),
github.com/bethgelab/model-vs-human, as indices of ImageNet-1k's outputs. The nine of ImageNet-9 (Xiao et al. 2021) are
all classes below one synset of WordNet each; the archive of its images does not hold them, but the repository
github.com/MadryLab/backgrounds_challenge, in ``in_to_in9.json``. The levels of WordNet are those of animals, which come
first among the outputs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from elude.handlers.errors import UsageError

_SYNSET = re.compile(r"n\d{8}$")
FEWEST = 2  # images per class, on average, below which nothing can be said of classes


def _without(first: int, last: int, *left_out: int) -> tuple[int, ...]:
    return tuple(i for i in range(first, last + 1) if i not in left_out)


_BIRDS = (8, *_without(10, 24, 17, 21), *_without(80, 100, 84, 85, 86, 97), *_without(127, 145, 134))
_DOGS = _without(152, 268, 192, 204, 227, 242, 251, 258, 260, 264)
# fmt: off
_VEHICLES = (407, 408, 428, 436, 444, 468, 511, 547, 555, 561, 565, 569, 573, 586, 603, 609, 612, 627, 656, 661, 665,
             670, 671, 675, 690, 705, 717, 734, 751, 757, 791, 802, 803, 817, 820, 829, 847, 864, 866, 867, 870, 880)
_INSTRUMENTS = (401, 402, 420, 432, 486, 494, 513, 541, 546, 558, 566, 577, 579, 593, 594, 641, 642, 683, 684, 687,
                699, 776, 822, 875, 881, 889)
# fmt: on
SIXTEEN: dict[str, tuple[int, ...]] = {
    "airplane": (404,),
    "bear": (294, 295, 296, 297),
    "bicycle": (444, 671),
    "bird": _BIRDS,
    "boat": (472, 554, 625, 814, 914),
    "bottle": (440, 720, 737, 898, 899, 901, 907),
    "car": (436, 511, 817),
    "cat": (281, 282, 283, 284, 285, 286),
    "chair": (423, 559, 765, 857),
    "clock": (409, 530, 892),
    "dog": _DOGS,
    "elephant": (385, 386),
    "keyboard": (508, 878),
    "knife": (499,),
    "oven": (766,),
    "truck": (555, 569, 656, 675, 717, 734, 864, 867),
}
NINE: dict[str, tuple[int, ...]] = {  # all classes below WordNet's …
    "dog": _without(151, 268, 171, 172),  # n02084071; the two left out are not in the data set's mapping
    "bird": (*_without(7, 24), *_without(87, 100), *_without(127, 146)),  # n01503061
    "wheeled vehicle": _VEHICLES,  # n04576211
    "reptile": _without(33, 68),  # n01661091
    "carnivore": (*_without(269, 299, 281, 282, 283, 284, 285), *_without(356, 362), 387, 388),  # n02075296
    "insect": _without(300, 326),  # n02159955
    "musical instrument": _INSTRUMENTS,  # n03800933
    "primate": _without(365, 384),  # n02469914
    "fish": (*_without(0, 6), *_without(389, 397)),  # n02512053
}
LEVELS: dict[str, tuple[int, ...]] = {  # all classes below WordNet's …
    "mammal": (*_without(101, 106), *_without(147, 299), *_without(330, 388)),  # n01861778
    "bird": (*_without(7, 24), *_without(80, 100), *_without(127, 146)),  # n01503061, with what ImageNet-9 left out
    "arthropod": (*_without(69, 79), *_without(118, 126), *_without(300, 326)),  # n01767661
    "animal": _without(0, 397),  # n00015388
}


@cache
def synsets(name: str = "imagenet") -> tuple[str, ...]:
    """``imagenet``: the 1,000 synsets in the order of the outputs; ``imagenet_r``: the 200 of ImageNet-R.

    Raises:
        UsageError: timm, which has the lists, is not installed.
    """
    return tuple(_list_of_timm(f"{name}_synsets.txt").split())


def readable(names: Sequence[str]) -> tuple[str, ...]:
    """The first word of WordNet for names that are synsets, with all its words where several share the first and with
    the synset where they share all; other names stay as they are.
    """
    words = {name: _words().get(name, name) for name in set(names) if _SYNSET.match(name)}
    first = Counter(text.split(", ")[0] for text in words.values())
    whole = Counter(words.values())

    def title(name: str) -> str:
        text = words[name]
        if first[text.split(", ")[0]] == 1:
            return text.split(", ")[0]
        return text if whole[text] == 1 else f"{text} ({name})"

    return tuple(title(name) if name in words else name for name in names)


def with_coarser(
    labels: Sequence[str | None], superclasses: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> list[tuple[str, ...]]:
    """Of each image its class in words and the coarser classes that it belongs to: with few images per class, a
    sub-unit that follows dogs has no name among breeds.

    Args:
        labels: the class of each image, None where it has none.
        superclasses: class to coarser ones, beside those that ImageNet's synsets have here.
    """
    known = sorted({label for label in labels if label is not None})
    words = dict(zip(known, readable(known), strict=True))
    of_imagenet = _coarser() if any(_SYNSET.match(label) for label in known) else {}
    coarser = {label: (*of_imagenet.get(label, ()), *superclasses.get(label, ())) for label in known}
    return [() if label is None else tuple(dict.fromkeys((words[label], *coarser[label]))) for label in labels]


def enough_per_class(labels: Sequence[str | None]) -> bool:
    """Whether there are at least two labelled images per class on average: with one each, what strongest images have
    in common cannot show in their classes.
    """
    counts = Counter(label for label in labels if label is not None)
    return bool(counts) and counts.total() >= FEWEST * len(counts)


@cache
def _coarser() -> dict[str, tuple[str, ...]]:
    """Synset to the categories of all lists that hold it; the widest one of those of the same name."""
    names, found = synsets(), dict[str, tuple[str, ...]]()
    for category, outputs in (SIXTEEN | NINE | LEVELS).items():
        for output in outputs:
            found[names[output]] = (*found.get(names[output], ()), category)
    return found


@cache
def _words() -> dict[str, str]:
    lines = _list_of_timm("imagenet_synset_to_lemma.txt").splitlines()
    return {synset: words.strip() for synset, _, words in (line.partition("\t") for line in lines)}


def _list_of_timm(name: str) -> str:
    spec = find_spec("timm")  # found, not imported: that would load torch
    if spec is None or spec.origin is None:
        raise UsageError(
            "The names of ImageNet's classes come with timm, which is not installed.", "Run: pip install timm"
        )
    path = Path(spec.origin).parent / "data" / "_info" / name
    if not path.is_file():
        raise UsageError(f"This version of timm has no {path.name}.", "Install timm 1.0.20 or newer.")
    return path.read_text("utf-8")
