"""Turn the results in the cache into the tables of docs/benchmarks/method.md, printed as Markdown.

python -m benchmarks.method.tables
"""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
from scipy.optimize import linear_sum_assignment

from benchmarks.method.fetch import cache

COLUMNS = {
    "expansion": "EF",
    "ms": "MS",
    "centred": "MS centred",
    "purity": "purity",
    "dead": "dead",
    "nearest": "nearest",
    "pictures": "pictures",
    "seconds": "s per unit",
}


def variants() -> str:
    """Mean and sample standard deviation over the seeds, for each variant."""
    runs = [json.loads(path.read_text()) for path in sorted((cache() / "results").glob("variants-?.json"))]
    lines = [f"Seeds: {len(runs)}.", "", "| | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name in runs[0]:
        cells = []
        for column in COLUMNS:
            values = [run[name][column] for run in runs if column in run[name]]
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 and column in ("ms", "centred", "purity") else ""
            cells.append(f"{np.mean(values):.3g}{spread}" if values else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def stability() -> str:
    """Mean cosine of the representatives of two seeds, matched within each unit by the Hungarian method."""
    files = [np.load(path) for path in sorted((cache() / "results").glob("variants-?.npz"))]
    lines = ["| clusterer | matched cosine | matched, over the larger count | units with the same count |", "|---|---|---|---|"]
    for name in (key.removesuffix(" parts") for key in files[0] if key.endswith(" parts")):
        cosines: list[float] = []
        fractions, same = [], []
        for one, other in combinations(files, 2):
            parts = one[f"{name} parts"], other[f"{name} parts"]
            starts = [np.concatenate([[0], np.cumsum(part)]) for part in parts]
            for unit in range(len(parts[0])):
                if parts[0][unit] < 2 or parts[1][unit] < 2:
                    continue
                first, second = (
                    file[name][start[unit] : start[unit + 1]] for file, start in zip((one, other), starts, strict=True)
                )  # fmt: skip
                similar = first @ second.T
                matched = similar[linear_sum_assignment(-similar)]
                cosines += matched.tolist()
                fractions.append(matched.sum() / max(similar.shape))
                same.append(similar.shape[0] == similar.shape[1])
        lines.append(f"| {name.removesuffix(' literal')} | {np.mean(cosines):.3f} | {np.mean(fractions):.3f} | {np.mean(same):.2f} |")
    return "\n".join(lines)


def speed() -> str:
    """CPU seconds and peak memory per unit, medians over the units, and the exponent of growth between neighbouring sizes."""
    rows = json.loads((cache() / "results" / "speed.json").read_text())
    lines = ["| k | way | units | CPU s per unit | × the reference | growth exponent | peak memory, MB |", "|---" * 7 + "|"]
    medians: dict[tuple[int, str], float] = {}
    for size in sorted({row["size"] for row in rows}):
        for way in ("reference", "brute", "projected"):
            of = [row for row in rows if row["size"] == size and row["way"] == way]
            if not of:
                continue
            medians[size, way] = float(np.median([row["cpu"] for row in of]))
            # The ratio is the median over the units that both ways saw.
            slow = {row["unit"]: row["cpu"] for row in rows if row["size"] == size and row["way"] == "reference"}
            ratios = [slow[row["unit"]] / row["cpu"] for row in of if row["unit"] in slow]
            growth = f"{np.log2(medians[size, way] / medians[size // 2, way]):.2f}" if (size // 2, way) in medians else ""
            ratio = f"{np.median(ratios):.0f}" if ratios else ""
            memory = np.median([row["bytes"] for row in of]) / 1e6
            lines.append(f"| {size} | {way} | {len(of)} | {medians[size, way]:.3g} | {ratio} | {growth} | {memory:.0f} |")
    return "\n".join(lines)


def saes() -> str:
    """The autoencoders."""
    results = json.loads((cache() / "results" / "saes.json").read_text())
    columns = {"ms": "MS", "centred": "MS centred", "purity": "purity", "dead": "dead", "r2": "R²", "accuracy": "accuracy",
               "changed": "predictions changed", "cosine": "cosine of the embedding", "seconds": "training, CPU s"}  # fmt: skip
    lines = [str(results.pop("settings")), "", "| | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in results.items():
        lines.append(f"| {name} | " + " | ".join(f"{row[key]:.3g}" if key in row else "" for key in columns) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    for title, make in (("Variants", variants), ("Stability", stability), ("Speed", speed), ("Autoencoders", saes)):
        try:
            print(f"## {title}\n\n{make()}\n")
        except (FileNotFoundError, IndexError):
            print(f"## {title}\n\nNot measured yet.\n")
