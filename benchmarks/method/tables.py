"""Turn the results in the cache into the tables of docs/benchmarks/method.md, printed as Markdown.

python -m benchmarks.method.tables
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.method.fetch import cache
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.splitting.stability import stability

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


SPREAD = ("ms", "centred", "purity", "r2", "accuracy")


def results(pattern: str) -> dict[str, list[Path]]:
    """Result files of one kind, by the number of units in their name (empty where it has none)."""
    found: dict[str, list[Path]] = {}
    for path in sorted((cache() / "results").glob(pattern)):
        found.setdefault(path.stem.split("-")[1] if path.stem.count("-") > 1 else "", []).append(path)
    return found


def table(runs: list[dict[str, dict[str, float]]], columns: dict[str, str]) -> str:
    """Mean over the runs of each row and column, with the sample standard deviation where it matters."""
    lines = ["| | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in runs[0]:
        cells = []
        for column in columns:
            values = [run[name][column] for run in runs if name in run and column in run[name]]
            digits = ".3f" if column in SPREAD and column != "r2" else ".3g"
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 and column in SPREAD else ""
            cells.append(f"{np.mean(values):{digits}}{spread}" if values else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def variants() -> str:
    """Each variant, by number of units."""
    parts = []
    for units, files in results("variants-*-*.json").items():
        parts.append(
            f"{units} units, seeds: {len(files)}.\n\n"
            + table([json.loads(path.read_text()) for path in files], COLUMNS)
        )
    return "\n\n".join(parts)


def better() -> str:
    """The search for a better rule, and what the clusters add to each: the difference to its own shuffled control."""
    runs = [json.loads(path.read_text()) for path in results("better-*.json")[""]]
    lines = [
        f"Seeds: {len(runs)}.",
        "",
        table(runs, COLUMNS | {"signed": "units with signed"}),
        "",
        "| | MS over its own control |",
        "|---|---|",
    ]
    for name in ("literal", "signed", "chosen"):
        control = f"{name}, shuffled" + (", same rules" if name == "chosen" else "")
        gains = [run[name]["ms"] - run[control]["ms"] for run in runs]
        lines.append(
            f"| {name} | {np.mean(gains):.3f}" + (f" ± {np.std(gains, ddof=1):.3f}" if len(gains) > 1 else "") + " |"
        )
    return "\n".join(lines)


def stable() -> str:
    """Agreement of the splits of different seeds, matched within each unit by the Hungarian method."""
    lines = [
        "| units | clusterer | cosine | cosine, 0 for unmatched | units with the same count |",
        "|---|---|---|---|---|",
    ]
    for units, files in results("variants-*-*.npz").items():
        if len(files) < 2:
            continue
        data = [np.load(path) for path in files]
        for name in (key.removesuffix(" parts") for key in data[0] if key.endswith(" parts")):
            found = stability([_split(name, each[f"{name} parts"], each[name]) for each in data])
            label = name.removesuffix(" literal")
            lines.append(
                f"| {units} | {label} | {found.cosine:.3f} | {found.cosine_of_all:.3f} | {found.same_count:.2f} |"
            )
    if len(lines) == 2:
        raise FileNotFoundError
    return "\n".join(lines)


def _split(name: str, parts: NDArray[np.int64], representatives: NDArray[np.float32]) -> LayerSplit:
    """As much of a split as its stability needs: its masks say nothing."""
    masks = np.ones((len(parts), representatives.shape[1]), np.uint64)
    return LayerSplit(name, parts, masks, np.full(len(parts), np.nan, np.float32), representatives)


def speed() -> str:
    """CPU seconds and peak memory per unit, medians over the units, and the exponent of growth between neighbouring
    sizes.
    """
    rows = json.loads((cache() / "results" / "speed.json").read_text())
    lines = [
        "| k | way | units | CPU s per unit | × the reference | growth exponent | peak memory, MB |",
        "|---" * 7 + "|",
    ]
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
            growth = (
                f"{np.log2(medians[size, way] / medians[size // 2, way]):.2f}" if (size // 2, way) in medians else ""
            )
            ratio = f"{np.median(ratios):.0f}" if ratios else ""
            memory = np.median([row["bytes"] for row in of]) / 1e6
            lines.append(
                f"| {size} | {way} | {len(of)} | {medians[size, way]:.3g} | {ratio} | {growth} | {memory:.0f} |"
            )
    return "\n".join(lines)


def saes() -> str:
    """The autoencoders, by number of training steps."""
    columns = {
        "ms": "MS",
        "centred": "MS centred",
        "purity": "purity",
        "nearest": "nearest",
        "dead": "dead",
        "r2": "R²",
        "accuracy": "accuracy",
        "changed": "predictions changed",
        "seconds": "training, CPU s",
    }
    parts = []
    for files in results("saes-*-*.json").values():
        runs = [json.loads(path.read_text()) for path in files]
        settings = [run.pop("settings") for run in runs]
        parts.append(f"{settings[0]}, seeds: {len(runs)}\n\n{table(runs, columns)}")
    if not parts:
        raise FileNotFoundError
    return "\n\n".join(parts)


if __name__ == "__main__":
    for title, make in (
        ("Variants", variants),
        ("Stability", stable),
        ("Better", better),
        ("Speed", speed),
        ("Autoencoders", saes),
    ):
        try:
            print(f"## {title}\n\n{make()}\n")
        except (FileNotFoundError, KeyError):
            print(f"## {title}\n\nNot measured yet.\n")
