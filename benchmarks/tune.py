"""What ``elude tune`` gains on held-out images, against doing nothing and random edits of the same size.

Usage: python -m benchmarks.tune BUNDLE [--quick] [--out docs/benchmarks/tune.md]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from elude.handlers.bundle.bundle import Bundle
from elude.quality.policies.policy import load_policy
from elude.quality.steering.tune import TuneReport, TuneSettings, tune
from elude.quality.suites.open_suite import EMBEDDED, embedded_suite, open_suite

DIMENSIONS = ("class_balance", "object_focus", "ood_robustness", "calibration_error")
FULL = TuneSettings(pool=24, images=400, controls=20, resamples=400)
QUICK = TuneSettings(pool=4, images=100, controls=4, resamples=50)


def line(report: TuneReport, seconds: float) -> str:
    """One row of the table."""
    held = report.held_out[report.dimension]
    sign = -1 if report.dimension == "calibration_error" else 1
    controls = report.controls
    random = f"{sum(controls) / len(controls):+.4f} ({min(controls):+.4f} … {max(controls):+.4f})" if controls else "–"
    others = ", ".join(
        f"{name} {change.gain:+.4f}" for name, change in report.held_out.items() if name != report.dimension
    )
    return (
        f"| {report.dimension} | {len(report.edits)} | {report.tuning_gain:+.4f} | {sign * held.plain:.4f} "
        f"→ {sign * held.steered:.4f} "
        f"| {held.gain:+.4f} [{held.interval[0]:+.4f}, {held.interval[1]:+.4f}] | {random} "
        f"| {'–' if report.beaten_by is None else f'{report.beaten_by:.0%}'} | {others} | "
        f"{report.evaluated} | {seconds:.0f} s |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--dimensions", default=",".join(DIMENSIONS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    bundle, settings = Bundle.open(arguments.bundle), QUICK if arguments.quick else FULL
    tuning = open_suite(EMBEDDED.with_name("probe.tar"), dark_background=True)
    rows, found = [], []
    for dimension in arguments.dimensions.split(","):
        start = time.perf_counter()
        report = tune(bundle, dimension, tuning, embedded_suite(), load_policy(), settings)
        rows.append(line(report, time.perf_counter() - start))
        found.append(report.to_json())
        print(rows[-1], json.dumps(report.edits), flush=True)
    head = [
        "| dimension | edits | gain while tuning | held out: plain → tuned | held-out gain, 95 % | random "
        "edits, mean (range) "
        "| random at least as good | other dimensions' gain | models measured | time |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")
        arguments.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
