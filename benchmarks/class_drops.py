"""What the gate's rule on single classes can and cannot see, by the number of images per class; exact, no sampling.

python -m benchmarks.class_drops [--classes 27] [--accuracy 0.75]

Each row takes the ``max_drop`` that ``policy_init`` writes for a baseline whose classes all have this accuracy.
"""

from __future__ import annotations

import argparse

from scipy.optimize import brentq
from scipy.special import bdtrc

from elude.quality.gate.policy_init import CHANCE_STOPPED, room_of_class
from elude.quality.statistics.class_drop import ClassDrop

IMAGES = (2, 4, 7, 10, 20, 50, 100)
SURE = 0.95  # a drop is seen if it is stopped with this probability


def row(images: int, classes: int, accuracy: float) -> str:
    """One row of the table."""
    right = round(accuracy * images)
    allowed = room_of_class(images, right, CHANCE_STOPPED / classes)
    shown = ClassDrop("", images, 0, 0).interval[1]
    if allowed >= 1:
        return f"| {images} | {shown:.3f} | none can fail | – | – |"
    most = max(k for k in range(images + 1) if ClassDrop("", images, k, 0).interval[1] <= allowed)
    seen = brentq(lambda p: bdtrc(most, images, p) - SURE, 0, 1)
    equal = 1 - (1 - bdtrc(most, images, accuracy * (1 - accuracy))) ** classes
    return f"| {images} | {shown:.3f} | {allowed:.3f} | {seen:.2f} | {equal:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=27)
    parser.add_argument("--accuracy", type=float, default=0.75)
    options = parser.parse_args()
    print("| images per class | bound where none is newly wrong | max_drop | drop stopped in 95 % | equal stopped |")
    print("|---|---|---|---|---|")
    for images in IMAGES:
        print(row(images, options.classes, options.accuracy))


if __name__ == "__main__":
    main()
