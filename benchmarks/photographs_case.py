"""The figures of docs/photographs.md: its photographs, and what ablating a concept does to all that are held out.

    python -m benchmarks.photographs_case split CALTECH101 photos
    python -m benchmarks.photographs_case ablate bundle photos/held-out

``split`` links 30 classes of Caltech-101, of every three photographs the third to ``held-out``. ``ablate`` prints, for
each concept that bears the name of a class, how often the model is right on that class and on all others.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import elude

CLASSES = [
    "Leopards",
    "Motorbikes",
    "accordion",
    "bonsai",
    "brain",
    "butterfly",
    "camera",
    "chair",
    "chandelier",
    "dalmatian",
    "dolphin",
    "electric_guitar",
    "elephant",
    "ewer",
    "grand_piano",
    "helicopter",
    "kangaroo",
    "ketch",
    "laptop",
    "llama",
    "lotus",
    "menorah",
    "pizza",
    "revolver",
    "soccer_ball",
    "starfish",
    "stop_sign",
    "sunflower",
    "umbrella",
    "watch",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("split", "ablate"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    settings = parser.parse_args()
    (split if settings.step == "split" else ablate)(settings.source, settings.target)


def split(source: Path, out: Path) -> None:
    """Link the photographs into ``train`` and ``held-out``, a sub-folder per class."""
    for name in CLASSES:
        for number, file in enumerate(sorted((source / name).iterdir())):
            link = out / ("held-out" if number % 3 == 2 else "train") / name / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.absolute())


def ablate(bundle: Path, folder: Path) -> None:
    """Print the table."""
    model = elude.load(str(bundle))
    files = sorted(folder.glob("*/*"))
    classes = [file.parent.name for file in files]
    plain = model.predict(files)
    print(f"accuracy {share([answer.label for answer in plain], classes):.3f} on {len(files)} photographs\n")
    print("| concept | sub-units | first photograph | own class | all others |\n|---|---|---|---|---|")
    for concept in sorted(set(model.concepts) & set(classes)):
        after = [steered.after for steered in model.steer(files, {concept: 0}, compare=False)]
        first = classes.index(concept)
        rows = [[(a.label, c) for a, c in zip(answers, classes, strict=True)] for answers in (plain, after)]
        of_class, of_others = (
            " → ".join(f"{right([pair for pair in row if (pair[1] == concept) == wanted]):.3f}" for row in rows)
            for wanted in (True, False)
        )
        story = (
            f"{plain[first].label} {plain[first].probability:.2f} → {after[first].label} {after[first].probability:.2f}"
        )
        print(f"| {concept} | {model.concepts[concept]} | {story} | {of_class} | {of_others} |", flush=True)


def right(pairs: Sequence[tuple[str | None, str]]) -> float:
    return sum(answer == name for answer, name in pairs) / len(pairs)


def share(answers: Sequence[str | None], classes: Sequence[str]) -> float:
    return right(list(zip(answers, classes, strict=True)))


if __name__ == "__main__":
    main()
